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
#include <utility>
#include <vector>

namespace nib::inline v0 {

struct TensorSpec {
  std::string name;
  DType dtype = DType::u8;
  std::vector<std::uint64_t> shape;
};

using SafetensorsMetadata = std::vector<std::pair<std::string, std::string>>;

// The first bytes of a file holding `tensors` in that order: the length and the JSON, padded with spaces so
// that the data begins at a multiple of 8. Wide element types first keeps every tensor aligned to its
// elements. Errors: argument (whatever the reader would refuse: a name twice, a shape whose bytes cannot be
// counted). Any thread.
Result<std::string> safetensors_header(std::span<const TensorSpec> tensors,
                                       const SafetensorsMetadata& metadata = {});

// One thread at a time.
class SafetensorsWriter {
 public:
  // Creates a temporary file beside `path` and writes the header. Errors: argument (as above; `path` exists
  // and `overwrite` is no), io.
  static Result<SafetensorsWriter> create(const std::string& path, std::span<const TensorSpec> tensors,
                                          const SafetensorsMetadata& metadata = {},
                                          Overwrite overwrite = Overwrite::no);

  SafetensorsWriter(SafetensorsWriter&&) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) noexcept;
  // Removes the temporary file unless finish() succeeded.
  ~SafetensorsWriter();

  // The next bytes of the data: tensors in order, each in as many pieces as you like. Errors: argument (more
  // than the header announced), io.
  Status append(std::span<const std::byte> bytes);

  // Flushes to disk and gives the file its name, at once and whole. Errors: state (bytes are missing),
  // argument (as create), io. Call once; afterwards only destruction is allowed.
  Status finish();

 private:
  struct Output;
  explicit SafetensorsWriter(std::unique_ptr<Output> output);
  std::unique_ptr<Output> output_;
};

}  // namespace nib::inline v0
