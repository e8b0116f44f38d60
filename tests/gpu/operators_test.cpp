// The operators beside attention on a GPU: softmax and its gradient, merge, and append by itself.
#include <cstring>

#include "gpu/gpu_test.hpp"
#include "operator_cases.hpp"

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

/// Runs `body`; skips the test where the operator has no CUDA kernel.
template <typename Body>
bool served(const Body& body) {
  try {
    body();
    return true;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnsupported) throw;
    return false;
  }
}

class GpuSoftmax : public OnGpuWith<std::tuple<int, DataType>> {
 protected:
  static const SoftmaxCase& description() { return kSoftmaxCases[static_cast<std::size_t>(std::get<0>(GetParam()))]; }
  static int axis() { return (description().axis + int(description().shape.size())) % int(description().shape.size()); }
  static Tensor layout() { return tensor_of(description(), std::get<1>(GetParam())); }
};

TEST_P(GpuSoftmax, AgreesWithItsDefinition) {
  Random random(1);
  Storage input("input", layout(), 1), output("output", layout(), 1);
  for (const double size : {1.0, 300.0}) {
    fill(input.tensor(), random, size);
    Call call(stream(), {&input, &output});
    if (!served([&] { softmax(call(input.tensor()), call(output.tensor()), description().axis, call.execution()); })) {
      GTEST_SKIP() << "softmax has no CUDA kernel";
    }
    call.finish();
    expect_softmax(input.tensor(), output.tensor(), axis());
    EXPECT_TRUE(output.surroundings_intact());
  }
}

TEST_P(GpuSoftmax, HasTheGradientOfItsDefinition) {
  Random random(2);
  Storage output("output", layout(), 0), upstream("upstream", layout(), 1), gradient("gradient", layout(), 1);
  fill(output.tensor(), random, 0.3);
  fill(upstream.tensor(), random, 1.0);
  Call call(stream(), {&output, &upstream, &gradient});
  if (!served([&] {
        softmax_backward(call(output.tensor()), call(upstream.tensor()), call(gradient.tensor()), description().axis,
                         call.execution());
      })) {
    GTEST_SKIP() << "softmax_backward has no CUDA kernel";
  }
  call.finish();
  expect_softmax_gradient(output.tensor(), upstream.tensor(), gradient.tensor(), axis());
  EXPECT_TRUE(gradient.surroundings_intact());
}

INSTANTIATE_TEST_SUITE_P(Shapes, GpuSoftmax,
                         testing::Combine(testing::Range(0, int(kSoftmaxCases.size())),
                                          testing::Values(DataType::kFloat32, DataType::kFloat16,
                                                          DataType::kBFloat16)));

class GpuMerge : public OnGpuWith<const char*> {};

TEST_P(GpuMerge, OfPartsIsTheWhole) {
  const auto whole = build(parse_case(GetParam()));
  Parts parts(*whole);
  Call call(stream(), {&parts.outputs, &parts.lses, &whole->results[0], &whole->results[1]});
  const ForwardOutputs merged{.output = call(whole->outputs.output), .lse = call(whole->outputs.lse)};
  if (!served([&] { merge(call(parts.outputs.tensor()), call(parts.lses.tensor()), merged, call.execution()); })) {
    GTEST_SKIP() << "merge has no CUDA kernel";
  }
  call.finish();
  for (const std::string& failure : Judge(*whole).judge().failures) ADD_FAILURE() << failure;
}

INSTANTIATE_TEST_SUITE_P(Cases, GpuMerge, testing::ValuesIn(kMergeCases));

class GpuAppend : public OnGpuWith<const char*> {};

TEST_P(GpuAppend, WritesWhatTheCpuWrites) {
  const auto on_cpu = build(parse_case(GetParam())), on_gpu = build(parse_case(GetParam()));
  append(on_cpu->attention);
  CudaInstance copy(*on_gpu, stream());
  if (!served([&] { append(copy.attention, copy.execution); })) GTEST_SKIP() << "append has no CUDA kernel";
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
        "q=1 k=64 page=1 batch=2 key_lengths=50,3 heads=2/2 dim=33 append=5 layout=padded dtype=float16"));

}  // namespace
}  // namespace strobe::cases
