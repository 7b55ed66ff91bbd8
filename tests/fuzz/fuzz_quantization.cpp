// Any config.json (the input up to its first NUL) over any safetensors file (the rest): tensors whose values
// can be read in part and whole, or an error by the name of a file.
#include "support/faulty_files.hpp"
#include <nibble/io/checkpoint.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\0'), input.size());
  nib::test::FaultyFileSystem files;
  files.add("m/config.json", input.substr(0, end));
  files.add("m/model.safetensors", input.substr(std::min(end + 1, input.size())));
  const auto checkpoint = nib::open_checkpoint("m", files);
  if (!checkpoint.ok()) {
    if (checkpoint.status().code() == nib::Code::internal || !checkpoint.status().message().starts_with("m/"))
      std::abort();
    return 0;
  }
  for (const nib::CheckpointTensor& tensor : checkpoint->tensors) {
    if (tensor.format == nib::Format::none) continue;
    std::uint64_t values = 1;
    for (const std::uint64_t n : tensor.shape) values *= n;
    const std::uint64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
    std::vector<float> all(values);
    if (!nib::read_values(*checkpoint, tensor, 0, std::span<float>(all)).ok()) std::abort();
    if (values == 0 || columns == 0) continue;
    // The last row alone is the same.
    const std::uint64_t rows = values / columns;
    std::vector<float> last(columns);
    if (!nib::read_values(*checkpoint, tensor, rows - 1, std::span<float>(last)).ok()) std::abort();
    for (std::uint64_t i = 0; i < columns; ++i) {
      const float a = last[i], b = all[(rows - 1) * columns + i];
      if (!(a == b || (a != a && b != b))) std::abort();
    }
  }
  return 0;
}
