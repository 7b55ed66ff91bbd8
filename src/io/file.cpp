#include "positional_read.hpp"
#include <nibble/base/within_memory.hpp>
#include <nibble/io/file.hpp>

#include <algorithm>
#include <new>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace nib::inline v0 {
namespace {

struct Descriptor {
  int number;
  explicit Descriptor(int of) : number(of) {}
  Descriptor(Descriptor&& other) noexcept : number(std::exchange(other.number, -1)) {}
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
};

class DiskFile final : public File {
 public:
  DiskFile(std::string name, Descriptor descriptor, std::uint64_t size)
      : File(std::move(name)), descriptor_(std::move(descriptor)), size_(size) {}

  std::uint64_t size() const override { return size_; }
  Status read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    return read_fully(name(), size_, offset, out, [this](void* to, std::size_t bytes, std::uint64_t from) {
      return ::pread(descriptor_.number, to, bytes, static_cast<off_t>(from));
    });
  }

 private:
  Descriptor descriptor_;
  std::uint64_t size_;
};

Status cannot_open(const std::string& path, int error) {
  const Code code = error == ENOENT || error == ENOTDIR ? Code::not_found : Code::io;
  return {code, concat(path, ": cannot open: ", system_message(error))};
}

// The system takes a path to end at its first zero byte and would open another file than the one named.
bool is_path(const std::string& path) { return path.find('\0') == path.npos; }

class Disk final : public FileSystem {
 public:
  PathKind kind(const std::string& path) const override {
    struct stat info;
    if (!is_path(path)) return PathKind::missing;
    if (::stat(path.c_str(), &info) != 0)
      return errno == ENOENT || errno == ENOTDIR ? PathKind::missing : PathKind::file;
    return S_ISDIR(info.st_mode) ? PathKind::directory : PathKind::file;
  }

  Result<std::unique_ptr<File>> open(const std::string& path) const override {
    if (!is_path(path)) return cannot_open(path, ENOENT);
    // O_NONBLOCK: opening a named pipe must not wait for its other end. It means nothing to a regular file.
    Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat info;
    if (descriptor.number < 0 || ::fstat(descriptor.number, &info) != 0) return cannot_open(path, errno);
    if (!S_ISREG(info.st_mode))
      return Status(Code::io, concat(path, ": is ", S_ISDIR(info.st_mode) ? "a directory" : "no regular file",
                                     ", a file was expected"));
    return std::unique_ptr<File>(
        std::make_unique<DiskFile>(path, std::move(descriptor), static_cast<std::uint64_t>(info.st_size)));
  }

  Result<std::vector<std::string>> list_directory(const std::string& path) const override {
    DIR* directory = is_path(path) ? ::opendir(path.c_str()) : (errno = ENOENT, nullptr);
    if (!directory) return cannot_open(path, errno);
    std::vector<std::string> names;
    int error = 0;
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(directory);
      if (!entry) {
        error = errno;
        break;
      }
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
    }
    ::closedir(directory);
    if (error) return Status(Code::io, concat(path, ": cannot list the directory: ", system_message(error)));
    std::sort(names.begin(), names.end());
    return names;
  }
};

}  // namespace

const FileSystem& disk_file_system() {
  // Never destroyed: a host may still read files from its own exit handlers.
  alignas(Disk) static std::byte place[sizeof(Disk)];
  static const Disk* const disk = new (place) Disk;
  return *disk;
}

Result<std::string> read_all(const File& file, std::uint64_t max_bytes) {
  if (file.size() > max_bytes)
    return Status(Code::format,
                  concat(file.name(), ": has ", file.size(), " bytes, at most ", max_bytes, " are read"));
  return within_memory(file.name(), [&]() -> Result<std::string> {
    std::string text(file.size(), '\0');
    NIB_TRY(file.read_at(0, std::as_writable_bytes(std::span(text))));
    return text;
  });
}

std::string join_path(const std::string& directory, const std::string& name) {
  if (directory.empty() || directory == ".") return name;
  return directory.back() == '/' ? directory + name : directory + "/" + name;
}

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == path.npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string name_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == path.npos ? path : path.substr(slash + 1);
}

}  // namespace nib::inline v0
