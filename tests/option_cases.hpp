// Every option alone, as words of the case grammar: what kernels are tested with on every instruction set and GPU.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace strobe::cases {

/// Options that both passes take.
inline constexpr const char* kOptions[] = {
    "",
    "causal",
    "causal top_left",
    "window=20,-",
    "window=-,5",
    "window=9,9 top_left",
    "window=0,0",
    "causal prefix=17",
    "causal window=10,- prefix_lengths=3,40",
    "softcap=2",
    "softcap=45",
    "scale=0.5",
    "alibi=h causal",
    "alibi=bh",
    "bias=bhqk",
    "bias=hqk bias_type=dtype",
    "bias=k",
    "bias=bq",
    "bias=1",
    "mask=bhqk",
    "mask=k",
    "mask=q",
    "block_mask=bh block=16,32",
    "block_mask=1 block=7,130",
    "block_mask=h block=64,64 causal",
    "documents=apart",
    "documents=apart causal",
    "sink",
    "sink causal top_left window=4,-",
    "dropout=0.25",
    "dropout=0.9375 dropout_offset=12345678901234",
    "query_lengths=70,0",
    "key_lengths=1,99",
    "key_lengths=0,50 query_lengths=33,2 causal sink",
    "layout=bhsd",
    "layout=padded",
    "layout=fused",
    "batch_invariant",
    "inputs=integers",
    "inputs=huge",
    "inputs=huge causal",
};

inline constexpr const char* kTypes[] = {"float32", "float16", "bfloat16"};

