// Values that flags take.
#include "options.hpp"

#include <gtest/gtest.h>

#include "attend_inputs.hpp"
#include "errors.hpp"

namespace strobe::tools {
namespace {

TEST(Options, WindowHalvesMayBeOpen) {
  EXPECT_EQ(parse_window("1024,0").left, 1024);
  EXPECT_EQ(parse_window("1024,0").right, 0);
  EXPECT_EQ(parse_window("7,").right, std::nullopt);
  EXPECT_EQ(parse_window(",7").left, std::nullopt);
  EXPECT_EQ(parse_window("none,-1").left, std::nullopt);
  for (const char* text : {"", "5", "a,b", "-2,0", "1,2,3", "99999999999999999999,0"}) {
    EXPECT_THROW(parse_window(text), UsageError) << text;
  }
}

TEST(Options, BlockSizesAreTwoPositiveNumbers) {
  EXPECT_EQ(parse_block_size("64,32").columns, 32);
  for (const char* text : {"64", "0,64", "64,-1", "1e30,1", "a,b"}) {
    EXPECT_THROW(parse_block_size(text), UsageError) << text;
  }
}

TEST(Options, ListsAreNumbersOnly) {
  EXPECT_EQ(parse_list("0,17,-3.5"), (std::vector<double>{0, 17, -3.5}));
  EXPECT_EQ(parse_list("file.npy"), std::nullopt);
  EXPECT_EQ(parse_list("1,,2"), std::nullopt);
}

TEST(RowsView, AddsMissingAxesAndSwapsHeads) {
  float data[24];
  const Tensor flat = Tensor::contiguous(data, DataType::kFloat32, {4, 6});
  const Tensor row = rows_view(flat, "bshd", false, "query");
  EXPECT_EQ(shape_text(row), "(1, 4, 1, 6)");
  const Tensor heads_first = Tensor::contiguous(data, DataType::kFloat32, {2, 4, 3});
  const Tensor view = rows_view(heads_first, "bhsd", false, "query");
  EXPECT_EQ(shape_text(view), "(1, 4, 2, 3)");
  EXPECT_EQ(view.strides[1], 3);
  EXPECT_EQ(view.strides[2], 12);
  EXPECT_EQ(shape_text(rows_view(heads_first, "bshd", true, "query")), "(2, 4, 3)");
  EXPECT_THROW(rows_view(Tensor::contiguous(data, DataType::kFloat32, {24}), "bshd", false, "query"), UsageError);
}

}  // namespace
}  // namespace strobe::tools
