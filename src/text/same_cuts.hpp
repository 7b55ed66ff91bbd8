// Private to the room: whether a tokenizer that went through a file is still the one it was.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/text/tokenizer.hpp>

#include <optional>

namespace nib::inline v0 {

// The first token of `before` whose spelling `after` cuts into other ids than `before` does.
Result<std::optional<Token>> first_other_cut(const Tokenizer& before, const Tokenizer& after);

}  // namespace nib::inline v0
