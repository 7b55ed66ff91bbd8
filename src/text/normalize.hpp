// Unicode's normalization form C. Private to the room.
#pragma once

#include <string>
#include <string_view>

namespace nib::inline v0 {

// Whether `text` surely is in form C: no character is at or behind U+0300, where what composes begins.
bool surely_nfc(std::string_view text);

// Appends `text` in form C, by Unicode 15. Bytes that are no UTF-8 stay as they are, and nothing composes
// across them. Time is n log n in the longest run of combining marks and linear otherwise. At most 16 bytes
// of memory for each byte.
void append_nfc(std::string_view text, std::string& out);

}  // namespace nib::inline v0
