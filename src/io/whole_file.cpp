#include "whole_file.hpp"

#include "positional_read.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace nib::inline v0 {

Status cannot_write(const std::string& path, int error) {
  return {Code::io, concat(path, ": cannot write: ", system_message(error))};
}

Status already_exists(const std::string& path) {
  return {Code::argument, concat(path, ": exists already, and overwriting was not asked for")};
}

bool is_taken(const std::string& path) {
  struct stat info;
  return ::lstat(path.c_str(), &info) == 0;
}

Status flush_directory_of(const std::string& path) {
  const int descriptor = ::open(directory_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return {};  // writable but not readable: a drop box
  const int error = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  return error == 0 || error == EINVAL || error == ENOTSUP ? Status() : cannot_write(path, error);
}

Result<WholeFile> WholeFile::create(const std::string& path, Overwrite overwrite) {
  if (path.find('\0') != path.npos) return cannot_write(path, ENOENT);  // would name another file
  WholeFile file(path);
  file.overwrite_ = overwrite == Overwrite::yes;
  if (!file.overwrite_ && is_taken(path)) return already_exists(path);
  NIB_TRY(file.open_partial());
  return file;
}

WholeFile::WholeFile(WholeFile&& other) noexcept
    : path_(std::move(other.path_)),
      partial_(std::exchange(other.partial_, {})),
      descriptor_(std::exchange(other.descriptor_, -1)),
      end_(other.end_),
      overwrite_(other.overwrite_),
      broken_(other.broken_) {}

WholeFile::~WholeFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!partial_.empty()) ::unlink(partial_.c_str());
}

Status WholeFile::open_partial() {
  for (int i = 0; i < 100; ++i) {  // others may be writing the same file, or may have died doing so
    std::string candidate = concat(path_, ".partial-", i);
    descriptor_ = ::open(candidate.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ >= 0) {
      partial_ = std::move(candidate);
      return {};
    }
    if (errno != EEXIST) return cannot_write(path_, errno);
  }
  return {Code::io, concat(path_, ": the temporary names ", path_, ".partial-0 to -99 are all taken")};
}

Status WholeFile::write(std::span<const std::byte> bytes) {
  NIB_TRY(write_at(end_, bytes));
  end_ += bytes.size();
  return {};
}

Status WholeFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::pwrite(descriptor_, bytes.data(), std::min(bytes.size(), std::size_t{1} << 30),
                                   static_cast<off_t>(offset));
    if (wrote < 0 && errno != EINTR) {
      broken_ = true;
      return cannot_write(path_, errno);
    }
    if (wrote > 0) {
      offset += static_cast<std::uint64_t>(wrote);
      bytes = bytes.subspan(static_cast<std::size_t>(wrote));
    }
  }
  return {};
}

Status WholeFile::publish() {
  if (broken_) return {Code::state, concat(path_, ": an earlier write failed")};
  if (::fsync(descriptor_) != 0) return cannot_write(path_, errno);
  if (::close(std::exchange(descriptor_, -1)) != 0) return cannot_write(path_, errno);
  NIB_TRY(give_name());
  return flush_directory_of(path_);
}

Status WholeFile::give_name() {
  if (!overwrite_) {
    // Unlike rename, a second name is refused where somebody else has written the file meanwhile. The
    // destructor drops the first one.
    if (::link(partial_.c_str(), path_.c_str()) == 0) return {};
    if (errno == EEXIST || is_taken(path_)) return already_exists(path_);
    // Some file systems have no second names; there the look before the renaming must do.
  }
  if (::rename(partial_.c_str(), path_.c_str()) != 0) return cannot_write(path_, errno);
  partial_.clear();
  return {};
}

}  // namespace nib::inline v0
