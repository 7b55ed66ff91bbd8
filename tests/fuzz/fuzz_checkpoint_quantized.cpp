// A safetensors file under one quantization_config or another (the first byte says which): tensors whose
// values can be read, or an error by the name of a file.
#include "io/tiny.hpp"
#include <nibble/io/checkpoint.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const char* const kConfigs[] = {
      R"({})", R"({"quantization_config":{"quant_method":"bitsandbytes"}})",
      R"({"quantization_config":{"quant_method":"fp8","weight_block_size":[2,4]}})",
      R"({"quantization_config":{"quant_method":"compressed-tensors","format":"float-quantized"}})",
      R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4"}})"};
  if (size == 0) return 0;
  nib::test::FaultyFileSystem files;
  files.add("m/config.json", kConfigs[data[0] % std::size(kConfigs)]);
  files.add("m/model.safetensors", std::string(reinterpret_cast<const char*>(data + 1), size - 1));
  const auto checkpoint = nib::open_checkpoint("m", files);
  if (!checkpoint.ok()) {
    if (checkpoint.status().code() == nib::Code::internal || !checkpoint.status().message().starts_with("m"))
      std::abort();
    return 0;
  }
  for (const nib::CheckpointTensor& tensor : checkpoint->tensors) {
    if (checkpoint->find(tensor.name) != &tensor) std::abort();
    if (tensor.format == nib::Format::none) continue;
    std::uint64_t values = 1;
    for (const std::uint64_t n : tensor.shape) values *= n;
    std::vector<float> out(values);
    if (!nib::read_values(*checkpoint, tensor, 0, std::span<float>(out)).ok()) std::abort();
  }
  return 0;
}
