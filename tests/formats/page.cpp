// Draws the generated part of docs/FORMATS.md from the code: formats_page PAGE compares it with what stands
// in the page, formats_page PAGE --write replaces it.
//
// Nobody tells the program where a bit belongs. It decodes groups of random bytes, turns one bit over and
// sees which values change: one value, and the bit is of that value's code; several, and it is of a scale.
#include <nibble/formats/visit.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

namespace {

// What a bit changes: values first..last of the group; first > last for nothing.
struct Reach {
  int first = 1 << 20, last = -1;
  bool single() const { return first == last; }
  bool operator==(const Reach&) const = default;
};

template <class F>
std::vector<Reach> probe(bool scale_plane) {
  const std::size_t bytes = scale_plane ? F::scale_bytes : F::code_bytes;
  std::vector<Reach> reach(bytes * 8);
  std::mt19937 random(1);
  std::byte codes[F::code_bytes], scale[8];
  // (GCC 12 with sanitizers goes astray in (scale_plane ? scale : codes)[i].)
  std::byte* const plane = scale_plane ? scale : codes;
  float before[F::group], after[F::group];
  for (int round = 0; round < 40; ++round) {
    for (std::byte& byte : codes) byte = static_cast<std::byte>(random());
    for (std::byte& byte : scale) byte = static_cast<std::byte>(0x38 + random() % 8);
    F::decode_group(codes, scale, before);
    for (std::size_t bit = 0; bit < reach.size(); ++bit) {
      std::byte& byte = plane[bit / 8];
      byte ^= static_cast<std::byte>(1 << bit % 8);
      F::decode_group(codes, scale, after);
      byte ^= static_cast<std::byte>(1 << bit % 8);
      for (int i = 0; i < F::group; ++i)
        if (std::bit_cast<std::uint32_t>(before[i]) != std::bit_cast<std::uint32_t>(after[i])) {
          reach[bit].first = std::min(reach[bit].first, i);
          reach[bit].last = std::max(reach[bit].last, i);
        }
    }
  }
  return reach;
}

std::string text(const char* format, auto... numbers) {
  char buffer[160];
  std::snprintf(buffer, sizeof buffer, format, numbers...);
  return buffer;
}

// A byte as runs of bits, highest first: "7..4 of 1, 3..0 of 0".
struct Field {
  int high, low;
  Reach of;
};
std::vector<Field> fields_of(const std::vector<Reach>& reach, std::size_t byte) {
  std::vector<Field> fields;
  for (int bit = 7; bit >= 0; --bit) {
    const Reach& of = reach[byte * 8 + static_cast<std::size_t>(bit)];
    if (!fields.empty() && fields.back().of == of)
      fields.back().low = bit;
    else
      fields.push_back({bit, bit, of});
  }
  return fields;
}

std::string describe(const std::vector<Field>& fields) {
  std::string line;
  for (const Field& field : fields) {
    std::string part = field.high == 7 && field.low == 0 ? ""
                       : field.high == field.low         ? text("%d ", field.high)
                                                         : text("%d..%d ", field.high, field.low);
    if (field.of.last < 0)
      part += "[unused]";
    else if (field.of.single())
      part += text("[%d]", field.of.first);
    else
      part += text("scale of %d..%d", field.of.first, field.of.last);
    line += line.empty() ? part : "   " + part;
  }
  return line;
}

// How far the values of `b` lie behind those of `a`, or nothing when the bytes are not alike.
std::optional<int> distance(const std::vector<Field>& a, const std::vector<Field>& b) {
  if (a.size() != b.size()) return std::nullopt;
  const int step = b[0].of.first - a[0].of.first;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].high != b[i].high || a[i].low != b[i].low) return std::nullopt;
    if (b[i].of.first - a[i].of.first != step || b[i].of.last - a[i].of.last != step) return std::nullopt;
  }
  return step;
}

std::string draw_plane(const std::vector<Reach>& reach, const char* title) {
  std::string out;
  const std::size_t bytes = reach.size() / 8;
  for (std::size_t begin = 0; begin < bytes;) {
    const auto step_to = [&](std::size_t byte) {
      return distance(fields_of(reach, byte - 1), fields_of(reach, byte));
    };
    std::size_t end = begin + 1;
    while (end < bytes && step_to(end) && step_to(end) == step_to(begin + 1)) ++end;
    const auto line = [&](std::size_t byte) {
      out += text("  %-8s byte %3d   ", out.empty() ? title : "", static_cast<int>(byte)) +
             describe(fields_of(reach, byte)) + "\n";
    };
    line(begin);
    if (end - begin > 3) {
      line(begin + 1);
      out += "               ...\n";
      line(end - 1);
    } else {
      for (std::size_t byte = begin + 1; byte < end; ++byte) line(byte);
    }
    begin = end;
  }
  return out;
}

