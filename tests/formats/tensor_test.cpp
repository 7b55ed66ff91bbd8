// Whole tensors: shared scales of every kind, threads, streams, stochastic rounding, scale rules of float
// scales, double quantization, LLM.int8.
#include <nibble/formats/double_quantization.hpp>
#include <nibble/formats/llm_int8.hpp>
#include <nibble/formats/quantize.hpp>
#include <nibble/formats/reference.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

namespace {

using nib::ScaleSharing;

std::vector<float> random_values(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random) * std::exp(0.5f * normal(random));
  return values;
}

// Three threads, the work dealt in an order of its own.
struct Threads {
  template <class Body>
  void operator()(std::int64_t count, Body&& body) const {
    std::vector<std::thread> team;
    for (int t = 0; t < 3; ++t)
      team.emplace_back([&, t] {
        for (std::int64_t i = count - 1 - t; i >= 0; i -= 3) body(i);
      });
    for (std::thread& thread : team) thread.join();
  }
};

struct Planes {
  std::vector<std::byte> codes;
  std::vector<float> scales;
  friend bool operator==(const Planes&, const Planes&) = default;
};

template <class F, class Parallel = nib::Serially, class Rounding = nib::RoundNearest>
Planes shared(const std::vector<float>& values, std::int64_t rows, std::int64_t k,
              const ScaleSharing& sharing, Parallel parallel = {}, Rounding rounding = {}) {
  Planes planes{std::vector<std::byte>(static_cast<std::size_t>(rows * k / F::group)),
                std::vector<float>(static_cast<std::size_t>(sharing.count(rows, k)))};
  nib::quantize_shared<F>(values.data(), rows, k, sharing, planes.codes.data(), planes.scales.data(),
                          nib::Quantizing<Rounding>{rounding}, parallel);
  return planes;
}

#include "bitsandbytes_vectors.inc"

template <class T>
std::vector<T> recorded(const std::string& hex) {
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace

TEST_CASE("ScaleSharing: the scale of every value, counted out") {
  const std::int64_t rows = 5, k = 7;
  const auto expect = [&](const ScaleSharing& sharing, std::int64_t count, auto index) {
    CHECK(sharing.count(rows, k) == count);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < k; ++c) CHECK(sharing.index(r, c, k) == index(r, c));
  };
  expect(ScaleSharing::per_tensor(), 1, [](std::int64_t, std::int64_t) { return 0; });
  expect(ScaleSharing::per_row(), 5, [](std::int64_t r, std::int64_t) { return r; });
  expect(ScaleSharing::per_group(3), 15, [](std::int64_t r, std::int64_t c) { return r * 3 + c / 3; });
  expect(ScaleSharing::per_tile(2, 4), 6, [](std::int64_t r, std::int64_t c) { return r / 2 * 2 + c / 4; });
  expect(ScaleSharing::per_run(4), 9, [](std::int64_t r, std::int64_t c) { return (r * 7 + c) / 4; });
  CHECK(ScaleSharing::per_tensor().count(0, 7) == 0);
}

