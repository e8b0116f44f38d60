// Calls on a device: pointers are asked for, nothing behind them is read, and what cannot run there is said.
#include "calls.hpp"
#include "strobe/strobe.hpp"

namespace strobe::check {
namespace {

/// An address where no memory is: reading it would end the test.
void* nowhere(std::uintptr_t n) { return reinterpret_cast<void*>(std::uintptr_t(1) << 44 | n << 20); }

void move_away(Attention& attention, ForwardOutputs& outputs) {
  std::uintptr_t n = 0;
  for (Tensor* tensor :
       {&attention.query, &attention.key, &attention.value, &attention.query_offsets, &attention.key_offsets,
        &attention.key_lengths, &attention.page_table, &attention.new_key, &attention.new_value, &attention.rotary_cos,
        &attention.rotary_sin, &outputs.output, &outputs.lse}) {
    if (tensor->given()) tensor->data = nowhere(++n);
  }
}

TEST(OnDevice, NothingIsRead) {
  PackedCall packed;
  move_away(packed.attention, packed.outputs);
  EXPECT_EQ(packed.check(Data::kOnDevice).problem, PackedCall().check().problem);
  PagedCall paged;
  paged.add_new_keys();
  paged.add_rotary();
  const Problem problem = paged.check().problem;
  move_away(paged.attention, paged.outputs);
  EXPECT_EQ(paged.check(Data::kOnDevice).problem, problem);
  EXPECT_NO_THROW(append(paged.attention, Data::kOnDevice));
}

TEST(OnDevice, PointersAreNeeded) {
  PagedCall call;
  move_away(call.attention, call.outputs);
  const auto on_device = [&] { call.check(Data::kOnDevice); };
  call.attention.page_table.data = nullptr;
  EXPECT_TRUE(refuses(on_device, "page_table", "a pointer"));
  call.attention.page_table.data = nowhere(77);
  call.attention.key.data = static_cast<char*>(nowhere(1)) + 1;
  EXPECT_TRUE(refuses(on_device, "key", "aligned"));
}

TEST(OnDevice, OutputsNeedMemoryOfTheirOwn) {
  DenseCall call;
  move_away(call.attention, call.outputs);
  call.outputs.output.data = call.attention.query.data;
  EXPECT_TRUE(refuses([&] { call.check(Data::kOnDevice); }, "output", "of its own"));
}

TEST(OnDevice, WorkspaceIsAlignedFurther) {
  const auto given = [](DeviceKind kind, std::uintptr_t address) {
    return Execution{
        .workspace = reinterpret_cast<void*>(address), .workspace_bytes = 1024, .device = {.kind = kind, .index = 0}};
  };
  EXPECT_NO_THROW(workspace(given(DeviceKind::kCpu, 0x1040), 1024));
  EXPECT_TRUE(refuses([&] { workspace(given(DeviceKind::kCuda, 0x1040), 1024); }, "workspace", "256-byte"));
  EXPECT_NO_THROW(workspace(given(DeviceKind::kCuda, 0x1100), 1024));
  EXPECT_TRUE(refuses([&] { workspace(given(DeviceKind::kCuda, 0x1100), 1025); }, "workspace_bytes", "1025"));
}

TEST(OnDevice, DevicesThatAreNone) {
  DenseCall call;
  const auto on = [&](int kind, int index) {
    strobe::forward(call.attention, call.outputs, {.device = {.kind = DeviceKind(kind), .index = index}});
  };
  EXPECT_TRUE(refuses([&] { on(2, 0); }, "device", "CUDA device (1)"));
  EXPECT_TRUE(refuses([&] { on(1, -1); }, "device", "index from 0"));
  EXPECT_NO_THROW(on(0, 0));
  // With GPUs the first index beyond them, without any the first: either way the message names the device.
  const int absent = cuda_device_count();
  EXPECT_THROW(on(1, absent), Error);
  EXPECT_THROW(describe({.kind = DeviceKind::kCuda, .index = absent}), Error);
  EXPECT_NE(describe({}).find("CPU"), std::string::npos);
}

}  // namespace
}  // namespace strobe::check
