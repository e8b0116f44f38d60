// .safetensors files: what is read, what is written, what is refused and how the message puts it.
#include "files/safetensors.hpp"

#include "scratch.hpp"

namespace strobe::tools {
namespace {

TEST(Safetensors, ReadsWhatItWrites) {
  const Scratch scratch;
  const Array a = counting({2, 3}), b = counting({5});
  const std::string path = scratch.path("ab.safetensors");
  write_arrays(path, {{"a", &a}, {"b", &b}});
  EXPECT_EQ(read_array(path, "a").shape, a.shape);
  const StoredArray read = read_array(path + ":b");
  EXPECT_EQ(read.shape, b.shape);
  EXPECT_EQ(reinterpret_cast<const float*>(read.buffer.data())[4], 4.0f);
  EXPECT_NE(refusal(path).find("must be one of 'a', 'b'"), std::string::npos);
  EXPECT_NE(refusal(path, "c").find("is 'c', must be one of 'a', 'b'"), std::string::npos);
}

TEST(Safetensors, TakesTheOnlyTensorAndSkipsMetadata) {
  const Scratch scratch;
  const std::string header = R"({"__metadata__":{"a":"b"},"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})";
  const StoredArray read = read_array(scratch.write("x.safetensors", safetensors_bytes(header, "abcd")));
  EXPECT_EQ(read.element, Element::kBFloat16);
}

TEST(Safetensors, SaysWhatIsWrongAndWhere) {
  const Scratch scratch;
  const auto message = [&](const std::string& header) {
    return refusal(scratch.write("x.safetensors", safetensors_bytes(header, "abcd")), "x");
  };
  const auto entry = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return message("{\"x\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}");
  };
  EXPECT_EQ(entry("\"F32\"", "[1]", "[0,4]"), "(accepted)");
  EXPECT_NE(refusal(scratch.write("x.safetensors", "abc")).find("cut off after 3 bytes"), std::string::npos);
  EXPECT_NE(refusal(scratch.write("x.safetensors", std::string(16, '\xff'))).find("length at byte 0"),
            std::string::npos);
  EXPECT_NE(message("{").find("no JSON"), std::string::npos);
  EXPECT_NE(message("[1]").find("must be a JSON object"), std::string::npos);
  EXPECT_NE(message("{\"x\":3}").find("entry is number"), std::string::npos);
  EXPECT_NE(message("{}").find("the file has no tensors"), std::string::npos);
  EXPECT_NE(entry("\"C64\"", "[1]", "[0,4]").find("'dtype' is \"C64\""), std::string::npos);
  EXPECT_NE(entry("7", "[1]", "[0,4]").find("'dtype' is 7"), std::string::npos);
  EXPECT_NE(entry("\"F32\"", "[-1]", "[0,4]").find("'shape' is -1"), std::string::npos);
  EXPECT_NE(entry("\"F32\"", "[1.5]", "[0,4]").find("'shape' is 1.5"), std::string::npos);
  EXPECT_NE(entry("\"F32\"", "{}", "[0,4]").find("'shape' is object"), std::string::npos);
  EXPECT_NE(entry("\"F32\"", "[1,1,1,1,1,1]", "[0,4]").find("must be of at most 5"), std::string::npos);
  EXPECT_NE(entry("\"F32\"", "[2]", "[0,4]").find("8 apart for shape (2)"), std::string::npos);
  EXPECT_NE(entry("\"F32\"", "[1]", "[4,8]").find("within the 4 bytes"), std::string::npos);
  EXPECT_NE(entry("\"F32\"", "[1]", "[4,0]").find("'data_offsets' is (4, 0)"), std::string::npos);
  EXPECT_NE(entry("\"F32\"", "[1]", "[18446744073709551615,3]").find("'data_offsets'"), std::string::npos);
  EXPECT_NE(entry("\"F32\"", "[4294967296,4294967296]", "[0,4]").find("2^62"), std::string::npos);
}

TEST(Safetensors, RefusesDeepNesting) {
  const Scratch scratch;
  const std::string deep = std::string(1'000'000, '[');
  EXPECT_NE(refusal(scratch.write("d.safetensors", safetensors_bytes(deep, ""))).find("nesting"), std::string::npos);
}

}  // namespace
}  // namespace strobe::tools
