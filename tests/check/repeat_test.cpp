// Calls that are recalled instead of checked: those like the remembered one, and no others.
#include "check/repeat.hpp"

#include <functional>

#include "calls.hpp"

namespace strobe::check {
namespace {

using Change = std::function<void(Memory&, Attention&, ForwardOutputs&)>;

/// Each option and each way to give a tensor otherwise, alone.
const std::vector<Change>& changes() {
  static const std::vector<Change> all = {
      [](Memory&, Attention&, ForwardOutputs&) {},
      [](Memory&, Attention& a, ForwardOutputs&) { a.scale = 0.5f; },
      [](Memory&, Attention& a, ForwardOutputs&) { a.softcap = 2; },
      [](Memory&, Attention& a, ForwardOutputs&) { a.causal = true; },
      [](Memory&, Attention& a, ForwardOutputs&) { a.window_left = 1; },
      [](Memory&, Attention& a, ForwardOutputs&) { a.window_right = 1; },
      [](Memory&, Attention& a, ForwardOutputs&) { a.alignment = Alignment::kTopLeft; },
      [](Memory&, Attention& a, ForwardOutputs&) { a.prefix_length = 2; },
      [](Memory&, Attention& a, ForwardOutputs&) { a.dropout = 0.5f; },
      [](Memory&, Attention& a, ForwardOutputs&) { a.splits = 2; },
      [](Memory&, Attention& a, ForwardOutputs&) { a.batch_invariant = true; },
      [](Memory&, Attention& a, ForwardOutputs&) { a.deterministic = false; },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.bias = m.floats({kBatch, kQueryHeads, kQueries, kKeys});
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.bias = m.floats({1, 1, 1, kKeys});
      },
      [](Memory& m, Attention& a, ForwardOutputs&) { a.alibi_slopes = m.floats({kQueryHeads}); },
      [](Memory& m, Attention& a, ForwardOutputs&) { a.sink = m.floats({kQueryHeads}); },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.mask = m.bools({1, 1, 1, kKeys});
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.block_mask = m.bools({1, 1, 1, 1});
        a.block_rows = a.block_columns = 8;
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.block_mask = m.bools({1, 1, 1, 1});
        a.block_rows = 16;
        a.block_columns = 8;
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.prefix_lengths = m.integers({1, 2});
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.query_lengths = m.integers({1, 2});
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.key_lengths = m.integers({1, 2});
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.key_lengths = m.integers({1, 2});
        a.cache_batch_index = m.integers({1, 0});
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.key_lengths = m.integers({1, 2});
        a.new_key = m.floats({kBatch, 1, kKvHeads, kHeadDim});
        a.new_value = m.floats({kBatch, 1, kKvHeads, kValueDim});
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.rotary_cos = m.floats({8, 4});
        a.rotary_sin = m.floats({8, 4});
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.rotary_cos = m.floats({8, 4});
        a.rotary_sin = m.floats({8, 4});
        a.rotary_style = RotaryStyle::kHalves;
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.query_documents = m.integer_array({kBatch, kQueries});
        a.key_documents = m.integer_array({kBatch, kKeys});
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.key = m.floats({kBatch, kQueries, kKvHeads, kHeadDim});
        a.value = m.floats({kBatch, kQueries, kKvHeads, kValueDim});
        a.query_documents = m.integer_array({kBatch, kQueries});
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.key = m.floats({kBatch, kQueries, kKvHeads, kHeadDim});
        a.value = m.floats({kBatch, kQueries, kKvHeads, kValueDim});
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {  // another stride
        a.key = m.floats({kBatch, kKeys + 1, kKvHeads, kHeadDim});
        a.key.shape[1] = kKeys;
      },
      [](Memory& m, Attention& a, ForwardOutputs&) {
        a.query = m.floats({kBatch, kQueries, kQueryHeads, kHeadDim}, DataType::kFloat8E4M3);
        a.key = m.floats({kBatch, kKeys, kKvHeads, kHeadDim}, DataType::kFloat8E4M3);
        a.value = m.floats({kBatch, kKeys, kKvHeads, kValueDim}, DataType::kFloat8E4M3);
        a.query_descale = m.floats({1});
        a.key_descale = m.floats({kBatch, kKvHeads});
        a.value_descale = m.floats({1});
      },
      [](Memory&, Attention&, ForwardOutputs& o) { o.lse = {}; },
      [](Memory&, Attention& a, ForwardOutputs&) { a.query.data = static_cast<float*>(a.query.data) + 1; },
  };
  return all;
}

/// A call with one of the changes, in memory of its own.
struct ChangedCall : DenseCall {
  explicit ChangedCall(std::size_t change) {
    attention.query = floats({kBatch, kQueries + 1, kQueryHeads, kHeadDim});  // a row to spare
    attention.query.shape[1] = kQueries;
    changes()[change](*this, attention, outputs);
  }
  Checked check() const { return DenseCall::check(Data::kOnDevice); }
};

CheckedForward remembered(const ChangedCall& call) {
  CheckedForward known;
  known.remember(call.attention, call.outputs, call.check());
  return known;
}

void expect_equal(const Checked* recalled, const Checked& checked) {
  ASSERT_NE(recalled, nullptr);
  EXPECT_EQ(recalled->problem, checked.problem);
  EXPECT_EQ(recalled->buffers, checked.buffers);
}

TEST(Repeat, ACallIsRecalledWhereverItsTensorsLie) {
  for (std::size_t change = 0; change < changes().size(); ++change) {
    SCOPED_TRACE(change);
    const ChangedCall first(change), second(change);
    CheckedForward known = remembered(first);
    expect_equal(known.recall(first.attention, first.outputs), first.check());
    expect_equal(known.recall(second.attention, second.outputs), second.check());
  }
}

TEST(Repeat, NoOtherCallIsTakenForIt) {
  std::vector<ChangedCall> calls;
  for (std::size_t change = 0; change < changes().size(); ++change) calls.emplace_back(change);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    CheckedForward known = remembered(calls[i]);
    for (std::size_t j = 0; j < calls.size(); ++j) {
      SCOPED_TRACE(std::to_string(i) + " and then " + std::to_string(j));
      EXPECT_EQ(known.recall(calls[j].attention, calls[j].outputs) != nullptr, i == j);
    }
  }
}

