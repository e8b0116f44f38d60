// See instance.hpp.
#include "cases/instance.hpp"

#include "cases/build.hpp"

namespace strobe::cases {

std::unique_ptr<Instance> build(const Case& description) {
  auto instance = std::make_unique<Instance>();
  Instance& to = *instance;
  to.description = description;
  Random random(description.seed);
  describe_tensors(to, random);
  to.checked = description.pass == Pass::kForward
                   ? check::forward(to.attention, to.outputs, check::Data::kRequired)
                   : check::backward(to.attention, to.upstream, to.gradients, check::Data::kRequired);
  fill_tensors(to, random);
  for (Storage& storage : to.inputs) storage.remember();
  for (Storage& storage : to.results) storage.remember();
  return instance;
}

void reset(Instance& instance) {
  for (Storage& storage : instance.inputs) storage.restore();
  for (Storage& storage : instance.results) storage.restore();
}

}  // namespace strobe::cases
