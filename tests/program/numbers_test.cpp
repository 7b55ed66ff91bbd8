// Numbers as people read and type them, and the columns of reports.
#include "numbers.hpp"

#include "report.hpp"
#include "terminal.hpp"

#include <random>

#include <doctest/doctest.h>

namespace nib::program {
namespace {

TEST_CASE("numbers keep three digits") {
  CHECK(number_text(0) == "0");
  CHECK(number_text(0.5234) == "0.523");
  CHECK(number_text(0.9999) == "1.00");
  CHECK(number_text(9.996) == "10.0");
  CHECK(number_text(5.234) == "5.23");
  CHECK(number_text(52.34) == "52.3");
  CHECK(number_text(523.4) == "523");
  CHECK(number_text(5234.4) == "5234");
  CHECK(number_text(0.0000001) == "0.000000");
}

TEST_CASE("estimates end at the third digit of their error") {
  CHECK(estimate_text(74.638, 0.6271) == "74.638 +/- 0.627");
  CHECK(estimate_text(4.18491, 0.0271) == "4.1849 +/- 0.0271");
  CHECK(estimate_text(31234.5, 512.4) == "31234 +/- 512");
  CHECK(estimate_text(1, 0) == "1.0000 +/- 0.0000");
}

TEST_CASE("counts of parameters as people type them") {
  const auto count = [](const char* text) { return parse_count(text).value(); };
  CHECK(count("64") == 64);
  CHECK(count("108e9") == 108'000'000'000);
  CHECK(count("1.2E+10") == 12'000'000'000);
  CHECK(count("117B") == 117'000'000'000);
  CHECK(count("0.6B") == 600'000'000);
  CHECK(count("116829156672") == 116'829'156'672);
  CHECK(count("1.5k") == 1500);
  CHECK(count("5000e-3") == 5);
  CHECK(count("1e16") == 10'000'000'000'000'000);
  for (const std::string wrong : {"", "B", "0", "-1", "1.5", "1e-1", "1..5e9", "1e", "1e99", "1e17", "2e16",
                                  "ten", "1 B", "99999999999999999999", "0x10", "1e9e9", "."}) {
    CAPTURE(wrong);
    CHECK(parse_count(wrong).status().code() == Code::argument);
  }
  CHECK(gigabytes_text(57'375'000'000) == "57.4 GB");
  CHECK(gigabytes_text(24'000'000'000) == "24.0 GB");
  CHECK(gigabytes_text(65'248'815'744) == "65.2 GB");
  CHECK(gigabytes_text(12) == "12 B");
}

TEST_CASE("sizes, rates and counts change their unit where the next one reads better") {
  CHECK(bytes_text(0) == "0 B");
  CHECK(bytes_text(1023) == "1023 B");
  CHECK(bytes_text(1000) == "1000 B");
  CHECK(bytes_text(13'761'264'768) == "12.8 GiB");
  CHECK(bytes_text(65'248'815'744) == "60.8 GiB");
  CHECK(bytes_text(UINT64_MAX).ends_with(" TiB"));
  CHECK(byte_rate_text(21.34e9) == "21.3 GB/s");
  CHECK(byte_rate_text(999.9e6) == "1.00 GB/s");
  CHECK(flop_rate_text(82.5e9) == "82.5 GFLOP/s");
  CHECK(count_text(512) == "512");
  CHECK(count_text(23'045'520) == "23.0 M");
  CHECK(count_text(116'829'156'672) == "117 B");
}

TEST_CASE("durations") {
  CHECK(duration_text(0.24) == "0.2 s");
  CHECK(duration_text(47.4) == "47 s");
  CHECK(duration_text(185) == "3 min");
  CHECK(duration_text(2 * 3600 + 10 * 60) == "2 h 10 min");
}

TEST_CASE("sizes are read as they are typed") {
  const auto bytes = [](std::string_view text) { return parse_bytes(text).value(); };
  CHECK(bytes("0") == 0);
  CHECK(bytes("1000000") == 1'000'000);
  for (const char* text : {"8G", "8g", "8GB", "8GiB", "8192M", "8388608k"})
    CHECK(bytes(text) == std::uint64_t{8} << 30);
  CHECK(bytes("1.5K") == 1536);
  CHECK(bytes("2T") == std::uint64_t{2} << 40);
  for (const char* text : {"", "G", "8Q", "8GG", "8 G", "-1", "x8G", "8Gx", "1e30", "nan", "9999999999T"}) {
    CAPTURE(text);
    CHECK(parse_bytes(text).status().code() == Code::argument);
  }
  // What is written can be read back.
  std::mt19937_64 random(7);
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t number = random() >> (random() % 50 + 12);
    CHECK(bytes(std::to_string(number)) == number);
  }
}

TEST_CASE("columns are as wide as their widest cell") {
  Table table("lr", " ");
  table.row({"a", "1"});
  table.row({"long name", "23456"});
  table.row({"b", ""});
  CHECK(table.text() == " a              1\n long name  23456\n b\n");
}

TEST_CASE("progress says how much, how fast and how long") {
  CHECK(progress_text({Stage::read, 1u << 30, 3u << 30, "x"}, 1u << 30, 0.5) ==
        "loading  1.00 GiB of 3.00 GiB, 2.15 GB/s, 1.0 s left");
  CHECK(progress_text({Stage::prefill, 100, 300, ""}, 100, 2) ==
        "reading the prompt  100 of 300 tokens, 50.0 tokens/s, 4.0 s left");
  CHECK(progress_text({Stage::read, 0, 10, ""}, 0, 0) == "loading  0 B of 10 B, 0 B/s");
}

}  // namespace
}  // namespace nib::program