TEST(Repeat, DropoutTakesItsOwnSeed) {
  ChangedCall call(0);
  call.attention.dropout = 0.5f;
  CheckedForward known = remembered(call);
  call.attention.dropout_seed = 5;
  call.attention.dropout_offset = 6;
  expect_equal(known.recall(call.attention, call.outputs), call.check());
}

TEST(Repeat, OutputsThatShareMemoryAreLeftToTheCheck) {
  const ChangedCall call(0);
  CheckedForward known = remembered(call);
  for (const Tensor& other : {call.attention.query, call.attention.key, call.attention.value}) {
    ForwardOutputs outputs = call.outputs;
    outputs.output.data = other.data;
    EXPECT_EQ(known.recall(call.attention, outputs), nullptr);
  }
  ForwardOutputs outputs = call.outputs;
  outputs.lse.data = outputs.output.data;
  EXPECT_EQ(known.recall(call.attention, outputs), nullptr);
  Attention shared = call.attention;
  shared.value.data = shared.key.data;  // inputs may
  EXPECT_NE(known.recall(shared, call.outputs), nullptr);
}

TEST(Repeat, ACacheThatIsAppendedToIsAnOutput) {
  ChangedCall call(0);
  call.attention.key_lengths = call.integers({1, 2});
  call.attention.new_key = call.floats({kBatch, 1, kKvHeads, kHeadDim});
  call.attention.new_value = call.floats({kBatch, 1, kKvHeads, kValueDim});
  CheckedForward known = remembered(call);
  EXPECT_NE(known.recall(call.attention, call.outputs), nullptr);
  call.attention.new_key.data = call.attention.key.data;
  EXPECT_EQ(known.recall(call.attention, call.outputs), nullptr);
}

TEST(Repeat, NullAndMisalignedAddressesAreLeftToTheCheck) {
  const ChangedCall call(0);
  CheckedForward known = remembered(call);
  Attention spoilt = call.attention;
  spoilt.key.data = nullptr;
  EXPECT_EQ(known.recall(spoilt, call.outputs), nullptr);
  spoilt.key.data = static_cast<char*>(call.attention.key.data) + 1;
  EXPECT_EQ(known.recall(spoilt, call.outputs), nullptr);
  EXPECT_NE(known.recall(call.attention, call.outputs), nullptr);
}

TEST(Repeat, NothingIsRecalledAtFirst) {
  const ChangedCall call(0);
  EXPECT_EQ(CheckedForward().recall(call.attention, call.outputs), nullptr);
  EXPECT_EQ(CheckedForward().recall({}, {}), nullptr);
}

}  // namespace
}  // namespace strobe::check
