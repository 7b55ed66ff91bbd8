// Private to the room: what the writers of vocabularies share, whatever kind of file they write.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/text/tokenizer.hpp>
#include <nibble/text/tokenizer_data.hpp>

#include <optional>
#include <vector>

namespace nib::inline v0 {

// In the order in which a list says their ranks. Equal ones, of which the leftmost pair is merged first, come
// as they stand.
std::vector<const TokenizerData::Merge*> merges_by_rank(const TokenizerData& data);

// The first token of `before` whose spelling `after` cuts into other ids than `before` does:
// one of them went through a file.
Result<std::optional<Token>> first_other_cut(const Tokenizer& before, const Tokenizer& after);

}  // namespace nib::inline v0