/// Options of the forward pass with their sizes, for batch=2.
inline constexpr const char* kForwardOptions[] = {
    "dtype=float8_e4m3 q=40 k=90 dim=64", "dtype=float8_e5m2 q=40 k=90 dim=64 output=float32",
    "dtype=float8_e4m3 q=40 k=90 heads=4/2 dim=64 descale=bh output=float16",
    "dtype=float8_e4m3 q=1 k=90 heads=4/2 dim=64 descale=1", "dtype=bfloat16 q=40 k=90 dim=64 output=float32",
    "dtype=float16 q=1 k=90 dim=64 output=float32", "q=40 k=90 dim=64 no_lse", "q=1 k=90 dim=64 no_lse",
    "q=3 k=700 heads=2 dim=32 splits=3", "q=50 k=700 heads=2 dim=32 splits=5 dtype=bfloat16",
    "q=3 k=700 heads=2 dim=32 splits=4 causal window=150,- sink",
    "q=140 k=700 heads=2/1 dim=64 splits=3 causal dtype=bfloat16 poison_unseen",
    "q=40 k=600 heads=2/1 dim=128 splits=4 key_lengths=600,130 alibi=h dtype=float16 poison_unseen",
    "packed_queries=50,0 packed_keys=80,30 heads=2 dim=32 causal",
    "packed_queries=1,70 packed_keys=80,70 heads=4/2 dim=32 causal key_lengths=79,33",
    "packed_queries=50,3 k=80 key_lengths=80,11 heads=2 dim=32",
    "packed_queries=1,1 k=96 page=16 key_lengths=96,11 heads=4/1 dim=64 dtype=bfloat16",
    "packed_queries=900,700 packed_keys=301,777 heads=2/1 dim=12/8 causal",
    "packed_queries=700,600 k=90 heads=2/1 dim=8/8 dtype=bfloat16", "q=550 k=600 heads=1 dim=16/16 splits=3",
    "q=600 k=400 heads=2/1 dim=8/12 dtype=float8_e4m3 descale=bh",
    "q=600 k=90 heads=2 dim=8/8 poison_unseen documents=apart",
    "q=1 k=99 cache_rows=4 key_lengths=98,0 heads=4/2 dim=64", "q=60 k=99 cache_rows=4 key_lengths=98,71 dim=64",
    "q=1 k=64 page=1 key_lengths=50,3 heads=4/2 dim=64", "q=1 k=130 page=13 key_lengths=130,3 heads=4/2 dim=64",
    "q=40 k=96 page=16 key_lengths=96,40 heads=4/2 dim=64 causal",
    "q=1 k=96 page=16 key_lengths=90,15 heads=4/2 dim=64 append=2",
    "q=3 k=96 cache_rows=3 key_lengths=90,0 heads=4/2 dim=64 append=3 causal dtype=float16",
    "q=3 k=96 page=16 key_lengths=90,0 heads=4/2 dim=64 append=3 rotary=64 causal",
    "q=2 k=96 page=16 key_lengths=90,1 heads=4/2 dim=64 append=2 rotary=32 rotary_halves dtype=bfloat16",
    "q=30 k=96 cache_rows=2 key_lengths=60,44 heads=4/2 dim=64 rotary=64 rotary_halves causal",
    ("q=30 k=96 cache_rows=2 key_lengths=60,44 heads=4/2 dim=64 append=1 rotary=20 "
     "rotary_type=float16 dtype=float16"),
    "q=40 k=90 dim=64 poison_unseen causal top_left", "q=40 k=90 dim=64 poison_unseen documents=apart",
    "q=40 k=90 dim=64 poison_unseen mask=k", "q=2 k=90 dim=64 poison_unseen mask=k",
    "q=40 k=90 dim=64 poison_unseen window=5,5 dtype=bfloat16",
    "q=40 k=90 dim=64 poison_unseen block_mask=1 block=30,16 dtype=float16",
    // Heads that share a decode task and see blocks of their own.
    "q=1 k=700 heads=8/8 dim=32 block_mask=h block=1,64", "q=2 k=900 heads=16/8 dim=64 block_mask=h block=1,64 causal",
    // Whole blocks of keys that data hide, show, or have an effect on that is the same for all.
    "q=77 k=136 heads=4/2 dim=64 bias=hqk bias_type=bfloat16 dtype=bfloat16 causal",
    "q=300 k=264 heads=2 dim=128 bias=bqk bias_type=float16 dtype=float16",
    "q=130 k=72 heads=2 dim=32 bias=k bias_type=float16 dtype=float16 window=30,40 poison_unseen",
    "packed_queries=70,90 packed_keys=80,136 heads=2 dim=64 bias=hqk bias_type=bfloat16 dtype=bfloat16",
    "q=130 k=300 heads=2 dim=64 softcap=2 inputs=huge dtype=bfloat16",
    "q=130 k=300 heads=2 dim=128 softcap=30 inputs=huge dtype=float16 causal",
    "q=200 k=488 heads=2 dim=256 bias=hk bias_type=bfloat16 causal dtype=bfloat16",
    "q=200 k=500 heads=4/2 dim=128 bias=bhqk poison_unseen dtype=bfloat16",
    "q=200 k=504 heads=4/2 dim=128 bias=bhqk bias_type=bfloat16 key_lengths=500,3 dtype=bfloat16",
    "q=200 k=700 heads=2 dim=128 softcap=30 dtype=bfloat16",
    // Few queries, of which the heads of a group share tiles, with rows to spare if the group does not divide them.
    "q=16 k=300 heads=8/2 dim=128 causal dtype=bfloat16",
    "q=50 k=300 heads=7/1 dim=64 window=100,20 sink dtype=float16",
    "q=33 k=400 heads=8/2 dim=128 query_lengths=33,7 key_lengths=5,400 causal layout=bhsd dtype=bfloat16",
    "q=21 k=300 heads=10/2 dim=256 causal sink poison_unseen layout=padded dtype=bfloat16",
    "packed_queries=70,20 packed_keys=90,200 heads=12/3 dim=128 causal layout=fused dtype=bfloat16",
    "q=20 k=700 heads=6/1 dim=128 splits=3 softcap=5 dtype=bfloat16", "q=9 k=130 heads=64/1 dim=80/128 dtype=float16",
    "q=12 k=300 heads=8/2 dim=64 scale=-1 output=float32 causal top_left dtype=float16",
    "q=16 k=512 page=16 key_lengths=500,3 heads=8/1 dim=128 causal dtype=bfloat16",
    "q=20 k=640 page=16 key_lengths=600,130 heads=8/2 dim=128 splits=3 causal poison_unseen dtype=bfloat16",
    "q=50 k=768 page=256 key_lengths=700,40 heads=2 dim=64 splits=2 poison_unseen dtype=float16",
    "q=200 k=512 page=128 key_lengths=500,3 heads=4/2 dim=128 causal dtype=bfloat16",
    "q=200 k=512 page=256 key_lengths=512,130 heads=4/2 dim=64 poison_unseen dtype=float16",
    "q=100 k=480 page=16 key_lengths=471,300 heads=4/2 dim=256 causal dtype=bfloat16",
    "q=100 k=480 page=8 key_lengths=380,33 heads=4/2 dim=128 window=200,- append=100 causal dtype=bfloat16",
    "q=200 k=500 heads=4/2 dim=128 causal softcap=2 bias=hqk alibi=h dtype=bfloat16",
    "q=200 k=512 page=64 key_lengths=500,130 heads=4/2 dim=128 softcap=20 causal prefix=50 poison_unseen "
    "dtype=bfloat16",
    "packed_queries=200,50 packed_keys=300,280 heads=4/2 dim=64 documents=apart softcap=2 alibi=h dtype=float16",
    "q=200 k=400 heads=2 dim=256 block_mask=h block=64,64 documents=apart causal poison_unseen dtype=bfloat16",
    "q=200 k=512 heads=4/2 dim=128 mask=bhqk causal poison_unseen dtype=bfloat16",
    "q=200 k=510 heads=4/2 dim=128 mask=hk key_lengths=509,40 dtype=float16",
    "q=200 k=400 heads=2 dim=256 mask=bqk poison_unseen dtype=bfloat16",
    "packed_queries=200,50 packed_keys=300,280 heads=4/2 dim=64 mask=hqk softcap=2 dtype=bfloat16",
    "q=96 k=122 heads=3/3 dim=64 bias=hq causal window=58,- documents=apart poison_unseen dtype=float16 output=float32",
    "q=200 k=700 heads=2 dim=128 softcap=2 window=300,10 dtype=bfloat16",
    "q=300 k=700 heads=4/2 dim=128 alibi=bh dtype=float16",
    "q=300 k=700 heads=4/2 dim=64 alibi=h window=200,150 dtype=bfloat16",
    "q=130 k=300 heads=2 dim=256 alibi=h causal dtype=bfloat16",
    "q=130 k=300 heads=2 dim=128 scale=-0.5 causal dtype=bfloat16",
    "q=300 k=900 heads=2 dim=128 documents=apart dtype=bfloat16",
    "q=500 k=500 heads=2 dim=64 documents=shared causal poison_unseen dtype=float16",
    "packed_queries=300,50 packed_keys=500,300 heads=4/2 dim=128 documents=apart poison_unseen dtype=bfloat16",
    "q=300 k=400 key_lengths=390,120 query_lengths=100,257 heads=2 dim=256 documents=apart dtype=bfloat16",
    "q=200 k=700 heads=2 dim=128 causal prefix=250 window=100,- dtype=bfloat16",
    "q=200 k=500 heads=2 dim=256 causal prefix_lengths=300,0 poison_unseen dtype=float16",
    "q=250 k=400 heads=2 dim=64 causal top_left prefix_lengths=1,390 dtype=bfloat16",
    "q=1100 k=1100 heads=1 dim=32 documents=shared dtype=bfloat16 causal",
    "q=300 k=5000 heads=1 dim=16 documents=apart dtype=float16",
    "q=400 k=500 heads=2 dim=64 block_mask=h block=128,128 dtype=bfloat16 causal",
    "q=5 k=40 dim=576/512 heads=8/1 dtype=bfloat16", "q=1 k=40 dim=576/512 heads=16/1 dtype=float32"};

