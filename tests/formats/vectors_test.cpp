// Published vectors, where the data folder is at hand: every code of six formats, encodings at every edge,
// code books.
#include "support/data.hpp"
#include <nibble/base/float16.hpp>
#include <nibble/base/json.hpp>
#include <nibble/formats/code_books.hpp>
#include <nibble/formats/e2m1.hpp>
#include <nibble/formats/e8m0.hpp>
#include <nibble/formats/ggml.hpp>
#include <nibble/formats/minifloat.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace {

using nib::Minifloat;
using nib::NonFinite;
using nib::Overflow;

struct Codec {
  float (*decode)(std::uint32_t code);
  std::uint32_t (*encode)(float value);
};

template <class T>
constexpr Codec codec() {
  return {[](std::uint32_t code) { return T::decode(static_cast<typename T::Code>(code)); },
          [](float value) { return static_cast<std::uint32_t>(T::encode(value)); }};
}

// Under the names of ml_dtypes, with its choices at the edges.
const std::map<std::string, Codec> kCodecs = {
    {"float4_e2m1fn", codec<nib::E2M1>()},
    {"float6_e2m3fn", codec<Minifloat<2, 3>>()},
    {"float6_e3m2fn", codec<Minifloat<3, 2>>()},
    {"float8_e4m3fn", codec<Minifloat<4, 3, NonFinite::nan, Overflow::special>>()},
    {"float8_e5m2", codec<Minifloat<5, 2, NonFinite::ieee, Overflow::special>>()},
    {"float8_e8m0fnu", codec<nib::E8M0>()},
    {"bfloat16",
     {[](std::uint32_t code) { return to_float(nib::bf16{static_cast<std::uint16_t>(code)}); },
      [](float value) { return static_cast<std::uint32_t>(nib::to_bf16(value).bits); }}},
};

using Table = std::vector<std::vector<std::string>>;  // the first row names the columns

Table read_csv(const std::string& path) {
  Table table;
  std::istringstream lines(nib::test::read_text(path));
  for (std::string line; std::getline(lines, line);) {
    auto& row = table.emplace_back();
    std::istringstream cells(line);
    for (std::string cell; std::getline(cells, cell, ',');) row.push_back(cell);
  }
  return table;
}

std::uint32_t hex(const std::string& text) {
  return static_cast<std::uint32_t>(std::stoul(text, nullptr, 16));
}

}  // namespace

TEST_CASE("vectors: every code decodes to the published value") {
  NIB_REQUIRE_DATA(root);
  const Table table = read_csv(root + "/formats/decode.csv");
  REQUIRE(table.size() > 900);
  for (std::size_t i = 1; i < table.size(); ++i) {
    CAPTURE(table[i][0]);
    CAPTURE(table[i][1]);
    REQUIRE(kCodecs.count(table[i][0]) == 1);
    const float value = kCodecs.at(table[i][0]).decode(hex(table[i][1]));
    CHECK(std::bit_cast<std::uint32_t>(value) == hex(table[i][2]));
  }
}

TEST_CASE("vectors: every float encodes to the published codes") {
  NIB_REQUIRE_DATA(root);
  const Table table = read_csv(root + "/formats/encode.csv");
  REQUIRE(table.size() > 1000);
  for (std::size_t column = 1; column < table[0].size(); ++column) {
    const std::string& name = table[0][column];
    CAPTURE(name);
    REQUIRE(kCodecs.count(name) == 1);
    for (std::size_t i = 1; i < table.size(); ++i) {
      CAPTURE(table[i][0]);
      const Codec& codec = kCodecs.at(name);
      const std::uint32_t code = codec.encode(std::bit_cast<float>(hex(table[i][0])));
      const std::uint32_t expected = hex(table[i][column]);
      const float meant = codec.decode(expected);
      if (!std::isnan(meant)) {
        CHECK(code == expected);
      } else {  // which of its NaNs a format gives is nobody's promise
        CHECK(std::isnan(codec.decode(code)));
        CHECK(std::signbit(codec.decode(code)) == std::signbit(meant));
      }
    }
  }
}

TEST_CASE("vectors: code books") {
  NIB_REQUIRE_DATA(root);
  auto books = nib::parse_json(nib::test::read_text(root + "/formats/codebooks.json"), "codebooks.json");
  REQUIRE(books.ok());
  const auto check = [&](const char* name, auto level, double divisor) {
    CAPTURE(std::string(name));
    const nib::Json* levels = books->find(name);
    REQUIRE(levels != nullptr);
    REQUIRE(levels->items().size() == 16);
    for (std::uint8_t code = 0; code < 16; ++code) {
      const float expected =
          static_cast<float>(levels->items()[code].as_double()) / static_cast<float>(divisor);
      CHECK(level(code) == expected);
      if (expected == 0) CHECK(std::signbit(level(code)) == std::signbit(expected));
    }
  };
  const nib::Json* divisor = books->find("fp4_divisor");
  REQUIRE(divisor != nullptr);
  check("mxfp4", nib::E2M1::decode, 1);
  check("nf4", nib::Nf4Levels::decode, 1);
  check("fp4_unnormalized", nib::BnbFp4Levels::decode, divisor->as_double());
  check(
      "iq4_nl", [](std::uint8_t code) { return static_cast<float>(nib::kIq4Levels[code]); }, 1);
}
