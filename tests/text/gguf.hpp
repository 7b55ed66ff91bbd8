// The vocabulary of a GGUF file, read by a few lines that trust it: for files of the data folder.
#pragma once

#include "support/data.hpp"
#include <nibble/text/tokenizer_data.hpp>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::test {

class TrustedGguf {
 public:
  static GgufVocabulary vocabulary(const std::string& path) {
    const std::string file = read_text(path);
    return TrustedGguf(file).read();
  }

 private:
  explicit TrustedGguf(std::string_view file) : rest_(file) {}

  template <class T>
  T take() {
    T value;
    REQUIRE(rest_.size() >= sizeof value);
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_.remove_prefix(sizeof value);
    return value;
  }
  std::string text() {
    const auto size = take<std::uint64_t>();
    REQUIRE(rest_.size() >= size);
    std::string text(rest_.substr(0, size));
    rest_.remove_prefix(size);
    return text;
  }

  struct Value {
    std::vector<std::string> texts;
    std::vector<double> numbers;
  };
  void one(std::uint32_t type, Value& value) {
    switch (type) {
      case 0:
        return value.numbers.push_back(take<std::uint8_t>());
      case 1:
        return value.numbers.push_back(take<std::int8_t>());
      case 2:
        return value.numbers.push_back(take<std::uint16_t>());
      case 3:
        return value.numbers.push_back(take<std::int16_t>());
      case 4:
        return value.numbers.push_back(take<std::uint32_t>());
      case 5:
        return value.numbers.push_back(take<std::int32_t>());
      case 6:
        return value.numbers.push_back(take<float>());
      case 7:
        return value.numbers.push_back(take<std::uint8_t>());
      case 8:
        return value.texts.push_back(text());
      default:
        FAIL("a type this reader does not know: " << type);
    }
  }

  GgufVocabulary read() {
    GgufVocabulary out;
    REQUIRE(rest_.substr(0, 4) == "GGUF");
    rest_.remove_prefix(4);
    take<std::uint32_t>();  // the version
    take<std::uint64_t>();  // tensors
    std::string architecture;
    for (auto keys = take<std::uint64_t>(); keys > 0; --keys) {
      const std::string key = text();
      Value value;
      auto type = take<std::uint32_t>();
      std::uint64_t count = 1;
      if (type == 9) {
        type = take<std::uint32_t>();
        count = take<std::uint64_t>();
      }
      for (; count > 0; --count) one(type, value);
      const auto id = [&] { return static_cast<Token>(value.numbers.at(0)); };
      if (key == "general.architecture") architecture = value.texts.at(0);
      if (key == "tokenizer.ggml.model") out.model = value.texts.at(0);
      if (key == "tokenizer.ggml.pre") out.pre = value.texts.at(0);
      if (key == "tokenizer.ggml.tokens") out.tokens = std::move(value.texts);
      if (key == "tokenizer.ggml.merges") out.merges = std::move(value.texts);
      if (key == "tokenizer.ggml.scores") out.scores.assign(value.numbers.begin(), value.numbers.end());
      if (key == "tokenizer.ggml.token_type")
        for (const double number : value.numbers) out.token_type.push_back(static_cast<std::int32_t>(number));
      if (key == "tokenizer.ggml.bos_token_id") out.bos_token_id = id();
      if (key == "tokenizer.ggml.eos_token_id") out.eos_token_id = id();
      if (key == "tokenizer.ggml.add_bos_token") out.add_bos_token = id() != 0;
      if (key == "tokenizer.ggml.add_eos_token") out.add_eos_token = id() != 0;
    }
    if (out.pre.empty()) out.pre = architecture;
    return out;
  }

  std::string_view rest_;
};

inline Tokenizer open_gguf(const std::string& path) {
  const auto data = tokenizer_data_from_gguf(TrustedGguf::vocabulary(path), path);
  REQUIRE_MESSAGE(data.ok(), data.status().message());
  auto tokenizer = Tokenizer::from(*data, path);
  REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
  return tokenizer.take();
}

}  // namespace nib::test
