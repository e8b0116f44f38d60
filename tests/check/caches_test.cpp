// Dense and paged caches, appended keys, rotary.
#include "calls.hpp"

namespace strobe::check {
namespace {

TEST(Caches, PagedCallsPass) {
  PagedCall call;
  const Checked checked = call.check();
  EXPECT_EQ(checked.problem.page_size, 4);
  EXPECT_EQ(checked.problem.key_length, 12);
  EXPECT_EQ(checked.problem.total_keys, 28);
  call.add_new_keys(4);
  call.add_rotary();
  EXPECT_EQ(call.check().problem.new_length, 4);
  EXPECT_EQ(call.check().problem.rotary_dim, 8);
}

TEST(Caches, PageTable) {
  PagedCall call;
  call.attention.page_table.shape[0] = 1;
  EXPECT_REFUSED_ALWAYS(call, "page_table", "batch 2");
  call = PagedCall();
  call.attention.key.shape[1] = call.attention.value.shape[1] = 0;
  EXPECT_REFUSED_ALWAYS(call, "key", "page_size of at least 1");
  call = PagedCall();
  call.page(1, 1) = PagedCall::kPages;
  EXPECT_REFUSED(call, "page_table", "from 0 to 6");
  call.page(1, 1) = -1;
  EXPECT_REFUSED(call, "page_table", "from 0 to 6");
  EXPECT_NO_THROW(call.check(Data::kIgnored));
  call = PagedCall();
  call.page(0, 2) = call.page(1, 2) = -1;
  EXPECT_NO_THROW(call.check()) << "pages past key_lengths are not used";
  call.attention.key_lengths = call.integers({5, 9});
  EXPECT_REFUSED(call, "page_table", "from 0 to 6");
  call.attention.key_lengths = call.integers({5, 13});
  EXPECT_REFUSED(call, "key_lengths", "from 0 to 12");
}

TEST(Caches, AbsurdPageTable) {
  PagedCall call;
  call.attention.page_table.shape[1] = call.attention.key.shape[1] = call.attention.value.shape[1] = 0x7fffffff;
  call.attention.key.strides[1] = call.attention.value.strides[1] = 0;
  EXPECT_TRUE(refuses([&] { call.check(Data::kIgnored); }, "page_table", "positions"));
}

TEST(Caches, BatchIndex) {
  DenseCall call;
  call.attention.key = call.floats({4, kKeys, kKvHeads, kHeadDim});
  call.attention.value = call.floats({4, kKeys, kKvHeads, kValueDim});
  EXPECT_REFUSED_ALWAYS(call, "key", "batch 2");
  call.attention.cache_batch_index = call.integers({3, 3});
  EXPECT_NO_THROW(call.check()) << "two sequences may read one row";
  call.attention.cache_batch_index = call.integers({3, 4});
  EXPECT_REFUSED(call, "cache_batch_index", "from 0 to 3");
  call.attention.cache_batch_index = call.integers({-1, 0});
  EXPECT_REFUSED(call, "cache_batch_index", "from 0 to 3");
  call.attention.cache_batch_index = call.integers({0});
  EXPECT_REFUSED_ALWAYS(call, "cache_batch_index", "batch 2");
  call.attention.cache_batch_index = {};
  call.attention.key_lengths = call.integers({1, 2});
  EXPECT_NO_THROW(call.check()) << "row b serves sequence b of a larger cache";
}

TEST(Caches, FormsThatExclude) {
  PackedCall packed;
  packed.attention.cache_batch_index = packed.integers({0, 1});
  EXPECT_REFUSED_ALWAYS(packed, "cache_batch_index", "key_offsets");
  packed = PackedCall();
  packed.attention.page_table = packed.integer_array({kBatch, 1});
  EXPECT_REFUSED_ALWAYS(packed, "page_table", "key_offsets");
  packed = PackedCall();
  packed.attention.key_lengths = packed.integers({0, 0});
  packed.attention.new_key = packed.floats({kBatch, 1, kKvHeads, kHeadDim});
  packed.attention.new_value = packed.floats({kBatch, 1, kKvHeads, kValueDim});
  EXPECT_REFUSED_ALWAYS(packed, "new_key", "key_offsets");
  PagedCall paged;
  paged.attention.cache_batch_index = paged.integers({0, 1});
  EXPECT_REFUSED_ALWAYS(paged, "cache_batch_index", "page_table");
}

TEST(Caches, NewKeys) {
  PagedCall call;
  call.add_new_keys();
  call.attention.new_value = {};
  EXPECT_REFUSED_ALWAYS(call, "new_value", "new_length 1");
  call.add_new_keys();
  call.attention.new_key = {};
  EXPECT_REFUSED_ALWAYS(call, "new_key", "given");
  call.add_new_keys();
  call.attention.new_key.dtype = DataType::kFloat16;
  EXPECT_REFUSED_ALWAYS(call, "new_key", "the type of key");
  call.add_new_keys();
  call.attention.new_value.shape[3] = kHeadDim;
  EXPECT_REFUSED_ALWAYS(call, "new_value", "value_dim 6");
  call.add_new_keys(13);
  EXPECT_REFUSED_ALWAYS(call, "new_key", "12 positions");
  call.add_new_keys(5);
  EXPECT_REFUSED(call, "key_lengths", "at most 7");
  call.add_new_keys();
  call.attention.key_lengths = {};
  EXPECT_REFUSED_ALWAYS(call, "key_lengths", "given");
  call = PagedCall();
  call.add_new_keys();
  call.attention.key.strides[2] = 0;
  EXPECT_REFUSED_ALWAYS(call, "key", "no two elements");
}

TEST(Caches, AppendedPlacesDiffer) {
  PagedCall call;
  call.add_new_keys();
  call.page(1, 2) = call.page(0, 1);
  EXPECT_REFUSED(call, "page_table", "different");
  call.page(1, 2) = 5;
  call.page(1, 0) = call.page(0, 0);
  EXPECT_NO_THROW(call.check()) << "a shared page that is only read";

  DenseCall dense;
  dense.attention.key_lengths = dense.integers({1, 2});
  dense.attention.cache_batch_index = dense.integers({1, 1});
  dense.attention.new_key = dense.floats({kBatch, 1, kKvHeads, kHeadDim});
  dense.attention.new_value = dense.floats({kBatch, 1, kKvHeads, kValueDim});
  EXPECT_REFUSED(dense, "cache_batch_index", "different");
}

TEST(Caches, RotaryTables) {
  PagedCall call;
  call.add_rotary();
  call.attention.rotary_sin = {};
  EXPECT_REFUSED_ALWAYS(call, "rotary_sin", "positions 12");
  call.add_rotary();
  call.attention.rotary_cos = {};
  EXPECT_REFUSED_ALWAYS(call, "rotary_cos", "positions");
  call.add_rotary(12, 5);
  EXPECT_REFUSED_ALWAYS(call, "rotary_cos", "at most 4 pairs");
  call.add_rotary(12, 0);
  EXPECT_REFUSED_ALWAYS(call, "rotary_cos", "at least 1");
  call.add_rotary();
  call.attention.rotary_sin.dtype = DataType::kFloat16;
  EXPECT_REFUSED_ALWAYS(call, "rotary_sin", "the type of rotary_cos");
  call.add_rotary();
  call.attention.rotary_style = RotaryStyle(7);
  EXPECT_REFUSED_ALWAYS(call, "rotary_style", "interleaved");
  DenseCall eight(DataType::kFloat8E5M2);
  eight.attention.rotary_cos = eight.attention.rotary_sin = eight.floats({8, 4});
  EXPECT_REFUSED_ALWAYS(eight, "rotary_cos", "float8", ErrorCode::kUnsupported);
}

TEST(Caches, RotaryPositions) {
  PagedCall call;
  call.add_rotary(9);
  EXPECT_NO_THROW(call.check()) << "queries turn by key_lengths, at most 8";
  call.add_rotary(8);
  EXPECT_REFUSED(call, "rotary_cos", "at least 9 positions");
  call.attention.causal = true;
  EXPECT_NO_THROW(call.check()) << "the last query stands at the last key, position 7";
  call.add_new_keys(2);
  EXPECT_REFUSED(call, "rotary_cos", "at least 10 positions");
  call.add_rotary(10);
  EXPECT_NO_THROW(call.check());
  call = PagedCall();
  call.add_rotary();
  call.attention.causal = true;
  call.attention.key_lengths = call.integers({0, 3});
  EXPECT_REFUSED(call, "query", "no more rows than keys");
}

TEST(Caches, Append) {
  PagedCall call;
  call.add_new_keys(2);
  call.add_rotary();
  call.attention.query = {};
  const auto append = [&] { check::append(call.attention); };
  EXPECT_NO_THROW(append());
  call.attention.causal = true;
  call.attention.bias = call.floats({7});
  EXPECT_NO_THROW(append()) << "options of attention are not looked at";
  EXPECT_EQ(check::append(call.attention).problem.new_length, 2);
  call.attention.key_lengths = call.integers({5, 11});
  EXPECT_TRUE(refuses(append, "key_lengths", "at most 10"));
  call.attention.key_lengths = {};
  EXPECT_TRUE(refuses(append, "key_lengths", "[batch]"));
  call = PagedCall();
  call.add_new_keys();
  call.attention.new_key = {};
  EXPECT_TRUE(refuses(append, "new_key", "new_length"));
  call.add_new_keys();
  call.attention.new_key.data = call.attention.key.data;
  EXPECT_TRUE(refuses(append, "key", "of its own"));
}

}  // namespace
}  // namespace strobe::check
