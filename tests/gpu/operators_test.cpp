// The operators beside attention on a GPU: softmax and its gradient, merge, and append by itself.
#include <cstring>

#include "allocations.hpp"
#include "gpu/gpu_test.hpp"
#include "gpu/graph.hpp"
#include "operator_cases.hpp"
#include "sequence_alone.hpp"

namespace strobe::cases {
namespace {

/// Storages copied to the GPU for one call, and back.
class Call {
 public:
  Call(cuda::Stream stream, std::initializer_list<Storage*> storages)
      : copies_(stream),
        execution_{.device = {.kind = DeviceKind::kCuda, .index = stream.device}, .stream = stream.handle} {
    for (Storage* storage : storages) copies_.add(storage->bytes().data(), storage->bytes().size());
    copies_.upload();
  }
  Tensor operator()(Tensor tensor) const {
    copies_.move(tensor);
    return tensor;
  }
  const Execution& execution() const { return execution_; }
  void finish() { copies_.download(); }

 private:
  gpu::Copies copies_;
  Execution execution_;
};

class GpuSoftmax : public OnGpuWith<std::tuple<int, DataType>> {
 protected:
  static const SoftmaxCase& description() { return kSoftmaxCases[static_cast<std::size_t>(std::get<0>(GetParam()))]; }
  static int axis() { return (description().axis + int(description().shape.size())) % int(description().shape.size()); }
  static DataType type() { return std::get<1>(GetParam()); }
  static Tensor layout() { return tensor_of(description(), type()); }

