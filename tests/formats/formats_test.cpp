// Every storage format: every code under every scale and back, against definitions in double; recorded blocks
// of ggml; values that are not ordinary.
#include <nibble/formats/reference.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace {

using nib::Format;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// E4M3 and E5M2 by definition, NaN and infinity included.
double small_float(int code, int exponent_bits, int mantissa_bits, bool ieee) {
  const int magnitude = code & 0x7f;
  const int top = (1 << exponent_bits) - 1;
  const int exponent = magnitude >> mantissa_bits, fraction = magnitude & ((1 << mantissa_bits) - 1);
  const double sign = code & 0x80 ? -1 : 1;
  if (ieee && exponent == top) return fraction ? static_cast<double>(kNan) : sign * HUGE_VAL;
  if (!ieee && magnitude == 0x7f) return static_cast<double>(kNan);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double unit = std::ldexp(1.0, -mantissa_bits);
  return sign * (exponent ? std::ldexp(1 + fraction * unit, exponent - bias)
                          : std::ldexp(fraction * unit, 1 - bias));
}
double e4m3(int code) { return small_float(code, 4, 3, false); }
double e5m2(int code) { return small_float(code, 5, 2, true); }
double e2m1(int code) {
  static constexpr double kLevels[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  return code & 8 ? -kLevels[code & 7] : kLevels[code & 7];
}
double int8(int code) { return code < 128 ? code : code - 256; }

// The code books as they are published.
double nf4(int code) {
  static constexpr double kLevels[16] = {-1.0,
                                         -0.6961928009986877,
                                         -0.5250730514526367,
                                         -0.39491748809814453,
                                         -0.28444138169288635,
                                         -0.18477343022823334,
                                         -0.09105003625154495,
                                         0.0,
                                         0.07958029955625534,
                                         0.16093020141124725,
                                         0.24611230194568634,
                                         0.33791524171829224,
                                         0.44070982933044434,
                                         0.5626170039176941,
                                         0.7229568362236023,
                                         1.0};
  return kLevels[code];
}
double bnb_fp4(int code) {
  static constexpr float kTimes12[8] = {0, 0.0625f, 8, 12, 4, 6, 2, 3};
  const double magnitude = static_cast<double>(kTimes12[code & 7] / 12.0f);
  return code & 8 ? -magnitude : magnitude;
}

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

// Wrong answers over all codes and the scales given: of products, and of codes that do not come back.
struct Wrong {
  int exact = 0, rounded = 0, returned = 0, checked = 0;
};

// One format whose scales have a plane: codes in any order that pack() makes. `lost` names codes that another
// code stands for (-2 of MXINT8, the second zero).
template <class F, class Level, class Pack, class Lost>
Wrong all_codes(const std::byte* scale, double factor, Level level, Pack pack, Lost lost) {
  Wrong wrong;
  constexpr int kCodes = 1 << F::bits;
  for (int first = 0; first < kCodes; first += F::group) {
    int codes[F::group];
    for (int i = 0; i < F::group; ++i) codes[i] = (first + i) % kCodes;
    std::byte bytes[F::code_bytes], again[F::code_bytes];
    pack(codes, bytes);
    float values[F::group];
    double exact[F::group];
    F::decode_group(bytes, scale, values);
    F::decode_group(bytes, scale, exact);
    for (int i = 0; i < F::group; ++i) {
      const double expected = level(codes[i]) * factor;
      wrong.exact += !same(exact[i], expected);
      wrong.rounded +=
          !same(static_cast<double>(values[i]), static_cast<double>(static_cast<float>(expected)));
    }
    if constexpr (nib::SharedScaleFormat<F>)
      F::encode_codes(values, std::bit_cast<float>(nib::load_little_endian<std::uint32_t>(scale)), again);
    else
      F::encode_codes(values, nib::load_little_endian<typename F::ScaleCode>(scale), again);
    for (int i = 0; i < F::group; ++i) {
      if (!std::isfinite(values[i]) || lost(codes[i], values[i])) continue;
      int one[F::group] = {}, all[F::group] = {};  // the bits of code i alone
      one[i] = codes[i];
      all[i] = kCodes - 1;
      std::byte wanted[F::code_bytes] = {}, mask[F::code_bytes] = {};
      pack(one, wanted);
      pack(all, mask);
      bool back = true;
      for (std::size_t b = 0; b < F::code_bytes; ++b) back = back && (again[b] & mask[b]) == wanted[b];
      wrong.returned += !back;
      ++wrong.checked;
    }
  }
  return wrong;
}

void low_first(const int* codes, std::byte* out, int group) {
  for (int i = 0; i < group; i += 2) out[i / 2] = static_cast<std::byte>(codes[i] | codes[i + 1] << 4);
}

void add(Wrong& to, const Wrong& some) {
  to.exact += some.exact;
  to.rounded += some.rounded;
  to.returned += some.returned;
  to.checked += some.checked;
}

void check(const Wrong& wrong, int at_least) {
  CHECK(wrong.exact == 0);
  CHECK(wrong.rounded == 0);
  CHECK(wrong.returned == 0);
  CHECK(wrong.checked >= at_least);
}

// f32 scales: ordinary ones of all exponents at which no product of a level is subnormal.
std::vector<float> ordinary_scales(std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> scales;
  for (int exponent = -100; exponent <= 110; ++exponent)
    scales.push_back(std::ldexp(1 + static_cast<float>(random() % 8388608) * 0x1p-23f, exponent));
  return scales;
}

template <class F, class Level, class Pack, class Lost>
void check_shared(Level level, Pack pack, Lost lost, double divisor = 1) {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  Wrong wrong;
  for (const float scale : ordinary_scales(seed)) {
    std::byte stored[4];
    nib::store_little_endian(std::bit_cast<std::uint32_t>(scale), stored);
    if (divisor == 1) {
      add(wrong, all_codes<F>(stored, static_cast<double>(scale), level, pack, lost));
    } else {  // a reciprocal on top: not the rounded quotient, so the codes alone are compared
      Wrong some = all_codes<F>(stored, static_cast<double>(scale) / divisor, level, pack, lost);
      some.exact = some.rounded = 0;
      add(wrong, some);
    }
  }
  check(wrong, 211 * (F::bits == 4 ? 15 : 248));
}

void bytes_as_codes(const int* codes, std::byte* out) { *out = static_cast<std::byte>(*codes); }
void high_first(const int* codes, std::byte* out) { *out = static_cast<std::byte>(codes[0] << 4 | codes[1]); }
bool none_lost(int, float) { return false; }

std::vector<std::byte> from_hex(const std::string& hex) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

struct Recorded {
  Format format;
  std::uint64_t checksum;
  const char* block;
};
const Recorded kRecorded[] = {
#include "ggml_blocks.inc"
};

}  // namespace

