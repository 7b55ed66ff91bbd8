#include "whole_file.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/io/output.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace nib::inline v0 {
namespace {

// Files and links to files; a directory inside stays, and with it this one.
void remove_with_files(const std::string& directory) {
  if (const auto names = disk_file_system().list_directory(directory); names.ok())
    for (const std::string& name : *names) ::unlink(join_path(directory, name).c_str());
  ::rmdir(directory.c_str());
}

// Whoever mistypes a path should not lose more than a model.
Status check_replaceable(const std::string& path) {
  const FileSystem& disk = disk_file_system();
  if (!disk.is_directory(path))
    return {Code::argument, concat(path, ": is a file, and a directory was to be written")};
  NIB_ASSIGN(const std::vector<std::string> names, disk.list_directory(path));
  for (const std::string& name : names)
    if (disk.is_directory(join_path(path, name)))
      return {Code::argument, concat(path, ": holds a directory, ", name,
                                     ", and only one of a model, which has none, is replaced")};
  if (!names.empty() && std::find(names.begin(), names.end(), "config.json") == names.end())
    return {Code::argument,
            concat(path, ": holds no config.json, and only a directory of a model is replaced")};
  return {};
}

}  // namespace

Status write_file(const std::string& path, std::string_view content, Overwrite overwrite) {
  return within_memory(path, [&]() -> Status {
    NIB_ASSIGN(WholeFile file, WholeFile::create(path, overwrite));
    NIB_TRY(file.write(std::as_bytes(std::span(content))));
    return file.publish();
  });
}

Result<OutputDirectory> OutputDirectory::create(std::string path, Overwrite overwrite) {
  return within_memory(path, [&]() -> Result<OutputDirectory> {
    if (path.empty() || path.find('\0') != path.npos) return cannot_write(path, ENOENT);
    while (path.size() > 1 && path.ends_with('/')) path.pop_back();
    OutputDirectory directory(path);
    directory.overwrite_ = overwrite == Overwrite::yes;
    if (is_taken(path)) {
      if (!directory.overwrite_) return already_exists(path);
      NIB_TRY(check_replaceable(path));
    }
    NIB_TRY(directory.make_partial());
    return directory;
  });
}

OutputDirectory::OutputDirectory(OutputDirectory&& other) noexcept
    : path_(std::move(other.path_)),
      partial_(std::exchange(other.partial_, {})),
      overwrite_(other.overwrite_) {}

OutputDirectory::~OutputDirectory() {
  if (!partial_.empty()) remove_with_files(partial_);
}

Status OutputDirectory::make_partial() {
  for (int i = 0; i < 100; ++i) {
    std::string candidate = concat(path_, ".partial-", i);
    if (::mkdir(candidate.c_str(), 0777) == 0) {
      partial_ = std::move(candidate);
      return {};
    }
    if (errno != EEXIST) return cannot_write(path_, errno);
  }
  return {Code::io, concat(path_, ": the temporary names ", path_, ".partial-0 to -99 are all taken")};
}

Status OutputDirectory::publish() {
  NIB_TRY(give_name());
  return flush_directory_of(path_);
}

Status OutputDirectory::give_name() {
  if (::renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) == 0) {
    partial_.clear();
    return {};
  }
  if (errno == EEXIST) return overwrite_ ? replace() : already_exists(path_);
  // Not every file system can refuse to replace. An empty directory may then be, a file or a model not.
  if (is_taken(path_)) return overwrite_ ? replace() : already_exists(path_);
  if (::rename(partial_.c_str(), path_.c_str()) != 0) return cannot_write(path_, errno);
  partial_.clear();
  return {};
}

// The two change names, and the old one goes as the temporary one would have.
Status OutputDirectory::replace() {
  NIB_TRY(check_replaceable(path_));
  if (::renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0) return {};
  // On file systems that cannot exchange there is a moment without either.
  const std::string old = partial_ + "-old";
  if (::rename(path_.c_str(), old.c_str()) != 0) return cannot_write(path_, errno);
  if (::rename(partial_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::rename(old.c_str(), path_.c_str());
    return cannot_write(path_, error);
  }
  partial_ = old;
  return {};
}

}  // namespace nib::inline v0
