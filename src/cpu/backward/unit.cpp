// The backward kernel of one instruction set.
#include "cpu/simd/simd.hpp"