TEST_CASE(
    "quantize_shared: every value is the nearest level of its scale, and the scale that of its largest") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  const std::int64_t rows = 150, k = 132;
  const std::vector<float> values = random_values(static_cast<std::size_t>(rows * k), seed);
  const auto check = [&](auto format, const ScaleSharing& sharing, double largest_level) {
    using F = decltype(format);
    const Planes planes = shared<F>(values, rows, k, sharing);
    CHECK(planes == shared<F>(values, rows, k, sharing, Threads{}));
    std::vector<double> largest(planes.scales.size());
    for (std::int64_t i = 0; i < rows * k; ++i) {
      double& of = largest[static_cast<std::size_t>(sharing.index(i / k, i % k, k))];
      of = std::max(of, std::fabs(static_cast<double>(values[static_cast<std::size_t>(i)])));
    }
    for (std::size_t i = 0; i < largest.size(); ++i)
      REQUIRE(static_cast<double>(planes.scales[i]) ==
              doctest::Approx(largest[i] / largest_level).epsilon(1e-6));
    const nib::EncodedMatrix w{
        F::id,  rows, k, planes.codes.data(), reinterpret_cast<const std::byte*>(planes.scales.data()),
        sharing};
    double row_values[132];
    for (std::int64_t r = 0; r < rows; ++r) {
      nib::decode_row(w, r, row_values);
      for (std::int64_t c = 0; c < k; ++c) {
        const double value = values[static_cast<std::size_t>(r * k + c)];
        const double scale = largest[static_cast<std::size_t>(sharing.index(r, c, k))] / largest_level;
        double best = HUGE_VAL;
        for (int code = 0; code < 1 << F::bits; ++code) {
          const double level = F::level(static_cast<std::uint8_t>(code));
          if (!std::isnan(level))
            best =
                std::min(best, std::fabs(level * scale / (F::id == nib::Format::llm_int8 ? 127 : 1) - value));
        }
        REQUIRE(std::fabs(row_values[c] - value) <= best + 3e-6 * std::fabs(value) + 1e-6 * scale);
      }
    }
  };
  check(nib::Fp8E4M3{}, ScaleSharing::per_tensor(), 448);
  check(nib::Fp8E4M3{}, ScaleSharing::per_tile(128, 128), 448);
  check(nib::Fp8E5M2{}, ScaleSharing::per_row(), 57344);
  check(nib::Int8{}, ScaleSharing::per_group(33), 127);
  check(nib::Int8{}, ScaleSharing::per_tensor(), 127);
  check(nib::LlmInt8{}, ScaleSharing::per_row(), 1);
  check(nib::Nf4{}, ScaleSharing::per_run(64), 1);
  check(nib::BnbFp4{}, ScaleSharing::per_run(4096), 1);
}

TEST_CASE("quantize: threads and pieces change no byte, of stochastic rounding neither") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  const std::int64_t rows = 301, k = 256;
  const std::vector<float> values = random_values(static_cast<std::size_t>(rows * k), seed);
  const auto check = [&](auto format, auto rounding) {
    using F = decltype(format);
    using R = decltype(rounding);
    const std::int64_t row_codes = k / F::group * static_cast<std::int64_t>(F::code_bytes);
    const std::int64_t row_scales = k / F::group * static_cast<std::int64_t>(F::scale_bytes);
    const auto whole = [&](auto parallel) {
      std::vector<std::byte> bytes(static_cast<std::size_t>(rows * (row_codes + row_scales)));
      nib::quantize_rows<F>(values.data(), rows, k, bytes.data(), bytes.data() + rows * row_codes,
                            nib::Quantizing<R>{rounding}, parallel);
      return bytes;
    };
    const std::vector<std::byte> expected = whole(nib::Serially{});
    CHECK(whole(Threads{}) == expected);

    std::vector<std::byte> streamed(expected.size());
    std::vector<float> some(static_cast<std::size_t>(17 * k));
    std::vector<std::byte> codes(static_cast<std::size_t>(17 * row_codes)),
        scales(static_cast<std::size_t>(17 * row_scales + 1));
    const auto read = [&](std::int64_t row, std::int64_t count, float* out) {
      std::copy_n(values.data() + row * k, count * k, out);
      return nib::Status();
    };
    const auto write = [&](std::int64_t row, std::int64_t count, const std::byte* c, const std::byte* s) {
      std::copy_n(c, count * row_codes, streamed.data() + row * row_codes);
      std::copy_n(s, count * row_scales, streamed.data() + rows * row_codes + row * row_scales);
      return nib::Status();
    };
    CHECK(nib::quantize_stream<F>(rows, k, {17, some.data(), codes.data(), scales.data()}, read, write,
                                  nib::Quantizing<R>{rounding}, Threads{})
              .ok());
    CHECK(streamed == expected);
  };
  check(nib::Mxfp4{}, nib::RoundNearest{});
  check(nib::Mxfp4{}, nib::RoundStochastic{seed});
  check(nib::Nvfp4{}, nib::RoundStochastic{seed});
  check(nib::Mxfp6E3M2{}, nib::RoundStochastic{seed});
  check(nib::Q4_0{}, nib::RoundNearest{});

  const ScaleSharing sharing = ScaleSharing::per_run(4096);
  const nib::RoundStochastic rounding{seed};
  const Planes expected = shared<nib::Nf4>(values, rows, k, sharing, nib::Serially{}, rounding);
  CHECK(shared<nib::Nf4>(values, rows, k, sharing, Threads{}, rounding) == expected);
  Planes streamed = expected;
  std::fill(streamed.codes.begin(), streamed.codes.end(), std::byte{});
  std::vector<float> some(static_cast<std::size_t>(17 * k));
  std::vector<std::byte> codes(static_cast<std::size_t>(17 * k / 2));
  const auto read = [&](std::int64_t row, std::int64_t count, float* out) {
    std::copy_n(values.data() + row * k, count * k, out);
    return nib::Status();
  };
  const auto write = [&](std::int64_t row, std::int64_t count, const std::byte* c) {
    std::copy_n(c, count * k / 2, streamed.codes.data() + row * k / 2);
    return nib::Status();
  };
  const nib::StreamBuffers buffers{17, some.data(), codes.data(), nullptr};
  CHECK(nib::quantize_shared_stream<nib::Nf4>(rows, k, sharing, streamed.scales.data(), buffers, read, write,
                                              nib::Quantizing<nib::RoundStochastic>{rounding}, Threads{})
            .ok());
  CHECK(streamed == expected);
}

