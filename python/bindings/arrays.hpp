// From Python's arrays to strobe::Tensor: views of whatever speaks DLPack, without a copy and without linking any array
// library. Made and destroyed with the GIL held; the views may be used without it.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>
#include <string>
#include <vector>

#include "bindings/dlpack.hpp"
#include "strobe/strobe.hpp"

namespace strobe::python {

enum class Access { kRead, kWrite };

/// The arrays of one call. They all lie on one device, which the first of them sets.
class Arrays {
 public:
  /// The view stays valid as long as this object and the array.
  /// @throws Error naming `argument`: an element type that Strobe does not know, another device than that of the first
  /// array, a read-only array to write to. TypeError if it is no array.
  Tensor view(const char* argument, nanobind::handle array, Access access = Access::kRead);

  Device device() const;
  /// The stream on which the first array's library works at present, if its type's table of C functions tells.
  std::optional<void*> current_stream() const;

 private:
  Tensor accept(const char* argument, const dlpack::Tensor& tensor);
  Tensor exported(const char* argument, nanobind::handle array, Access access);

  const dlpack::ExchangeTable* table_ = nullptr;  // of the first array's type
  dlpack::Device device_{};
  std::string first_argument_;                // "" before the first array
  std::vector<nanobind::object> borrowed_{};  // capsules that keep exported memory alive
};

}  // namespace strobe::python
