// The values that are kept by their keys.
#include "cuda/host/recent.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

namespace strobe::cuda {
namespace {

struct Key {
  int number;
  bool operator==(const Key&) const = default;
  std::size_t hash() const { return std::size_t(number); }
};

class RecentTest : public ::testing::Test {
 protected:
  int get(int number) {
    return recent_.get(Key{number}, [&] {
      ++made_;
      if (number < 0) throw std::runtime_error("no negative ones");
      return 10 * number;
    });
  }
  Recent<Key, int, 4> recent_;
  int made_ = 0;
};

TEST_F(RecentTest, MakesWhatIsNotThereAndKeepsIt) {
  for (int round = 0; round < 3; ++round) {
    for (int number = 0; number < 4; ++number) EXPECT_EQ(get(number), 10 * number);
  }
  EXPECT_EQ(made_, 4);
}

TEST_F(RecentTest, TheLastOfThoseWithOnePlaceStays) {
  EXPECT_EQ(get(1), 10);
  EXPECT_EQ(get(5), 50);
  EXPECT_EQ(get(5), 50);
  EXPECT_EQ(made_, 2);
  EXPECT_EQ(get(1), 10);
  EXPECT_EQ(made_, 3);
}

TEST_F(RecentTest, WhatCouldNotBeMadeIsNotThere) {
  EXPECT_EQ(get(3), 30);
  EXPECT_THROW(get(-1), std::runtime_error);
  EXPECT_THROW(get(-1), std::runtime_error);
  EXPECT_EQ(get(3), 30);
  EXPECT_EQ(made_, 4);
}

TEST_F(RecentTest, AKeyOfZerosIsNotThereBeforeItIsMade) {
  EXPECT_EQ(get(0), 0);
  EXPECT_EQ(made_, 1);
}

}  // namespace
}  // namespace strobe::cuda