/// Options of the backward pass with their sizes, for batch=2.
inline constexpr const char* kBackwardOptions[] = {
    "q=40 k=90 dim=64 grad_lse", "q=40 k=90 dim=64 grad_lse sink dtype=bfloat16", "q=40 k=90 dim=64 relaxed",
    "q=40 k=90 dim=64 grads=q", "q=40 k=90 dim=64 grads=k", "q=40 k=90 dim=64 grads=v",
    "q=40 k=90 dim=64 bias=hqk grads=b", "q=40 k=90 dim=64 sink grads=s",
    "q=40 k=90 dim=64 dtype=float16 grad_type=float32",
    "q=40 k=90 dim=64 dtype=bfloat16 grad_type=float32 output=float32",
    "packed_queries=50,0 packed_keys=80,30 heads=2 dim=32 causal",
    "packed_queries=30,70 packed_keys=80,70 heads=4/2 dim=32 causal key_lengths=79,33 query_lengths=30,7",
    "packed_queries=30,70 packed_keys=80,70 heads=4/2 dim=32 bias=hqk dtype=bfloat16",
    "q=40 k=90 dim=64 poison_unseen causal top_left", "q=40 k=90 heads=4/2 dim=40/24 poison_unseen documents=apart",
    "q=40 k=90 dim=64 poison_unseen mask=k dtype=float16", "q=40 k=90 dim=64 poison_unseen window=5,5 dtype=bfloat16",
    "q=40 k=90 dim=64 poison_unseen block_mask=1 block=30,16",
    "q=150 k=136 heads=4/2 dim=64 bias=hqk bias_type=bfloat16 dtype=bfloat16 causal",
    "q=150 k=264 heads=2 dim=128 bias=bqk bias_type=float16 dtype=float16 grads=qkv",
    "q=130 k=136 heads=2 dim=32 bias=k bias_type=float16 dtype=float16 window=30,40 poison_unseen",
    "q=150 k=136 heads=2 dim=64 softcap=2 inputs=huge dtype=bfloat16",
    "q=700 k=700 heads=1 dim=32 documents=shared dtype=bfloat16 causal",
    "q=700 k=300 heads=1 dim=16 documents=apart dtype=float16 relaxed",
    "q=300 k=400 heads=2 dim=64 block_mask=h block=128,128 dtype=bfloat16 causal",
    "q=100 k=5000 heads=1 dim=16 block_mask=h block=100,1000 dtype=float16",
    // Several tiles and blocks, some of them hidden, of every size that kernels of 16-bit types have.
    "q=190 k=272 heads=4/2 dim=128 softcap=2 causal dtype=bfloat16",
    "q=130 k=200 heads=2 dim=256 softcap=3 grad_lse dtype=float16",
    "q=190 k=272 heads=4/2 dim=128 alibi=bh dtype=bfloat16",
    "q=300 k=272 heads=2 dim=64 alibi=h window=200,50 dtype=float16",
    "q=190 k=272 heads=4/2 dim=128 mask=bhqk causal poison_unseen dtype=bfloat16",
    "q=300 k=262 heads=2 dim=64 mask=hk key_lengths=259,40 dtype=float16",
    "q=150 k=272 heads=2 dim=64 mask=bqk dtype=bfloat16",
    "q=90 k=200 heads=2 dim=256 mask=q poison_unseen dtype=bfloat16",
    "q=190 k=272 heads=4/2 dim=128 dropout=0.3 causal dtype=bfloat16",
    "q=90 k=200 heads=2/1 dim=192/128 dropout=0.6 dtype=float16 sink",
    "q=190 k=272 heads=4/2 dim=128 bias=bhqk bias_type=bfloat16 causal dtype=bfloat16",
    "q=90 k=200 heads=2 dim=256 bias=hqk bias_type=bfloat16 dtype=bfloat16",
    "packed_queries=170,200 packed_keys=300,0 heads=4/2 dim=64 bias=hqk dtype=float16",
    "q=190 k=400 heads=2 dim=128 causal prefix=60 window=40,- poison_unseen dtype=bfloat16",
    "q=30 k=400 heads=2/1 dim=64 prefix=20 window=30,0 poison_unseen dtype=float16",
    "q=90 k=200 heads=2 dim=256 causal top_left prefix_lengths=1,190 dtype=bfloat16",
    "q=200 k=150 heads=2 dim=64 scale=-0.5 causal dtype=bfloat16",
    "q=300 k=400 heads=4/2 dim=128 documents=apart grads=kv sink dtype=bfloat16",
    "q=500 k=500 heads=2 dim=64 documents=shared causal poison_unseen dtype=float16",
    "packed_queries=200,50 packed_keys=300,280 heads=4/2 dim=256 documents=apart dtype=bfloat16",
    "q=90 k=272 heads=4/2 dim=128 block_mask=1 block=128,8 poison_unseen dtype=bfloat16",
    "q=90 k=200 heads=2 dim=256 block_mask=bh block=16,32 causal dtype=float16",
    "q=70 k=4500 heads=2/1 dim=64 documents=apart block_mask=h block=64,64 causal dtype=bfloat16",
    "q=4400 k=300 heads=2/1 dim=64 documents=apart window=100,100 top_left dtype=bfloat16",
    "q=190 k=270 heads=4/2 dim=128 softcap=2 bias=bhqk alibi=h dropout=0.2 documents=apart mask=k block_mask=bh "
    "block=64,32 prefix=7 dtype=bfloat16",
    "packed_queries=200,50 packed_keys=300,280 heads=4/2 dim=64 documents=apart softcap=2 alibi=h dropout=0.1 "
    "dtype=float16",
    "q=90 k=272 heads=4/2 dim=128 mask=k prefix=30 window=20,5 softcap=2 poison_unseen dtype=bfloat16"};

