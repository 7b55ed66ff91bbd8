// An in-memory FileSystem whose reads fail when a test says so.
#pragma once
#include <nibble/base/concat.hpp>
#include <nibble/io/file.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace nib::test {

// Files are paths with '/'; a directory exists when a file lies below it. Add files first, then open.
class FaultyFileSystem final : public FileSystem {
 public:
  static constexpr std::uint64_t kNever = ~std::uint64_t{0};

  // The read numbered `fail_at` (counted from 0 over all files) and all later ones fail as a dying disk does.
  std::uint64_t fail_at = kNever;
  // Open files end here, as if another process had cut them after they were opened.
  std::uint64_t cut_open_files_to = kNever;

  void add(const std::string& path, std::string content) {
    files_[path] = std::make_shared<std::string>(std::move(content));
  }
  void remove(const std::string& path) { files_.erase(path); }
  std::string& content(const std::string& path) { return *files_.at(path); }
  bool has(const std::string& path) const { return files_.count(path) != 0; }
  std::uint64_t reads() const { return reads_; }
  std::vector<std::string> paths() const {
    std::vector<std::string> all;
    for (const auto& [path, content] : files_) all.push_back(path);
    return all;
  }

  // Copies the files of one directory of the disk (not its subdirectories) to `as`.
  void add_directory(const std::string& disk_path, const std::string& as) {
    for (const auto& entry : std::filesystem::directory_iterator(disk_path)) {
      if (!entry.is_regular_file()) continue;
      std::ifstream file(entry.path(), std::ios::binary);
      add(as + "/" + entry.path().filename().string(), {std::istreambuf_iterator<char>(file), {}});
    }
  }

  PathKind kind(const std::string& path) const override {
    if (files_.count(path)) return PathKind::file;
    const auto below = files_.lower_bound(path + "/");
    return below != files_.end() && below->first.starts_with(path + "/") ? PathKind::directory
                                                                         : PathKind::missing;
  }

  Result<std::unique_ptr<File>> open(const std::string& path) const override {
    const auto found = files_.find(path);
    if (found == files_.end()) return Status(Code::not_found, concat(path, ": cannot open"));
    return std::unique_ptr<File>(std::make_unique<MemoryFile>(path, found->second, *this));
  }

  Result<std::vector<std::string>> list_directory(const std::string& path) const override {
    std::vector<std::string> names;
    for (const auto& [file, content] : files_)
      if (file.starts_with(path + "/") && file.find('/', path.size() + 1) == file.npos)
        names.push_back(file.substr(path.size() + 1));
    return names;
  }

 private:
  // An atomic that copies, so that a test can return a FaultyFileSystem from a function.
  struct Counter : std::atomic<std::uint64_t> {
    Counter() : std::atomic<std::uint64_t>(0) {}
    Counter(const Counter& other) : std::atomic<std::uint64_t>(other.load()) {}
  };

  class MemoryFile final : public File {
   public:
    MemoryFile(std::string name, std::shared_ptr<const std::string> content, const FaultyFileSystem& owner)
        : File(std::move(name)), content_(std::move(content)), size_(content_->size()), owner_(owner) {}

    std::uint64_t size() const override { return size_; }
    Status read_at(std::uint64_t offset, std::span<std::byte> out) const override {
      if (owner_.reads_++ >= owner_.fail_at)
        return {Code::io, concat(name(), ": reading at offset ", offset, " failed: injected")};
      const std::uint64_t end = std::min<std::uint64_t>(size_, owner_.cut_open_files_to);
      if (offset > end || out.size() > end - offset)
        return {Code::io,
                concat(name(), ": ", out.size(), " bytes at offset ", offset, " are not among ", end)};
      if (!out.empty()) std::memcpy(out.data(), content_->data() + offset, out.size());
      return {};
    }

   private:
    std::shared_ptr<const std::string> content_;
    std::uint64_t size_;
    const FaultyFileSystem& owner_;
  };

  std::map<std::string, std::shared_ptr<std::string>> files_;
  mutable Counter reads_;
};

}  // namespace nib::test
