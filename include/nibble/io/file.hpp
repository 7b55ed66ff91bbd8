// Room io: File and FileSystem: checked positional reads, and the two interfaces that tests replace.
//
// No file is ever mapped: a file that shrinks under a mapping kills the host's process, a file that shrinks
// under a read is an error with a name.
#pragma once

#include <nibble/base/status.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace nib::inline v0 {

// An open file of known size. Everything is const and safe from any number of threads at once.
class File {
 public:
  virtual ~File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // The path as it was given to open(); used in messages.
  const std::string& name() const { return name_; }

  // Bytes in the file when it was opened.
  virtual std::uint64_t size() const = 0;

  // Fills `out` with the bytes from `offset` on, all of them or an error. Errors: io (the range is not in the
  // file, the file has become shorter since it was opened, the system refused), naming the file, the offset,
  // and what was found and expected; `out` is then undefined.
  virtual Status read_at(std::uint64_t offset, std::span<std::byte> out) const = 0;

 protected:
  explicit File(std::string name) : name_(std::move(name)) {}

 private:
  std::string name_;
};

enum class PathKind : std::uint8_t { missing, file, directory };

// Where paths lead. Const, any thread.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // What is at `path`, symbolic links followed. Something that exists but may not be looked at is `file`;
  // open() then says why not.
  virtual PathKind kind(const std::string& path) const = 0;
  bool exists(const std::string& path) const { return kind(path) != PathKind::missing; }
  bool is_directory(const std::string& path) const { return kind(path) == PathKind::directory; }

  // Errors: not_found; io (no permission, a directory, no regular file, too many open files).
  virtual Result<std::unique_ptr<File>> open(const std::string& path) const = 0;

  // Names (not paths) of everything in a directory but "." and "..", sorted. Errors as for open().
  virtual Result<std::vector<std::string>> list_directory(const std::string& path) const = 0;
};

// The one of the operating system; static storage.
const FileSystem& disk_file_system();

// What a writer does when its path exists already: refuse, or replace it.
enum class Overwrite : std::uint8_t { no, yes };

// The whole file as text. Errors: format (larger than `max_bytes`), memory, those of read_at.
Result<std::string> read_all(const File& file, std::uint64_t max_bytes);

// "dir" and "name" as "dir/name"; the directory of "a/b" is "a", of "b" it is "."; the name of "a/b" is "b".
std::string join_path(const std::string& directory, const std::string& name);
std::string directory_of(const std::string& path);
std::string name_of(const std::string& path);

}  // namespace nib::inline v0
