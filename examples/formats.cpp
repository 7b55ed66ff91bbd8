// Every code of the small number formats, and what it means. Includes headers of the library and links
// nothing.
//
//   formats               the list
//   formats e2m1 nf4      each code of these, in bits and as a number
#include <nibble/formats/code_books.hpp>
#include <nibble/formats/e2m1.hpp>
#include <nibble/formats/e8m0.hpp>
#include <nibble/formats/format.hpp>
#include <nibble/formats/ggml.hpp>
#include <nibble/formats/integer.hpp>
#include <nibble/formats/small_floats.hpp>

#include <cstdint>
#include <cstdio>
#include <cstring>

namespace {

struct Element {
  const char* name;
  int bits;
  float (*value)(std::uint8_t code);
  const char* about;
};

template <class T>
constexpr Element element(const char* name, const char* about) {
  return {name, T::bits, [](std::uint8_t code) { return T::decode(code); }, about};
}

const Element kElements[] = {
    element<nib::E2M1>("e2m1", "4-bit float of MXFP4 and NVFP4"),
    element<nib::E1M2>("e1m2", "4-bit float of equal steps"),
    element<nib::E3M0>("e3m0", "4-bit float of powers of two"),
    element<nib::Radix4Fp4>("radix4", "4-bit float of powers of four"),
    element<nib::Nf4Levels>("nf4", "quantiles of the normal distribution, in units of the largest"),
    element<nib::BnbFp4Levels>("bnb_fp4", "bitsandbytes' FP4, in units of the largest"),
    {"iq4_nl", 4, [](std::uint8_t code) { return static_cast<float>(nib::kIq4Levels[code]); },
     "code book of GGUF's iq4_nl and iq4_xs, in units of the scale"},
    element<nib::SymmetricInt<4>>("int4", "4-bit integer, two's complement"),
    element<nib::E2M3>("e2m3", "6-bit float of MXFP6"),
    element<nib::E3M2>("e3m2", "6-bit float of MXFP6"),
    element<nib::E4M3>("e4m3", "8-bit float of FP8 and MXFP8, and the scale of NVFP4"),
    element<nib::E5M2>("e5m2", "8-bit float of FP8 and MXFP8"),
    element<nib::FixedPointInt8>("mxint8", "8-bit integer in 64ths, of MXINT8"),
    element<nib::SymmetricInt<8>>("int8", "8-bit integer, two's complement"),
    element<nib::E8M0>("e8m0", "the scale of the MX formats: a power of two"),
    {"dynamic", 8, [](std::uint8_t code) { return nib::kDynamicMap.level[code]; },
     "bitsandbytes' map for scales that are quantized themselves"},
};

void print_codes(const Element& of) {
  std::printf("%s: %s\n", of.name, of.about);
  const int columns = of.bits == 4 ? 1 : 4, rows = (1 << of.bits) / columns;
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      const int code = column * rows + row;
      std::printf(column ? "    %3d  " : "%3d  ", code);
      for (int bit = of.bits - 1; bit >= 0; --bit) std::putchar(code >> bit & 1 ? '1' : '0');
      std::printf("  %*.9g", column + 1 < columns ? -15 : 0,
                  static_cast<double>(of.value(static_cast<std::uint8_t>(code))));
    }
    std::putchar('\n');
  }
}

void print_list(std::FILE* to) {
  std::fprintf(to, "Elements (give a name to see every code):\n");
  for (const Element& of : kElements) std::fprintf(to, "  %-9s %d bits   %s\n", of.name, of.bits, of.about);
  std::fprintf(to, "\nFormats of stored tensors:\n");
  for (const nib::FormatInfo& info : nib::kFormats)
    if (info.format != nib::Format::none)
      std::fprintf(to, "  %-11s %3u values in %3u bytes%s\n", info.name, info.group, info.code_bytes,
                   info.scales == nib::Scales::plane
                       ? info.tensor_scale ? ", a scale of 1 byte beside, one scale for the tensor"
                                           : ", a scale of 1 byte beside"
                   : info.scales == nib::Scales::shared ? ", f32 scales shared as the tensor says"
                   : info.scales == nib::Scales::inside ? ", scales among them"
                                                        : "");
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) print_list(stdout);
  for (int i = 1; i < count; ++i) {
    const char* name = arguments[i];
    if (!std::strcmp(name, "--help") || !std::strcmp(name, "-h")) {
      std::printf(
          "usage: formats [NAME...]\n\nPrints every code of the number formats named; without a name, the "
          "list of them.\n");
      return 0;
    }
    const Element* found = nullptr;
    for (const Element& of : kElements)
      if (!std::strcmp(of.name, name)) found = &of;
    if (!found) {
      std::fprintf(stderr, "formats: there is no element called '%s'\n\n", name);
      print_list(stderr);
      return 2;
    }
    if (i > 1) std::putchar('\n');
    print_codes(*found);
  }
  return 0;
}