TEST_CASE("formats: NVFP4, every code under every scale code") {
  Wrong wrong;
  for (int scale = 0; scale < 256; ++scale) {
    const std::byte stored = static_cast<std::byte>(scale);
    const auto lost = [&](int, float) { return (scale & 0x7f) == 0; };  // times zero
    add(wrong,
        all_codes<nib::Nvfp4>(
            &stored, e4m3(scale), e2m1, [](const int* c, std::byte* out) { low_first(c, out, 16); }, lost));
  }
  check(wrong, 252 * 16);
}

TEST_CASE("formats: MXINT8, every code under every scale code") {
  Wrong wrong;
  for (int scale = 0; scale < 255; ++scale) {
    const std::byte stored = static_cast<std::byte>(scale);
    // -128 is left unused by the encoder; a product below f32's normal numbers may be rounded.
    const auto lost = [](int code, float value) { return code == 128 || std::fabs(value) < 0x1p-126f; };
    add(wrong, all_codes<nib::Mxint8>(
                   &stored, std::ldexp(1.0, scale - 127), [](int c) { return int8(c) / 64; },
                   [](const int* codes, std::byte* out) {
                     for (int i = 0; i < 32; ++i) out[i] = static_cast<std::byte>(codes[i]);
                   },
                   lost));
  }
  check(wrong, 240 * 250);
}

TEST_CASE("formats: shared f32 scales, every code under scales of every exponent") {
  check_shared<nib::Fp8E4M3>(e4m3, bytes_as_codes, none_lost);
  check_shared<nib::Fp8E5M2>(e5m2, bytes_as_codes, none_lost);
  check_shared<nib::Int8>(int8, bytes_as_codes, none_lost);
  check_shared<nib::LlmInt8>(int8, bytes_as_codes, none_lost, 127);
  check_shared<nib::Nf4>(nf4, high_first, none_lost);
  check_shared<nib::BnbFp4>(bnb_fp4, high_first, [](int code, float) { return code == 8; });
}

