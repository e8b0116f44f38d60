// Packed offsets and lengths: their shapes and what they hold.
#include "calls.hpp"

namespace strobe::check {
namespace {

TEST(Lengths, OffsetsGiveTheBatch) {
  const Checked checked = PackedCall().check();
  EXPECT_EQ(checked.problem.batch, 2);
  EXPECT_TRUE(checked.problem.packed_queries && checked.problem.packed_keys);
  EXPECT_EQ(checked.problem.total_queries, kQueries);
  EXPECT_EQ(checked.problem.total_keys, kKeys);
}

TEST(Lengths, OffsetShapesAndTypes) {
  PackedCall call;
  call.attention.query_offsets.shape[0] = 0;
  EXPECT_REFUSED_ALWAYS(call, "query_offsets", "at least 1");
  call = PackedCall();
  call.attention.key_offsets.shape[0] = 2;
  EXPECT_REFUSED_ALWAYS(call, "key_offsets", "batch 2");
  call = PackedCall();
  call.attention.query_offsets.dtype = DataType::kFloat32;
  EXPECT_REFUSED_ALWAYS(call, "query_offsets", "int32");
  call = PackedCall();
  call.attention.key_offsets.strides[0] = 2;
  EXPECT_REFUSED_ALWAYS(call, "key_offsets", "innermost stride 1");
  call = PackedCall();
  call.attention.key_offsets.data = nullptr;
  EXPECT_REFUSED(call, "key_offsets", "a pointer");
  EXPECT_NO_THROW(call.check(Data::kIgnored));
}

TEST(Lengths, OffsetsRiseFromZeroToTheTotal) {
  PackedCall call;
  for (auto offsets : {std::vector<std::int32_t>{1, 1, 3}, {0, 4, 3}, {0, 1, 2}, {0, 1, 4}, {0, -1, 3}, {-1, 0, 3}}) {
    call.attention.query_offsets = call.integers(offsets);
    EXPECT_REFUSED(call, "query_offsets", "");
    EXPECT_NO_THROW(call.check(Data::kIgnored)) << "contents are not read";
  }
  call.attention.query_offsets = call.integers({0, 0, 3});
  EXPECT_NO_THROW(call.check());
  call.attention.key_offsets = call.integers({0, 0x7fffffff, 5});
  EXPECT_REFUSED(call, "key_offsets", "never fall");
}

TEST(Lengths, PackedQueriesMayReadDenseKeys) {
  PackedCall call;
  call.attention.key_offsets = {};
  call.attention.key = call.floats({kBatch, kKeys, kKvHeads, kHeadDim});
  call.attention.value = call.floats({kBatch, kKeys, kKvHeads, kValueDim});
  EXPECT_NO_THROW(call.check());
  call.attention.key = call.floats({kBatch + 1, kKeys, kKvHeads, kHeadDim});
  EXPECT_REFUSED_ALWAYS(call, "key", "batch 2");
}

TEST(Lengths, StayWithinStoredRows) {
  DenseCall call;
  call.attention.key_lengths = call.integers({5, 0});
  call.attention.query_lengths = call.integers({0, 3});
  EXPECT_NO_THROW(call.check());
  call.attention.key_lengths = call.integers({5, 6});
  EXPECT_REFUSED(call, "key_lengths", "from 0 to 5");
  call.attention.key_lengths = call.integers({-1, 5});
  EXPECT_REFUSED(call, "key_lengths", "from 0 to 5");
  EXPECT_NO_THROW(call.check(Data::kIgnored));
  call.attention.key_lengths = {};
  call.attention.query_lengths = call.integers({4, 0});
  EXPECT_REFUSED(call, "query_lengths", "from 0 to 3");
  call.attention.query_lengths = call.integers({1, 1, 1});
  EXPECT_REFUSED_ALWAYS(call, "query_lengths", "[batch 2]");

  PackedCall packed;
  packed.attention.key_lengths = packed.integers({4, 1});
  EXPECT_NO_THROW(packed.check());
  packed.attention.key_lengths = packed.integers({4, 2});
  EXPECT_REFUSED(packed, "key_lengths", "from 0 to 1");
}

}  // namespace
}  // namespace strobe::check