  /// Into a tensor of type `to`; both begin `skipped` elements behind a border of vectors.
  void expect_forward(DataType to, double size, std::int64_t skipped) {
    Random random(1);
    Storage input("input", layout(), skipped), output("output", tensor_of(description(), to), skipped);
    fill(input.tensor(), random, size);
    Call call(stream(), {&input, &output});
    softmax(call(input.tensor()), call(output.tensor()), description().axis, call.execution());
    call.finish();
    expect_softmax(input.tensor(), output.tensor(), axis());
    EXPECT_TRUE(output.surroundings_intact());
  }
};

TEST_P(GpuSoftmax, AgreesWithItsDefinition) {
  for (const double size : {1.0, 300.0}) expect_forward(type(), size, 1);
}
TEST_P(GpuSoftmax, AgreesWithItsDefinitionFromAlignedMemory) { expect_forward(type(), 1.0, 0); }
TEST_P(GpuSoftmax, AgreesWithItsDefinitionIntoAnotherType) {
  expect_forward(type() == DataType::kFloat32 ? DataType::kBFloat16 : DataType::kFloat32, 1.0, 0);
}

TEST_P(GpuSoftmax, HasTheGradientOfItsDefinition) {
  for (const std::int64_t skipped : {0, 1}) {
    Random random(2);
    Storage output("output", layout(), 0), upstream("upstream", layout(), skipped),
        gradient("gradient", layout(), skipped);
    fill(output.tensor(), random, 0.3);
    fill(upstream.tensor(), random, 1.0);
    Call call(stream(), {&output, &upstream, &gradient});
    softmax_backward(call(output.tensor()), call(upstream.tensor()), call(gradient.tensor()), description().axis,
                     call.execution());
    call.finish();
    expect_softmax_gradient(output.tensor(), upstream.tensor(), gradient.tensor(), axis());
    EXPECT_TRUE(gradient.surroundings_intact());
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GpuSoftmax,
                         testing::Combine(testing::Range(0, int(kSoftmaxCases.size())),
                                          testing::Values(DataType::kFloat32, DataType::kFloat16,
                                                          DataType::kBFloat16)));

using GpuSoftmaxRows = OnGpu;

TEST_F(GpuSoftmaxRows, OfMinusInfinityAreZeroAndNaNStaysInItsRow) {
  for (const int axis : {1, 0}) {
    const Tensor square = Tensor::contiguous(nullptr, DataType::kFloat32, {9, 9});
    Storage input("input", square, 0), output("output", square, 0);
    auto* x = static_cast<float*>(input.tensor().data);
    std::fill(x, x + 81, 0.0f);
    const auto at = [&](int row, int j) { return axis == 1 ? row * 9 + j : j * 9 + row; };
    for (int j = 0; j < 9; ++j) x[at(2, j)] = -HUGE_VALF;
    x[at(4, 7)] = -HUGE_VALF;
    x[at(6, 3)] = NAN;
    Call call(stream(), {&input, &output});
    softmax(call(input.tensor()), call(output.tensor()), axis, call.execution());
    call.finish();
    const auto* y = static_cast<const float*>(output.tensor().data);
    for (int row = 0; row < 9; ++row) {
      for (int j = 0; j < 9; ++j) {
        const float expected = row == 2 ? 0.0f : row == 4 ? (j == 7 ? 0.0f : 1.0f / 8) : 1.0f / 9;
        if (row == 6) {
          EXPECT_TRUE(std::isnan(y[at(row, j)]));
        } else {
          EXPECT_NEAR(y[at(row, j)], expected, 1e-7) << row << " " << j;
        }
      }
    }
  }
}

class GpuMerge : public OnGpuWith<std::tuple<const char*, int>> {};

TEST_P(GpuMerge, OfPartsIsTheWhole) {
  const auto [line, splits] = GetParam();
  const auto whole = build(parse_case(line));
  Parts parts(*whole, splits);
  Call call(stream(), {&parts.outputs, &parts.lses, &whole->results[0], &whole->results[1]});
  const ForwardOutputs merged{.output = call(whole->outputs.output), .lse = call(whole->outputs.lse)};
  merge(call(parts.outputs.tensor()), call(parts.lses.tensor()), merged, call.execution());
  call.finish();
  for (const std::string& failure : Judge(*whole).judge().failures) ADD_FAILURE() << failure;
}

INSTANTIATE_TEST_SUITE_P(Cases, GpuMerge,
                         testing::Combine(testing::ValuesIn(kMergeCases), testing::ValuesIn(kMergeSplits)));

using GpuMergeRows = OnGpu;

TEST_F(GpuMergeRows, ReadNothingOfPartsThatSawNothing) {
  for (const std::int64_t splits : {2, 20}) {
    const auto floats = [](std::initializer_list<std::int64_t> shape) {
      return Tensor::contiguous(nullptr, DataType::kFloat32, shape);
    };
    // Storages begin as NaN: only part 1 of row 0 gets values.
    Storage outputs("outputs", floats({splits, 1, 2, 1, 33}), 0), lses("lses", floats({splits, 1, 1, 2}), 0),
        output("output", floats({1, 2, 1, 33}), 0), lse("lse", floats({1, 1, 2}), 0);
    auto* of_parts = static_cast<float*>(lses.tensor().data);
    std::fill(of_parts, of_parts + 2 * splits, -HUGE_VALF);
    of_parts[2] = 1.5f;
    std::fill_n(static_cast<float*>(outputs.tensor().data) + 2 * 33, 33, 5.0f);
    Call call(stream(), {&outputs, &lses, &output, &lse});
    merge(call(outputs.tensor()), call(lses.tensor()), {.output = call(output.tensor()), .lse = call(lse.tensor())},
          call.execution());
    call.finish();
    const auto *values = static_cast<float*>(output.tensor().data), *sums = static_cast<float*>(lse.tensor().data);
    for (int d = 0; d < 33; ++d) {
      EXPECT_EQ(values[d], 5.0f);
      EXPECT_EQ(values[33 + d], 0.0f);
    }
    EXPECT_EQ(sums[0], 1.5f);
    EXPECT_EQ(sums[1], -HUGE_VALF);
  }
}

TEST_F(GpuMergeRows, HaveTheSameBitsWithFurtherPartsThatSawNothing) {
  const auto whole = build(parse_case("q=20 k=64 heads=4/2 dim=128 dtype=bfloat16"));
  Parts few(*whole, 3);
  const Bytes alone = [&] {
    Call call(stream(), {&few.outputs, &few.lses, &whole->results[0], &whole->results[1]});
    merge(call(few.outputs.tensor()), call(few.lses.tensor()),
          {.output = call(whole->outputs.output), .lse = call(whole->outputs.lse)}, call.execution());
    call.finish();
    return results_of(*whole);
  }();
  // The same three parts, and nine that saw nothing and hold NaN: another kernel's work.
  const auto longer = [](Tensor tensor) {
    tensor.shape[0] = 12;
    return tensor;
  };
  Storage outputs("outputs", longer(few.outputs.tensor()), 0), lses("lses", longer(few.lses.tensor()), 0);
  const auto copy = [](const Tensor& to, const Tensor& from) {
    std::memcpy(to.data, from.data, static_cast<std::size_t>(from.elements()) * size_of(from.dtype));
  };
  auto* all = static_cast<float*>(lses.tensor().data);
  std::fill(all, all + lses.tensor().elements(), -HUGE_VALF);
  copy(outputs.tensor(), few.outputs.tensor());
  copy(lses.tensor(), few.lses.tensor());
  reset(*whole);
  Call call(stream(), {&outputs, &lses, &whole->results[0], &whole->results[1]});
  merge(call(outputs.tensor()), call(lses.tensor()),
        {.output = call(whole->outputs.output), .lse = call(whole->outputs.lse)}, call.execution());
  call.finish();
  EXPECT_EQ(results_of(*whole), alone);
}

class GpuAppend : public OnGpuWith<const char*> {};

TEST_P(GpuAppend, WritesWhatTheCpuWrites) {
  const auto on_cpu = build(parse_case(GetParam())), on_gpu = build(parse_case(GetParam()));
  append(on_cpu->attention);
  CudaInstance copy(*on_gpu, stream());
  append(copy.attention, copy.execution);
  copy.copies.download();
  for (std::size_t n = 0; n < on_cpu->inputs.size(); ++n) {
    const Tensor &a = on_cpu->inputs[n].tensor(), &b = on_gpu->inputs[n].tensor();
    double largest = 0;
    for_each_element(a, [&](const auto*, std::int64_t at) {
      if (a.dtype == DataType::kInt32 || a.dtype == DataType::kBool) return;
      const double x = load_element(a.data, a.dtype, at), y = load_element(b.data, b.dtype, at);
      if (x == y || (std::isnan(x) && std::isnan(y))) return;
      largest = std::max(largest, std::isnan(x - y) ? HUGE_VAL : std::abs(x - y));
    });
    // A rotated key may round the other way.
    EXPECT_LE(largest, on_gpu->description.rotary_dim > 0 ? 8 * tolerance(a.dtype) : 0.0) << on_cpu->inputs[n].name();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GpuAppend,
    testing::Values(
        "q=1 k=64 cache_rows=3 batch=2 key_lengths=50,3 heads=4/2 dim=32 append=2 dtype=float16",
        "q=2 k=64 page=16 batch=2 key_lengths=50,3 heads=4/2 dim=32 append=2 rotary=32 causal dtype=bfloat16",
        "q=1 k=65 page=13 batch=3 key_lengths=50,0,12 heads=2/1 dim=40/24 append=3 rotary=16 rotary_halves",
        "q=1 k=64 page=1 batch=2 key_lengths=50,3 heads=2/2 dim=33 append=5 layout=padded dtype=float16",
        "q=3 k=96 page=16 key_lengths=90,0 batch=2 heads=4/2 dim=64/48 append=3 rotary=64 rotary_halves dtype=bfloat16",
        "q=3 k=96 page=12 key_lengths=90,0 batch=2 heads=6/3 dim=64/48 append=3 rotary=32 dtype=bfloat16 "
        "rotary_type=bfloat16",
        "q=3 k=96 page=12 key_lengths=90,0 batch=2 heads=6/3 dim=41/33 append=3 rotary=12 rotary_halves dtype=float16",
        "q=3 k=96 page=1 key_lengths=90,0 batch=2 heads=6/3 dim=41/33 append=3 dtype=float8_e4m3",
        "q=3 k=96 key_lengths=90,0 batch=2 heads=6/3 dim=128/64 append=3 dtype=float8_e5m2",
        "q=300 k=400 key_lengths=90,0,7 batch=3 heads=8/8 dim=128 append=300 rotary=128 rotary_halves dtype=bfloat16",
        "q=3 k=96 page=16 key_lengths=90,0 batch=2 heads=4/2 dim=64 append=3 rotary=64 layout=padded dtype=bfloat16",
        "q=3 k=96 key_lengths=90,0 batch=2 heads=4/2 dim=64 append=3 rotary=64 layout=bhsd dtype=bfloat16"));

/// What a forward kernel sees after appending and rotating.
class GpuPrepared : public OnGpuWith<const char*> {};
TEST_P(GpuPrepared, ForwardAgreesWithTheReference) { expect_served(GetParam()); }
INSTANTIATE_TEST_SUITE_P(
    Cases, GpuPrepared,
    testing::Values(
        "q=1 k=96 page=16 key_lengths=90,15 batch=2 heads=4/2 dim=64 append=2 dtype=bfloat16",
        "q=3 k=96 page=16 key_lengths=90,0 batch=2 heads=4/2 dim=64 append=3 rotary=64 causal dtype=float16",
        "q=3 k=96 page=16 key_lengths=90,0 batch=2 heads=4/2 dim=64 append=3 rotary=64 rotary_halves dtype=bfloat16",
        "q=1 k=96 cache_rows=3 key_lengths=90,5 batch=2 heads=8/2 dim=128 append=1 rotary=32 causal dtype=bfloat16",
        "packed_queries=50,3,0,7 k=80 batch=4 key_lengths=70,11,0,3 heads=4/2 dim=128 append=4 rotary=128 causal "
        "dtype=bfloat16",
        "packed_queries=50,3,0,7 k=80 batch=4 key_lengths=70,11,0,3 heads=4/2 dim=32 rotary=32 dtype=float16 "
        "query_lengths=40,2,0,7",
        "q=5 k=80 batch=2 heads=40/1 dim=256 rotary=128 window=4,- dtype=bfloat16 top_left",
        "q=200 k=200 batch=2 heads=4/4 dim=64 rotary=64 causal dtype=bfloat16 layout=fused"));

using GpuOperators = OnGpu;

TEST_F(GpuOperators, HaveTheSameBitsInAGraphAndAllocateNothing) {
  Storage input("input", Tensor::contiguous(nullptr, DataType::kBFloat16, {64, 5000}), 0),
      output("output", Tensor::contiguous(nullptr, DataType::kBFloat16, {64, 5000}), 0);
  Random random(1);
  fill(input.tensor(), random, 1.0);
  Call call(stream(), {&input, &output});
  const Tensor in = call(input.tensor()), out = call(output.tensor());
  softmax(in, out, 1, call.execution());
  call.finish();
  const Bytes first = bytes_of(output.tensor());
  const std::size_t before = allocations();
  softmax(in, out, 1, call.execution());
  EXPECT_EQ(allocations() - before, 0u);
  const gpu::Graph graph(stream(), [&] { softmax(in, out, 1, call.execution()); });
  graph.launch(stream());
  call.finish();
  EXPECT_EQ(bytes_of(output.tensor()), first);
}

}  // namespace
}  // namespace strobe::cases
