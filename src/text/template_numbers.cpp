// Python's arithmetic of whole numbers, in 64 bits, and how it writes the others.
#include "template_calls.hpp"

#include <charconv>
#include <cmath>

namespace nib::inline v0 {

Result<TemplateValue> template_whole(std::string_view sign, std::int64_t a, std::int64_t b) {
  const auto bad = [](std::string_view what) { return Status(Code::format, std::string(what)); };
  std::int64_t out = 0;
  bool fits = true;
  if (sign == "+") {
    fits = !__builtin_add_overflow(a, b, &out);
  } else if (sign == "-") {
    fits = !__builtin_sub_overflow(a, b, &out);
  } else if (sign == "*") {
    fits = !__builtin_mul_overflow(a, b, &out);
  } else if (b == 0) {
    return bad("a division by zero");
  } else if (b == -1) {
    fits = sign == "%" || !__builtin_sub_overflow(std::int64_t{0}, a, &out);
  } else {
    // Python rounds down.
    const bool down = a % b != 0 && (a % b < 0) != (b < 0);
    out = sign == "%" ? a % b + (down ? b : 0) : a / b - (down ? 1 : 0);
  }
  if (!fits) return bad("a whole number is too large");
  return TemplateValue::of(out);
}

// The shortest digits that read back as the same number; an exponent below -4 and from 16 on.
std::string python_number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[32];
  const auto scientific = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<std::size_t>(scientific.ptr - buffer));
  int exponent = 0;
  const std::size_t e = text.find('e');
  const std::size_t digits = e + (text[e + 1] == '+' ? 2 : 1);
  std::from_chars(text.data() + digits, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  char fixed[64];
  const auto end = std::to_chars(fixed, fixed + sizeof fixed, value, std::chars_format::fixed).ptr;
  std::string out(fixed, end);
  if (out.find('.') == out.npos) out += ".0";
  return out;
}

}  // namespace nib::inline v0
