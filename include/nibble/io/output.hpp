// Room io: what else a written model is made of: small files, and the directory that holds them all. Like the
// writers of weights, they appear whole or not at all.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/io/file.hpp>

#include <string>
#include <string_view>

namespace nib::inline v0 {

// Writes a file of that content, by way of a temporary one beside it. Errors: argument (`path` exists and
// `overwrite` is no), io. Any thread.
Status write_file(const std::string& path, std::string_view content, Overwrite overwrite = Overwrite::no);

// A directory that is filled under a temporary name, "PATH.partial-N", and gets its own when it is complete.
// One thread at a time.
class OutputDirectory {
 public:
  // Errors: argument (`path` exists and `overwrite` is no; it exists and is no directory of a model: one with
  // a config.json and nothing but files), io.
  static Result<OutputDirectory> create(std::string path, Overwrite overwrite = Overwrite::no);

  OutputDirectory(OutputDirectory&& other) noexcept;
  OutputDirectory& operator=(OutputDirectory&&) = delete;
  // Removes the temporary directory and the files in it unless publish() succeeded.
  ~OutputDirectory();

  // Where to put the files for now.
  std::string at(const std::string& name) const { return join_path(partial_, name); }

  // Gives the directory its name and removes the one that had it before. Errors: argument (as create), io.
  // Call once, when every file has been written.
  Status publish();

 private:
  explicit OutputDirectory(std::string path) : path_(std::move(path)) {}
  Status make_partial();
  Status give_name();
  Status replace();

  std::string path_, partial_;
  bool overwrite_ = false;
};

}  // namespace nib::inline v0
