// The named sets of benchmark cases, looked at without running them.
#include "bench/presets.hpp"

#include <gtest/gtest.h>

#include <set>

namespace strobe::tools {
namespace {

TEST(Presets, GiveEveryCaseANameOfItsOwn) {
  for (const DeviceKind kind : {DeviceKind::kCpu, DeviceKind::kCuda}) {
    for (const std::string& name : preset_names(kind)) {
      std::set<std::string> cases;
      for (const BenchCase& row : preset(name, kind)) EXPECT_TRUE(cases.insert(row.name).second) << name << row.name;
    }
  }
}

TEST(Presets, HaveThePapersGrids) {
  EXPECT_EQ(preset("fa2-fig7", DeviceKind::kCuda).size(),
            72u);  // both passes, 3 dimensions, full and causal, 6 lengths
  const std::vector<BenchCase> rounds = preset("fa3-fig5", DeviceKind::kCuda);
  ASSERT_EQ(rounds.size(), 72u);  // one pass, twice
  for (const BenchCase& row : rounds) {
    EXPECT_EQ(row.pass, "forward");
    EXPECT_EQ(row.batch * row.key_length, 16384);
    EXPECT_EQ(row.query_heads * row.head_dim, 2048);
    EXPECT_TRUE(row.against_products);
  }
}

TEST(Presets, PutPlainCasesBeforeTheirOptions) {
  std::set<std::string> plain;
  for (BenchCase row : preset("options", DeviceKind::kCuda)) {
    const std::string option = row.option;
    row.option.clear();
    if (option.empty()) {
      plain.insert(describe(row));
    } else {
      EXPECT_TRUE(plain.contains(describe(row))) << row.name;
    }
  }
  EXPECT_EQ(plain.size(), 4u);  // two passes, two lengths
}

}  // namespace
}  // namespace strobe::tools
