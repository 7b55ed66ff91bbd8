// Any bytes are a safetensors file whose tensors fill it exactly, or refused.
#include "support/faulty_files.hpp"
#include <nibble/io/safetensors.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  nib::test::FaultyFileSystem files;
  files.add("input", std::string(reinterpret_cast<const char*>(data), size));
  const auto header = nib::read_safetensors_header(**files.open("input"));
  if (!header.ok()) {
    if (!header.status().message().starts_with("input: ")) std::abort();
    return 0;
  }
  std::uint64_t end = header->tensors.empty() ? size : header->tensors[0].offset;
  for (const nib::TensorEntry& tensor : header->tensors) {
    if (tensor.offset != end || tensor.bytes != nib::tensor_bytes(tensor.dtype, tensor.shape)) std::abort();
    end += tensor.bytes;
  }
  if (end != size) std::abort();
  return 0;
}
