// Whatever the arguments: a call is refused with strobe::Error and nothing else, planning included, and a call that is
// accepted runs without touching a byte that is not its own (the sanitizers watch).
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "check/check.hpp"
#include "decode.hpp"
#include "strobe/strobe.hpp"

namespace strobe::fuzz {
namespace {

/// Two workers without threads: chunks alternate between them, so that workspaces of several workers are met.
class AlternatingExecutor final : public Executor {
 public:
  int concurrency() const override { return 2; }
  void parallel_for(std::int64_t chunks, double, Body body, void* context) override {
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) body(context, chunk, int(chunk % 2));
  }
};

/// Whether `step` ended well; an Error is the only other way to end.
template <typename Step>
bool succeeds(const Step& step) {
  try {
    step();
    return true;
  } catch (const Error& error) {
    if (error.argument().empty() || error.was().empty() || error.must_be().empty()) {
      std::fprintf(stderr, "an error without its three facts: %s\n", error.what());
      std::abort();
    }
    if (error.code() == ErrorCode::kInternal) std::abort();
    return false;
  }
}

/// Planning refuses no more than running does, and comes first: it sees the same shapes without their contents.
void expect_planned(bool planned, bool accepted) {
  if (accepted && !planned) {
    std::fprintf(stderr, "accepted with data, refused without\n");
    std::abort();
  }
}

void run(Call& call) {
  static AlternatingExecutor executor;
  const Execution execution{.executor = &executor};
  const Attention& attention = call.attention;
  using check::Data;
  switch (call.entry) {
    case Entry::kForward: {
      const bool planned = succeeds([&] { check::forward(attention, call.outputs, Data::kIgnored); });
      succeeds([&] { plan_forward(attention, call.outputs, {.executor = &executor}).explain(); });
      const bool accepted = succeeds([&] { check::forward(attention, call.outputs, Data::kRequired); });
      expect_planned(planned, accepted);
      if (accepted && small_enough(call)) succeeds([&] { forward(attention, call.outputs, execution); });
      break;
    }
    case Entry::kBackward: {
      const bool planned = succeeds([&] { check::backward(attention, call.inputs, call.gradients, Data::kIgnored); });
      succeeds([&] { plan_backward(attention, call.inputs, call.gradients, {.executor = &executor}).explain(); });
      const bool accepted = succeeds([&] { check::backward(attention, call.inputs, call.gradients, Data::kRequired); });
      expect_planned(planned, accepted);
      if (accepted && small_enough(call)) {
        succeeds([&] { backward(attention, call.inputs, call.gradients, execution); });
      }
      break;
    }
    case Entry::kAppend:
      if (succeeds([&] { check::append(attention); }) && small_enough(call)) append(attention, execution);
      break;
    case Entry::kMerge:
      if (succeeds([&] { check::merge(call.parts, call.part_lses, call.outputs); }) && small_enough(call)) {
        merge(call.parts, call.part_lses, call.outputs, execution);
      }
      break;
    case Entry::kSoftmax:
      if (succeeds([&] { check::softmax(call.inputs.output, call.outputs.output, call.axis); }) && small_enough(call)) {
        softmax(call.inputs.output, call.outputs.output, call.axis, execution);
      }
      break;
    case Entry::kSoftmaxBackward:
      if (succeeds([&] {
            check::softmax_backward(call.inputs.output, call.inputs.grad_output, call.gradients.query, call.axis);
          }) &&
          small_enough(call)) {
        softmax_backward(call.inputs.output, call.inputs.grad_output, call.gradients.query, call.axis, execution);
      }
      break;
  }
}

}  // namespace
}  // namespace strobe::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  strobe::fuzz::Bytes bytes(data, size);
  strobe::fuzz::Call call = strobe::fuzz::decode(bytes);
  strobe::fuzz::run(call);
  return 0;
}
