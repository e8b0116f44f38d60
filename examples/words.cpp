// Which words does a word look at? Attention over the tensors of examples/data (one layer of a real model), then the
// probabilities of a few rows. Strobe never stores the matrix of probabilities; this shows how to get any single one
// back: P = exp(scale * q . k - LSE). scripts/demo runs it.
//
//   words examples/data
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "strobe/strobe.hpp"

namespace {

/// A .safetensors file of float32 tensors: 8 bytes of header length, a JSON header, then the values.
class TensorFile {
 public:
  explicit TensorFile(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    std::uint64_t header_length = 0;
    if (bytes_.size() < 8) throw std::runtime_error("cannot read " + path);
    std::memcpy(&header_length, bytes_.data(), 8);
    if (header_length > bytes_.size() - 8) throw std::runtime_error(path + " is truncated");
    first_value_ = 8 + header_length;
    header_ = nlohmann::json::parse(bytes_.begin() + 8, bytes_.begin() + std::ptrdiff_t(first_value_));
  }

  strobe::Tensor tensor(const char* name) const {
    const nlohmann::json& entry = header_.at(name);
    const std::vector<std::int64_t> shape = entry.at("shape");
    const std::vector<std::uint64_t> range = entry.at("data_offsets");
    strobe::Tensor view{.rank = std::int32_t(shape.size())};
    if (view.rank > strobe::kMaxRank) throw std::runtime_error(std::string(name) + " has too many axes");
    std::uint64_t stride = 1;
    for (int axis = view.rank - 1; axis >= 0; --axis) {
      view.shape[axis] = shape[std::size_t(axis)];
      view.strides[axis] = std::int64_t(stride);
      stride *= std::uint64_t(view.shape[axis]);
    }
    const std::uint64_t stored = bytes_.size() - first_value_;
    if (entry.at("dtype") != "F32" || range.at(1) > stored || range.at(0) > range.at(1) ||
        range.at(1) - range.at(0) != 4 * stride) {
      throw std::runtime_error(std::string(name) + " is not a whole float32 tensor");
    }
    view.data = const_cast<char*>(bytes_.data() + first_value_ + range[0]);
    return view;
  }

 private:
  std::vector<char> bytes_;
  std::uint64_t first_value_ = 0;
  nlohmann::json header_;
};

/// A word and its tokens [first, last): WordPiece cuts rare words, and marks the later pieces with ##.
struct Word {
  std::string text;
  std::int64_t first, last;
};

std::vector<Word> read_words(const std::string& path) {
  std::ifstream file(path);
  std::vector<Word> words;
  std::int64_t position = 0;
  for (std::string token; std::getline(file, token); ++position) {
    if (token.starts_with("##") && !words.empty()) {
      words.back().text += token.substr(2);
      words.back().last = position + 1;
    } else {
      words.push_back({token, position, position + 1});
    }
  }
  return words;
}

/// The probability that query i of head h gives to key j.
double probability(const strobe::Attention& attention, const strobe::Tensor& lse, std::int64_t h, std::int64_t i,
                   std::int64_t j) {
  const auto row = [h](const strobe::Tensor& tensor, std::int64_t position) {
    return static_cast<const float*>(tensor.data) + position * tensor.strides[1] + h * tensor.strides[2];
  };
  const std::int64_t head_dim = attention.query.shape[3];
  const float* query = row(attention.query, i);
  const double dot = std::inner_product(query, query + head_dim, row(attention.key, j), 0.0);
  const float normaliser = static_cast<const float*>(lse.data)[h * lse.strides[1] + i];
  return std::exp(dot / std::sqrt(double(head_dim)) - normaliser);
}

/// The words that `query_word` attends to most in head h, with their shares.
void print_most_attended(const strobe::Attention& attention, const strobe::Tensor& lse, const std::vector<Word>& words,
                         std::int64_t h, const char* query_word) {
  const auto found =
      std::find_if(words.begin(), words.end(), [&](const Word& word) { return word.text == query_word; });
  if (found == words.end()) throw std::runtime_error(std::string("no word ") + query_word);
  struct Share {
    const Word* word;
    double share;
  };
  std::vector<Share> shares;
  for (const Word& word : words) {
    double share = 0;
    for (std::int64_t j = word.first; j < word.last; ++j) {
      share += probability(attention, lse, h, found->last - 1, j);
    }
    shares.push_back({&word, share});
  }
  const double total =
      std::accumulate(shares.begin(), shares.end(), 0.0, [](double sum, const Share& s) { return sum + s.share; });
  std::sort(shares.begin(), shares.end(), [](const Share& a, const Share& b) { return a.share > b.share; });
  std::printf("  %s  (all words together: %.4f)\n", query_word, total);
  for (const Share& share : std::vector<Share>(shares.begin(), shares.begin() + 4)) {
    std::printf("    %5.1f%%  %-12s", 100 * share.share, share.word->text.c_str());
    for (int bar = 0; bar < int(40 * share.share + 0.5); ++bar) std::printf("#");
    std::printf("\n");
  }
}

double largest_difference(const float* ours, const strobe::Tensor& theirs) {
  double largest = 0;
  for (std::int64_t n = 0; n < theirs.elements(); ++n) {
    largest = std::max(largest, std::abs(double(ours[n]) - static_cast<const float*>(theirs.data)[n]));
  }
  return largest;
}

void run(const std::string& folder) {
  const TensorFile inputs(folder + "/minilm.safetensors"), expected(folder + "/minilm_output.safetensors");
  const std::vector<Word> words = read_words(folder + "/tokens.txt");
  const strobe::Attention attention{
      .query = inputs.tensor("query"), .key = inputs.tensor("key"), .value = inputs.tensor("value")};
  const auto* shape = attention.query.shape;  // [batch, length, heads, head_dim]
  if (words.empty() || words.back().last != shape[1]) throw std::runtime_error("tokens.txt does not fit the tensors");

  std::vector<float> output(std::size_t(attention.query.elements())), lse(std::size_t(shape[0] * shape[1] * shape[2]));
  const strobe::Tensor lse_view =
      strobe::Tensor::contiguous(lse.data(), strobe::DataType::kFloat32, {shape[0], shape[2], shape[1]});
  strobe::forward(attention, {.output = strobe::Tensor::contiguous(output.data(), strobe::DataType::kFloat32,
                                                                   {shape[0], shape[1], shape[2], shape[3]}),
                              .lse = lse_view});

  struct Head {
    std::int64_t index;
    const char* what;
    std::vector<const char*> words;
  };
  const Head heads[] = {{3, "a thing and what it does", {"eye", "lamp", "computer"}},
                        {8, "the words that follow", {"though", "spinning", "eye"}},
                        {9, "the same word elsewhere", {"blades", "it", "words"}}};
  for (const Head& head : heads) {
    std::printf("\nhead %d looks for %s\n", int(head.index), head.what);
    for (const char* word : head.words) print_most_attended(attention, lse_view, words, head.index, word);
  }
  std::printf("\nlargest difference from PyTorch's output: %.2g  (its values reach %.2f)\n",
              largest_difference(output.data(), expected.tensor("output")),
              largest_difference(std::vector<float>(output.size()).data(), expected.tensor("output")));
  std::printf("largest difference of the log-sum-exp:    %.2g\n",
              largest_difference(lse.data(), expected.tensor("lse")));
}

}  // namespace

int main(int argument_count, char** arguments) {
  if (argument_count != 2) {
    std::fprintf(stderr, "usage: words FOLDER   (examples/data)\n");
    return 2;
  }
  try {
    run(arguments[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "words: %s\n", error.what());
    return 1;
  }
}
