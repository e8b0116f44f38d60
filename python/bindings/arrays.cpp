// Views of Python's arrays. Types that offer DLPack's table of C functions (PyTorch since 2.10) are read through it, in
// tens of nanoseconds; all others through their method __dlpack__, told not to make any stream wait.
#include "bindings/arrays.hpp"

#include <algorithm>
#include <cstring>

namespace nb = nanobind;

namespace strobe::python {
namespace {

std::string name_of(dlpack::Type type) {
  const auto sized = [&](const char* kind) { return kind + std::to_string(type.bits); };
  switch (type.code) {
    case dlpack::kInt:
      return sized("int");
    case dlpack::kUnsigned:
      return sized("uint");
    case dlpack::kFloat:
      return sized("float");
    case dlpack::kComplex:
      return sized("complex");
    default:
      return "of DLPack's type " + std::to_string(type.code) + " with " + std::to_string(type.bits) + " bits";
  }
}

struct KnownType {
  DataType type;
  std::uint8_t code, bits;
  const char* ml_dtype;  // the name of NumPy's type for it in the package ml_dtypes; null: NumPy's own
};
constexpr KnownType kTypes[] = {
    {DataType::kFloat32, dlpack::kFloat, 32, nullptr},
    {DataType::kFloat16, dlpack::kFloat, 16, nullptr},
    {DataType::kBFloat16, dlpack::kBfloat, 16, "bfloat16"},
    {DataType::kFloat8E4M3, dlpack::kFloat8E4M3, 8, "float8_e4m3fn"},
    {DataType::kFloat8E5M2, dlpack::kFloat8E5M2, 8, "float8_e5m2"},
    {DataType::kInt32, dlpack::kInt, 32, nullptr},
    {DataType::kBool, dlpack::kBool, 8, nullptr},
};

DataType data_type_of(const char* argument, dlpack::Type type) {
  for (const KnownType& known : kTypes) {
    if (known.code == type.code && known.bits == type.bits && type.lanes == 1) return known.type;
  }
  throw Error(ErrorCode::kInvalidArgument, argument, name_of(type),
              "float32, float16, bfloat16 or float8 (numbers), int32 (lengths and indices) or bool (masks)");
}

std::string name_of(dlpack::Device device) {
  switch (device.type) {
    case dlpack::kCpu:
    case dlpack::kCudaHost:
      return "on the CPU";
    case dlpack::kCuda:
      return "on CUDA device " + std::to_string(device.index);
    default:
      return "on a device of DLPack's type " + std::to_string(device.type);
  }
}

bool on_cpu(dlpack::Device device) { return device.type == dlpack::kCpu || device.type == dlpack::kCudaHost; }

bool same_device(dlpack::Device a, dlpack::Device b) {
  return on_cpu(a) ? on_cpu(b) : a.type == b.type && a.index == b.index;
}

/// What is looked up once for a type of arrays.
struct ArrayType {
  nb::handle type;
  const dlpack::ExchangeTable* table = nullptr;  // its C functions; null if it offers none that is understood here
  bool has_gradients = false;                    // its arrays have an attribute requires_grad, as PyTorch's
};

ArrayType look_up(nb::handle type) {
  const nb::object capsule = nb::getattr(type, "__dlpack_c_exchange_api__", nb::none());
  const dlpack::ExchangeTable* table = nullptr;
  if (PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) {
    table = static_cast<const dlpack::ExchangeTable*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  }
  while (table != nullptr && table->version.major > 1) table = table->older;
  if (table != nullptr && (table->version.major != 1 || table->view == nullptr)) table = nullptr;
  return {.type = type, .table = table, .has_gradients = nb::hasattr(type, "requires_grad")};
}

/// Asked for every array of every call, mostly of one type: the last answer is kept, and its type with it.
const ArrayType& type_of(nb::handle array) {
  static ArrayType last;
  const nb::handle type = array.type();
  if (!last.type.is(type)) {
    const ArrayType found = look_up(type);
    last.type.dec_ref();
    last = found;
    last.type.inc_ref();
  }
  return last;
}

/// Calls a function of strobe._arrays that refuses some arrays, with the array by its name.
void ask(const char* function, const char* argument, nb::handle array) {
  nb::dict named;
  named[argument] = array;
  nb::module_::import_("strobe._arrays").attr(function)(**named);
}

dlpack::Device device_of(nb::handle array) {
  const nb::tuple device = nb::cast<nb::tuple>(array.attr("__dlpack_device__")());
  // Some libraries give an enumeration, not an integer.
  return {.type = nb::cast<std::int32_t>(nb::int_(device[0])), .index = nb::cast<std::int32_t>(nb::int_(device[1]))};
}

/// array.__dlpack__(): a capsule. Older libraries know no max_version, and then refuse to lend read-only memory.
nb::object capsule_of(nb::handle array) {
  const nb::object lend = array.attr("__dlpack__");
  nb::dict options;
  if (!on_cpu(device_of(array))) options["stream"] = -1;  // nobody waits: the call goes on the array's own stream
  try {
    return lend(nb::arg("max_version") = nb::make_tuple(1, 0), **options);
  } catch (nb::python_error& error) {
    if (!error.matches(PyExc_TypeError)) throw;
  }
  return lend(**options);
}

/// Says which array it is whose library refused to lend its memory, and why it did. What else was raised stays as it
/// is.
[[noreturn]] void refuse_unlent(const char* argument, nb::python_error& error) {
  for (const nb::handle refusal : {PyExc_BufferError, PyExc_ValueError, PyExc_RuntimeError}) {
    if (!error.matches(refusal)) continue;
    const nb::str reason{error.value()};
    throw Error(ErrorCode::kInvalidArgument, argument,
                "of memory that its library does not lend (" + std::string(reason.c_str()) + ")",
                "a strided array on the CPU or a CUDA device");
  }
  throw;
}

/// The type of a NumPy array of the package ml_dtypes, else null.
const KnownType* ml_dtype_of(nb::handle array) {
  if (!nb::hasattr(array, "__array_interface__")) return nullptr;
  const nb::object dtype = array.attr("dtype");
  const nb::str name{nb::handle(dtype)};
  for (const KnownType& known : kTypes) {
    if (known.ml_dtype != nullptr && std::strcmp(known.ml_dtype, name.c_str()) == 0) return &known;
  }
  return nullptr;
}

struct Lent {
  const dlpack::Tensor* tensor;
  bool read_only;
};

Lent contents_of(nb::handle capsule) {
  if (void* versioned = PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned")) {
    const auto* lent = static_cast<const dlpack::VersionedTensor*>(versioned);
    return {&lent->tensor, (lent->flags & dlpack::kReadOnly) != 0};
  }
  PyErr_Clear();
  void* plain = PyCapsule_GetPointer(capsule.ptr(), "dltensor");
  if (plain == nullptr) throw nb::python_error();
  return {&static_cast<const dlpack::ManagedTensor*>(plain)->tensor, false};
}

}  // namespace

bool Arrays::is_recorded(nb::handle tensor) {
  // PyTorch is there, since its tensor is.
  static const nb::handle grad_enabled = nb::getattr(nb::module_::import_("torch"), "is_grad_enabled").release();
  static const nb::handle requires_grad = nb::str("requires_grad").release();
  if (!records_) records_ = grad_enabled().is(Py_True);
  return *records_ && nb::getattr(tensor, requires_grad).is(Py_True);
}

Tensor Arrays::view(const char* argument, nb::handle array, Access access) {
  const auto& [type, table, has_gradients] = type_of(array);
  if (origin_ == Origin::kUser && has_gradients && is_recorded(array))
    ask("refuse_recorded_gradients", argument, array);
  if (first_argument_ == nullptr) table_ = table;
  dlpack::Tensor tensor;
  if (table != nullptr && table->view(array.ptr(), &tensor) == 0) return accept(argument, tensor);
  PyErr_Clear();  // what the table refuses, the method refuses with a shorter message
  return exported(argument, array, access);
}

Tensor Arrays::exported(const char* argument, nb::handle array, Access access) {
  if (!nb::hasattr(array, "__dlpack__")) {
    const nb::str type = nb::borrow<nb::str>(array.type().attr("__name__"));
    throw nb::type_error((std::string(argument) + " is of type " + type.c_str() +
                          ", must be an array (of NumPy, PyTorch, CuPy or another library that speaks DLPack)")
                             .c_str());
  }
  if (origin_ == Origin::kUser && access == Access::kWrite) ask("require_writable", argument, array);
  const KnownType* ml_dtype = nullptr;
  try {
    borrowed_.push_back(capsule_of(array));
  } catch (nb::python_error& error) {
    // NumPy does not lend the numbers of ml_dtypes, but lends their bits.
    if (error.matches(PyExc_BufferError)) ml_dtype = ml_dtype_of(array);
    if (ml_dtype == nullptr) refuse_unlent(argument, error);
    borrowed_.push_back(capsule_of(array.attr("view")(ml_dtype->bits == 16 ? "int16" : "int8")));
  }
  const Lent lent = contents_of(borrowed_.back());
  if (lent.read_only && access == Access::kWrite) {
    throw Error(ErrorCode::kInvalidArgument, argument, "read-only", "an array that can be written to");
  }
  dlpack::Tensor tensor = *lent.tensor;
  if (ml_dtype != nullptr) tensor.type.code = ml_dtype->code;
  return accept(argument, tensor);
}

Tensor Arrays::accept(const char* argument, const dlpack::Tensor& from) {
  if (first_argument_ == nullptr) {
    if (!on_cpu(from.device) && from.device.type != dlpack::kCuda) {
      throw Error(ErrorCode::kInvalidArgument, argument, name_of(from.device), "on the CPU or a CUDA device");
    }
    device_ = from.device;
    first_argument_ = argument;
  } else if (!same_device(from.device, device_)) {
    throw Error(ErrorCode::kInvalidArgument, argument, name_of(from.device),
                name_of(device_) + ", as " + first_argument_ + " is");
  }
  if (from.rank < 1 || from.rank > kMaxRank) {
    throw Error(ErrorCode::kInvalidArgument, argument, "of " + std::to_string(from.rank) + " axes",
                "of 1 to " + std::to_string(kMaxRank) + " axes");
  }
  Tensor tensor{.data = static_cast<char*>(from.data) + from.byte_offset,
                .dtype = data_type_of(argument, from.type),
                .rank = from.rank};
  std::copy_n(from.shape, from.rank, tensor.shape);
  if (from.strides != nullptr && tensor.elements() > 0) {  // NumPy's empty arrays have strides of zero
    std::copy_n(from.strides, from.rank, tensor.strides);
  } else {
    std::int64_t stride = 1;
    for (int axis = from.rank - 1; axis >= 0; --axis) {
      tensor.strides[axis] = stride;
      stride *= from.shape[axis];
    }
  }
  return tensor;
}

Device Arrays::device() const {
  if (on_cpu(device_) || first_argument_ == nullptr) return {};
  return {.kind = DeviceKind::kCuda, .index = device_.index};
}

std::optional<void*> Arrays::current_stream() const {
  if (table_ == nullptr) return std::nullopt;
  void* stream = nullptr;
  if (table_->current_stream(device_.type, device_.index, &stream) != 0) throw nb::python_error();
  return stream;
}

}  // namespace strobe::python
