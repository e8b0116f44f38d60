// The program as its user meets it: exit statuses, outputs, JSON.
#include "command.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "scratch.hpp"

namespace strobe::tools {
namespace {

struct Ran {
  int status;
  std::string out, err;
};

Ran run(const std::vector<std::string>& words) {
  std::vector<const char*> argv = {"strobe"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int status = run_command_line(int(argv.size()), argv.data());
  std::fflush(stdout);
  return {status, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
}

class Attend : public testing::Test {
 protected:
  void SetUp() override {
    Array q({DataType::kFloat32, {2, 9, 4, 8}}), k(DataType::kFloat32, {2, 11, 2, 8}),
        v(DataType::kFloat32, {2, 11, 2, 6});
    for (const Array* array : {&q, &k, &v}) {
      for (std::size_t i = 0; i < array->buffer.size() / 4; ++i) array->as<float>()[i] = std::sin(float(i * i));
    }
    write_arrays(qkv, {{"query", &q}, {"key", &k}, {"value", &v}});
    write_arrays(scratch.path("q.npy"), {{"q", &q}});
    write_arrays(scratch.path("k.npy"), {{"k", &k}});
    write_arrays(scratch.path("v.npy"), {{"v", &v}});
  }
  Scratch scratch;
  const std::string qkv = scratch.path("qkv.safetensors");
};

TEST(Command, ExitStatuses) {
  EXPECT_EQ(run({"--help"}).status, kSucceeded);
  EXPECT_EQ(run({"--version"}).status, kSucceeded);
  EXPECT_EQ(run({"info"}).status, kSucceeded);
  EXPECT_EQ(run({}).status, kUsage);
  EXPECT_EQ(run({"conjure"}).status, kUsage);
  EXPECT_EQ(run({"info", "--colour"}).status, kUsage);
  EXPECT_EQ(run({"plan", "--heads", "many"}).status, kUsage);
  EXPECT_EQ(run({"plan", "--window", "3"}).status, kUsage);
  EXPECT_EQ(run({"plan", "--heads", "3", "--kv-heads", "2"}).status, kFailed);
  EXPECT_EQ(run({"attend", "/nonexistent.npy", "/nonexistent.npy", "/nonexistent.npy"}).status, kFailed);
  EXPECT_EQ(run({"check", "--case", "colour=red"}).status, kUsage);
  EXPECT_EQ(run({"bench", "--preset", "none"}).status, kUsage);
  EXPECT_EQ(run({"cache"}).status, kUsage);
  EXPECT_EQ(run({"cache", "warm", "--architecture", "75"}).status, kUsage);
}

TEST(Command, ErrorsGoToStderr) {
  const Ran ran = run({"attend", "/nonexistent.npy", "/nonexistent.npy", "/nonexistent.npy"});
  EXPECT_TRUE(ran.out.empty());
  EXPECT_NE(ran.err.find("/nonexistent.npy: the file is missing"), std::string::npos);
}

TEST(Command, EverySubcommandHasHelpAndJson) {
  for (const char* name : {"attend", "check", "bench", "plan", "info", "cache"}) {
    const Ran ran = run({name, "--help"});
    EXPECT_EQ(ran.status, kSucceeded) << name;
    EXPECT_NE(ran.out.find("--json"), std::string::npos) << name;
  }
}

TEST(Command, CacheListsWarmsAndClears) {
  const Scratch scratch;
  const std::string folder = scratch.path("kernels");
  setenv("STROBE_CACHE_DIR", folder.c_str(), 1);
  EXPECT_NE(run({"cache", "list"}).out.find("0 kernels"), std::string::npos);
  const auto info = nlohmann::json::parse(run({"info", "--json"}).out)["cuda"];
  EXPECT_EQ(info["cache"]["folder"], folder);
  const Ran warm = run({"cache", "warm", "--architecture", "90", "--kernel", "selftest", "--json"});
  const auto warmed = nlohmann::json::parse(warm.out);
  EXPECT_EQ(warmed["kernels"], 1);
  const bool has_compiler = !info["nvrtc"].is_null();
  EXPECT_EQ(warm.status, has_compiler ? kSucceeded : kFailed);
  EXPECT_EQ(warmed["compiled"], has_compiler ? 1 : 0);
  if (!has_compiler) {
    EXPECT_NE(warm.err.find("NVRTC"), std::string::npos) << warm.err;
  }
  const auto listed = nlohmann::json::parse(run({"cache", "list", "--json"}).out);
  EXPECT_EQ(listed["entries"].size(), has_compiler ? 1u : 0u);
  EXPECT_EQ(nlohmann::json::parse(run({"cache", "clear", "--json"}).out)["removed"], has_compiler ? 1 : 0);
  unsetenv("STROBE_CACHE_DIR");
}

TEST(Command, InfoAndPlanPrintJson) {
  const auto info = nlohmann::json::parse(run({"info", "--json"}).out);
  EXPECT_GE(info["kernels"].size(), 11u);
  EXPECT_TRUE(info["cuda"]["devices"].is_array());
  EXPECT_TRUE(info["cuda"]["devices"].empty() == !info["cuda"]["missing"].get<std::string>().empty());
  const Ran ran = run({"plan", "--causal", "--dtype", "bfloat16", "--with", "bias,sink,alibi-slopes,documents,mask",
                       "--window", "100,", "--json"});
  ASSERT_EQ(ran.status, kSucceeded) << ran.err;
  const auto plan = nlohmann::json::parse(ran.out);
  EXPECT_NE(plan["kernel"].get<std::string>().find("cpu.forward."), std::string::npos);
  EXPECT_FALSE(plan["rejected"].empty());
}

TEST(Command, PlansEveryForm) {
  EXPECT_EQ(run({"plan", "--packed"}).status, kSucceeded);
  EXPECT_EQ(run({"plan", "--page-size", "16", "--query-length", "1", "--key-length", "4096"}).status, kSucceeded);
  EXPECT_EQ(run({"plan", "--pass", "backward", "--with", "bias,sink"}).status, kSucceeded);
  EXPECT_EQ(run({"plan", "--with", "block-mask", "--block-size", "64,64"}).status, kSucceeded);
  EXPECT_EQ(run({"plan", "--with", "block-mask"}).status, kUsage);
  EXPECT_EQ(run({"plan", "--dtype", "float8_e4m3"}).status, kSucceeded);
  EXPECT_EQ(run({"plan", "--dtype", "float8_e4m3", "--pass", "backward"}).status, kFailed);
}

TEST_F(Attend, GivesTheSameFromEveryKindOfFile) {
  const std::string o1 = scratch.path("o1.npy"), o2 = scratch.path("o2.npy"), both = scratch.path("o.safetensors");
  ASSERT_EQ(run({"attend", qkv, "--verify", "-o", o1}).status, kSucceeded);
  ASSERT_EQ(run({"attend", scratch.path("q.npy"), scratch.path("k.npy"), scratch.path("v.npy"), "-o", o2}).status,
            kSucceeded);
  ASSERT_EQ(run({"attend", qkv, "-o", both, "--lse", both}).status, kSucceeded);
  EXPECT_EQ(scratch.read("o1.npy"), scratch.read("o2.npy"));
  EXPECT_EQ(read_array(o1).shape, (std::vector<std::int64_t>{2, 9, 4, 6}));
  EXPECT_EQ(read_array(both, "output").shape, (std::vector<std::int64_t>{2, 9, 4, 6}));
  EXPECT_EQ(read_array(both, "lse").shape, (std::vector<std::int64_t>{2, 4, 9}));
}

TEST_F(Attend, TakesEveryOption) {
  Array mask(DataType::kBool, {9, 11}), bias = counting({1, 4, 1, 11});
  for (int i = 0; i < 99; ++i) mask.as<std::uint8_t>()[i] = i % 3 != 0;
  write_arrays(scratch.path("mask.npy"), {{"m", &mask}});
  write_arrays(scratch.path("bias.npy"), {{"b", &bias}});
  const std::vector<std::vector<std::string>> options = {
      {"--causal", "--alignment", "top-left"},
      {"--window", "4,2", "--prefix", "3"},
      {"--softcap", "5", "--scale", "0.3"},
      {"--mask", scratch.path("mask.npy"), "--bias", scratch.path("bias.npy")},
      {"--alibi-slopes", "geometric", "--sink", "0,1,2,3"},
      {"--key-lengths", "11,4", "--query-lengths", "9,0"},
      {"--documents", scratch.path("documents.npy"), "--key-documents", scratch.path("documents.npy")},
      {"--block-mask", scratch.path("tiles.npy"), "--block-size", "9,4"},
      {"--dropout", "0.25", "--seed", "7", "--offset", "3"},
      {"--splits", "2", "--batch-invariant", "--threads", "1"},
      {"--dtype", "bfloat16", "--output-dtype", "float32"},
  };
  Array tiles(DataType::kBool, {1, 3});
  for (int i = 0; i < 3; ++i) tiles.as<std::uint8_t>()[i] = i != 1;
  write_arrays(scratch.path("tiles.npy"), {{"t", &tiles}});
  for (const std::vector<std::string>& each : options) {
    std::vector<std::string> words = {"attend", qkv, "--verify", "--json"};
    words.insert(words.end(), each.begin(), each.end());
    const bool documents = each[0] == "--documents";
    if (documents) {
      // Queries and keys differ in number: a file of 2 x 9 serves the queries, another the keys.
      Array queries(DataType::kInt32, {2, 9}), keys(DataType::kInt32, {2, 11});
      for (int i = 0; i < 18; ++i) queries.as<std::int32_t>()[i] = i % 2;
      for (int i = 0; i < 22; ++i) keys.as<std::int32_t>()[i] = i % 2;
      write_arrays(scratch.path("documents.npy"), {{"d", &queries}});
      write_arrays(scratch.path("key_documents.npy"), {{"d", &keys}});
      words.back() = scratch.path("key_documents.npy");
    }
    const Ran ran = run(words);
    EXPECT_EQ(ran.status, kSucceeded) << each[0] << "\n" << ran.out << ran.err;
  }
}

TEST_F(Attend, ReadsPackedSequencesAndPages) {
  const Array q = counting({10, 2, 8}), pages = counting({4, 5, 1, 8});
  write_arrays(scratch.path("q.npy"), {{"q", &q}});
  write_arrays(scratch.path("pages.npy"), {{"p", &pages}});
  const std::string path = scratch.path("q.npy");
  EXPECT_EQ(run({"attend", path, path, path, "--query-offsets", "0,3,10", "--key-offsets", "0,3,10", "--causal",
                 "--scale", "0.001", "--verify"})
                .status,
            kSucceeded);
  const Array one = counting({2, 1, 2, 8});
  write_arrays(scratch.path("one.npy"), {{"q", &one}});
  Array table(DataType::kInt32, {2, 2});
  for (int i = 0; i < 4; ++i) table.as<std::int32_t>()[i] = 3 - i;
  write_arrays(scratch.path("table.npy"), {{"t", &table}});
  EXPECT_EQ(run({"attend", scratch.path("one.npy"), scratch.path("pages.npy"), scratch.path("pages.npy"),
                 "--page-table", scratch.path("table.npy"), "--key-lengths", "10,6", "--scale", "0.0001", "--verify"})
                .status,
            kSucceeded);
}

TEST_F(Attend, RefusesWhatDoesNotFit) {
  EXPECT_EQ(run({"attend"}).status, kUsage);
  EXPECT_EQ(run({"attend", qkv, qkv}).status, kUsage);
  EXPECT_EQ(run({"attend", scratch.path("q.npy")}).status, kUsage);
  EXPECT_EQ(run({"attend", qkv, "-o", scratch.path("o.txt")}).status, kUsage);
  EXPECT_EQ(run({"attend", qkv, "--layout", "sideways"}).status, kUsage);
  EXPECT_EQ(run({"attend", qkv, "--dtype", "float64"}).status, kUsage);
  const Ran names = run({"attend", qkv, "--names", "q,k,v"});
  EXPECT_EQ(names.status, kFailed);
  EXPECT_NE(names.err.find("'key', 'query', 'value'"), std::string::npos);
  EXPECT_EQ(run({"attend", qkv, "--sink", "1,2,3"}).status, kFailed);
  EXPECT_EQ(run({"attend", qkv, "--dropout", "1.5"}).status, kFailed);
  EXPECT_EQ(run({"attend", qkv, "-o", "/nonexistent/o.npy"}).status, kFailed);
  scratch.write("cut.safetensors", scratch.read("qkv.safetensors").substr(0, 500));
  EXPECT_EQ(run({"attend", scratch.path("cut.safetensors")}).status, kFailed);
}

TEST(Check, PassesAndReportsJson) {
  const Ran ran = run({"check", "--case", "batch=2 q=20 k=33 heads=4/2 dim=32 causal", "--json"});
  EXPECT_EQ(ran.status, kSucceeded) << ran.out;
  const auto report = nlohmann::json::parse(ran.out);
  EXPECT_TRUE(report["passed"].get<bool>());
  EXPECT_GE(report["kernels"].size(), 1u);
}

TEST(Bench, PrintsOneObjectALine) {
  const Ran ran =
      run({"bench", "--lengths", "64", "--dims", "32", "--heads", "1", "--causal", "no", "--rounds", "1", "--json"});
  ASSERT_EQ(ran.status, kSucceeded) << ran.err;
  const auto line = nlohmann::json::parse(ran.out);
  for (const char* key : {"case",  "backend",     "kernel",   "pass",         "dtype",      "head_dim",     "value_dim",
                          "batch", "query_heads", "kv_heads", "query_length", "key_length", "causal",       "threads",
                          "ms",    "spread",      "tflops",   "gbps",         "peak",       "peak_fraction"}) {
    EXPECT_TRUE(line.contains(key)) << key;
  }
}

}  // namespace
}  // namespace strobe::tools
