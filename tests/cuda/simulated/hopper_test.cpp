// The kernels of sm90 where a GPU has few multiprocessors, whose blocks run side by side: each takes several tiles, one
// after another, and waits for its turn at what others have added to. CMakeLists.txt runs these with such a GPU;
// kernels_test.cpp has every option, a block to a tile.
#include "gpu/gpu_test.hpp"

namespace strobe::cases {
namespace {

class SimulatedHopper : public OnGpuWith<const char*> {};
TEST_P(SimulatedHopper, AgreesWithTheReference) {
  EXPECT_EQ(expect_case(std::string("batch=2 ") + GetParam(), "cuda.sm90"), 1);
}

INSTANTIATE_TEST_SUITE_P(
    Forward, SimulatedHopper,
    testing::Values("q=400 k=300 heads=4/2 dim=64 dtype=bfloat16 causal",
                    "q=400 k=300 heads=2/1 dim=64 dtype=float16 causal top_left",
                    "q=200 k=300 heads=2 dim=64 dtype=bfloat16 causal query_lengths=200,30",
                    "q=310 k=310 heads=2 dim=64 documents=apart causal poison_unseen dtype=bfloat16",
                    "q=260 k=300 heads=4/2 dim=128 dtype=bfloat16 causal sink",
                    "q=260 k=300 heads=2/1 dim=80/128 dtype=float16 window=60,30",
                    "q=200 k=300 heads=2/1 dim=256 dtype=bfloat16 causal query_lengths=200,70 key_lengths=300,65",
                    "packed_queries=200,90 packed_keys=300,200 heads=4/2 dim=64 dtype=bfloat16 causal",
                    "packed_queries=200,0 packed_keys=300,20 heads=4/2 dim=128 dtype=bfloat16 window=90,0",
                    "q=60 k=300 heads=8/2 dim=128 dtype=bfloat16 causal",
                    "q=70 k=300 heads=6/2 dim=64 dtype=float16 causal sink query_lengths=70,9",
                    "q=50 k=200 heads=10/2 dim=256 dtype=bfloat16 window=90,10",
                    "packed_queries=90,20 packed_keys=100,200 heads=8/1 dim=128 dtype=bfloat16 causal",
                    "q=200 k=512 page=128 key_lengths=500,3 heads=4/2 dim=128 causal dtype=bfloat16",
                    "q=260 k=300 heads=2/1 dim=128 dtype=bfloat16 softcap=30",
                    "q=260 k=300 heads=4/2 dim=128 dtype=float16 alibi=bh causal",
                    "q=300 k=400 heads=2 dim=128 documents=apart dtype=bfloat16",
                    "q=260 k=400 heads=2 dim=128 causal prefix=250 window=100,- dtype=bfloat16",
                    "q=260 k=300 heads=2 dim=128 mask=bhqk causal poison_unseen dtype=bfloat16",
                    "q=300 k=300 heads=2 dim=64 block_mask=h block=128,128 dtype=bfloat16 causal",
                    "q=260 k=300 heads=2/1 dim=128 bias=bhqk poison_unseen dtype=bfloat16"));

INSTANTIATE_TEST_SUITE_P(
    Backward, SimulatedHopper,
    testing::Values("pass=backward q=400 k=300 heads=4/2 dim=64 dtype=bfloat16 causal",
                    "pass=backward q=300 k=400 heads=2/1 dim=64 dtype=float16 causal top_left grad_lse",
                    "pass=backward q=200 k=300 heads=4/2 dim=128 dtype=bfloat16 window=50,20 sink",
                    "pass=backward q=200 k=300 heads=2/1 dim=80/128 dtype=float16 causal grad_type=float32",
                    "pass=backward q=200 k=200 heads=2/1 dim=256 dtype=bfloat16 causal poison_unseen",
                    "pass=backward q=300 k=450 heads=4/2 dim=256 dtype=bfloat16 causal query_lengths=300,70 sink",
                    "pass=backward q=130 k=300 heads=2/1 dim=192 dtype=float16 documents=apart poison_unseen",
                    "pass=backward packed_queries=200,90 packed_keys=300,20 heads=4/2 dim=256 dtype=bfloat16",
                    "pass=backward packed_queries=200,90 packed_keys=300,200 heads=4/2 dim=64 dtype=bfloat16 causal",
                    "pass=backward packed_queries=130,0 packed_keys=190,20 heads=4/2 dim=128 dtype=bfloat16",
                    "pass=backward q=200 k=300 heads=2/1 dim=64 dtype=bfloat16 query_lengths=150,7 key_lengths=0,299",
                    "pass=backward q=200 k=300 heads=2/1 dim=128 dtype=bfloat16 causal grads=k"));

}  // namespace
}  // namespace strobe::cases
