// Follows the #include lines of the embedded texts.
#include "cuda/jit/recipe.hpp"

#include <algorithm>

#include "base/hash.hpp"
#include "strobe/types.hpp"

namespace strobe::cuda {
namespace {

const KernelText& text_at(std::string_view path, std::string_view wanted_by) {
  for (const KernelText& text : kernel_texts()) {
    if (text.path == path) return text;
  }
  throw Error(ErrorCode::kInternal, "the kernel text " + std::string(path),
              "missing, wanted by " + std::string(wanted_by), "embedded in the library");
}

/// Appends what a text includes by `#include "..."` and is not yet there, depth first.
void follow(const KernelText text, std::vector<KernelText>& texts) {
  constexpr std::string_view kInclude = "#include \"";
  texts.push_back(text);
  for (std::size_t at = text.text.find(kInclude); at != text.text.npos; at = text.text.find(kInclude, at)) {
    const bool starts_line = at == 0 || text.text[at - 1] == '\n';
    at += kInclude.size();
    const std::string_view path = text.text.substr(at, text.text.find('"', at) - at);
    const bool known = std::any_of(texts.begin(), texts.end(), [&](const KernelText& t) { return t.path == path; });
    if (starts_line && !known) follow(text_at(path, text.path), texts);
  }
}

}  // namespace

Recipe recipe_for(const KernelKey& key, int architecture) {
  const KernelRow& row = row_of(key.id);
  Recipe recipe;
  follow(text_at(row.entry, row.name), recipe.texts);
  recipe.options = {"-std=c++20"};
  for (const std::string& option : options_of(key)) recipe.options.push_back("-D" + option);
  recipe.options.push_back("-DSTROBE_ARCHITECTURE=" + std::to_string(architecture));
  return recipe;
}

std::string hash_of(const Recipe& recipe, const std::string& target) {
  Sha256 hash;
  for (const KernelText& text : recipe.texts) {
    hash.add_text(text.path);
    hash.add_text(text.text);
  }
  for (const std::string& option : recipe.options) hash.add_text(option);
  hash.add_text(target);
  return hash.hex();
}

}  // namespace strobe::cuda
