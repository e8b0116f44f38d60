// Memory that outputs must not share, and interleavings that do not share any.
#include "check/overlap.hpp"

#include "calls.hpp"

namespace strobe::check {
namespace {

TEST(Overlap, OutputsHaveMemoryOfTheirOwn) {
  DenseCall call;
  call.outputs.output.data = call.attention.query.data;
  EXPECT_REFUSED(call, "output", "of its own");
  EXPECT_NO_THROW(call.check(Data::kIgnored));
  call = DenseCall();
  call.outputs.lse.data = call.outputs.output.data;
  EXPECT_REFUSED(call, "lse", "of its own");
  call = DenseCall();
  call.attention.sink = call.floats({kQueryHeads});
  call.outputs.lse.data = call.attention.sink.data;
  EXPECT_REFUSED(call, "lse", "of its own");
  call = DenseCall();
  call.outputs.output.data = static_cast<float*>(call.attention.value.data) + 4;
  EXPECT_REFUSED(call, "output", "of its own");

  BackwardCall backward;
  backward.gradients.query.data = backward.attention.query.data;
  EXPECT_REFUSED(backward, "gradients.query", "of its own");
  backward = BackwardCall();
  backward.gradients.value.data = backward.gradients.key.data;
  EXPECT_REFUSED(backward, "gradients.value", "of its own");
  backward = BackwardCall();
  backward.gradients.key.data = backward.inputs.grad_output.data;
  EXPECT_REFUSED(backward, "gradients.key", "of its own");
}

TEST(Overlap, AViewThatReachesPastTheAddressSpaceIsJudgedLikeAnyOther) {
  std::vector<float> memory(64);
  const Tensor near = Tensor::contiguous(memory.data(), DataType::kFloat32, {2, 8});
  Tensor far = near;
  far.strides[0] = -(std::int64_t(1) << 45);  // 2^47 bytes: its second row would lie before address 0
  EXPECT_TRUE(may_share_memory(near, far));
  EXPECT_TRUE(may_share_memory(far, near));
  Tensor beside = far;
  beside.data = memory.data() + 8;
  EXPECT_TRUE(may_share_memory(far, far));
  EXPECT_FALSE(may_share_memory(far, beside));
  EXPECT_FALSE(may_share_memory(beside, far));
}

TEST(Overlap, InputsMayShare) {
  DenseCall call;
  call.attention.value = call.attention.key;
  call.outputs.output = call.floats({kBatch, kQueries, kQueryHeads, kHeadDim});
  EXPECT_NO_THROW(call.check());
}

/// [length, 3 * heads * dim] holding query, key and value side by side.
Tensor slice(float* memory, int which, std::int64_t heads) {
  Tensor view = Tensor::contiguous(memory + which * heads * 8, DataType::kFloat32, {2, 5, heads, 8});
  view.strides[1] = 3 * heads * 8;
  view.strides[0] = 5 * view.strides[1];
  return view;
}

TEST(Overlap, SlicesOfPackedTensorsAreApart) {
  std::vector<float> memory(2 * 5 * 3 * 4 * 8);
  const Tensor q = slice(memory.data(), 0, 4), k = slice(memory.data(), 1, 4), v = slice(memory.data(), 2, 4);
  for (const Tensor* a : {&q, &k, &v}) {
    EXPECT_TRUE(elements_are_distinct(*a));
    for (const Tensor* b : {&q, &k, &v}) EXPECT_EQ(may_share_memory(*a, *b), a == b);
  }
  Tensor shifted = k;
  shifted.data = static_cast<float*>(k.data) - 1;
  EXPECT_TRUE(may_share_memory(q, shifted));
  EXPECT_TRUE(may_share_memory(shifted, q));
  EXPECT_FALSE(may_share_memory(shifted, v));
  shifted.data = static_cast<float*>(v.data) + 1;
  EXPECT_TRUE(may_share_memory(q, shifted)) << "the end of a row runs into the next row's query";
}

TEST(Overlap, InterleavedHeadsAreApart) {
  std::vector<float> memory(2 * 5 * 4 * 3 * 8);
  const auto of_head = [&](int which) {
    Tensor view = Tensor::contiguous(memory.data() + which * 8, DataType::kFloat32, {2, 5, 4, 8});
    view.strides[2] = 3 * 8;
    view.strides[1] = 4 * view.strides[2];
    view.strides[0] = 5 * view.strides[1];
    return view;
  };
  EXPECT_FALSE(may_share_memory(of_head(0), of_head(1)));
  EXPECT_FALSE(may_share_memory(of_head(2), of_head(0)));
  EXPECT_TRUE(may_share_memory(of_head(1), of_head(1)));
}

/// Against the set of bytes itself, on random small views.
TEST(Overlap, NeverMissesSharedBytes) {
  std::uint64_t state = 1;
  const auto draw = [&](std::int64_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return std::int64_t(state >> 33) % n;
  };
  static char memory[4096];
  const auto random_view = [&] {
    Tensor view;
    view.dtype = draw(2) ? DataType::kFloat32 : DataType::kBool;
    view.rank = std::int32_t(1 + draw(4));
    for (int axis = 0; axis < view.rank; ++axis) {
      view.shape[axis] = 1 + draw(3);
      view.strides[axis] = draw(2) ? (std::int64_t(1) << draw(6)) : draw(41) - 20;
    }
    view.data = memory + 2048 + 4 * draw(100);
    return view;
  };
  const auto bytes_of = [&](const Tensor& view) {
    std::vector<int> count(sizeof(memory));
    for (std::int64_t i = 0; i < view.elements(); ++i) {
      std::int64_t rest = i, at = static_cast<char*>(view.data) - memory;
      for (int axis = view.rank - 1; axis >= 0; --axis) {
        at += rest % view.shape[axis] * view.strides[axis] * std::int64_t(size_of(view.dtype));
        rest /= view.shape[axis];
      }
      for (std::size_t byte = 0; byte < size_of(view.dtype); ++byte) ++count[std::size_t(at) + byte];
    }
    return count;
  };
  int apart = 0;
  for (int round = 0; round < 20000; ++round) {
    const Tensor a = random_view(), b = random_view();
    const auto bytes_a = bytes_of(a), bytes_b = bytes_of(b);
    bool share = false, twice = false;
    for (std::size_t i = 0; i < bytes_a.size(); ++i) {
      share = share || (bytes_a[i] > 0 && bytes_b[i] > 0);
      twice = twice || bytes_a[i] > 1;
    }
    if (share) {
      ASSERT_TRUE(may_share_memory(a, b)) << "round " << round;
    }
    if (twice) {
      ASSERT_FALSE(elements_are_distinct(a)) << "round " << round;
    }
    apart += !may_share_memory(a, b);
  }
  EXPECT_GT(apart, 1000);
}

}  // namespace
}  // namespace strobe::check
