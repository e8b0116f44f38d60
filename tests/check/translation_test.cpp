// What checked arguments become: sizes, strides and flags of the Problem and the Buffers.
#include "calls.hpp"

namespace strobe::check {
namespace {

TEST(Translation, DenseSizesAndStrides) {
  DenseCall call;
  call.attention.causal = true;
  call.attention.dropout = 0.25f;
  call.attention.dropout_seed = 7;
  call.attention.dropout_offset = 9;
  call.attention.splits = 3;
  call.attention.batch_invariant = true;
  call.attention.deterministic = false;
  const auto [problem, buffers] = call.check();
  EXPECT_EQ(problem.batch, kBatch);
  EXPECT_EQ(problem.query_length, kQueries);
  EXPECT_EQ(problem.key_length, kKeys);
  EXPECT_EQ(problem.total_queries, kBatch * kQueries);
  EXPECT_EQ(problem.total_keys, kBatch * kKeys);
  EXPECT_EQ(problem.query_heads, kQueryHeads);
  EXPECT_EQ(problem.kv_heads, kKvHeads);
  EXPECT_EQ(problem.head_dim, kHeadDim);
  EXPECT_EQ(problem.value_dim, kValueDim);
  EXPECT_TRUE(problem.causal && problem.has_lse && problem.batch_invariant && !problem.deterministic);
  EXPECT_EQ(problem.dropout, 0.25f);
  EXPECT_EQ(problem.dropout_seed, 7u);
  EXPECT_EQ(problem.dropout_offset, 9u);
  EXPECT_EQ(problem.splits, 3);
  EXPECT_EQ(buffers.query.data, call.attention.query.data);
  EXPECT_EQ(buffers.query.batch_stride, kQueries * kQueryHeads * kHeadDim);
  EXPECT_EQ(buffers.query.row_stride, kQueryHeads * kHeadDim);
  EXPECT_EQ(buffers.query.head_stride, kHeadDim);
  EXPECT_EQ(buffers.lse.batch_stride, kQueryHeads * kQueries);
  EXPECT_EQ(buffers.lse.head_stride, kQueries);
  EXPECT_EQ(buffers.lse.row_stride, 1);
}

TEST(Translation, PackedRowsHaveNoBatch) {
  const auto [problem, buffers] = PackedCall().check();
  EXPECT_EQ(problem.query_length, kQueries);
  EXPECT_EQ(buffers.query.batch_stride, 0);
  EXPECT_EQ(buffers.query.row_stride, kQueryHeads * kHeadDim);
  EXPECT_EQ(buffers.query.head_stride, kHeadDim);
  EXPECT_EQ(buffers.lse.batch_stride, 0);
  EXPECT_EQ(buffers.lse.head_stride, kQueries);
  EXPECT_EQ(buffers.query_offsets.batch_stride, 1);
}

TEST(Translation, PagesAreTheBatchOfACache) {
  const auto [problem, buffers] = PagedCall().check();
  EXPECT_EQ(buffers.key.batch_stride, PagedCall::kPageSize * kKvHeads * kHeadDim);
  EXPECT_EQ(buffers.key.row_stride, kKvHeads * kHeadDim);
  EXPECT_EQ(buffers.page_table.batch_stride, 3);
  EXPECT_EQ(buffers.page_table.stride, 1);
}

TEST(Translation, PlanningSeesTheSameProblem) {
  PagedCall call;
  call.add_new_keys();
  call.add_rotary();
  EXPECT_EQ(call.check().problem, call.check(Data::kIgnored).problem);
  BackwardCall backward;
  EXPECT_EQ(backward.check().problem, backward.check(Data::kIgnored).problem);
}

}  // namespace
}  // namespace strobe::check
