// A small sharded checkpoint of which one file is the input: the first byte says which.
#include "io/tiny.hpp"
#include <nibble/io/checkpoint.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const char* const kFiles[] = {"config.json", "model.safetensors.index.json",
                                       "model-00000-of-00001.safetensors", "tokenizer_config.json"};
  if (size == 0) return 0;
  nib::test::FaultyFileSystem files;
  nib::test::add_tiny_sharded(files);
  files.add(std::string("m/") + kFiles[data[0] % std::size(kFiles)],
            std::string(reinterpret_cast<const char*>(data + 1), size - 1));
  const auto checkpoint = nib::open_checkpoint("m", files);
  if (!checkpoint.ok()) {
    if (checkpoint.status().code() == nib::Code::internal || checkpoint.status().message().empty())
      std::abort();
    return 0;
  }
  for (const nib::CheckpointTensor& tensor : checkpoint->tensors) {
    if (checkpoint->find(tensor.name) != &tensor) std::abort();
    for (const nib::Plane& plane : {tensor.codes, tensor.scales}) {
      std::string bytes(plane.bytes, '\0');
      if (!nib::read_plane(*checkpoint, plane, 0, std::as_writable_bytes(std::span(bytes))).ok())
        std::abort();
    }
  }
  return 0;
}
