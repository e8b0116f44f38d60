// Conversions from what files hold to what the library takes.
#include "files/array.hpp"

#include "base/half.hpp"
#include "scratch.hpp"

namespace strobe::tools {
namespace {

template <typename T>
StoredArray stored(Element element, std::vector<T> values) {
  StoredArray array{.source = "x", .element = element, .shape = {std::int64_t(values.size())}};
  array.buffer = Buffer(values.size() * sizeof(T));
  std::copy(values.begin(), values.end(), reinterpret_cast<T*>(array.buffer.data()));
  return array;
}

TEST(ToFloats, KeepsTheFilesType) {
  std::string note;
  EXPECT_EQ(to_floats(stored<std::uint16_t>(Element::kFloat16, {0}), std::nullopt, note).dtype, DataType::kFloat16);
  EXPECT_TRUE(note.empty());
}

TEST(ToFloats, NotesThatDoublesLosePrecision) {
  std::string note;
  const Array array = to_floats(stored<double>(Element::kFloat64, {0.5, -2.0}), std::nullopt, note);
  EXPECT_EQ(array.dtype, DataType::kFloat32);
  EXPECT_EQ(array.as<float>()[1], -2.0f);
  EXPECT_NE(note.find("float64"), std::string::npos);
}

TEST(ToFloats, ConvertsToTheTypeAskedFor) {
  std::string note;
  const Array array = to_floats(stored<float>(Element::kFloat32, {1.5f}), DataType::kBFloat16, note);
  EXPECT_EQ(array.as<std::uint16_t>()[0], bfloat16_from_float(1.5f));
}

TEST(ToFloats, TakesOpaqueBytesForWhatTheyAreSaidToBe) {
  std::string note;
  for (const Element element : {Element::kOpaque2, Element::kUint16}) {
    EXPECT_EQ(to_floats(stored<std::uint16_t>(element, {0x3f80}), DataType::kBFloat16, note).dtype,
              DataType::kBFloat16);
    EXPECT_THROW(to_floats(stored<std::uint16_t>(element, {0x3f80}), std::nullopt, note), FileError);
    EXPECT_THROW(to_floats(stored<std::uint16_t>(element, {0x3f80}), DataType::kFloat32, note), FileError);
  }
  EXPECT_EQ(to_floats(stored<std::uint8_t>(Element::kOpaque1, {1}), DataType::kFloat8E5M2, note).dtype,
            DataType::kFloat8E5M2);
}

TEST(ToInts, NarrowsWhatFitsAndRefusesTheRest) {
  EXPECT_EQ(to_ints(stored<std::int64_t>(Element::kInt64, {-5})).as<std::int32_t>()[0], -5);
  EXPECT_THROW(to_ints(stored<std::int64_t>(Element::kInt64, {std::int64_t(1) << 31})), FileError);
  EXPECT_THROW(to_ints(stored<std::uint64_t>(Element::kUint64, {UINT64_MAX})), FileError);
  EXPECT_THROW(to_ints(stored<float>(Element::kFloat32, {1})), FileError);
}

TEST(ToBools, NormalisesToOneByte) {
  const Array array = to_bools(stored<std::int32_t>(Element::kInt32, {0, 256, -1}));
  EXPECT_EQ(array.as<std::uint8_t>()[0], 0);
  EXPECT_EQ(array.as<std::uint8_t>()[1], 1);
  EXPECT_EQ(array.as<std::uint8_t>()[2], 1);
}

}  // namespace
}  // namespace strobe::tools
