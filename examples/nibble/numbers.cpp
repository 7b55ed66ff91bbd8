#include "numbers.hpp"

#include <nibble/base/concat.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace nib::program {
namespace {

struct Scaled {
  double value;
  std::size_t power;  // of the base
};

// The largest power of `base` that leaves at least 1 before the point; a value that rounds up to the base
// counts as the next.
Scaled scale(double value, double base, std::size_t most) {
  Scaled scaled{value, 0};
  while (scaled.power < most && scaled.value >= base * 0.9995) {
    scaled.value /= base;
    ++scaled.power;
  }
  return scaled;
}

}  // namespace

std::string number_text(double value) {
  if (!(value > 0)) return "0";
  // Rounding may add a digit before the point (9.996 is 10.0), so the exponent is that of the rounded value.
  char buffer[48];
  std::snprintf(buffer, sizeof buffer, "%.2e", value);
  const int exponent = std::atoi(std::strchr(buffer, 'e') + 1);
  std::snprintf(buffer, sizeof buffer, "%.*f", std::clamp(2 - exponent, 0, 6), value);
  return buffer;
}

std::string estimate_text(double value, double error) {
  const double digits = error > 0 ? 2 - std::floor(std::log10(error)) : 4;
  const int places = static_cast<int>(std::clamp(digits, 0.0, 9.0));
  char buffer[96];
  std::snprintf(buffer, sizeof buffer, "%.*f +/- %.*f", places, value, places, error);
  return buffer;
}

std::string bytes_text(std::uint64_t bytes) {
  constexpr std::array units = {"B", "KiB", "MiB", "GiB", "TiB"};
  const Scaled scaled = scale(static_cast<double>(bytes), 1024, units.size() - 1);
  if (scaled.power == 0) return concat(bytes, " B");
  return concat(number_text(scaled.value), " ", units[scaled.power]);
}

std::string gigabytes_text(std::uint64_t bytes) {
  constexpr std::array units = {"B", "kB", "MB", "GB", "TB", "PB"};
  const Scaled scaled = scale(static_cast<double>(bytes), 1000, units.size() - 1);
  if (scaled.power == 0) return concat(bytes, " B");
  return concat(number_text(scaled.value), " ", units[scaled.power]);
}

std::string byte_rate_text(double bytes_per_second) {
  constexpr std::array units = {"B/s", "kB/s", "MB/s", "GB/s", "TB/s"};
  const Scaled scaled = scale(bytes_per_second, 1000, units.size() - 1);
  return concat(number_text(scaled.value), " ", units[scaled.power]);
}

std::string flop_rate_text(double flops_per_second) {
  constexpr std::array units = {"FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s"};
  const Scaled scaled = scale(flops_per_second, 1000, units.size() - 1);
  return concat(number_text(scaled.value), " ", units[scaled.power]);
}

std::string count_text(std::uint64_t count) {
  constexpr std::array units = {"", " K", " M", " B", " T"};
  const Scaled scaled = scale(static_cast<double>(count), 1000, units.size() - 1);
  if (scaled.power == 0) return concat(count);
  return concat(number_text(scaled.value), units[scaled.power]);
}

std::string duration_text(double seconds) {
  if (seconds < 10) {
    char buffer[16];
    std::snprintf(buffer, sizeof buffer, "%.1f s", std::max(seconds, 0.0));
    return buffer;
  }
  if (seconds < 120) return concat(static_cast<int>(std::lround(seconds)), " s");
  const auto minutes = static_cast<std::int64_t>(std::min(seconds / 60, 1e9));
  if (minutes < 120) return concat(minutes, " min");
  return concat(minutes / 60, " h ", minutes % 60, " min");
}

Result<std::uint64_t> parse_bytes(std::string_view text) {
  const Status bad(
      Code::argument,
      concat("\"", text, "\" is no size (expected a number of bytes such as 8G, 512M or 1.5GiB)"));
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !(value >= 0)) return bad;
  std::string unit(end, text.data() + text.size());
  for (char& c : unit) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  if (unit.ends_with("ib"))
    unit.resize(unit.size() - 2);
  else if (unit.ends_with("b"))
    unit.pop_back();
  constexpr std::string_view kPrefixes = "kmgt";
  double factor = 1;
  if (!unit.empty()) {
    const std::size_t power = kPrefixes.find(unit);
    if (unit.size() != 1 || power == std::string_view::npos) return bad;
    factor = std::exp2(10.0 * static_cast<double>(power + 1));
  }
  if (value * factor >= 0x1p63) return bad;
  return static_cast<std::uint64_t>(value * factor);
}

Result<std::uint64_t> parse_count(std::string_view text) {
  constexpr std::uint64_t kMost = 10'000'000'000'000'000;
  const auto refused = [&] {
    return Status(Code::argument,
                  concat("\"", text, "\": expected a whole count up to 10^16 as in 108e9, 117B or 12000"));
  };
  constexpr std::string_view kUnits = "kMBT";
  std::string_view digits = text;
  int power = 0;  // of ten
  if (!digits.empty())
    if (const std::size_t unit = kUnits.find(digits.back()); unit != kUnits.npos) {
      power = 3 * (static_cast<int>(unit) + 1);
      digits.remove_suffix(1);
    }
  if (const std::size_t e = digits.find_first_of("eE"); e != digits.npos) {
    std::string_view exponent = digits.substr(e + 1);
    if (exponent.starts_with('+')) exponent.remove_prefix(1);
    int value = 0;
    const auto read = std::from_chars(exponent.data(), exponent.data() + exponent.size(), value);
    if (read.ec != std::errc() || read.ptr != exponent.data() + exponent.size() || value < -30 || value > 30)
      return refused();
    power += value;
    digits = digits.substr(0, e);
  }
  std::uint64_t count = 0;
  bool any = false, fraction = false;
  for (const char c : digits) {
    if (c == '.' && !fraction) {
      fraction = true;
      continue;
    }
    if (c < '0' || c > '9') return refused();
    any = true;
    count = count * 10 + static_cast<std::uint64_t>(c - '0');
    if (count > kMost) return refused();
    power -= fraction;
  }
  for (; power > 0 && count <= kMost; --power) count *= 10;
  for (; power < 0 && count % 10 == 0 && count > 0; ++power) count /= 10;
  if (!any || power != 0 || count == 0 || count > kMost) return refused();
  return count;
}

}  // namespace nib::program
