// wgmma of sm_90: PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions". Products of a warp
// are worked out in their order, by chance when they are asked for or as late as they are waited for; until then
// registers of the sums hold NaN.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <list>
#include <vector>

#include "cuda/simulator/background.hpp"
#include "cuda/simulator/machine.hpp"

namespace strobe::simulator {

/// What warps have asked their matrix units for.
class MatrixUnits {
 public:
  static constexpr int kRows = 16, kDepth = 16;  // of a warp's product

  void start(int warps);
  void fence(int warp) { warps_[std::size_t(warp)].fenced = ++time_; }
  void ask(int warp, const WarpgroupProduct (&lanes)[kLanes]);
  void commit(int warp) { ++warps_[std::size_t(warp)].group; }
  void wait(int warp, int pending);
  /// A thread of the warp has come to its end.
  void end_thread(int warp) const;

 private:
  /// The sums of one or more products.
  struct Sums {
    float* registers[kLanes];
    int columns;
    std::vector<float> values;  // [kRows][columns]
    int last_group;
  };
  struct Product {
    WarpgroupProduct what;
    std::vector<float> left;  // [kRows][kDepth], if it came in registers
    Sums* sums;
    int group;
    bool done = false;
  };
  struct Warp {
    std::deque<Product> products;
    std::list<Sums> sums;
    int group = 0;
    std::uint64_t fenced = 0;     // when
    std::uint64_t published = 0;  // when registers of sums were last handed back
    std::size_t count = 0;        // of products
  };
  void work(int warp, Product& product);
  void publish(Warp& warp, int group);

  std::vector<Warp> warps_;
  std::vector<std::vector<WarpgroupProduct>> asked_;  // by warpgroup: what its first warp asked for, in order
  std::uint64_t time_ = 0;
};

}  // namespace strobe::simulator
