// Files that were cut anywhere or changed anywhere: each is read or refused with a FileError, never anything else.
// Under the address sanitizer this is a small fuzzer.
#include <random>

#include "scratch.hpp"

namespace strobe::tools {
namespace {

/// Whether the bytes are either read or refused in the proper way.
void survives(const Scratch& scratch, const std::string& name, const std::string& bytes) {
  const std::string path = scratch.write(name, bytes);
  try {
    std::string note;
    to_floats(read_array(path), std::nullopt, note);
  } catch (const FileError&) {
  } catch (const std::exception& error) {
    ADD_FAILURE() << name << ": " << error.what();
  }
}

void torture(const std::string& name) {
  const Scratch scratch;
  const Array array = counting({2, 3});
  write_arrays(scratch.path(name), {{"x", &array}});
  const std::string whole = scratch.read(name);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_NE(refusal(scratch.write(name, whole.substr(0, length))), "(accepted)") << length;
  }
  std::mt19937 random(1);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int value :
         std::initializer_list<int>{0x00, 0xff, '9', '{', '(', ',', '"', '\'', int(random() & 0xff)}) {
      std::string changed = whole;
      changed[at] = char(value);
      survives(scratch, name, changed);
    }
  }
  for (int round = 0; round < 500; ++round) {
    std::string changed = whole;
    for (int i = 0; i < 4; ++i) changed[random() % changed.size()] = char(random());
    const std::size_t at = random() % changed.size();
    changed.insert(at, changed.substr(random() % changed.size(), random() % 16));
    survives(scratch, name, changed);
  }
}

TEST(Hostile, NpyCutOrChangedAnywhere) { torture("x.npy"); }
TEST(Hostile, SafetensorsCutOrChangedAnywhere) { torture("x.safetensors"); }

}  // namespace
}  // namespace strobe::tools
