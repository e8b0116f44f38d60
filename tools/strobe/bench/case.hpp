// One row of a benchmark: a problem with N(0, 1) tensors, ready to be run again and again.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "check/check.hpp"
#include "files/array.hpp"
#include "options.hpp"
#include "peaks/peaks.hpp"
#include "plan/plan.hpp"

namespace strobe::tools {

struct BenchCase {
  std::string name{};
  std::string pass = "forward";  // forward, backward, decode
  DataType dtype = DataType::kFloat32;
  std::int64_t batch = 1, query_heads = 16, kv_heads = 16, query_length = 4096, key_length = 4096;
  std::int64_t head_dim = 128, value_dim = 128;
  bool causal = false;
  std::string option{};           // on a GPU: window, softcap, alibi, bias, documents, mask, block_mask, sink, dropout,
                                  // packed (sequences of mixed lengths, query_length on average)
  std::optional<double> bound{};  // of an option: the most that it may take, times the plain case or its share of it
  int round = 0;                  // of cases that come twice; 0: those that do not
  bool against_products = false;  // on a GPU: set against the card's own rate of matrix products
  std::optional<Isa> isa{};       // limit; otherwise the best
  std::optional<double> target{};  // fraction of peak
};

/// Normally distributed numbers in one type, drawn once.
const Buffer& normal_pool(DataType type);

/// The tensors of a case, and the calls.
class BenchProblem {
 public:
  BenchProblem(const BenchCase& row, Executor& executor);
  /// One call: the public one-shot entry, unless the case limits the instruction set.
  void run();
  const char* kernel() const { return choice_.kernel->name; }
  double flops() const { return cost_.flops; }
  double bytes() const { return cost_.bytes; }
  /// What the case is measured against.
  Peak peak() const;

 private:
  Tensor normal(std::initializer_list<std::int64_t> shape);
  Tensor empty(DataType type, std::initializer_list<std::int64_t> shape);

  BenchCase row_;
  Executor& executor_;
  std::deque<Array> arrays_;
  std::vector<Attention> attentions_;  // several copies of a cache, so that none of it stays in the processor's
  std::size_t next_ = 0;
  ForwardOutputs outputs_;
  BackwardInputs upstream_;
  Gradients gradients_;
  std::vector<check::Checked> checked_;
  plan::Choice choice_;
  plan::Cost cost_;
  Buffer workspace_;
};

}  // namespace strobe::tools
