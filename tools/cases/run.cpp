// See run.hpp.
#include "cases/run.hpp"

#include "cpu/cpu.hpp"

namespace strobe::cases {

std::vector<Isa> instruction_sets() {
  std::vector<Isa> sets;
  for (int isa = 0; isa <= int(cpu::this_machine().best); ++isa) sets.push_back(Isa(isa));
  return sets;
}

plan::Choice choose(const Instance& instance, Isa isa, const Executor& executor) {
  CpuDevice device = cpu::this_machine();
  device.best = isa;
  device.dot_pays = device.short_splits_pay = true;  // every kernel is to be tested
  device.threads = executor.concurrency();
  return plan::choose(instance.checked.problem, device);
}

std::string run(Instance& instance, const Decision& decision, Executor& executor) {
  const Tensor bytes{
      .dtype = DataType::kBool, .rank = 1, .shape = {std::int64_t(decision.workspace_bytes())}, .strides = {1}};
  const Storage workspace("workspace", bytes, 0);
  const auto pass = instance.checked.problem.pass == Pass::kForward ? cpu::forward : cpu::backward;
  pass(instance.checked.problem, instance.checked.buffers, decision, executor, workspace.tensor().data);
  return workspace.surroundings_intact() ? "" : "wrote outside its workspace";
}

}  // namespace strobe::cases
