// Every option by itself, both passes, every type.
#include "basic_cases.hpp"

namespace strobe::tools {
namespace {

constexpr const char* kTypes[] = {"float32", "float16", "bfloat16"};

// Sizes that no tile divides, with an option each.
constexpr const char* kEitherPass[] = {
    "",
    "causal",
    "causal top_left",
    "window=16,-",
    "window=20,4 top_left",
    "causal prefix=30",
    "causal prefix_lengths=0,60",
    "scale=0.5",
    "softcap=3",
    "alibi=h",
    "alibi=bh causal",
    "bias=bhqk",
    "bias=qk",
    "bias=1",
    "mask=bhqk",
    "mask=bk",
    "block_mask=bh block=32,16",
    "block_mask=1 block=50,64",
    "documents=apart",
    "sink",
    "dropout=0.25",
    "key_lengths=130,0",
    "key_lengths=97,33 query_lengths=65,11 causal",
    "packed_queries=65,3 packed_keys=97,128 causal",
    "batch_invariant",
    "layout=bhsd",
    "layout=padded",
    "layout=fused",
    "inputs=huge",
    "inputs=integers",
};

constexpr const char* kForwardOnly[] = {
    "splits=3",
    "splits=2 causal",
    "no_lse",
    "cache_rows=3 key_lengths=100,7",
    "page=10 key_lengths=129,60 causal",
    "cache_rows=2 append=5 key_lengths=100,70",
    "page=13 append=3 key_lengths=100,64 rotary=32 causal",
    "cache_rows=2 append=2 key_lengths=90,70 rotary=16 rotary_halves",
};

constexpr const char* kBackwardOnly[] = {"grad_lse", "grads=q", "grads=kv", "relaxed"};

// Sizes: one query, no query, no key, one key, several head dimensions and groups.
constexpr const char* kSizes[] = {
    "q=1 k=200 heads=8/1 dim=128",
    "q=1 k=64 heads=4/2 dim=64",
    "q=0 k=40 heads=2/2 dim=32",
    "q=33 k=0 heads=2/1 dim=32",
    "q=0 k=40 heads=2/2 dim=64 sink",
    "q=7 k=1 heads=3/3 dim=40",
    "q=70 k=70 heads=2/2 dim=1",
    "q=40 k=90 heads=2/1 dim=192/128",
    "q=64 k=64 heads=1/1 dim=256/256",
    "q=128 k=256 heads=2/2 dim=128",
    "q=3 k=150 heads=6/3 dim=80/72 causal",
};

constexpr const char* kFloat8[] = {"", "descale=1", "descale=bh", "output=float32 causal", "output=float16 softcap=5"};

}  // namespace

std::vector<std::string> basic_cases() {
  std::vector<std::string> lines;
  const auto add = [&](const std::string& start, const std::string& options) {
    lines.push_back(options.empty() ? start : start + " " + options);
  };
  for (const std::string type : kTypes) {
    for (const std::string pass : {"forward", "backward"}) {
      const std::string start = "pass=" + pass + " dtype=" + type + " batch=2";
      const std::string sized = start + " q=65 k=130 heads=4/2 dim=64";
      for (const char* options : kEitherPass) add(sized, options);
      for (const char* sizes : kSizes) add(start, sizes);
      if (pass == "backward") {
        for (const char* options : kBackwardOnly) add(sized, options);
      } else {
        for (const char* options : kForwardOnly) {
          add(sized, options);
          add(start + " q=1 k=130 heads=8/2 dim=128", options);
        }
      }
    }
  }
  for (const std::string type : {"float8_e4m3", "float8_e5m2"}) {
    for (const char* options : kFloat8)
      add("pass=forward dtype=" + type + " batch=2 q=65 k=130 heads=4/2 dim=64", options);
    add("pass=forward dtype=" + type + " batch=2 q=1 k=130 heads=8/2 dim=128", "descale=bh");
  }
  return lines;
}

}  // namespace strobe::tools
