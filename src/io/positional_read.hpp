// Room io, private: the loop around pread, apart from the system call so that a test can be the system.
#pragma once

#include <nibble/base/concat.hpp>
#include <nibble/base/status.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <system_error>

#include <sys/types.h>

namespace nib::inline v0 {

// The system's own sentence for an errno, without strerror's shared buffer.
inline std::string system_message(int error) { return std::generic_category().message(error); }

// read(void* to, size_t bytes, uint64_t offset) behaves as pread does. `size` is the file's when it was
// opened.
template <class Read>
Status read_fully(const std::string& name, std::uint64_t size, std::uint64_t offset, std::span<std::byte> out,
                  Read read) {
  if (offset > size || out.size() > size - offset)
    return {Code::io, concat(name, ": cannot read ", out.size(), " bytes at offset ", offset,
                             ", the file has ", size, " bytes")};
  constexpr std::size_t kMostAtOnce = std::size_t{1} << 30;  // Linux reads less than 2 GiB per call
  while (!out.empty()) {
    const ssize_t got = read(out.data(), std::min(out.size(), kMostAtOnce), offset);
    if (got < 0) {
      if (errno == EINTR) continue;
      return {Code::io, concat(name, ": reading ", out.size(), " bytes at offset ", offset,
                               " failed: ", system_message(errno))};
    }
    if (got == 0)
      return {Code::io, concat(name, ": the file ends at byte ", offset, ", it had ", size,
                               " bytes when it was opened; ", out.size(), " more were expected")};
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

}  // namespace nib::inline v0
