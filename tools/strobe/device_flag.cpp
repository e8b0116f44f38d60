// See device_flag.hpp.
#include "device_flag.hpp"

#include <fmt/format.h>

#include <charconv>

#include "cuda/cuda.hpp"
#include "errors.hpp"

namespace strobe::tools {
namespace {

constexpr std::string_view kCuda = "cuda";

/// The number behind "cuda:", 0 for "cuda" alone; -1 for anything else.
int index_in(std::string_view text) {
  if (text == kCuda) return 0;
  if (!text.starts_with("cuda:")) return -1;
  text.remove_prefix(kCuda.size() + 1);
  int index = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  return error == std::errc() && end == text.data() + text.size() ? index : -1;
}

}  // namespace

Device parse_device(const std::string& text) {
  if (text == "cpu") return {};
  const int index = index_in(text);
  if (index < 0) throw UsageError("--device is '" + text + "', must be cpu, cuda or cuda:N");
  return {.kind = DeviceKind::kCuda, .index = index};
}

const CudaDevice& parse_cuda_device(const std::string& text) {
  if (const int index = index_in(text); index >= 0) return cuda::device(index);
  const CudaDevice* known = text.starts_with("cuda:") ? cuda::known_device(text.substr(kCuda.size() + 1)) : nullptr;
  if (known != nullptr) return *known;
  std::string names;
  for (const CudaDevice& each : cuda::known_devices()) {
    std::string name = each.name;
    for (char& letter : name) letter = char(std::tolower(letter));
    names += ", cuda:" + name;
  }
  throw UsageError("--device is '" + text + "', must be cpu, cuda, cuda:N" + names);
}

}  // namespace strobe::tools