TEST_CASE("quantize_stream: the first error ends it") {
  float values[32] = {};
  std::byte codes[16], scales[1];
  int writes = 0;
  const auto read = [](std::int64_t row, std::int64_t, float*) {
    return row < 2 ? nib::Status() : nib::Status(nib::Code::io, "row 2 cannot be read");
  };
  const auto write = [&](std::int64_t, std::int64_t, const std::byte*, const std::byte*) {
    ++writes;
    return nib::Status();
  };
  const nib::Status status = nib::quantize_stream<nib::Mxfp4>(4, 32, {1, values, codes, scales}, read, write);
  CHECK(status.code() == nib::Code::io);
  CHECK(status.message() == "row 2 cannot be read");
  CHECK(writes == 2);
  CHECK(nib::quantize_stream<nib::Mxfp4>(4, 32, {}, read, write).code() == nib::Code::argument);
}

TEST_CASE("RoundStochastic: a neighbour of the value, on average the value") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  const auto check = [&](auto element, float x) {
    using E = decltype(element);
    CAPTURE(x);
    constexpr int kDraws = 20000;
    float below = -HUGE_VALF, above = HUGE_VALF;
    for (int code = 0; code < 1 << E::bits; ++code) {
      const float level = E::decode(static_cast<std::uint8_t>(code));
      if (level <= x) below = std::max(below, level);
      if (level >= x) above = std::min(above, level);
    }
    double sum = 0;
    const nib::RoundStochastic rounding{seed};
    for (int i = 0; i < kDraws; ++i) {
      const float level = E::decode(rounding.at(i * 32).template encode<E>(x, i % 32));
      REQUIRE((level == below || level == above));
      sum += static_cast<double>(level);
    }
    // Six standard deviations of the mean of draws between two levels.
    const double width = static_cast<double>(above) - static_cast<double>(below);
    CHECK(std::fabs(sum / kDraws - static_cast<double>(x)) <= 6 * width / 2 / std::sqrt(kDraws));
  };
  for (const float x : {0.1f, 0.3f, -1.2f, 2.5f, 5.9f, -4.01f, 3.0f}) check(nib::E2M1{}, x);
  for (const float x : {0.1f, -0.73f, 0.99f}) check(nib::Nf4Levels{}, x);
  for (const float x : {17.3f, -100.9f, 0.0f}) check(nib::SymmetricInt<8>{}, x);
  for (const float x : {300.5f, 0.0011f}) check(nib::E4M3{}, x);
  const nib::RoundStochastic rounding{seed};
  CHECK(rounding.encode<nib::E2M1>(100, 0) == 7);
  CHECK(rounding.encode<nib::E2M1>(-HUGE_VALF, 0) == 15);
  CHECK(rounding.encode<nib::E2M1>(6, 0) == 7);
}

