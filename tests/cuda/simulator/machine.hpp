// A GPU on the CPU: the threads of a block as fibers that take turns, warps whose lanes act together, barriers, copies
// in the background. Kernels are compiled by a C++ compiler against cuda.hpp and the ptx.cuh of this folder, and run by
// the fake driver. README.md says what this finds and what it cannot.
#pragma once

#include <cstddef>
#include <cstdint>

namespace strobe::simulator {

constexpr int kLanes = 32;
constexpr std::size_t kMostShared = 227 << 10;

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

/// Of the thread that runs at present, as the variables of CUDA of the same names.
extern Index thread_index, block_index, block_size, grid_size;

/// Dynamic shared memory of the block that runs. Each block finds it full of NaN.
extern char* shared_memory;

/// Waits until all lanes of the mask have come here with a `mine` of their own; then `act` is called once with what
/// they brought, by lane, and may write into it.
void together(std::uint32_t mask, void* mine, void (*act)(void* const* lanes));

/// Named barriers. `threads` of 0: all threads of the block that have not returned.
void barrier_wait(int barrier, int threads);
void barrier_arrive(int barrier, int threads);
/// A barrier of the whole block that also tells whether one of its threads came with `value`.
bool any_of_block(bool value);

/// A copy of 16 bytes (or zeros) to shared memory that happens as late as it may: when its group is waited for.
void copy_later(std::uint32_t to, const void* from, bool wanted);
void commit_copies();
void wait_for_copies(int pending);

/// Lets other threads run. Where all do nothing else, they wait for something that will not come.
void spin();

/// What every thread of a grid that starts early must do before it ends. (Grids run one after another here.)
void wait_for_grids();

/// Waits until no other block has static shared memory, of which there is one for all.
void own_static_memory();

/// Where an address of shared memory lies, to read from or to write to. Ends the launch with an error if it is outside
/// of the block's, not aligned to `bytes`, or if another warp may write, or read or write there at the same time.
const char* read(std::uint32_t address, std::size_t bytes);
char* written(std::uint32_t address, std::size_t bytes);
/// Writes there. Warps may write the same at the same time.
void store(std::uint32_t address, const void* value, std::size_t bytes);
std::uint32_t shared_address(const void* pointer);

/// Ends the launch with an error: prints which thread of which block did `what`.
[[noreturn]] void fail(const char* what);

/// What is left to chance depends on `seed`; so many blocks run side by side, or as many more as make the last cluster
/// whole. The grid may start early.
struct Order {
  unsigned seed = 1, blocks = 1;
  bool early = false;
  unsigned cluster = 1;  // blocks that follow one another along x
};

/// Runs a grid.
/// @return false after an error.
bool run(void (*kernel)(const void* params), const void* params, Index grid, unsigned threads, std::size_t shared_bytes,
         Order order);

}  // namespace strobe::simulator
