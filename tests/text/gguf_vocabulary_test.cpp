// Tokenizers in the keys of GGUF files: written, read back, and the same on texts.
#include "support/data.hpp"
#include <nibble/text/tokenizer.hpp>
#include <nibble/text/tokenizer_data.hpp>

#include <filesystem>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

constexpr const char* kTexts[] = {
    "Once upon a time there was a girl. She'll say: \"It's 12,345.67!\"\n\n  Two  spaces\tand a tab\r\n",
    ("Gr\xc3\xbc\xc3\x9f Gott, \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x8d\x8e naive \xe2\x80\x94 "
     "e\xcc\x81t\xc3\xa9 \xce\xb1\xce\xb2\xce\xb3"),
    "def f(x):\n    return x ** 2 // 3  # TODO\n<|endoftext|><s>[INST] hello </s>",
    " leading space",
    "",
    "\xff\xfe not UTF-8 \x80",
};

std::vector<std::string> tokenizer_files() {
  std::vector<std::string> files = {NIBBLE_TALES "/tokenizer.json"};
  if (const std::string data = data_root(); !data.empty())
    for (const auto& entry : std::filesystem::recursive_directory_iterator(data))
      if (entry.path().string().ends_with("tokenizer.json")) files.push_back(entry.path().string());
  return files;
}

TEST_CASE("a vocabulary written for GGUF cuts texts as the one it was made from") {
  int written = 0;
  for (const std::string& path : tokenizer_files()) {
    CAPTURE(path);
    const auto data = tokenizer_data_from_json(read_text(path), path);
    if (!data.ok()) continue;  // what nibble does not read is another test's matter
    const std::size_t rows = data->tokens.size() + 3;
    const auto vocabulary = gguf_vocabulary_of(*data, rows, path);
    if (vocabulary.status().code() == Code::unsupported) {
      MESSAGE(vocabulary.status().message());
      continue;
    }
    REQUIRE_MESSAGE(vocabulary.ok(), vocabulary.status().message());
    CHECK(vocabulary->tokens.size() == rows);
    CHECK(vocabulary->token_type.size() == rows);
    CHECK(vocabulary->token_type.back() == 5);  // unused
    const auto before = Tokenizer::from(*data, path);
    const auto again = tokenizer_data_from_gguf(*vocabulary, path);
    REQUIRE(again.ok());
    const auto after = Tokenizer::from(*again, path);
    REQUIRE(before.ok());
    REQUIRE(after.ok());
    for (const char* text : kTexts)
      for (const Specials specials : {Specials::ordinary, Specials::recognised}) {
        std::vector<Token> expected, found;
        REQUIRE(before->encode(text, specials, expected).ok());
        REQUIRE(after->encode(text, specials, found).ok());
        CAPTURE(text);
        CHECK(found == expected);
        CHECK(after->decode(found, specials) == before->decode(expected, specials));
      }
    CHECK(std::vector<Token>(after->opening().begin(), after->opening().end()) ==
          std::vector<Token>(before->opening().begin(), before->opening().end()));
    ++written;
  }
  CHECK(written > 0);
}

TEST_CASE("what no GGUF key says is refused by name") {
  const auto data = tokenizer_data_from_json(read_text(NIBBLE_TALES "/tokenizer.json"), "tales");
  REQUIRE(data.ok());
  CHECK(gguf_vocabulary_of(*data, data->tokens.size() - 1, "tales").status().code() == Code::argument);
  TokenizerData other = *data;
  other.nfc = true;
  const auto refused = gguf_vocabulary_of(other, 5000, "tales");
  CHECK(refused.status().code() == Code::unsupported);
  CHECK(refused.status().message().find("o200k in form C") != std::string::npos);
  other = *data;
  other.opening = {1, 2};
  CHECK(gguf_vocabulary_of(other, 5000, "tales").status().code() == Code::unsupported);
}

}  // namespace
}  // namespace nib::test