TEST_CASE("NVFP4: rules of its scale, against all scales tried in double") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 300; ++round) {
    float values[16];
    const float size = std::ldexp(1.0f, static_cast<int>(random() % 10) - 4);
    double largest = 0;
    for (float& value : values) {
      value = normal(random) * size;
      largest = std::max(largest, std::fabs(static_cast<double>(value)));
    }
    const auto error = [&](int scale) {  // each value at its nearest level
      double sum = 0;
      for (const float value : values) {
        double best = HUGE_VAL;
        for (std::uint8_t code = 0; code < 16; ++code)
          best = std::min(
              best, std::fabs(static_cast<double>(value) -
                              static_cast<double>(nib::E2M1::decode(code)) *
                                  static_cast<double>(nib::E4M3::decode(static_cast<std::uint8_t>(scale)))));
        sum += best * best;
      }
      return sum;
    };
    double least = HUGE_VAL;
    for (int scale = 0x08; scale <= 0x7e; ++scale) least = std::min(least, error(scale));
    std::byte codes[8], scale;
    nib::Nvfp4With<nib::LeastErrorScale>::encode_group(values, codes, &scale);
    CHECK(error(std::to_integer<int>(scale)) <= least * (1 + 1e-6));
    nib::Nvfp4With<nib::RoundUpScale>::encode_group(values, codes, &scale);
    const auto as_double = [](int code) {
      return static_cast<double>(nib::E4M3::decode(static_cast<std::uint8_t>(code)));
    };
    CHECK(6 * as_double(std::to_integer<int>(scale)) >= largest);
    CHECK((scale == std::byte{0x08} || 6 * as_double(std::to_integer<int>(scale) - 1) < largest));
  }
}

TEST_CASE("NVFP4: a tensor scale brings small tensors into the range of the group scales") {
  std::vector<float> values = random_values(64 * 64, 7);
  for (float& value : values) value *= 1e-6f;
  const float scale = nib::nvfp4_tensor_scale(nib::largest_magnitude(values.data(), 64 * 64));
  std::vector<std::byte> codes(64 * 32), scales(64 * 4);
  nib::quantize_rows<nib::Nvfp4>(values.data(), 64, 64, codes.data(), scales.data(),
                                 nib::Quantizing<>{{}, scale});
  nib::EncodedMatrix w{nib::Format::nvfp4, 64, 64, codes.data(), scales.data()};
  w.tensor_scale = scale;
  double noise = 0, signal = 0;
  for (std::int64_t r = 0; r < 64; ++r) {
    double row[64];
    nib::decode_row(w, r, row);
    for (std::int64_t c = 0; c < 64; ++c) {
      const double value = values[static_cast<std::size_t>(r * 64 + c)];
      signal += value * value;
      noise += (row[c] - value) * (row[c] - value);
    }
  }
  CHECK(10 * std::log10(signal / noise) > 18);
  CHECK(nib::nvfp4_tensor_scale(0) == 1);
  CHECK(nib::nvfp4_tensor_scale(2688) == 1);
}

TEST_CASE("double quantization: the dynamic map is the published one, and codes are the nearest") {
  const auto& map = nib::kDynamicMap;
  const double spots[][2] = {{0, -0.99296874}, {126, -5.5e-7}, {127, 0},          {128, 5.5e-7},
                             {129, 3.25e-6},   {130, 7.75e-6}, {254, 0.99296874}, {255, 1}};
  for (const auto& spot : spots)
    CHECK(static_cast<double>(map.level[static_cast<int>(spot[0])]) ==
          doctest::Approx(spot[1]).epsilon(1e-6));
  for (int i = 0; i < 255; ++i) CHECK(map.level[i] < map.level[i + 1]);
  for (int i = 0; i < 256; ++i) CHECK(map.encode(map.level[i]) == i);
  std::mt19937 random(std::random_device{}());
  for (int i = 0; i < 20000; ++i) {
    const float x =
        std::ldexp(static_cast<float>(random() % 2001) / 1000 - 1, -static_cast<int>(random() % 20));
    double best = HUGE_VAL;
    for (const float level : map.level)
      best = std::min(best, std::fabs(static_cast<double>(level) - static_cast<double>(x)));
    REQUIRE(std::fabs(static_cast<double>(map.level[map.encode(x)]) - static_cast<double>(x)) <=
            best * (1 + 1e-5) + 1e-9);
  }
}

