// Files of the disk, and the read loop against a system that misbehaves.
#include "../../src/io/positional_read.hpp"
#include "io/temporary.hpp"
#include "io/tiny.hpp"
#include <nibble/io/file.hpp>

#include <atomic>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <thread>

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace nib;
using nib::test::TemporaryDirectory;

namespace {

std::span<std::byte> bytes_of(std::string& text) { return std::as_writable_bytes(std::span(text)); }

}  // namespace

TEST_CASE("a file reads at any offset, from many threads") {
  const TemporaryDirectory directory;
  const std::string content = test::random_bytes(100'000, 11);
  const std::string path = directory.write("data", content);
  auto file = disk_file_system().open(path);
  REQUIRE(file.ok());
  CHECK((*file)->size() == content.size());
  CHECK((*file)->name() == path);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed)
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (int i = 0; i < 500; ++i) {
        const std::size_t offset = random() % content.size();
        std::string part(random() % (content.size() - offset + 1), '\0');
        if (!(*file)->read_at(offset, bytes_of(part)).ok() || content.compare(offset, part.size(), part) != 0)
          ++wrong;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("a range outside the file is an error that says so") {
  const TemporaryDirectory directory;
  const auto file = disk_file_system().open(directory.write("data", "0123456789"));
  REQUIRE(file.ok());
  std::string out(4, '\0');
  CHECK((*file)->read_at(6, bytes_of(out)).ok());
  CHECK(out == "6789");
  for (const std::uint64_t offset :
       {std::uint64_t{7}, std::uint64_t{11}, ~std::uint64_t{0}, ~std::uint64_t{2}}) {
    const Status status = (*file)->read_at(offset, bytes_of(out));
    CHECK(status.code() == Code::io);
    CHECK(status.message() == concat(directory.path("data"), ": cannot read 4 bytes at offset ", offset,
                                     ", the file has 10 bytes"));
  }
  CHECK((*file)->read_at(10, {}).ok());
}

TEST_CASE("a file cut after it was opened is an error, not a signal") {
  const TemporaryDirectory directory;
  const auto file = disk_file_system().open(directory.write("data", std::string(10'000, 'x')));
  REQUIRE(file.ok());
  std::filesystem::resize_file(directory.path("data"), 5'000);
  std::string out(6'000, '\0');
  const Status status = (*file)->read_at(1'000, bytes_of(out));
  CHECK(status.code() == Code::io);
  CHECK(status.message() ==
        directory.path("data") +
            ": the file ends at byte 5000, it had 10000 bytes when it was opened; 2000 more were "
            "expected");
}

TEST_CASE("what is no file cannot be opened") {
  const TemporaryDirectory directory;
  const FileSystem& disk = disk_file_system();
  CHECK(disk.open(directory.path("absent")).status().code() == Code::not_found);
  CHECK(disk.open(directory.path("absent")).status().message().starts_with(directory.path("absent")));
  const std::string file = directory.write("file", "x");
  CHECK(disk.open(file + "/below").status().code() == Code::not_found);
  CHECK(disk.open(directory.path()).status().message() ==
        directory.path() + ": is a directory, a file was expected");
  REQUIRE(::mkfifo(directory.path("pipe").c_str(), 0600) == 0);
  CHECK(disk.open(directory.path("pipe")).status().code() == Code::io);  // and does not wait for a writer
  CHECK(disk.list_directory(file).status().code() == Code::not_found);
  const std::string with_zero = file + std::string("\0", 1);
  CHECK(disk.kind(with_zero) == PathKind::missing);
  CHECK(disk.open(with_zero).status().code() == Code::not_found);
  CHECK(disk.list_directory(directory.path() + std::string("\0", 1)).status().code() == Code::not_found);
}

TEST_CASE("directories are listed in order, kinds are told apart, links are followed") {
  const TemporaryDirectory directory;
  const FileSystem& disk = disk_file_system();
  for (const char* name : {"b", "a", ".hidden", "c"}) directory.write(name, "x");
  std::filesystem::create_directory(directory.path("d"));
  std::filesystem::create_symlink(directory.path("a"), directory.path("link"));
  std::filesystem::create_symlink(directory.path("nowhere"), directory.path("loose"));
  const auto names = disk.list_directory(directory.path());
  REQUIRE(names.ok());
  CHECK(*names == std::vector<std::string>{".hidden", "a", "b", "c", "d", "link", "loose"});
  CHECK(disk.kind(directory.path("d")) == PathKind::directory);
  CHECK(disk.kind(directory.path("link")) == PathKind::file);
  CHECK(disk.kind(directory.path("loose")) == PathKind::missing);
  CHECK(disk.open(directory.path("link")).ok());
}

TEST_CASE("read_all reads everything up to its limit") {
  test::FaultyFileSystem files;
  files.add("f", "hello");
  CHECK(*read_all(**files.open("f"), 5) == "hello");
  const Status status = read_all(**files.open("f"), 4).status();
  CHECK(status.code() == Code::format);
  CHECK(status.message() == "f: has 5 bytes, at most 4 are read");
  files.fail_at = files.reads();
  CHECK(read_all(**files.open("f"), 5).status().code() == Code::io);
}

TEST_CASE("paths are put together and taken apart") {
  CHECK(join_path("a/b", "c") == "a/b/c");
  CHECK(join_path("a/", "c") == "a/c");
  CHECK(join_path(".", "c") == "c");
  CHECK(join_path("/", "c") == "/c");
  CHECK(directory_of("a/b") == "a");
  CHECK(directory_of("b") == ".");
  CHECK(directory_of("/b") == "/");
  CHECK(name_of("a/b") == "b");
  CHECK(name_of("b") == "b");
}

TEST_CASE("the read loop: interrupted, short, failing and ending reads") {
  const std::string content = "0123456789abcdef";
  // One entry per call: a count of bytes at most, or minus an errno.
  const auto system = [&](std::deque<int> script) {
    return [&content, script](void* to, std::size_t bytes, std::uint64_t from) mutable -> ssize_t {
      int step = 1 << 20;
      if (!script.empty()) {
        step = script.front();
        script.pop_front();
      }
      if (step < 0) {
        errno = -step;
        return -1;
      }
      const std::size_t got = std::min(bytes, static_cast<std::size_t>(step));
      std::memcpy(to, content.data() + from, got);
      return static_cast<ssize_t>(got);
    };
  };
  std::string out(12, '\0');
  CHECK(read_fully("f", 16, 3, bytes_of(out), system({1, -EINTR, 5, -EINTR, -EINTR, 2})).ok());
  CHECK(out == content.substr(3, 12));
  const Status failed = read_fully("f", 16, 3, bytes_of(out), system({4, -EIO}));
  CHECK(failed.code() == Code::io);
  CHECK(failed.message() == "f: reading 8 bytes at offset 7 failed: Input/output error");
  const Status ended = read_fully("f", 16, 3, bytes_of(out), system({4, 0}));
  CHECK(ended.message() ==
        "f: the file ends at byte 7, it had 16 bytes when it was opened; 8 more were expected");
}
