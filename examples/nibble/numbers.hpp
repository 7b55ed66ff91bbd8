// Numbers as people read and type them.
#pragma once

#include <nibble/base/status.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace nib::program {

// Three significant digits, no exponent: "0.52", "33.1", "1240".
std::string number_text(double value);
// "74.638 +/- 0.627": a value to the place of the third digit of its error.
std::string estimate_text(double value, double error);
// "12.8 GiB", "18.4 MiB", "512 B": memory and files, in powers of 1024.
std::string bytes_text(std::uint64_t bytes);
// "57.4 GB": sizes as papers and disks count them, in powers of 1000.
std::string gigabytes_text(std::uint64_t bytes);
// "21.3 GB/s": bandwidth, in powers of 1000 as its makers count.
std::string byte_rate_text(double bytes_per_second);
// "82.5 GFLOP/s".
std::string flop_rate_text(double flops_per_second);
// "23.0 M", "20.9 B": counts of parameters.
std::string count_text(std::uint64_t count);
// "0.2 s", "47 s", "3 min", "2 h 10 min".
std::string duration_text(double seconds);

// "8G", "8GiB", "512M", "1.5g", "1000000": bytes, powers of 1024. Errors: argument.
Result<std::uint64_t> parse_bytes(std::string_view text);

// "108e9", "117B", "1.5M", "64": whole counts, powers of 1000, up to 10^16. Errors: argument.
Result<std::uint64_t> parse_count(std::string_view text);

}  // namespace nib::program
