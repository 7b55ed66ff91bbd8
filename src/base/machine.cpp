#include <nibble/base/machine.hpp>

#include <cstdio>
#include <cstring>
#include <thread>

#include <sched.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace nib::inline v0 {
namespace {

#if defined(__x86_64__)
std::string cpu_name() {
  unsigned words[12] = {};
  unsigned highest = 0, unused = 0;
  if (!__get_cpuid(0x80000000u, &highest, &unused, &unused, &unused) || highest < 0x80000004u)
    return "x86-64";
  for (unsigned leaf = 0; leaf < 3; ++leaf)
    __get_cpuid(0x80000002u + leaf, &words[4 * leaf], &words[4 * leaf + 1], &words[4 * leaf + 2],
                &words[4 * leaf + 3]);
  char text[sizeof words + 1] = {};
  std::memcpy(text, words, sizeof words);
  std::string name(text);
  while (!name.empty() && name.back() == ' ') name.pop_back();
  return name.empty() ? "x86-64" : name;
}

// Not every compiler's __builtin_cpu_supports knows it: bit 4 of what leaf 7 says in its second part.
bool has_avx_vnni() {
  unsigned parts = 0, features = 0, unused = 0;
  return __get_cpuid_count(7, 0, &parts, &unused, &unused, &unused) && parts >= 1 &&
         __get_cpuid_count(7, 1, &features, &unused, &unused, &unused) && (features & 1u << 4) != 0;
}

CpuFeatures cpu_features() {
  __builtin_cpu_init();
  CpuFeatures features;
  features.avx2_fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  features.avx_vnni = features.avx2_fma && has_avx_vnni();
  features.avx512_bf16 = features.avx2_fma && __builtin_cpu_supports("avx512f") &&
                         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") &&
                         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bf16");
  return features;
}
#elif defined(__aarch64__)
// The name stands in a register that the kernel answers for, and it is two numbers: who made it, and which
// part.
std::string cpu_name() {
  if (!(getauxval(AT_HWCAP) & HWCAP_CPUID)) return "AArch64";
  std::uint64_t id;
  asm("mrs %0, midr_el1" : "=r"(id));
  char text[64];
  std::snprintf(text, sizeof text, "AArch64, implementer 0x%02x, part 0x%03x",
                static_cast<unsigned>(id >> 24 & 0xff), static_cast<unsigned>(id >> 4 & 0xfff));
  return text;
}

CpuFeatures cpu_features() {
  CpuFeatures features;
  features.neon_dot = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
  return features;
}
#else
std::string cpu_name() { return "unknown"; }
CpuFeatures cpu_features() { return {}; }
#endif

int usable_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  const unsigned count = std::thread::hardware_concurrency();
  return count ? static_cast<int>(count) : 1;
}

std::uint64_t cache_bytes(int name) {
  const long bytes = sysconf(name);
  return bytes > 0 ? static_cast<std::uint64_t>(bytes) : 0;
}

}  // namespace

Machine this_machine() {
  Machine machine;
  machine.cpu = cpu_name();
  machine.features = cpu_features();
  machine.threads = usable_processors();
  struct sysinfo info = {};
  if (sysinfo(&info) == 0) machine.memory = std::uint64_t{info.totalram} * info.mem_unit;
  machine.l2_cache = cache_bytes(_SC_LEVEL2_CACHE_SIZE);
  machine.l3_cache = cache_bytes(_SC_LEVEL3_CACHE_SIZE);
  return machine;
}

}  // namespace nib::inline v0
