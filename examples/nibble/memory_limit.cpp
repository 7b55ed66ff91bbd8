#include "memory_limit.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string_view>

namespace nib::program {
namespace {

using Bytes = std::optional<std::uint64_t>;

// The files of /proc and /sys have no size that could be asked for: read line by line.
Bytes number_in(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (!(file >> value)) return {};  // also "max"
  return value;
}

// "key  123 kB" or "key 123": the number behind the key.
Bytes number_of(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t value = 0;
    if (words >> name >> value && name == key) return value;
  }
  return {};
}

// One kind of cgroup: where its files are and what they are called.
struct Hierarchy {
  const char *mount, *limit, *usage, *reclaimable;
};
constexpr Hierarchy kVersion2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};
constexpr Hierarchy kVersion1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                 "total_inactive_file"};
// Version 1 writes "no limit" as the largest multiple of a page; no machine comes near it.
constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 60;

// A limit binds every group below it: looks at `group` and at all its ancestors, up to the mount.
void tighten(MemoryLimits& limits, const std::string& root, const Hierarchy& hierarchy, std::string group) {
  for (;;) {
    const std::string folder = root + hierarchy.mount + group + "/";
    if (const Bytes limit = number_in(folder + hierarchy.limit); limit && *limit < kNoLimit) {
      const std::uint64_t used = number_in(folder + hierarchy.usage).value_or(0);
      const std::uint64_t reclaimable = number_of(folder + "memory.stat", hierarchy.reclaimable).value_or(0);
      const std::uint64_t held = used - std::min(used, reclaimable);
      const std::uint64_t free = *limit - std::min(*limit, held);
      limits.container = std::min(limits.container.value_or(*limit), *limit);
      limits.container_free = std::min(limits.container_free.value_or(free), free);
    }
    if (group.empty()) return;
    group.erase(group.rfind('/'));
  }
}

}  // namespace

std::optional<std::uint64_t> MemoryLimits::usable() const {
  if (!available) return container_free;
  if (!container_free) return available;
  return std::min(*available, *container_free);
}

MemoryLimits read_memory_limits(const std::string& root) {
  MemoryLimits limits;
  if (const Bytes kilobytes = number_of(root + "/proc/meminfo", "MemAvailable:"))
    limits.available = *kilobytes * 1024;
  // Lines "id:controllers:path"; version 2 is the one with id 0 and no controllers.
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    std::string group = line.substr(second + 1);
    if (group.empty() || group.front() != '/') continue;
    if (group == "/") group.clear();
    if (controllers == ",,") tighten(limits, root, kVersion2, group);
    if (controllers.find(",memory,") != std::string::npos) tighten(limits, root, kVersion1, group);
  }
  return limits;
}

}  // namespace nib::program