TEST_CASE("formats: q4_0, q5_0 and q8_0, every code under every f16 scale; q4_1 and q5_1 beside a minimum") {
  int wrong = 0, checked = 0;
  const auto all = [&](auto format, float minimum_in_scales) {
    using F = decltype(format);
    constexpr int kCodes = F::bits == 8 ? 256 : 1 << F::bits;
    constexpr bool kMinimum = F::id == Format::q4_1 || F::id == Format::q5_1;
    for (int half = 1; half < 0x7c00; ++half) {
      if (kMinimum && half < 0x2000) half = 0x2000;  // a minimum of so many scales must be an f16 too
      if (kMinimum && half >= 0x5400) break;
      const std::uint16_t stored = static_cast<std::uint16_t>(half | (half % 2 && !kMinimum ? 0x8000 : 0));
      const float d = nib::to_float(nib::f16{stored});
      const float minimum = nib::to_float(nib::to_f16(d * minimum_in_scales));
      for (int first = 0; first < kCodes; first += 32) {
        std::byte block[F::code_bytes] = {};
        float values[32];
        double exact[32];
        for (int i = 0; i < 32; ++i) {
          const int code = (first + i) % kCodes;
          const double level = F::bits == 8 ? int8(code) : kMinimum ? code : code - kCodes / 2;
          values[i] = static_cast<float>(level) * d + (kMinimum ? minimum : 0.0f);
          exact[i] = level * static_cast<double>(d) + (kMinimum ? static_cast<double>(minimum) : 0.0);
        }
        nib::store_little_endian(stored, block);
        if constexpr (F::bits == 8) {
          F::encode_codes(values, d, block);
        } else {
          if (kMinimum) nib::store_little_endian(nib::to_f16(minimum).bits, block + 2);
          F::encode_codes(values, d, minimum, block);
        }
        float back[32];
        double back_exact[32];
        F::decode_group(block, nullptr, back);
        F::decode_group(block, nullptr, back_exact);
        for (int i = 0; i < 32; ++i) {
          wrong += back_exact[i] != exact[i] || back[i] != static_cast<float>(exact[i]);
          ++checked;
        }
      }
    }
  };
  all(nib::Q4_0{}, 0);
  all(nib::Q5_0{}, 0);
  all(nib::Q8_0{}, 0);
  all(nib::Q4_1{}, -7.3f);
  all(nib::Q5_1{}, 3.1f);
  CHECK(wrong == 0);
  CHECK(checked > 10'000'000);
}

TEST_CASE("formats: recorded blocks of ggml decode to recorded values") {
  CHECK(std::size(kRecorded) == 14);
  for (const Recorded& recorded : kRecorded) {
    CAPTURE(std::string(nib::format_name(recorded.format)));
    const std::vector<std::byte> block = from_hex(recorded.block);
    const nib::FormatInfo& info = nib::format_info(recorded.format);
    REQUIRE(block.size() == info.code_bytes);
    std::vector<float> values(info.group);
    nib::decode_row(nib::EncodedMatrix{recorded.format, 1, info.group, block.data(), nullptr}, 0,
                    values.data());
    std::uint64_t sum = 0xcbf2'9ce4'8422'2325u;  // FNV-1a over words
    for (const float value : values)
      sum = (sum ^ (value == 0 ? 0u : std::bit_cast<std::uint32_t>(value))) * 0x100'0000'01b3u;
    CHECK(sum == recorded.checksum);
  }
}

TEST_CASE("formats: a value that is not finite stays visible in every format that can be written") {
  std::mt19937 random(std::random_device{}());
  for (const nib::FormatInfo& info : nib::kFormats) {
    if (info.format == Format::gguf_nvfp4) continue;  // ggml reads the NaN of its scales as zero
    for (const float bad : {kInfinity, -kInfinity, kNan}) {
      CAPTURE(std::string(info.name));
      CAPTURE(bad);
      [[maybe_unused]] const bool known = nib::visit_format(info.format, [&](auto format) {
        using F = decltype(format);
        float values[F::group];
        for (float& value : values) value = static_cast<float>(random() % 1000) * 0.01f - 5;
        values[random() % F::group] = bad;
        std::byte codes[F::code_bytes], scale[8] = {};
        float back[F::group] = {};
        if constexpr (nib::BlockFormat<F>) {
          F::encode_group(values, codes, scale);
        } else if constexpr (nib::SharedScaleFormat<F>) {
          const float shared = F::scale_of(nib::largest_magnitude(values, F::group));
          F::encode_codes(values, shared, codes);
          nib::store_little_endian(std::bit_cast<std::uint32_t>(shared), scale);
        } else {
          return;
        }
        F::decode_group(codes, scale, back);
        bool lost = false;
        for (const float value : back) lost = lost || !std::isfinite(value);
        CHECK(lost);
      });
    }
  }
}

