// GGUF files of a few hundred bytes, put together byte by byte: independent of the library's writer.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace nib::test {

// The low `bytes` bytes of a number, little-endian.
inline std::string le(std::uint64_t number, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(number >> (8 * i) & 0xff);
  return out;
}
inline std::string gguf_string(const std::string& text) { return le(text.size(), 8) + text; }

// A metadata pair: kinds as in the format, 4 = u32, 6 = f32, 7 = bool, 8 = string, 9 = array.
inline std::string gguf_pair(const std::string& key, int kind, const std::string& value) {
  return gguf_string(key) + le(static_cast<std::uint64_t>(kind), 4) + value;
}
inline std::string gguf_u32(const std::string& key, std::uint32_t value) {
  return gguf_pair(key, 4, le(value, 4));
}
inline std::string gguf_text(const std::string& key, const std::string& value) {
  return gguf_pair(key, 8, gguf_string(value));
}
inline std::string gguf_array(const std::string& key, int kind, std::uint64_t count,
                              const std::string& elements) {
  return gguf_pair(key, 9, le(static_cast<std::uint64_t>(kind), 4) + le(count, 8) + elements);
}

struct TinyGgufTensor {
  std::string name;
  std::vector<std::uint64_t> dims;  // fastest first, as the file has them
  std::uint32_t type;
  std::string data;
};

struct TinyGguf {
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;
  std::vector<std::string> pairs;
  std::vector<TinyGgufTensor> tensors;

  std::string header() const {
    std::string out = "GGUF" + le(version, 4) + le(tensors.size(), 8) + le(pairs.size(), 8);
    for (const std::string& pair : pairs) out += pair;
    std::uint64_t offset = 0;
    for (const TinyGgufTensor& tensor : tensors) {
      out += gguf_string(tensor.name) + le(tensor.dims.size(), 4);
      for (const std::uint64_t dim : tensor.dims) out += le(dim, 8);
      out += le(tensor.type, 4) + le(offset, 8);
      offset = (offset + tensor.data.size() + alignment - 1) / alignment * alignment;
    }
    return out;
  }

  std::string file() const {
    std::string out = header();
    const auto pad = [&] { out.resize((out.size() + alignment - 1) / alignment * alignment, '\0'); };
    pad();
    for (const TinyGgufTensor& tensor : tensors) {
      out += tensor.data;
      pad();
    }
    return out;
  }
};

}  // namespace nib::test
