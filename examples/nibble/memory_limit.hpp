// How much memory this process may still take: the least of what the machine has free and what the container
// (cgroup, version 1 or 2) leaves. The library asks none of this; the program reads it and passes it on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace nib::program {

struct MemoryLimits {
  std::optional<std::uint64_t> available;       // MemAvailable of /proc/meminfo
  std::optional<std::uint64_t> container;       // the tightest limit of this process's cgroups
  std::optional<std::uint64_t> container_free;  // what is left below it; reclaimable file pages count as free

  // What a model may take: the least of what is known; nothing when nothing is.
  std::optional<std::uint64_t> usable() const;
};

// `root` stands before /proc and /sys; tests put a folder of theirs there.
MemoryLimits read_memory_limits(const std::string& root = "");

}  // namespace nib::program