TEST_CASE("double quantization: recorded vectors of bitsandbytes, bit for bit") {
  const std::vector<float> values = recorded<float>(kValues), scales = recorded<float>(kBlockScales);
  const Planes block = shared<nib::Nf4>(values, 1, 32, ScaleSharing::per_run(32));
  CHECK(block.codes == recorded<std::byte>(kNf4Codes));
  CHECK(block.scales[0] == scales[0]);

  const float offset = recorded<float>(kOffset)[0];
  CHECK(nib::scale_offset(scales.data(), 300) == doctest::Approx(offset).epsilon(1e-6));
  std::vector<std::byte> codes(300);
  std::vector<float> absmax(2);
  nib::nest_scales(scales.data(), 300, offset, codes.data(), absmax.data());
  CHECK(codes == recorded<std::byte>(kNestedCodes));
  CHECK(absmax == recorded<float>(kNestedAbsmax));
  const std::vector<float> back = recorded<float>(kScalesBack);
  const nib::NestedScales nested{codes.data(), nib::kDynamicMap.level, absmax.data(), offset};
  for (std::int64_t i = 0; i < 300; ++i)
    CHECK(std::bit_cast<std::uint32_t>(nested[i]) ==
          std::bit_cast<std::uint32_t>(back[static_cast<std::size_t>(i)]));
}

TEST_CASE("double quantization: scales come back within a step of the map") {
  std::vector<float> scales = random_values(1000, std::random_device{}());
  for (float& scale : scales) scale = std::fabs(scale);
  const float offset = nib::scale_offset(scales.data(), 1000);
  std::vector<std::byte> codes(1000);
  float absmax[4];
  nib::nest_scales(scales.data(), 1000, offset, codes.data(), absmax);
  const nib::NestedScales nested{codes.data(), nib::kDynamicMap.level, absmax, offset};
  for (std::int64_t i = 0; i < 1000; ++i)  // the widest step of the map is 0.9 / 64 of the largest
    CHECK(std::fabs(nested[i] - scales[static_cast<std::size_t>(i)]) <= 0.0071f * absmax[i / 256]);
  const float equal[2] = {3, 3};
  nib::nest_scales(equal, 2, 3, codes.data(), absmax);
  const nib::NestedScales nothing{codes.data(), nib::kDynamicMap.level, absmax, 3};
  CHECK(nothing[0] == 3);
  CHECK(nothing[1] == 3);
}

TEST_CASE("LLM.int8: outlier columns are exact, the rest within the error of eight bits") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  constexpr std::int64_t kTokens = 4, kRows = 6, kK = 96;
  std::vector<float> x = random_values(kTokens * kK, seed);
  const std::vector<float> w = random_values(kRows * kK, seed + 1);
  for (float& value : x) value = std::clamp(value, -5.0f, 5.0f);
  x[2 * kK + 17] = 60;
  x[3 * kK + 80] = -6;  // at the threshold: an outlier
  bool outlier[kK];
  CHECK(nib::find_outlier_columns(x.data(), kTokens, kK, nib::kLlmInt8Threshold, outlier) == 2);
  CHECK(outlier[17]);
  CHECK(outlier[80]);
  const Planes weights = shared<nib::LlmInt8>(w, kRows, kK, ScaleSharing::per_row());
  std::vector<std::byte> codes(kTokens * kK);
  float scales[kTokens];
  nib::quantize_activations(x.data(), kTokens, kK, nib::kLlmInt8Threshold, outlier, codes.data(), scales);
  for (std::int64_t t = 0; t < kTokens; ++t) {
    CHECK(scales[t] <= 5.0f);
    CHECK(codes[static_cast<std::size_t>(t * kK + 17)] == std::byte{0});
    for (std::int64_t r = 0; r < kRows; ++r) {
      double expected = 0, tolerance = 0;
      for (std::int64_t c = 0; c < kK; ++c) {
        const double weight = nib::SymmetricInt<8>::decode(
            std::to_integer<std::uint8_t>(weights.codes[static_cast<std::size_t>(r * kK + c)]));
        const double scaled = weight * static_cast<double>(weights.scales[static_cast<std::size_t>(r)]) / 127;
        expected += scaled * static_cast<double>(x[static_cast<std::size_t>(t * kK + c)]);
        if (!outlier[c]) tolerance += std::fabs(scaled) * static_cast<double>(scales[t]) / 254 * 1.001;
      }
      const double y = nib::llm_int8_dot(
          &codes[static_cast<std::size_t>(t * kK)], scales[t], &x[static_cast<std::size_t>(t * kK)], outlier,
          &weights.codes[static_cast<std::size_t>(r * kK)], weights.scales[static_cast<std::size_t>(r)], kK);
      CHECK(std::fabs(y - expected) <= tolerance);
    }
  }
}
