// Encoders against the definitions: the same bytes and the same sums for whatever floats, at whatever count,
// in whatever floating-point environment the host has left.
#include "rig.hpp"
#include <nibble/base/float_scope.hpp>
#include <nibble/base/machine.hpp>
#include <nibble/formats/ggml.hpp>
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/nvfp4.hpp>
#include <nibble/formats/plain.hpp>
#include <nibble/formats/quantize.hpp>
#include <nibble/formats/shared_scale.hpp>
#include <nibble/kernels/encode.hpp>

#include <cfenv>
#include <limits>
#include <optional>

namespace nib::test {
namespace {

// Rounds as RoundNearest does, but is another type: encoders take it one value at a time, by the definition
// of the element.
struct OneByOne {
  template <class Element>
  constexpr typename Element::Code encode(float x, int) const {
    return Element::encode(x);
  }
  constexpr OneByOne at(std::int64_t) const { return {}; }
};

// Halfway points between neighbouring levels, where a wrong tie or a wrong last bit shows.
template <class Element>
std::vector<float> middles() {
  std::vector<float> levels, out;
  for (int code = 0; code < 1 << Element::bits; ++code) {
    const float level = Element::decode(static_cast<std::uint8_t>(code));
    if (std::isfinite(level)) levels.push_back(level);
  }
  std::sort(levels.begin(), levels.end());
  for (std::size_t i = 1; i < levels.size(); ++i) out.push_back((levels[i - 1] + levels[i]) / 2);
  return out;
}
std::vector<float> middles_of_steps() {
  std::vector<float> out;
  for (int i = -255; i <= 255; i += 2) out.push_back(static_cast<float>(i) / 2);
  return out;
}

// `count` values that have something in common.
void fill(Random& random, float* values, std::int64_t count, const std::vector<float>& ties, float largest) {
  const float infinity = std::numeric_limits<float>::infinity();
  const int kind = random.below(10), exponent = random.below(277) - 149;
  const float unit = random.spread(-20, 20), power = std::ldexp(1.0f, exponent);
  for (std::int64_t i = 0; i < count; ++i) {
    float& x = values[i];
    switch (kind) {
      case 0:  // any bits
        x = std::bit_cast<float>(random.bits());
        break;
      case 1:  // any finite number
        x = random.spread(-140, 127);
        break;
      case 2:  // subnormals
        x = std::bit_cast<float>(random.bits() & 0x800f'ffffu);
        break;
      case 3:  // zeros of both signs
        x = random.chance(50) ? 0.0f : -0.0f;
        break;
      case 4:  // ties, or the numbers beside them, in units of a power of two or of anything
      case 5: {
        const float of = kind == 4 ? power : unit;
        x = ties[static_cast<std::size_t>(random.below(static_cast<int>(ties.size())))] * of;
        if (random.chance(40)) x = std::nextafter(x, random.chance(50) ? infinity : -infinity);
        if (i % 16 == 3) x = largest * of * (random.chance(50) ? 1.0f : -1.0f);
        break;
      }
      case 6:  // few different ones, most of them of equal magnitude
        x = static_cast<float>(random.below(5) - 2) * unit;
        break;
      case 7:  // no negative ones
        x = std::fabs(random.normal()) * (random.chance(10) ? 0.0f : power);
        break;
      case 8:  // as in most tensors, but for one
        x = i == count / 2 ? std::bit_cast<float>(random.bits() | 0x7f80'0000u) : random.normal();
        break;
      default:
        x = random.normal() * unit;
    }
  }
}

bool same(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

// Where the call writes: no byte more than is its own.
struct Planes {
  Planes(Format format, std::int64_t count)
      : codes(bytes(format_info(format).code_bytes, format, count), 0x5a),
        scales(bytes(format_info(format).scales == nib::Scales::plane ? format_info(format).scale_bytes : 0,
                     format, count),
               0x5a) {}
  static std::size_t bytes(std::uint32_t each, Format format, std::int64_t count) {
    return static_cast<std::size_t>(count) / format_info(format).group * each;
  }
  Bytes codes, scales;
};

// What this machine has, and what lesser ones would choose on it: so that every table is used that can be.
std::vector<CpuFeatures> machines() {
  CpuFeatures avx2;
  avx2.avx2_fma = this_machine().features.avx2_fma;
  return {this_machine().features, avx2, CpuFeatures{}};
}

struct Subject {
  Subject(Format format, ScaleRule rule) : id(format) {
    for (const CpuFeatures& features : machines()) encoders.push_back(*find_encoder(format, rule, features));
  }
  Format id;
  std::vector<Encoder> encoders;  // the last is the definition

  // The bytes of `call` by every way of encoding, which have to be `expected`.
  bool agrees(const EncodeCall& call, const Planes& expected) const {
    return std::all_of(encoders.begin(), encoders.end(),
                       [&](const Encoder& fast) { return agrees(fast, encoders.back(), call, expected); });
  }

 private:
  bool agrees(const Encoder& fast, const Encoder& plain, EncodeCall call, const Planes& expected) const {
    bool all = true;
    const auto put = [&](const Encoder& encoder, bool with_noise) {
      const Planes planes(id, call.count);
      call.codes = planes.codes.data();
      call.scales = planes.scales.data();
      const Noise noise = with_noise ? encoder.encode(call) : (encoder.encode_bytes(call), Noise{});
      all = all && std::memcmp(planes.codes.data(), expected.codes.data(), expected.codes.size()) == 0 &&
            std::memcmp(planes.scales.data(), expected.scales.data(), expected.scales.size()) == 0;
      return noise;
    };
    const Noise truth = put(plain, true), quick = put(fast, true);
    put(plain, false);
    put(fast, false);
    Noise hostile;
    for (const int mode : {FE_UPWARD, FE_TOWARDZERO}) {
      std::fesetround(mode);
      hostile = put(fast, true);
      std::fesetround(FE_TONEAREST);
      all = all && same(hostile.noise, truth.noise);
    }
    {
      const FloatScope flushing;
      put(plain, true);
      hostile = put(fast, true);
    }
    return all && same(truth.signal, quick.signal) && same(truth.noise, quick.noise) &&
           same(hostile.signal, truth.signal) && same(hostile.noise, truth.noise);
  }
};

template <BlockFormat F>
void check_blocks(ScaleRule rule, const std::vector<float>& ties, float largest, int rounds = 3000) {
  NIB_RANDOM(random);
  CAPTURE(std::string(format_name(F::id)));
  CAPTURE(static_cast<int>(rule));
  const Subject subject(F::id, rule);
  for (int round = 0; round < rounds; ++round) {
    const std::int64_t groups = 1 + random.below(F::group == 1 ? 100 : 7), count = groups * F::group;
    const Bytes values(static_cast<std::size_t>(count) * 4);
    for (std::int64_t i = 0; i < count; i += 16)
      fill(random, values.floats() + i, std::min<std::int64_t>(16, count - i), ties, largest);
    if (random.chance(50)) fill(random, values.floats(), count, ties, largest);
    EncodeCall call{values.floats(), count, nullptr};
    if (format_info(F::id).tensor_scale && random.chance(60))
      call.tensor_scale = std::fabs(random.spread(-60, 60));
    const Planes expected(F::id, count);
    quantize_rows<F>(values.floats(), 1, count, expected.codes.data(), expected.scales.data(),
                     Quantizing<OneByOne>{{}, call.tensor_scale});
    REQUIRE_MESSAGE(subject.agrees(call, expected), round);
  }
}

template <SharedScaleFormat F>
void check_shared(const std::vector<float>& ties) {
  NIB_RANDOM(random);
  CAPTURE(std::string(format_name(F::id)));
  const Subject subject(F::id, ScaleRule::usual);
  for (int round = 0; round < 3000; ++round) {
    const std::int64_t count = F::group * (1 + random.below(120)), run = F::group * (1 + random.below(80));
    const Bytes values(static_cast<std::size_t>(count) * 4);
    for (std::int64_t i = 0; i < count; i += run)
      fill(random, values.floats() + i, std::min(run, count - i), ties, F::Element::max());
    const auto runs = static_cast<std::size_t>((count + run - 1) / run);
    std::vector<float> largest(runs), scales(runs), read(runs);
    measure_rows(values.floats(), 1, count, ScaleSharing::per_run(run), 0, largest.data());
    for (const Encoder& encoder : subject.encoders) {
      std::vector<float> measured(runs);
      encoder.measure(values.floats(), count, run, measured.data());
      REQUIRE(same_bits(measured, largest));
    }
    for (std::size_t i = 0; i < runs; ++i) {
      scales[i] = subject.encoders[0].scale_of(largest[i]);
      REQUIRE(std::bit_cast<std::uint32_t>(scales[i]) ==
              std::bit_cast<std::uint32_t>(F::scale_of(largest[i])));
      if (random.chance(30)) scales[i] = 1;
      if (random.chance(10)) scales[i] = std::bit_cast<float>(random.bits());
      read[i] = random.chance(50) ? scales[i] : random.normal();
    }
    const Planes expected(F::id, count);
    quantize_shared_rows<F>(values.floats(), 1, count, ScaleSharing::per_run(run), scales.data(),
                            expected.codes.data(), Quantizing<OneByOne>{});
    REQUIRE_MESSAGE(
        subject.agrees({values.floats(), count, nullptr, nullptr, 1, run, scales.data(), read.data()},
                       expected),
        round);
  }
}

TEST_CASE("encoders write what the definitions do: groups with a scale of their own") {
  const std::vector<float> ties = middles<E2M1>();
  check_blocks<Mxfp4>(ScaleRule::usual, ties, 6);
  check_blocks<Mxfp4>(ScaleRule::floor, ties, 6);
  check_blocks<Mxfp4With<RoundUpScale>>(ScaleRule::round_up, ties, 6);
  check_blocks<Mxfp4With<LeastErrorScale>>(ScaleRule::least_error, ties, 6, 40);
  check_blocks<GgufMxfp4>(ScaleRule::usual, ties, 6);
  check_blocks<GgufMxfp4With<RoundUpScale>>(ScaleRule::round_up, ties, 6);
  check_blocks<Nvfp4>(ScaleRule::usual, ties, 6);
  check_blocks<Nvfp4With<RoundUpScale>>(ScaleRule::round_up, ties, 6);
}

TEST_CASE("encoders write what the definitions do: blocks of GGUF and plain values") {
  const std::vector<float> ties = middles_of_steps();
  check_blocks<Q4_0>(ScaleRule::usual, ties, -8);
  check_blocks<Q4_1>(ScaleRule::usual, ties, 15);
  check_blocks<Q5_0>(ScaleRule::usual, ties, -16);
  check_blocks<Q5_1>(ScaleRule::usual, ties, 31);
  check_blocks<Q8_0>(ScaleRule::usual, ties, 127);
  check_blocks<PlainF32>(ScaleRule::usual, ties, 1);
  check_blocks<PlainF16>(ScaleRule::usual, ties, 65520);
  check_blocks<PlainBf16>(ScaleRule::usual, ties, 1);
}

TEST_CASE("encoders write what the definitions do: shared scales") {
  check_shared<Fp8E4M3>(middles<E4M3>());
  check_shared<Int8>(middles<SymmetricInt<8>>());
  check_shared<LlmInt8>(middles<SymmetricInt<8>>());
  check_shared<Nf4>(middles<Nf4Levels>());
  check_shared<BnbFp4>(middles<BnbFp4Levels>());
}

// Quotients by scales are never computed: all scales of E4M3 against all thresholds and numbers beside them,
// as they are and under scales of the tensor.
TEST_CASE("nvfp4: every scale, every threshold, and the numbers beside it") {
  NIB_RANDOM(random);
  const std::vector<float> ties = middles<E2M1>();
  const Subject subject(Format::nvfp4, ScaleRule::usual);
  for (int code = 8; code < 0x7f; ++code)
    for (int round = 0; round < 40; ++round) {
      const float tensor = round == 0 ? 1.0f : round == 1 ? 0x1p-9f : std::fabs(random.spread(-90, 90));
      const float scale = E4M3::decode(static_cast<std::uint8_t>(code)) * tensor;
      float values[48] = {};
      for (int i = 0; i < 48; ++i) {
        const float tie = ties[static_cast<std::size_t>(i / 3 % 15)] * scale;
        const int beside = round < 2 ? i % 3 - 1 : random.below(25) - 12;  // of numbers
        values[i] = tie == 0 ? tie
                             : std::bit_cast<float>(std::bit_cast<std::uint32_t>(tie) +
                                                    static_cast<std::uint32_t>(beside));
        if (i % 16 == 15) values[i] = 6 * scale;
      }
      EncodeCall call{values, 48, nullptr};
      call.tensor_scale = tensor;
      const Planes expected(Format::nvfp4, 48);
      quantize_rows<Nvfp4>(values, 1, 48, expected.codes.data(), expected.scales.data(),
                           Quantizing<OneByOne>{{}, tensor});
      REQUIRE(std::to_integer<int>(expected.scales.data()[0]) == code);
      REQUIRE_MESSAGE(subject.agrees(call, expected), code << " under " << tensor);
    }
}

TEST_CASE("noise is that of the values that a reader has, and no sum of a thread") {
  const Subject subject(Format::nf4, ScaleRule::usual);
  const float values[4] = {1, -0.5f, 0.25f, 0}, scale = 1, read = 2;
  std::byte codes[2];
  const Noise noise = subject.encoders[0].encode({values, 4, codes, nullptr, 1, 4, &scale, &read});
  CHECK(noise.signal == 1 + 0.25 + 0.0625);
  const float levels[4] = {1, -0.5250730514526367f, 0.24611230194568634f, 0};
  double expected = 0;
  for (int i = 0; i < 4; ++i) expected += std::pow(double{levels[i] * 2 - values[i]}, 2);
  CHECK(noise.noise == doctest::Approx(expected).epsilon(1e-6));
}

TEST_CASE("every word of 16 bits becomes its number, at every count") {
  std::vector<std::uint16_t> words(65536);
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint16_t>(i);
  const auto* bytes = reinterpret_cast<const std::byte*>(words.data());
  const auto wrong = [&](WidenFunction widen, auto number) {
    int found = 0;
    for (const std::int64_t piece : {65536, 1, 7, 13, 31}) {
      std::vector<float> values(words.size() + 1, 7.0f);
      for (std::int64_t at = 0; at < 65536; at += piece)
        widen(bytes + 2 * at, std::min<std::int64_t>(piece, 65536 - at), values.data() + at);
      for (std::size_t i = 0; i < words.size(); ++i) {
        const float expected = number(words[i]);
        found += !(std::bit_cast<std::uint32_t>(values[i]) == std::bit_cast<std::uint32_t>(expected) ||
                   (std::isnan(values[i]) && std::isnan(expected)));
      }
      found += values.back() != 7.0f;
    }
    return found;
  };
  for (const CpuFeatures& features : machines()) {
    const Wideners widen = find_wideners(features);
    CHECK(wrong(widen.bf16, [](std::uint16_t word) { return to_float(bf16{word}); }) == 0);
    CHECK(wrong(widen.f16, [](std::uint16_t word) { return to_float(f16{word}); }) == 0);
  }
}

TEST_CASE("what has no encoder") {
  const CpuFeatures features = this_machine().features;
  CHECK_FALSE(find_encoder(Format::q4_k, ScaleRule::usual, features));
  CHECK_FALSE(find_encoder(Format::none, ScaleRule::usual, features));
  CHECK_FALSE(find_encoder(Format::nvfp4, ScaleRule::floor, features));
  CHECK_FALSE(find_encoder(Format::q4_0, ScaleRule::round_up, features));
}

}  // namespace
}  // namespace nib::test
