// strobe plan: what would run for a problem given by sizes and options alone, and why nothing else.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "check/check.hpp"
#include "command.hpp"
#include "cpu/cpu.hpp"
#include "device_flag.hpp"
#include "options.hpp"
#include "plan/plan.hpp"

namespace strobe::tools {
namespace {

using nlohmann::ordered_json;

struct PlanFlags {
  SizeFlags sizes;
  OptionFlags options;
  std::string pass = "forward", output_dtype, device = "cpu";
  std::vector<std::string> with;
  std::int64_t page_size = 0;
  bool packed = false, json = false;
  int threads = 0, architecture = 0;
};

/// Names that --with takes: optional tensors, present with their full shape.
constexpr const char* kTensors[] = {"bias",       "alibi-slopes",  "sink",        "documents",     "mask",
                                    "block-mask", "query-lengths", "key-lengths", "prefix-lengths"};

struct Described {
  Attention attention;
  Tensor output, lse;
};

Tensor shaped(DataType type, std::initializer_list<std::int64_t> shape) {
  return Tensor::contiguous(nullptr, type, shape);
}

Described describe(const PlanFlags& flags) {
  const SizeFlags size = flags.sizes.resolved();
  const DataType type = parse_float_type(size.dtype);
  const std::int64_t batch = size.batch, queries = size.query_length, keys = size.key_length;
  Described result;
  Attention& a = result.attention;
  flags.options.apply(a);
  const bool narrow = size_of(type) == 1;
  const DataType output_type = !flags.output_dtype.empty() ? parse_float_type(flags.output_dtype)
                               : narrow                    ? DataType::kFloat32
                                                           : type;
  if (flags.packed) {
    a.query = shaped(type, {batch * queries, size.heads, size.head_dim});
    result.output = shaped(output_type, {batch * queries, size.heads, size.value_dim});
    result.lse = shaped(DataType::kFloat32, {size.heads, batch * queries});
    a.query_offsets = shaped(DataType::kInt32, {batch + 1});
  } else {
    a.query = shaped(type, {batch, queries, size.heads, size.head_dim});
    result.output = shaped(output_type, {batch, queries, size.heads, size.value_dim});
    result.lse = shaped(DataType::kFloat32, {batch, size.heads, queries});
  }
  const std::int64_t pages = flags.page_size > 0 ? (keys + flags.page_size - 1) / flags.page_size : 0;
  if (flags.page_size > 0) {
    a.key = shaped(type, {batch * pages, flags.page_size, size.kv_heads, size.head_dim});
    a.value = shaped(type, {batch * pages, flags.page_size, size.kv_heads, size.value_dim});
    a.page_table = shaped(DataType::kInt32, {batch, pages});
    a.key_lengths = shaped(DataType::kInt32, {batch});
  } else if (flags.packed) {
    a.key = shaped(type, {batch * keys, size.kv_heads, size.head_dim});
    a.value = shaped(type, {batch * keys, size.kv_heads, size.value_dim});
    a.key_offsets = shaped(DataType::kInt32, {batch + 1});
  } else {
    a.key = shaped(type, {batch, keys, size.kv_heads, size.head_dim});
    a.value = shaped(type, {batch, keys, size.kv_heads, size.value_dim});
  }
  for (const std::string& name : flags.with) {
    if (name == "bias") a.bias = shaped(DataType::kFloat32, {batch, size.heads, queries, keys});
    if (name == "mask") a.mask = shaped(DataType::kBool, {batch, size.heads, queries, keys});
    if (name == "alibi-slopes") a.alibi_slopes = shaped(DataType::kFloat32, {size.heads});
    if (name == "sink") a.sink = shaped(DataType::kFloat32, {size.heads});
    if (name == "query-lengths") a.query_lengths = shaped(DataType::kInt32, {batch});
    if (name == "key-lengths") a.key_lengths = shaped(DataType::kInt32, {batch});
    if (name == "prefix-lengths") a.prefix_lengths = shaped(DataType::kInt32, {batch});
    if (name == "documents" && flags.packed) {
      a.query_documents = shaped(DataType::kInt32, {batch * queries});
      a.key_documents = shaped(DataType::kInt32, {batch * keys});
    } else if (name == "documents") {
      a.query_documents = shaped(DataType::kInt32, {batch, queries});
      a.key_documents = shaped(DataType::kInt32, {batch, keys});
    }
    if (name == "block-mask") {
      if (a.block_rows < 1) throw UsageError("--with block-mask needs --block-size ROWS,COLUMNS");
      a.block_mask = shaped(DataType::kBool, {batch, size.heads, (queries + a.block_rows - 1) / a.block_rows,
                                              (keys + a.block_columns - 1) / a.block_columns});
    }
  }
  return result;
}

Problem checked_problem(const PlanFlags& flags) {
  const Described described = describe(flags);
  const ForwardOutputs outputs{.output = described.output, .lse = described.lse};
  if (flags.pass == "forward") {
    return check::forward(described.attention, outputs, check::Data::kIgnored).problem;
  }
  const Attention& a = described.attention;
  const BackwardInputs inputs{
      .output = described.output, .lse = described.lse, .grad_output = described.output, .grad_lse = {}};
  const Gradients gradients{.query = a.query, .key = a.key, .value = a.value, .bias = a.bias, .sink = a.sink};
  return check::backward(a, inputs, gradients, check::Data::kIgnored).problem;
}

/// What a plan says about itself beyond `facts`, in the form that was asked for.
template <typename Device, typename Choice>
void report(const PlanFlags& flags, const Problem& problem, const Device& device, const Choice& choice,
            ordered_json facts) {
  const plan::Cost cost = plan::cost(problem);
  if (!flags.json) {
    fmt::print("{}", plan::explain(problem, device, choice));
    fmt::print("cost       {:.4g} GFLOP, {:.4g} MB moved at least once\n", cost.flops / 1e9, cost.bytes / 1e6);
    return;
  }
  ordered_json rejected = ordered_json::array();
  for (const plan::Rejection& rejection : plan::rejections(problem, device, choice)) {
    rejected.push_back({{"kernel", rejection.kernel}, {"reason", rejection.reason}});
  }
  ordered_json result = {{"kernel", choice.kernel->name},
                         {"why", choice.why},
                         {"pass", flags.pass},
                         {"query_tile", choice.decision.query_tile},
                         {"key_block", choice.decision.key_block},
                         {"split_keys", choice.decision.split_keys},
                         {"max_splits", choice.decision.max_splits}};
  result.update(facts);
  result.update({{"flops", cost.flops}, {"bytes", cost.bytes}, {"rejected", rejected}});
  fmt::print("{}\n", result.dump(2));
}

void plan_for_cpu(const PlanFlags& flags, const Problem& problem) {
  CpuDevice device = cpu::this_machine();
  device.threads = flags.threads > 0 ? flags.threads : default_executor().concurrency();
  const plan::Choice choice = plan::choose(problem, device);
  report(flags, problem, device, choice,
         {{"packed_heads", choice.decision.packed_heads},
          {"packed_sequences", choice.decision.packed_sequences},
          {"threads", device.threads},
          {"workspace_bytes", choice.decision.workspace_bytes()}});
}

void plan_for_cuda(const PlanFlags& flags, const Problem& problem) {
  const CudaDevice& device =
      parse_cuda_device(flags.architecture > 0 ? fmt::format("cuda:sm_{}", flags.architecture) : flags.device);
  const plan::CudaChoice choice = plan::choose(problem, device);
  ordered_json variants = ordered_json::array();
  const cuda::CudaDecision& decision = choice.decision;
  if (decision.preparation.needed) variants.push_back(cuda::describe(decision.preparation.kernel));
  for (int i = 0; i < decision.kernel_count; ++i) variants.push_back(cuda::describe(decision.kernels[i]));
  report(flags, problem, device, choice,
         {{"device", device.name},
          {"architecture", device.architecture},
          {"variants", variants},
          {"workspace_bytes", decision.workspace_bytes}});
}

ExitStatus run(const PlanFlags& flags) {
  const Problem problem = checked_problem(flags);
  if (flags.device == "cpu" && flags.architecture == 0) {
    plan_for_cpu(flags, problem);
  } else {
    plan_for_cuda(flags, problem);
  }
  return kSucceeded;
}

}  // namespace

void add_plan(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("plan", "What would run for a problem, and why not something else");
  auto flags = std::make_shared<PlanFlags>();
  flags->sizes.declare(*command);
  flags->options.declare(*command);
  command->add_option("--pass", flags->pass, "forward or backward")
      ->check(CLI::IsMember({"forward", "backward"}))
      ->capture_default_str();
  command->add_option("--output-dtype", flags->output_dtype, "Type of the output [that of the query]");
  command->add_option("--with", flags->with, "Optional tensors that take part, for example bias,sink")
      ->delimiter(',')
      ->check(CLI::IsMember(std::vector<std::string>(std::begin(kTensors), std::end(kTensors))));
  command->add_option("--page-size", flags->page_size, "Keys and values live in pages of this many rows")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--packed", flags->packed, "Sequences end to end, with offsets");
  command->add_option("--device", flags->device, "cpu, cuda, cuda:N, or a GPU that need not be here, such as cuda:h200")
      ->capture_default_str();
  command
      ->add_option("--architecture", flags->architecture, "A GPU of this architecture, such as 90, instead of --device")
      ->check(CLI::IsMember(std::vector<int>(std::begin(cuda::kArchitectures), std::end(cuda::kArchitectures))));
  command->add_option("--threads", flags->threads, "Threads to plan for; 0: the default pool's")
      ->check(CLI::Range(0, 4096));
  command->add_flag("--json", flags->json, "Print one JSON object");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace strobe::tools