// Sizes that no tile divides. One query row a sequence where an option allows it runs in the decode kernels.
/// Rows enough for keys and values to be packed once for all of them.
inline const char* packed_prefill_shape(std::string_view) { return "q=530 k=131 heads=4/2 dim=12/8"; }
inline const char* prefill_shape(std::string_view) { return "q=77 k=131 heads=4/2 dim=40/24"; }
inline const char* decode_shape(std::string_view option) {
  if (option.starts_with("query_lengths")) return "q=70 k=131 heads=1 dim=40/24";
  if (option.find("query_lengths") != option.npos) return "q=33 k=131 heads=1 dim=40/24";
  return "q=2 k=131 heads=4/2 dim=40/24";
}
inline const char* backward_shape(std::string_view) { return "pass=backward q=77 k=131 heads=4/2 dim=40/24"; }

/// The case of an option of kOptions with a shape and a type.
inline std::string option_alone(const std::string& shape, std::string option, const std::string& type) {
  if (const std::size_t at = option.find("=dtype"); at != option.npos) option.replace(at + 1, 5, type);
  return shape + " batch=2 dtype=" + type + " " + option;
}

// Sizes around every boundary of tiles, blocks and vectors.

inline std::vector<std::string> length_cases() {
  std::vector<std::string> lines;
  for (int q : {0, 1, 2, 15, 16, 17, 31, 33, 64, 129}) {
    for (int k : {0, 1, 7, 8, 9, 63, 64, 65, 129}) {
      const std::string lengths = "q=" + std::to_string(q) + " k=" + std::to_string(k);
      lines.push_back(lengths + " heads=2/1 dim=16/16 causal");
      lines.push_back("pass=backward " + lengths + " heads=2/1 dim=16/16");
    }
  }
  return lines;
}

inline std::vector<std::string> dim_cases() {
  std::vector<std::string> lines;
  for (int dim : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 96, 127, 160, 192, 255, 256}) {
    for (const char* type : kTypes) {
      const std::string sizes =
          " heads=2/1 dim=" + std::to_string(dim) + "/" + std::to_string(257 - dim) + " dtype=" + type;
      lines.push_back("q=35 k=40" + sizes);
      lines.push_back("q=1 k=40" + sizes);
      lines.push_back("pass=backward q=20 k=23" + sizes);
    }
  }
  return lines;
}

inline std::vector<std::string> group_cases() {
  std::vector<std::string> lines;
  for (const char* heads : {"1/1", "3/1", "6/2", "7/7", "8/1", "12/4", "16/1"}) {
    for (const char* type : kTypes) {
      const std::string sizes = std::string(" dim=32/32 causal heads=") + heads + " dtype=" + type;
      for (const char* q : {"q=1", "q=2", "q=5", "q=40"}) lines.push_back(std::string(q) + " k=70" + sizes);
      lines.push_back("pass=backward q=20 k=23" + sizes);
    }
  }
  return lines;
}

}  // namespace strobe::cases
