// Whatever the arguments: a call is refused with strobe::Error and nothing else, planning included, and a call that is
// accepted runs without touching a byte that is not its own (the sanitizers watch). What is recalled of an earlier call
// on a device is what checking finds.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "check/check.hpp"
#include "check/repeat.hpp"
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

/// The call is accepted on a device, and remembered. Then it moves, and may become another.
void expect_recall(Bytes& bytes, Call& call) {
  using check::Checked, check::Data;
  const auto check_call = [&] { return check::forward(call.attention, call.outputs, Data::kOnDevice); };
  Checked checked;
  if (!succeeds([&] { checked = check_call(); })) return;
  check::CheckedForward known;
  known.remember(call.attention, call.outputs, checked);
  for (std::int64_t moves = bytes.below(3); moves > 0; --moves) {
    const std::vector<Tensor*> tensors = call.tensors();
    Tensor& tensor = *tensors[std::size_t(bytes.below(std::int64_t(tensors.size())))];
    if (tensor.data != nullptr) tensor.data = static_cast<std::byte*>(tensor.data) + 4 * bytes.below(64);
  }
  for (std::int64_t left = bytes.below(3); left > 0; --left) spoil(bytes, call);
  const Checked* recalled = known.recall(call.attention, call.outputs);
  if (recalled == nullptr) return;
  if (!succeeds([&] { checked = check_call(); }) || !(recalled->problem == checked.problem) ||
      !(recalled->buffers == checked.buffers)) {
    std::fprintf(stderr, "recalled as another call\n");
    std::abort();
  }
}

void run(Bytes& bytes, Call& call) {
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
      expect_recall(bytes, call);
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
  strobe::fuzz::run(bytes, call);
  return 0;
}