template <class F>
std::string draw() {
  const nib::FormatInfo& info = nib::format_info(F::id);
  std::string out = text("%s: %d value%s\n", info.name, F::group, F::group == 1 ? "" : "s");
  const char* codes = info.scales == nib::Scales::inside ? "block" : "codes";
  out += draw_plane(probe<F>(false), codes);
  if (info.scales == nib::Scales::plane) out += draw_plane(probe<F>(true), "scales");
  if (info.scales == nib::Scales::shared) out += "  scales   f32, shared as the tensor says\n";
  if (info.tensor_scale) out += "  tensor   one more f32 factor\n";
  return out;
}

std::string number(double value) { return text("%.4g", value); }

std::string row_of(const nib::FormatInfo& info) {
  std::string scales = "–", bits, writable = "read";
  [[maybe_unused]] const bool known = nib::visit_format(info.format, [&](auto format) {
    using F = decltype(format);
    if (nib::BlockFormat<F> || nib::SharedScaleFormat<F>) writable = "read, written";
  });
  double bytes = info.code_bytes;
  if (info.scales == nib::Scales::plane) {
    scales = text("%d byte", static_cast<int>(info.scale_bytes));
    bytes += info.scale_bytes;
  }
  if (info.scales == nib::Scales::inside) scales = "inside";
  if (info.scales == nib::Scales::shared) scales = "f32, shared";
  bits = number(8 * bytes / info.group) + (info.scales == nib::Scales::shared ? " + scales" : "");
  if (info.tensor_scale) scales += ", one f32 for the tensor";
  return "| `" + std::string(info.name) + "` | " + bits + " | " + text("%d", static_cast<int>(info.group)) +
         " | " + text("%d", static_cast<int>(info.code_bytes)) + " | " + scales + " | " + writable + " |\n";
}

std::string level_table() {
  std::string out =
      "| code | E2M1 | E1M2 | E3M0 | radix 4 | int4 | NF4 | bnb FP4 | IQ4 "
      "|\n|---|---|---|---|---|---|---|---|---|\n";
  for (int code = 0; code < 16; ++code) {
    const auto c = static_cast<std::uint8_t>(code);
    out += "| " + text("%d", code);
    for (const float level :
         {nib::E2M1::decode(c), nib::E1M2::decode(c), nib::E3M0::decode(c), nib::Radix4Fp4::decode(c),
          nib::SymmetricInt<4>::decode(c), nib::Nf4Levels::decode(c), nib::BnbFp4Levels::decode(c),
          static_cast<float>(nib::kIq4Levels[code])})
      out += " | " + number(static_cast<double>(level));
    out += " |\n";
  }
  return out;
}

template <class Visit>
void each_format(Visit&& visit) {
  for (const nib::FormatInfo& info : nib::kFormats)
    if (info.format != nib::Format::none) visit(info);
}

std::string generated() {
  std::string out =
      "\n| name | bits a value | values stored together | bytes of their codes | scales | "
      "|\n|---|---|---|---|---|---|\n";
  each_format([&](const nib::FormatInfo& info) { out += row_of(info); });
  out += "\n### Levels of four bits\n\n" + level_table();
  out += "\n### Bytes\n\n`[n]` is value n of the group; bits are counted from 7, the highest, to 0.\n\n```\n";
  each_format([&](const nib::FormatInfo& info) {
    [[maybe_unused]] const bool known = nib::visit_format(info.format, [&](auto format) {
      using F = decltype(format);
      if (info.scales != nib::Scales::none) out += (out.ends_with("```\n") ? "" : "\n") + draw<F>();
    });
  });
  return out + "```\n\n";
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return 2;
  std::string page;
  {
    std::ifstream in(arguments[1], std::ios::binary);
    page.assign(std::istreambuf_iterator<char>(in), {});
  }
  const std::string begin = "<!-- generated by formats_page -->\n",
                    end = "<!-- /generated by formats_page -->";
  const std::size_t from = page.find(begin), to = page.find(end);
  if (from == page.npos || to == page.npos) {
    std::fprintf(stderr, "%s: has no generated part\n", arguments[1]);
    return 1;
  }
  const std::string drawn = generated();
  if (page.substr(from + begin.size(), to - from - begin.size()) == drawn) return 0;
  if (count < 3) {
    std::fprintf(stderr, "%s: differs from what the code says; run: formats_page %s --write\n", arguments[1],
                 arguments[1]);
    return 1;
  }
  std::ofstream(arguments[1], std::ios::binary)
      << page.substr(0, from + begin.size()) << drawn << page.substr(to);
  return 0;
}
