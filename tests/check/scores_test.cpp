// scale, softcap, bias, ALiBi, sink, dropout and descale factors.
#include <cmath>
#include <limits>

#include "calls.hpp"

namespace strobe::check {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Scores, Scale) {
  DenseCall call;
  EXPECT_FLOAT_EQ(call.check().problem.scale, 1.0f / std::sqrt(8.0f));
  call.attention.scale = -2.0f;
  EXPECT_EQ(call.check().problem.scale, -2.0f);
  for (float scale : {kInfinity, -kInfinity, std::nanf("")}) {
    call.attention.scale = scale;
    EXPECT_REFUSED_ALWAYS(call, "scale", "finite");
  }
}

TEST(Scores, Softcap) {
  for (float softcap : {-1.0f, kInfinity, std::nanf("")}) {
    DenseCall call;
    call.attention.softcap = softcap;
    EXPECT_REFUSED_ALWAYS(call, "softcap", "at least 0");
  }
}

TEST(Scores, Dropout) {
  for (float dropout : {-0.1f, 1.0f, kInfinity, std::nanf("")}) {
    DenseCall call;
    call.attention.dropout = dropout;
    EXPECT_REFUSED_ALWAYS(call, "dropout", "below 1");
  }
}

TEST(Scores, BiasBroadcasts) {
  for (int ones = 0; ones < 16; ++ones) {
    DenseCall call;
    const auto size = [&](int axis, std::int64_t full) { return (ones >> axis & 1) != 0 ? 1 : full; };
    call.attention.bias = call.floats({size(0, kBatch), size(1, kQueryHeads), size(2, kQueries), size(3, kKeys)});
    const Checked checked = call.check();
    const Scores& bias = checked.buffers.bias;
    EXPECT_EQ(bias.batch_stride == 0, (ones & 1) != 0);
    EXPECT_EQ(bias.head_stride == 0, (ones & 2) != 0);
    EXPECT_EQ(bias.row_stride == 0, (ones & 4) != 0);
    EXPECT_EQ(bias.column_stride, (ones & 8) != 0 ? 0 : 1);
    for (int axis = 0; axis < 4; ++axis) EXPECT_EQ(checked.problem.bias_broadcasts[axis], (ones >> axis & 1) != 0);
  }
}

TEST(Scores, BiasShapeTypeAndLayout) {
  DenseCall call;
  call.attention.bias = call.floats({kBatch, kQueryHeads, kQueries, kKeys - 1});
  EXPECT_REFUSED_ALWAYS(call, "bias", "key_length 5 or 1");
  call.attention.bias = call.floats({kQueryHeads, kQueries, kKeys});
  EXPECT_REFUSED_ALWAYS(call, "bias", "batch 2 or 1");
  call.attention.bias = call.floats({1, 1, kQueries, kKeys}, DataType::kFloat16);
  EXPECT_REFUSED_ALWAYS(call, "bias", "float32");
  call.attention.bias = call.floats({1, 1, kQueries, kKeys});
  call.attention.bias.strides[3] = 0;
  EXPECT_NO_THROW(call.check()) << "expanded along the keys";
  call.attention.bias.strides[3] = 2;
  EXPECT_REFUSED_ALWAYS(call, "bias", "innermost stride 1 or 0");

  DenseCall half(DataType::kFloat16);
  half.attention.bias = half.floats({1, 1, kQueries, kKeys}, DataType::kFloat16);
  EXPECT_NO_THROW(half.check());
  half.attention.bias.dtype = DataType::kBFloat16;
  EXPECT_REFUSED_ALWAYS(half, "bias", "float32 or float16");

  DenseCall eight(DataType::kFloat8E4M3);
  eight.attention.bias = eight.floats({1, 1, kQueries, kKeys}, DataType::kFloat8E4M3);
  EXPECT_REFUSED_ALWAYS(eight, "bias", "float32");
}

TEST(Scores, PackedBiasFitsTheLongestSequence) {
  PackedCall call;
  call.attention.bias = call.floats({1, kQueryHeads, 2, 4});
  EXPECT_NO_THROW(call.check());
  call.attention.bias = call.floats({1, kQueryHeads, 1, 1});
  EXPECT_NO_THROW(call.check());
  call.attention.bias = call.floats({1, kQueryHeads, 3, 5});
  EXPECT_NO_THROW(call.check());
  call.attention.bias = call.floats({1, kQueryHeads, 2, 3});
  EXPECT_REFUSED(call, "bias", "at least 2 rows and 4 columns");
  EXPECT_NO_THROW(call.check(Data::kIgnored));
}

TEST(Scores, AlibiAndSink) {
  DenseCall call;
  call.attention.alibi_slopes = call.floats({kQueryHeads});
  EXPECT_EQ(call.check().buffers.alibi_slopes.batch_stride, 0);
  EXPECT_EQ(call.check().buffers.alibi_slopes.stride, 1);
  call.attention.alibi_slopes = call.floats({kBatch, kQueryHeads});
  EXPECT_EQ(call.check().buffers.alibi_slopes.batch_stride, kQueryHeads);
  call.attention.alibi_slopes = call.floats({kKvHeads});
  EXPECT_REFUSED_ALWAYS(call, "alibi_slopes", "query_heads 4");
  call.attention.alibi_slopes = call.floats({1, kQueryHeads});
  EXPECT_REFUSED_ALWAYS(call, "alibi_slopes", "batch 2");
  call.attention.alibi_slopes = call.floats({kQueryHeads}, DataType::kFloat16);
  EXPECT_REFUSED_ALWAYS(call, "alibi_slopes", "float32");
  call.attention.alibi_slopes = {};
  call.attention.sink = call.floats({kQueryHeads});
  EXPECT_NO_THROW(call.check());
  call.attention.sink = call.floats({1, kQueryHeads});
  EXPECT_REFUSED_ALWAYS(call, "sink", "[query_heads 4]");
}

TEST(Scores, DescaleFactors) {
  DenseCall call(DataType::kFloat8E4M3);
  EXPECT_FALSE(call.check().problem.has_descale);
  call.attention.key_descale = call.floats({kBatch, kKvHeads});
  Checked checked = call.check();
  EXPECT_TRUE(checked.problem.has_descale);
  EXPECT_EQ(checked.buffers.key_descale.batch_stride, kKvHeads);
  EXPECT_EQ(*reinterpret_cast<const float*>(checked.buffers.query_descale.data), 1.0f) << "not given: a factor of one";
  EXPECT_EQ(checked.buffers.query_descale.stride, 0);
  call.attention.value_descale = call.floats({1});
  EXPECT_EQ(call.check().buffers.value_descale.stride, 0);
  call.attention.value_descale = call.floats({2});
  EXPECT_REFUSED_ALWAYS(call, "value_descale", "[1]");
  call.attention.value_descale = call.floats({kBatch, kQueryHeads});
  EXPECT_REFUSED_ALWAYS(call, "value_descale", "kv_heads 2");
  DenseCall wide;
  wide.attention.query_descale = wide.floats({1});
  EXPECT_REFUSED_ALWAYS(wide, "query_descale", "float8");
}

}  // namespace
}  // namespace strobe::check
