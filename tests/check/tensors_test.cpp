// query, key, value, output and lse: ranks, sizes, types, layout, memory.
#include <limits>

#include "calls.hpp"
#include "check/facts.hpp"

namespace strobe::check {
namespace {

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

TEST(Tensors, ValidCallsPass) {
  EXPECT_NO_THROW(DenseCall().check());
  EXPECT_NO_THROW(PackedCall().check());
  for (DataType type : {DataType::kFloat16, DataType::kBFloat16}) {
    EXPECT_NO_THROW(DenseCall(type, type).check());
    EXPECT_NO_THROW(DenseCall(type).check());
  }
  for (DataType type : {DataType::kFloat8E4M3, DataType::kFloat8E5M2}) {
    for (DataType output : {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16}) {
      EXPECT_NO_THROW(DenseCall(type, output).check());
    }
  }
}

TEST(Tensors, MissingOnes) {
  DenseCall call;
  call.attention.query = {};
  EXPECT_REFUSED_ALWAYS(call, "query", "[batch, query_length");
  call = DenseCall();
  call.attention.key = {};
  EXPECT_REFUSED_ALWAYS(call, "key", "head_dim 8");
  call = DenseCall();
  call.attention.value = {};
  EXPECT_REFUSED_ALWAYS(call, "value", "value_dim");
  call = DenseCall();
  call.outputs.output = {};
  EXPECT_REFUSED_ALWAYS(call, "output", "[batch 2, query_length 3, query_heads 4, value_dim 6]");
  call = DenseCall();
  call.outputs.lse = {};
  EXPECT_NO_THROW(call.check());
}

TEST(Tensors, MessagesCarryThreeFacts) {
  DenseCall call;
  call.attention.key.dtype = DataType::kFloat16;
  try {
    call.check();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.argument(), "key");
    EXPECT_EQ(error.was(), "float16 [2, 5, 2, 8]");
    EXPECT_EQ(error.must_be(), "float32, the type of query");
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  }
}

TEST(Tensors, RanksOutOfRange) {
  for (int rank : {-1, 0, 1, 3, 5, 6, 1 << 30}) {
    DenseCall call;
    call.attention.query.rank = rank;
    EXPECT_REFUSED_ALWAYS(call, "query", "[batch");
    call = DenseCall();
    call.outputs.output.rank = rank;
    EXPECT_REFUSED_ALWAYS(call, "output", "[batch");
  }
}

TEST(Tensors, SizesMustMatch) {
  struct Case {
    Tensor Attention::*tensor;
    int axis;
    const char *argument, *demand;
  };
  for (const auto& [tensor, axis, argument, demand] :
       {Case{&Attention::key, 0, "key", "batch 2"}, Case{&Attention::key, 1, "value", "key_length 4"},
        Case{&Attention::key, 2, "value", "kv_heads 1"}, Case{&Attention::key, 3, "key", "head_dim 8"},
        Case{&Attention::value, 0, "value", "batch 2"}, Case{&Attention::value, 1, "value", "key_length 5"},
        Case{&Attention::value, 2, "value", "kv_heads 2"}, Case{&Attention::value, 3, "output", "value_dim 5"},
        Case{&Attention::query, 0, "key", "batch 1"}, Case{&Attention::query, 1, "output", "query_length 2"},
        Case{&Attention::query, 2, "query", "multiple of key's 2"}, Case{&Attention::query, 3, "key", "head_dim 7"}}) {
    DenseCall call;
    --(call.attention.*tensor).shape[axis];
    EXPECT_REFUSED_ALWAYS(call, argument, demand);
  }
  DenseCall call;
  --call.outputs.lse.shape[2];
  EXPECT_REFUSED_ALWAYS(call, "lse", "[batch 2, query_heads 4, query_length 3]");
}

TEST(Tensors, EmptyIsValidButHeadsAndDimsAreNot) {
  for (auto empty : {&DenseCall::attention}) {
    DenseCall call;
    (call.*empty).key.shape[1] = (call.*empty).value.shape[1] = 0;
    EXPECT_NO_THROW(call.check());
  }
  DenseCall call;
  call.attention.query.shape[1] = call.outputs.output.shape[1] = call.outputs.lse.shape[2] = 0;
  call.attention.query.data = call.outputs.output.data = nullptr;
  EXPECT_NO_THROW(call.check());
  call = DenseCall();
  for (Tensor* tensor :
       {&call.attention.query, &call.attention.key, &call.attention.value, &call.outputs.output, &call.outputs.lse}) {
    tensor->shape[0] = 0;
  }
  EXPECT_NO_THROW(call.check());
  for (int axis : {2, 3}) {
    call = DenseCall();
    call.attention.query.shape[axis] = 0;
    EXPECT_REFUSED_ALWAYS(call, "query", "at least 1");
  }
}

TEST(Tensors, DimsThatNoKernelServes) {
  const auto with_dims = [](std::int64_t head_dim, std::int64_t value_dim) {
    DenseCall call;
    call.attention.query = call.floats({1, 1, 1, head_dim});
    call.attention.key = call.floats({1, 2, 1, head_dim});
    call.attention.value = call.floats({1, 2, 1, value_dim});
    call.outputs.output = call.floats({1, 1, 1, value_dim});
    call.outputs.lse = {};
    return call;
  };
  EXPECT_NO_THROW(with_dims(1, 1).check());
  EXPECT_NO_THROW(with_dims(256, 256).check());
  EXPECT_NO_THROW(with_dims(192, 128).check());
  EXPECT_NO_THROW(with_dims(576, 512).check());
  EXPECT_REFUSED_ALWAYS(with_dims(257, 64), "query", "1 to 256", ErrorCode::kUnsupported);
  EXPECT_REFUSED_ALWAYS(with_dims(64, 257), "value", "1 to 256", ErrorCode::kUnsupported);
  EXPECT_REFUSED_ALWAYS(with_dims(512, 576), "query", "1 to 256", ErrorCode::kUnsupported);
}

TEST(Tensors, Types) {
  for (int type : {5, 6, 7, -1, 1 << 30}) {
    DenseCall call;
    call.attention.query.dtype = DataType(type);
    EXPECT_REFUSED_ALWAYS(call, "query", "float32 or float16");
  }
  DenseCall call;
  call.attention.value.dtype = DataType::kBFloat16;
  EXPECT_REFUSED_ALWAYS(call, "value", "the type of query");
  call = DenseCall();
  call.outputs.output.dtype = DataType::kFloat16;
  EXPECT_REFUSED_ALWAYS(call, "output", "float32");
  call = DenseCall();
  call.outputs.lse.dtype = DataType::kFloat16;
  EXPECT_REFUSED_ALWAYS(call, "lse", "float32");
  call = DenseCall(DataType::kFloat8E4M3);
  call.attention.value.dtype = DataType::kFloat8E5M2;
  EXPECT_REFUSED_ALWAYS(call, "value", "float8_e4m3");
}

TEST(Tensors, ProductsAreBoundedExactly) {
  constexpr std::int64_t kLimit = std::int64_t(1) << 44, kAxis = 0x7fffffff, kMost = std::int64_t(1) << 62;
  const auto at_most = [](std::initializer_list<std::int64_t> sizes) {
    return product_is_at_most(kLimit, {sizes.begin(), sizes.size()});
  };
  EXPECT_TRUE(at_most({}));
  EXPECT_TRUE(at_most({kLimit}));
  EXPECT_TRUE(at_most({1 << 20, 0, 1 << 24})) << "an empty axis does not hide the others";
  EXPECT_FALSE(at_most({1 << 20, 0, (1 << 24) + 1}));
  EXPECT_FALSE(at_most({kAxis, kAxis, kAxis, kAxis})) << "more than 64 bits";
  EXPECT_FALSE(at_most({kMost, 4, 0}));
}

TEST(Tensors, Strides) {
  DenseCall call;
  call.attention.query.strides[3] = 2;
  EXPECT_REFUSED_ALWAYS(call, "query", "innermost stride 1");
  call = DenseCall();
  call.attention.key.strides[1] = kHuge / 4;
  EXPECT_REFUSED_ALWAYS(call, "key", "span memory");
  call.attention.key.strides[1] = -kHuge - 1;
  EXPECT_REFUSED_ALWAYS(call, "key", "span memory");
  call = DenseCall();
  call.attention.key.strides[1] = 0;
  EXPECT_NO_THROW(call.check()) << "an expanded input";
  call = DenseCall();
  call.outputs.output.strides[1] = 0;
  EXPECT_REFUSED_ALWAYS(call, "output", "no two elements");
  call = DenseCall();
  call.outputs.output.strides[1] = kValueDim - 1;
  EXPECT_REFUSED_ALWAYS(call, "output", "no two elements");
}

TEST(Tensors, StridesOfSingleEntriesDoNotMatter) {
  DenseCall call;
  call.attention.query = call.floats({1, 1, 4, 8});
  call.attention.key = call.floats({1, 5, 2, 8});
  call.attention.value = call.floats({1, 5, 2, 6});
  call.outputs.output = call.floats({1, 1, 4, 6});
  call.outputs.lse = {};
  call.attention.query.strides[0] = call.attention.query.strides[1] = -12345;
  call.outputs.output.strides[0] = call.outputs.output.strides[1] = 0;
  EXPECT_NO_THROW(call.check());
}

TEST(Tensors, AbsurdSizes) {
  for (std::int64_t size : {std::int64_t(-1), -kHuge, kHuge, kHuge / 2, std::int64_t(1) << 32}) {
    for (int axis = 0; axis < 4; ++axis) {
      DenseCall call;
      for (Tensor* tensor : {&call.attention.query, &call.attention.key, &call.attention.value, &call.outputs.output}) {
        tensor->shape[axis] = size;
      }
      EXPECT_REFUSED_ALWAYS(call, "query", "");
    }
  }
  DenseCall call;
  for (Tensor* tensor : {&call.attention.query, &call.outputs.output}) {
    tensor->shape[1] = tensor->shape[2] = 0x7fffffff;
  }
  EXPECT_REFUSED_ALWAYS(call, "query", "");
}

TEST(Tensors, Memory) {
  DenseCall call;
  call.attention.key.data = nullptr;
  EXPECT_REFUSED(call, "key", "a pointer");
  EXPECT_NO_THROW(call.check(Data::kIgnored));
  call = DenseCall();
  call.outputs.output.data = static_cast<char*>(call.outputs.output.data) + 1;
  EXPECT_REFUSED(call, "output", "aligned");
}

}  // namespace
}  // namespace strobe::check
