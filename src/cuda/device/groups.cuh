// The order of work where heads are taken side by side.
#pragma once

#include "cuda/device/base.cuh"
#include "cuda/params.hpp"

namespace strobe::cuda {

/// Where piece number `index` of all heads' pieces of work lies, `pieces` to a head: the heads of its group, and its
/// number among the group's pieces.
struct GroupPlace {
  int first_head, heads, place;
};

STROBE_DEVICE GroupPlace place_in_groups(const HeadGroups& groups, int index, int pieces) {
  const int of_small_groups = groups.small_groups * groups.heads, beyond = index / pieces - of_small_groups;
  const int heads = groups.heads + (beyond < 0 ? 0 : 1);
  const int first_head = beyond < 0 ? index / pieces / heads * heads : of_small_groups + beyond / heads * heads;
  return {first_head, heads, index - first_head * pieces};
}

}  // namespace strobe::cuda
