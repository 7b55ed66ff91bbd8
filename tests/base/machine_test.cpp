// What this machine is said to be, against what the system says of it.
#include <nibble/base/machine.hpp>

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

#if defined(__x86_64__)
TEST_CASE("machine: the instruction sets are those that the system lists") {
  std::ifstream file("/proc/cpuinfo");
  std::vector<std::string> flags;
  for (std::string line; flags.empty() && std::getline(file, line);)
    if (line.starts_with("flags")) {
      std::istringstream words(line);
      flags.assign(std::istream_iterator<std::string>(words), {});
    }
  if (flags.empty()) return;  // the system tells nothing
  const auto has = [&](std::initializer_list<const char*> names) {
    return std::all_of(names.begin(), names.end(), [&](const char* name) {
      return std::find(flags.begin(), flags.end(), name) != flags.end();
    });
  };
  const CpuFeatures features = this_machine().features;
  CHECK(features.avx2_fma == has({"avx2", "fma"}));
  CHECK(features.avx_vnni == has({"avx2", "fma", "avx_vnni"}));
  CHECK(features.avx512_bf16 == has({"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq",
                                     "avx512_vnni", "avx512vbmi", "avx512_bf16"}));
}
#endif

}  // namespace
}  // namespace nib::test
