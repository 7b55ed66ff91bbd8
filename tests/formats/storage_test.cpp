// Bytes of parameters, against the numbers of the literature.
#include <nibble/formats/storage.hpp>

#include <string>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

double bits(const char* name) {
  constexpr std::uint64_t kValues = std::uint64_t{1} << 40;
  return 8.0 * static_cast<double>(storage_bytes(find_storage(name), kValues)) / static_cast<double>(kValues);
}

TEST_CASE("bits a value, scales included") {
  CHECK(bits("bf16") == 16);
  CHECK(bits("mxfp4") == 4.25);
  CHECK(bits("mxfp8_e4m3") == 8.25);
  CHECK(bits("nvfp4") == 4.5);
  CHECK(bits("q4_0") == 4.5);
  CHECK(bits("q8_0") == 8.5);
  CHECK(bits("q6_K") == 6.5625);
  CHECK(bits("nf4") == 4.5);
  CHECK(bits("nf4-double") == 4 + 8.0 / 64 + 32.0 / (64 * 256));  // the 4.127 of QLoRA
  CHECK(bits("fp8_e4m3") == 8);
  CHECK(find_storage("nf5").format == Format::none);
  CHECK(find_storage("mxfp4-double").format == Format::none);
  CHECK(find_storage("none").format == Format::none);
  CHECK(find_storage("").format == Format::none);
  for (const FormatInfo& info : kFormats)
    if (info.format != Format::none) CHECK(find_storage(info.name).format == info.format);
}

TEST_CASE("the memory table of the literature") {
  static_assert(storage_bytes(find_storage("mxfp4"), 108'000'000'000) == 57'375'000'000);
  static_assert(storage_bytes(find_storage("bf16"), 12'000'000'000) == 24'000'000'000);
  // The published files: experts in MXFP4, the rest in bf16.
  constexpr std::uint64_t kExperts20 = 24ull * 32 * 24'883'200, kExperts120 = 36ull * 128 * 24'883'200;
  CHECK(storage_bytes(find_storage("mxfp4"), kExperts20) == 10'152'345'600);
  CHECK(storage_bytes(find_storage("mxfp4"), kExperts120) == 60'914'073'600);
  CHECK(storage_bytes(find_storage("mxfp4"), kExperts20) +
            storage_bytes(find_storage("bf16"), 20'914'757'184 - kExperts20) ==
        13'761'264'768);
  CHECK(storage_bytes(find_storage("mxfp4"), kExperts120) +
            storage_bytes(find_storage("bf16"), 116'829'156'672 - kExperts120) ==
        65'248'815'744);
}

TEST_CASE("values that are no whole group take a whole one") {
  CHECK(storage_bytes(find_storage("mxfp4"), 0) == 0);
  CHECK(storage_bytes(find_storage("mxfp4"), 1) == 17);
  CHECK(storage_bytes(find_storage("mxfp4"), 33) == 34);
  CHECK(storage_bytes(find_storage("nf4"), 65) == 33 + 8);
  CHECK(storage_bytes(find_storage("nf4-double"), 65) == 33 + 2 + 4);
  CHECK(storage_bytes({Format::int8, 128, 0}, 256) == 256 + 8);
}

}  // namespace
}  // namespace nib::test
