#include "input.hpp"

#include "terminal.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/io/file.hpp>

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include <unistd.h>

namespace nib::program {
namespace {

Result<std::string> read_stdin(std::uint64_t most_bytes, const Cancel* cancel) {
  std::string text;
  std::vector<char> buffer(std::size_t{1} << 16);
  for (;;) {
    const ssize_t count = read(kStdin, buffer.data(), buffer.size());
    if (cancel && cancel->triggered()) return Status(Code::stopped, "reading standard input was interrupted");
    if (count == 0) return text;
    if (count < 0) {
      if (errno == EINTR) continue;
      return Status(Code::io, concat("standard input: cannot be read (", std::strerror(errno), ")"));
    }
    text.append(buffer.data(), static_cast<std::size_t>(count));
    if (text.size() > most_bytes)
      return Status(Code::argument, concat("standard input: has more than ", most_bytes, " bytes"));
  }
}

}  // namespace

Result<std::string> read_input(const std::string& path, std::uint64_t most_bytes, const Cancel* cancel) {
  if (path == "-") return read_stdin(most_bytes, cancel);
  NIB_ASSIGN(const auto file, disk_file_system().open(path));
  return read_all(*file, most_bytes);
}

}  // namespace nib::program