TEST_CASE("formats: zeros decode to zeros in every format that can be written") {
  for (const nib::FormatInfo& info : nib::kFormats) {
    CAPTURE(std::string(info.name));
    [[maybe_unused]] const bool known = nib::visit_format(info.format, [&](auto format) {
      using F = decltype(format);
      const float values[F::group] = {};
      std::byte codes[F::code_bytes], scale[8] = {};
      float back[F::group];
      if constexpr (nib::BlockFormat<F>) {
        F::encode_group(values, codes, scale);
      } else if constexpr (nib::SharedScaleFormat<F>) {
        F::encode_codes(values, F::scale_of(0), codes);
      } else {
        return;
      }
      F::decode_group(codes, scale, back);
      for (const float value : back) CHECK(value == 0);
    });
  }
}

TEST_CASE("formats: special codes of FP8 mean what they mean under any scale; E8M0 255 is NaN for all") {
  std::byte codes[32] = {std::byte{0x7c}, std::byte{0xfc}, std::byte{0x7d}};
  float values[32];
  for (const int scale : {0, 127, 254}) {
    const std::byte stored = static_cast<std::byte>(scale);
    nib::Mxfp8E5M2::decode_group(codes, &stored, values);
    CHECK(values[0] == kInfinity);
    CHECK(values[1] == -kInfinity);
    CHECK(std::isnan(values[2]));
    CHECK(values[3] == 0);
  }
  const std::byte nan{255};
  const auto all_nan = [&](auto format) {
    using F = decltype(format);
    std::byte bytes[F::code_bytes] = {};
    float out[F::group];
    F::decode_group(bytes, &nan, out);
    for (const float value : out) CHECK(std::isnan(value));
  };
  all_nan(nib::Mxfp6E2M3{});
  all_nan(nib::Mxfp6E3M2{});
  all_nan(nib::Mxfp8E4M3{});
  all_nan(nib::Mxfp8E5M2{});
  all_nan(nib::Mxint8{});
}

TEST_CASE("formats: integers of 2 to 8 bits follow the rule clip(round(w / s))") {
  std::mt19937 random(std::random_device{}());
  const auto all = [&](auto element) {
    using E = decltype(element);
    for (int i = 0; i < 4000; ++i) {
      const float x = static_cast<float>(static_cast<int>(random() % 4001) - 2000) / 8;  // eighths: ties too
      const double low = -std::ldexp(1.0, E::bits - 1), high = -low - 1;
      const double expected = std::fmin(std::fmax(std::nearbyint(static_cast<double>(x)), low), high);
      REQUIRE(static_cast<double>(E::decode(E::encode(x))) == expected);
    }
    CHECK(E::decode(E::encode(kInfinity)) == E::max());
    CHECK(E::decode(E::encode(-kInfinity)) == -E::max() - 1);
    CHECK(E::encode(kNan) == 0);
  };
  all(nib::SymmetricInt<2>{});
  all(nib::SymmetricInt<3>{});
  all(nib::SymmetricInt<4>{});
  all(nib::SymmetricInt<5>{});
  all(nib::SymmetricInt<6>{});
  all(nib::SymmetricInt<7>{});
  all(nib::SymmetricInt<8>{});
}

TEST_CASE(
    "formats: the other splits of four bits have the levels of the literature, and encode to the nearest") {
  static constexpr double kE1M2[8] = {0, .25, .5, .75, 1, 1.25, 1.5, 1.75};
  static constexpr double kE3M0[8] = {0, .25, .5, 1, 2, 4, 8, 16};
  static constexpr double kRadix4[8] = {0, 1.0 / 64, 1.0 / 16, .25, 1, 4, 16, 64};
  std::mt19937 random(std::random_device{}());
  const auto all = [&](auto element, const double* levels) {
    using E = decltype(element);
    for (int code = 0; code < 16; ++code) {
      const auto as_code = static_cast<std::uint8_t>(code);
      CHECK(same(static_cast<double>(E::decode(as_code)), code & 8 ? -levels[code & 7] : levels[code & 7]));
      CHECK(E::encode(E::decode(as_code)) == as_code);
    }
    for (int code = 0; code < 7; ++code)  // ties to the even code
      CHECK(E::encode(static_cast<float>((levels[code] + levels[code + 1]) / 2)) == code + code % 2);
    CHECK(E::encode(kInfinity) == 7);
    CHECK(E::encode(-kInfinity) == 15);
    for (int i = 0; i < 4000; ++i) {
      const float x =
          std::ldexp(static_cast<float>(random() % 2001) / 1000 - 1, static_cast<int>(random() % 16) - 8);
      const double error = std::fabs(static_cast<double>(E::decode(E::encode(x))) - static_cast<double>(x));
      for (int code = 0; code < 8; ++code)
        REQUIRE(error <= std::fabs(std::fabs(static_cast<double>(x)) - levels[code]));
    }
  };
  all(nib::E1M2{}, kE1M2);
  all(nib::E3M0{}, kE3M0);
  all(nib::Radix4Fp4{}, kRadix4);
}
