// Room io: GgufWriter: writes a GGUF file (version 3) in one pass, and only a whole one ever appears.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/io/file.hpp>
#include <nibble/io/gguf.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

// The metadata of a file to be written, in the order of the calls. Keys are checked when a header is made.
// Not for sharing between threads.
class GgufPairs {
 public:
  void add(std::string_view key, std::uint32_t value);
  void add(std::string_view key, std::int32_t value);
  void add(std::string_view key, std::uint64_t value);
  void add(std::string_view key, float value);
  void add(std::string_view key, std::string_view value);
  void add(std::string_view key, const char* value) { add(key, std::string_view(value)); }
  void add(std::string_view key, std::span<const std::string_view> values);
  void add(std::string_view key, std::span<const std::int32_t> values);
  void add(std::string_view key, std::span<const std::uint32_t> values);
  void add(std::string_view key, std::span<const float> values);
  // Only a bool: whatever else could become one (a pointer, an array) must not.
  template <std::same_as<bool> T>
  void add(std::string_view key, T value) {
    add_bool(key, value);
  }
  // A value read from another file, of any kind.
  void add(std::string_view key, const GgufValue& value);

  std::uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }  // as the file has them

 private:
  void add_bool(std::string_view key, bool value);
  void begin(std::string_view key, GgufKind kind);
  void begin_array(std::string_view key, GgufKind element, std::uint64_t count);
  std::string bytes_;
  std::uint64_t count_ = 0;
};

struct GgufTensorSpec {
  std::string name;  // at most 63 bytes: other readers keep it in 64
  GgufType type = GgufType::f32;
  std::vector<std::uint64_t> shape;  // row-major
};

// The first bytes of a file holding `tensors` in that order, up to where the data begins. The alignment is
// what general.alignment among the pairs says, else 32. Errors: argument (whatever the reader would refuse: a
// key or name twice, rows that are no whole number of blocks; a name longer than 63 bytes). Any thread.
Result<std::string> gguf_header(const GgufPairs& pairs, std::span<const GgufTensorSpec> tensors);

// One thread at a time.
class GgufWriter {
 public:
  // Creates a temporary file beside `path` and writes the header. Errors: argument (as above; `path` exists
  // and `overwrite` is no), io, memory.
  static Result<GgufWriter> create(const std::string& path, const GgufPairs& pairs,
                                   std::span<const GgufTensorSpec> tensors,
                                   Overwrite overwrite = Overwrite::no);

  GgufWriter(GgufWriter&&) noexcept;
  GgufWriter& operator=(GgufWriter&&) noexcept;
  // Removes the temporary file unless finish() succeeded.
  ~GgufWriter();

  // The next bytes of the tensors: in order, each in as many pieces as you like, a piece may run from one
  // tensor into the next. The padding between tensors is not yours to write. Errors: argument (more than the
  // header announced), io.
  Status append(std::span<const std::byte> bytes);

  // Flushes to disk and gives the file its name, at once and whole. Errors: state (bytes are missing, an
  // earlier append failed), argument (as create), io. Call once; afterwards only destruction is allowed.
  Status finish();

 private:
  struct Output;
  explicit GgufWriter(std::unique_ptr<Output> output);
  std::unique_ptr<Output> output_;
};

}  // namespace nib::inline v0
