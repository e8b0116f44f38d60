// .npy files: what is read, what is written, what is refused and how the message puts it.
#include "files/npy.hpp"

#include "scratch.hpp"

namespace strobe::tools {
namespace {

std::string dictionary(const std::string& descr, const std::string& order, const std::string& shape) {
  return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
}

TEST(Npy, ReadsWhatItWrites) {
  const Scratch scratch;
  const Array written = counting({2, 3, 4});
  write_arrays(scratch.path("a.npy"), {{"a", &written}});
  const StoredArray read = read_array(scratch.path("a.npy"));
  EXPECT_EQ(read.element, Element::kFloat32);
  EXPECT_EQ(read.shape, written.shape);
  EXPECT_EQ(std::string_view(reinterpret_cast<char*>(read.buffer.data()), read.buffer.size()),
            std::string_view(reinterpret_cast<char*>(written.buffer.data()), written.buffer.size()));
}

TEST(Npy, HeaderIsAligned) {
  for (std::int64_t size = 1; size < 1'000'000'000'000; size *= 10) {
    EXPECT_EQ(npy_header(DataType::kFloat32, {size, 3}).size() % 64, 0u);
  }
}

TEST(Npy, TurnsFortranOrder) {
  const Scratch scratch;
  const std::string path =
      scratch.write("f.npy", npy_bytes(dictionary("'<f4'", "True", "(2, 3)"), bytes_of<float>({0, 3, 1, 4, 2, 5})));
  std::string note;
  const Array array = to_floats(read_array(path), std::nullopt, note);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(array.as<float>()[i], float(i));
}

TEST(Npy, TurnsBigEndian) {
  const Scratch scratch;
  const std::string path =
      scratch.write("b.npy", npy_bytes(dictionary("'>f4'", "False", "(1,)"), std::string("\x3f\x80\x00\x00", 4)));
  std::string note;
  EXPECT_EQ(to_floats(read_array(path), std::nullopt, note).as<float>()[0], 1.0f);
}

TEST(Npy, AcceptsEveryVersionAndSpacing) {
  const Scratch scratch;
  const std::string data = bytes_of<float>({7});
  const std::string text = "{\"shape\":(1,),\"fortran_order\":False,\"descr\":\"<f4\"}";
  EXPECT_EQ(read_array(scratch.write("1.npy", npy_bytes(text, data))).shape, (std::vector<std::int64_t>{1}));
  for (const char version : {'\2', '\3'}) {
    const std::string length = {char(text.size()), 0, 0, 0};
    const std::string bytes = std::string("\x93NUMPY", 6) + version + '\0' + length + text + data;
    EXPECT_EQ(read_array(scratch.write("v.npy", bytes)).shape, (std::vector<std::int64_t>{1}));
  }
}

TEST(Npy, AcceptsEmptyArraysAndScalars) {
  const Scratch scratch;
  EXPECT_EQ(read_array(scratch.write("0.npy", npy_bytes(dictionary("'<f4'", "False", "(0, 5)"), ""))).shape,
            (std::vector<std::int64_t>{0, 5}));
  EXPECT_EQ(read_array(scratch.write("s.npy", npy_bytes(dictionary("'<f4'", "False", "()"), "abcd"))).shape,
            (std::vector<std::int64_t>{1}));
}

TEST(Npy, SaysWhatIsWrongAndWhere) {
  const Scratch scratch;
  const auto message = [&](const std::string& bytes) { return refusal(scratch.write("x.npy", bytes)); };
  const auto described = [&](const std::string& descr, const std::string& order, const std::string& shape) {
    return message(npy_bytes(dictionary(descr, order, shape), "abcd"));
  };
  EXPECT_NE(refusal(scratch.path("none.npy")).find("missing"), std::string::npos);
  EXPECT_NE(refusal(scratch.path(".")).find("folder"), std::string::npos);
  EXPECT_NE(message("").find("cut off after 0 bytes"), std::string::npos);
  EXPECT_NE(message("hello world").find("magic string at byte 0 is 'hello '"), std::string::npos);
  EXPECT_NE(message(std::string("\x93NUMPY\x09\x00\x10\x00", 10)).find("version at byte 6 is 9"), std::string::npos);
  EXPECT_NE(message(std::string("\x93NUMPY\x01\x00\xff\xff", 10)).find("length at byte 8 is 65535"), std::string::npos);
  EXPECT_NE(described("'<f4'", "False", "(2,)").find("4 bytes, must be 8 bytes for shape (2) of float32"),
            std::string::npos);
  EXPECT_NE(described("'<c8'", "False", "(1,)").find("'descr' is '<c8'"), std::string::npos);
  EXPECT_NE(described("[('a', '<f4')]", "False", "(1,)").find("must be a quoted string"), std::string::npos);
  EXPECT_NE(described("'<f4'", "Maybe", "(1,)").find("must be True or False"), std::string::npos);
  EXPECT_NE(described("'<f4'", "False", "(-1,)").find("must be a size"), std::string::npos);
  EXPECT_NE(described("'<f4'", "False", "(1,1,1,1,1,1)").find("at most 5 axes"), std::string::npos);
  EXPECT_NE(described("'<f4'", "False", "(99999999999999999999,)").find("must be a size"), std::string::npos);
  EXPECT_NE(described("'<f4'", "False", "(4294967296, 4294967296)").find("beyond 2^62 bytes"), std::string::npos);
  EXPECT_NE(described("'<f4'", "False", "(0, 4611686018427387904, 4611686018427387904)").find("beyond 2^62"),
            std::string::npos);
  EXPECT_NE(message(npy_bytes("{'descr': '<f4', 'shape': (1,)}", "abcd")).find("'fortran_order'"), std::string::npos);
  EXPECT_NE(message(npy_bytes("{'colour': 'red'}", "abcd")).find("key is 'colour'"), std::string::npos);
}

TEST(Npy, PrintsNoControlCharacters) {
  const Scratch scratch;
  const std::string message =
      refusal(scratch.write("x.npy", npy_bytes("{'descr': '\x1b[31m\x07', 'fortran_order': True}", "")));
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
  EXPECT_NE(message.find("\\x1b[31m\\x07"), std::string::npos);
}

}  // namespace
}  // namespace strobe::tools
