// Room io, private: WholeFile: a file that appears under its name at once and whole, or not at all.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/io/file.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace nib::inline v0 {

// Written to a temporary file beside its path: "PATH.partial-N", which no reader of checkpoints takes for one
// of its files. One thread at a time.
class WholeFile {
 public:
  // Errors: argument (`path` exists and `overwrite` is no), io.
  static Result<WholeFile> create(const std::string& path, Overwrite overwrite);

  WholeFile(WholeFile&& other) noexcept;
  WholeFile& operator=(WholeFile&&) = delete;
  // Removes the temporary file unless publish() succeeded.
  ~WholeFile();

  const std::string& path() const { return path_; }

  // The next bytes. Errors: io; after one, nobody knows what is in the file, and publish() refuses.
  Status write(std::span<const std::byte> bytes);

  // Bytes at a place of their own, in any order. What write() wrote is counted from the beginning all the
  // same.
  Status write_at(std::uint64_t offset, std::span<const std::byte> bytes);

  // Flushes to disk and gives the file its name, then flushes the directory, so that the name survives a
  // crash too. Errors: state (an earlier write failed), argument (as create), io. Call once.
  Status publish();

 private:
  explicit WholeFile(std::string path) : path_(std::move(path)) {}
  Status open_partial();
  Status give_name();

  std::string path_, partial_;
  int descriptor_ = -1;
  std::uint64_t end_ = 0;  // of what write() wrote
  bool overwrite_ = false;
  bool broken_ = false;
};

// What writers of files and directories say and do alike.
Status cannot_write(const std::string& path, int error);
Status already_exists(const std::string& path);
// Whether something has this name, be it a link that leads nowhere.
bool is_taken(const std::string& path);
// Makes names given in the directory of `path` survive a crash. Not every file system can flush a directory;
// then there is nothing to wait for.
Status flush_directory_of(const std::string& path);

}  // namespace nib::inline v0
