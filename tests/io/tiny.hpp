// Safetensors files and checkpoints of a few hundred bytes, put together as text: independent of the
// library's writer.
#pragma once

#include "support/faulty_files.hpp"
#include <nibble/base/concat.hpp>

#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace nib::test {

// A file with this JSON as its header, as it is.
inline std::string safetensors_of(const std::string& json, const std::string& data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(json.size() >> (8 * i) & 0xff);
  return file + json + data;
}

struct TinyTensor {
  std::string name, dtype, shape;  // shape as JSON: "[2,3]"
  std::string data;
};

inline std::string safetensors_of(const std::vector<TinyTensor>& tensors) {
  std::string json = "{\"__metadata__\":{\"format\":\"pt\"}", data;
  for (const TinyTensor& tensor : tensors) {
    const std::size_t begin = data.size();
    data += tensor.data;
    json += concat(",\"", tensor.name, "\":{\"dtype\":\"", tensor.dtype, "\",\"shape\":", tensor.shape,
                   ",\"data_offsets\":[", begin, ",", data.size(), "]}");
  }
  return safetensors_of(json + "}", data);
}

inline std::string random_bytes(std::size_t count, std::mt19937::result_type seed) {
  std::mt19937 random(seed);
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

// Directory "m": two shards and an index, an MXFP4 tensor [2, 3, 64] whose scales lie in the other shard, a
// bf16 matrix, an i64 scalar, and a tensor that the index does not mention.
inline const char* const kTinyConfig =
    R"({"model_type":"gpt_oss","quantization_config":{"quant_method":"mxfp4","modules_to_not_convert":["lm_head"]}})";
inline const char* const kTinyIndex = R"({"metadata":{"total_size":236},"weight_map":{
"lm_head.weight":"model-00000-of-00001.safetensors",
"mlp.up_blocks":"model-00000-of-00001.safetensors",
"mlp.up_scales":"model-00001-of-00001.safetensors",
"steps":"model-00001-of-00001.safetensors"}})";

inline std::vector<TinyTensor> tiny_shard_0() {
  return {{"lm_head.weight", "BF16", "[2,5]", random_bytes(20, 1)},
          {"mlp.up_blocks", "U8", "[2,3,2,16]", random_bytes(192, 2)}};
}
inline std::vector<TinyTensor> tiny_shard_1() {
  return {{"mlp.up_scales", "U8", "[2,3,2]", random_bytes(12, 3)},
          {"unmapped", "F32", "[1]", random_bytes(4, 4)},
          {"steps", "I64", "[]", random_bytes(8, 5)}};
}

inline void add_tiny_sharded(FaultyFileSystem& files) {
  files.add("m/config.json", kTinyConfig);
  files.add("m/model.safetensors.index.json", kTinyIndex);
  files.add("m/model-00000-of-00001.safetensors", safetensors_of(tiny_shard_0()));
  files.add("m/model-00001-of-00001.safetensors", safetensors_of(tiny_shard_1()));
}

}  // namespace nib::test
