#include "normalize.hpp"

#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <vector>

#include <utf8proc.h>

namespace nib::inline v0 {
namespace {

utf8proc_propval_t combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// Decomposes, orders and composes one run of characters. utf8proc's own ordering is quadratic in the marks
// that follow each other, so the runs of marks are sorted here; what is left to it is linear.
void append_composed(std::vector<utf8proc_int32_t>& characters, std::string& out) {
  for (auto at = characters.begin(); at != characters.end();) {
    if (combining_class(*at) == 0) {
      ++at;
      continue;
    }
    const auto end = std::find_if(at, characters.end(), [](auto c) { return combining_class(c) == 0; });
    std::stable_sort(at, end, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    at = end;
  }
  const auto count =
      utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    utf8proc_uint8_t bytes[4];
    const auto length = utf8proc_encode_char(characters[static_cast<std::size_t>(i)], bytes);
    out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
  }
  characters.clear();
}

}  // namespace

bool surely_nfc(std::string_view text) {
  // The first byte of U+0300 is 0xcc; what stands alone at or above it is no UTF-8 and stays as it is.
  return std::none_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0xcc; });
}

void append_nfc(std::string_view text, std::string& out) {
  std::vector<utf8proc_int32_t> characters;
  while (!text.empty()) {
    const Utf8Step step = step_utf8(text);
    if (step.kind == Utf8Step::Kind::character) {
      utf8proc_int32_t parts[4];  // no canonical decomposition is longer
      int boundary = 0;
      const auto count = utf8proc_decompose_char(
          static_cast<utf8proc_int32_t>(step.code_point), parts, std::size(parts),
          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &boundary);
      characters.insert(characters.end(), parts, parts + count);
    } else {
      append_composed(characters, out);
      out.append(text.substr(0, step.length));
    }
    text.remove_prefix(step.length);
  }
  append_composed(characters, out);
}

}  // namespace nib::inline v0
