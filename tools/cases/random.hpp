// Random numbers that are the same on every machine and with every standard library.
#pragma once

#include <cstddef>
#include <cstdint>

namespace strobe::cases {

/// splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits();
  double uniform();  // [0, 1)
  double normal();
  std::int64_t integer(std::int64_t first, std::int64_t last);  // both included
  bool chance(double probability) { return uniform() < probability; }
  template <class Choice, std::size_t count>
  Choice pick(const Choice (&choices)[count]) {
    return choices[bits() % count];
  }

 private:
  std::uint64_t state_;
};

}  // namespace strobe::cases
