// causal, window, alignment, prefix, documents, mask, block mask.
#include <limits>

#include "calls.hpp"

namespace strobe::check {
namespace {

TEST(Visibility, Window) {
  DenseCall call;
  call.attention.window_left = 0;
  EXPECT_EQ(call.check().problem.window_left, 0);
  EXPECT_EQ(call.check().problem.window_right, kUnbounded);
  call.attention.window_left = -1;
  EXPECT_REFUSED_ALWAYS(call, "window_left", "at least 0");
  call.attention.window_left = std::numeric_limits<std::int64_t>::max();
  EXPECT_GT(call.check().problem.window_left, std::int64_t(1) << 31) << "bounded, yet beyond any key";
  EXPECT_LT(call.check().problem.window_left, std::int64_t(1) << 40) << "safe to add positions to";
  call.attention.window_right = -7;
  EXPECT_REFUSED_ALWAYS(call, "window_right", "at least 0");
}

TEST(Visibility, Alignment) {
  DenseCall call;
  call.attention.alignment = Alignment(2);
  EXPECT_REFUSED_ALWAYS(call, "alignment", "bottom_right");
}

TEST(Visibility, Prefix) {
  DenseCall call;
  call.attention.prefix_length = -1;
  EXPECT_REFUSED_ALWAYS(call, "prefix_length", "at least 0");
  call.attention.prefix_length = 2;
  EXPECT_NO_THROW(call.check());
  call.attention.prefix_lengths = call.integers({1, 2});
  EXPECT_REFUSED_ALWAYS(call, "prefix_length", "0 when prefix_lengths");
  call.attention.prefix_length = 0;
  EXPECT_NO_THROW(call.check());
  call.attention.prefix_lengths = call.integers({1, -2});
  EXPECT_REFUSED(call, "prefix_lengths", "at least 0");
  call.attention.prefix_lengths = call.integers({1});
  EXPECT_REFUSED_ALWAYS(call, "prefix_lengths", "batch 2");
}

TEST(Visibility, Documents) {
  DenseCall call;
  call.attention.key_documents = call.integer_array({kBatch, kKeys});
  EXPECT_REFUSED_ALWAYS(call, "query_documents", "given");
  call.attention.query_documents = call.integer_array({kBatch, kQueries});
  EXPECT_NO_THROW(call.check());
  call.attention.key_documents = {};
  EXPECT_REFUSED_ALWAYS(call, "key_documents", "as many keys as queries");
  call.attention.key_documents = call.integer_array({kBatch, kQueries});
  EXPECT_REFUSED_ALWAYS(call, "key_documents", "key_length 5");
  call.attention.key_documents = call.integer_array({kBatch, kKeys});
  call.attention.query_documents = call.integer_array({kBatch, kKeys});
  EXPECT_REFUSED_ALWAYS(call, "query_documents", "query_length 3");
}

TEST(Visibility, PackedDocuments) {
  PackedCall call;
  call.attention.query_documents = call.integer_array({kQueries, 1});
  EXPECT_REFUSED_ALWAYS(call, "query_documents", "[total_queries 3]");
  call.attention.query_documents = call.integers(std::vector<std::int32_t>(kQueries));
  EXPECT_REFUSED_ALWAYS(call, "key_documents", "given");
  call.attention.key_documents = call.integers(std::vector<std::int32_t>(kKeys));
  EXPECT_NO_THROW(call.check());
  EXPECT_EQ(call.check().buffers.key_documents.batch_stride, 0);

  call.attention.key_documents = {};
  call.attention.key = call.floats({kQueries, kKvHeads, kHeadDim});
  call.attention.value = call.floats({kQueries, kKvHeads, kValueDim});
  call.attention.key_offsets = call.integers({0, 1, 3});
  EXPECT_NO_THROW(call.check()) << "query_documents serve both";
  call.attention.key_offsets = call.integers({0, 2, 3});
  EXPECT_REFUSED(call, "key_documents", "differ");
}

TEST(Visibility, Mask) {
  DenseCall call;
  call.attention.mask = call.bools({1, kQueryHeads, 1, kKeys});
  const Checked checked = call.check();
  EXPECT_EQ(checked.buffers.mask.row_stride, 0);
  EXPECT_EQ(checked.buffers.mask.head_stride, kKeys);
  call.attention.mask.dtype = DataType::kInt32;
  EXPECT_REFUSED_ALWAYS(call, "mask", "bool");
  call.attention.mask = call.bools({kQueries, kKeys});
  EXPECT_REFUSED_ALWAYS(call, "mask", "query_heads 4 or 1");
  call.attention.mask = call.bools({1, 1, kQueries + 1, kKeys});
  EXPECT_REFUSED_ALWAYS(call, "mask", "query_length 3 or 1");
  PackedCall packed;
  packed.attention.mask = packed.bools({kBatch, 1, 2, 3});
  EXPECT_REFUSED(packed, "mask", "4 columns");
}

TEST(Visibility, BlockMask) {
  DenseCall call;
  call.attention.block_mask = call.bools({1, 1, 2, 3});
  EXPECT_REFUSED_ALWAYS(call, "block_rows", "at least 1");
  call.attention.block_rows = 2;
  EXPECT_REFUSED_ALWAYS(call, "block_columns", "at least 1");
  call.attention.block_columns = 2;
  EXPECT_NO_THROW(call.check());
  call.attention.block_rows = std::numeric_limits<std::int64_t>::max();
  EXPECT_REFUSED_ALWAYS(call, "block_mask", "ceil(query_length / block_rows) 1");
  call.attention.block_rows = 1;
  EXPECT_REFUSED_ALWAYS(call, "block_mask", "ceil(query_length / block_rows) 3");
  call.attention.block_mask = call.bools({3, 1, 3, 3});
  EXPECT_REFUSED_ALWAYS(call, "block_mask", "batch 2 or 1");
  PackedCall packed;
  packed.attention.block_rows = packed.attention.block_columns = 2;
  packed.attention.block_mask = packed.bools({1, 1, 1, 2});
  EXPECT_NO_THROW(packed.check());
  packed.attention.block_mask = packed.bools({1, 1, 1, 1});
  EXPECT_REFUSED(packed, "block_mask", "at least 1 rows and 2 columns");
}

}  // namespace
}  // namespace strobe::check
