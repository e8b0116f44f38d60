// From Python's arrays to strobe::Tensor: views of whatever speaks DLPack, without a copy and without linking any array
// library. Made and destroyed with the GIL held; the views may be used without it.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>
#include <vector>

#include "bindings/dlpack.hpp"
#include "strobe/strobe.hpp"

namespace strobe::python {

enum class Access { kRead, kWrite };

/// Whose arrays they are: those of code that looks after gradients itself, or a user's, of which some are refused:
/// tensors whose gradients PyTorch records, since these would be lost, and JAX's to write to.
enum class Origin { kOwn, kUser };

/// The arrays of one call. They all lie on one device, which the first of them sets.
class Arrays {
 public:
  explicit Arrays(Origin origin = Origin::kOwn) : origin_(origin) {}

  /// The view stays valid as long as this object and the array.
  /// @throws Error naming `argument`: an element type that Strobe does not know, another device than that of the first
  /// array, a read-only array to write to. TypeError if it is no array. ValueError for what `origin` refuses.
  Tensor view(const char* argument, nanobind::handle array, Access access = Access::kRead);

  Device device() const;
  /// The stream on which the first array's library works at present, if its type's table of C functions tells.
  std::optional<void*> current_stream() const;

 private:
  /// Whether PyTorch records the gradient of this tensor.
  bool is_recorded(nanobind::handle tensor);
  Tensor accept(const char* argument, const dlpack::Tensor& tensor);
  Tensor exported(const char* argument, nanobind::handle array, Access access);

  Origin origin_;
  std::optional<bool> records_;                   // whether PyTorch records gradients at present, once asked
  const dlpack::ExchangeTable* table_ = nullptr;  // of the first array's type
  dlpack::Device device_{};
  const char* first_argument_ = nullptr;      // null before the first array
  std::vector<nanobind::object> borrowed_{};  // capsules that keep exported memory alive
};

}  // namespace strobe::python
