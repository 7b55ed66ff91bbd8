// Room io: SafetensorsWriter: writes a safetensors file in one pass, and only a whole one ever appears.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/io/file.hpp>
#include <nibble/io/safetensors.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::inline v0 {

struct TensorSpec {
  std::string name;
  DType dtype = DType::u8;
  std::vector<std::uint64_t> shape;
};

using SafetensorsMetadata = std::vector<std::pair<std::string, std::string>>;

// Puts tensors into the order in which a file keeps them aligned to their elements: wide ones first, else as
// they are. Programs that read files through pointers of the element's type need it. Any thread.
void order_by_width(std::vector<TensorSpec>& tensors);

// The first bytes of a file holding `tensors` in that order: the length and the JSON, padded with spaces so
// that the data begins at a multiple of 8. Wide element types first keeps every tensor aligned to its
// elements. Errors: argument (whatever the reader would refuse: a name twice, a shape whose bytes cannot be
// counted). Any thread.
Result<std::string> safetensors_header(std::span<const TensorSpec> tensors,
                                       const SafetensorsMetadata& metadata = {});

// One thread at a time.
class SafetensorsWriter {
 public:
  // Creates a temporary file beside `path` and writes the header. The data begins at a multiple of
  // `alignment`, itself one of 8. Errors: argument (as above; `path` exists and `overwrite` is no), io.
  static Result<SafetensorsWriter> create(const std::string& path, std::span<const TensorSpec> tensors,
                                          const SafetensorsMetadata& metadata = {},
                                          Overwrite overwrite = Overwrite::no, std::uint64_t alignment = 8);

  SafetensorsWriter(SafetensorsWriter&&) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) noexcept;
  // Removes the temporary file unless finish() succeeded.
  ~SafetensorsWriter();

  // The next bytes of the data: tensors in order, each in as many pieces as you like. Errors: argument (more
  // than the header announced), io.
  Status append(std::span<const std::byte> bytes);

  // Bytes of the tensor `name` from `offset_in_tensor` on: tensors in any order, in pieces in any order, each
  // byte once. For one file, use either this or append(). Errors: argument (no such tensor, past its end),
  // io.
  Status write(std::string_view name, std::uint64_t offset_in_tensor, std::span<const std::byte> bytes);

  // Flushes to disk and gives the file its name, at once and whole. Errors: state (bytes are missing),
  // argument (as create), io. Call once; afterwards only destruction is allowed.
  Status finish();

 private:
  struct Output;
  explicit SafetensorsWriter(std::unique_ptr<Output> output);
  std::unique_ptr<Output> output_;
};

}  // namespace nib::inline v0
