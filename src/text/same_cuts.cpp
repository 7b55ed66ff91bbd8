#include "same_cuts.hpp"

#include <vector>

namespace nib::inline v0 {

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
