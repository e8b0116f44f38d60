// The prefill kernel of one instruction set, with bf16 dot products where the set and the inputs have them.
#include "cpu/forward/kernel.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// Calls use(Prefill<Operand>*) with the operand that serves these types.
template <class Use>
STROBE_INLINE auto with_kernel(DataType query_type, DataType key_type, Use use) {
#if STROBE_ISA_ID >= 3
  if (query_type == DataType::kBFloat16 && key_type == DataType::kBFloat16) {
    return use(static_cast<Prefill<PairOperand>*>(nullptr));
  }
#endif
#if STROBE_ISA_ID == 4
  if (query_type == key_type && key_type == DataType::kFloat32)
    return use(static_cast<Prefill<SplitOperand<3>>*>(nullptr));
  if (query_type == key_type && key_type == DataType::kFloat16)
    return use(static_cast<Prefill<SplitOperand<2>>*>(nullptr));
#endif
  (void)query_type, (void)key_type;
  return use(static_cast<Prefill<FloatOperand>*>(nullptr));
}

void run(const ForwardTask& task, void* scratch) {
#if STROBE_ISA_ID == 4
  configure_tiles();
#endif
  with_kernel(task.query_type, task.key_type, [&]<class Kernel>(Kernel*) { Kernel(task, scratch).run(); });
#if STROBE_ISA_ID == 4
  release_tiles();
#endif
}

std::size_t packed_bytes(DataType query_type, DataType key_type, int head_dim, int value_dim) {
  return with_kernel(query_type, key_type,
                     [&]<class Kernel>(Kernel*) { return Kernel::packed_bytes(head_dim, value_dim); });
}

void pack(const ForwardTask& task, std::int64_t block, int first, int last, char* to) {
  with_kernel(task.query_type, task.key_type,
              [&]<class Kernel>(Kernel*) { Kernel::pack(task, block, first, last, to); });
}

std::size_t scratch_bytes(int head_dim, int value_dim) {
  std::size_t most = 0;
  for (const DataType type : {DataType::kFloat32, DataType::kBFloat16, DataType::kFloat8E4M3}) {
    const std::size_t bytes =
        with_kernel(type, type, [&]<class Kernel>(Kernel*) { return Kernel::scratch_bytes(head_dim, value_dim); });
    most = bytes > most ? bytes : most;
  }
  return most;
}

constexpr ForwardUnit kUnit{.tile_rows = kTileWidth,
                            .key_block = kKeyBlock,
                            .packed_rows = kPackedRows,
                            .max_tiles = max_tiles,
                            .scratch_bytes = scratch_bytes,
                            .run = run,
                            .packed_bytes = packed_bytes,
                            .pack = pack};

}  // namespace

const ForwardUnit& forward_unit() { return kUnit; }

}  // namespace strobe::cpu::STROBE_ISA
