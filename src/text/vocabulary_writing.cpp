#include "vocabulary_writing.hpp"

#include <algorithm>

namespace nib::inline v0 {

std::vector<const TokenizerData::Merge*> merges_by_rank(const TokenizerData& data) {
  std::vector<const TokenizerData::Merge*> merges;
  merges.reserve(data.merges.size());
  for (const TokenizerData::Merge& merge : data.merges) merges.push_back(&merge);
  std::stable_sort(merges.begin(), merges.end(),
                   [](const auto* a, const auto* b) { return a->rank < b->rank; });
  return merges;
}

Result<std::optional<Token>> first_other_cut(const Tokenizer& before, const Tokenizer& after) {
  std::vector<Token> expected, found;
  for (Token id = 0; id < before.size(); ++id) {
    expected.clear();
    found.clear();
    NIB_TRY(before.encode(before.bytes(id), Specials::recognised, expected));
    NIB_TRY(after.encode(before.bytes(id), Specials::recognised, found));
    if (expected != found) return std::optional(id);
  }
  return std::optional<Token>();
}

}  // namespace nib::inline v0
