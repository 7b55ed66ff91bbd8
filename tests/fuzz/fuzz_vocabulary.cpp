// Any GGUF file is a tokenizer, has none, or is refused by a sentence about the file; what opens encodes its
// own file and speaks ids of its vocabulary alone, also after it went through a tokenizer.json.
#include "support/faulty_files.hpp"
#include <nibble/model/gguf_vocabulary.hpp>
#include <nibble/runtime/vocabulary.hpp>
#include <nibble/text/tokenizer_data.hpp>
#include <nibble/text/utf8.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using namespace nib;

void check_refusal(const Status& status) {
  if (status.code() != Code::format && status.code() != Code::unsupported) std::abort();
  if (!status.message().starts_with("m.gguf: ")) std::abort();
}

// Where ranks may be equal, as SentencePiece's are, its words may be cut otherwise.
void check_json(const TokenizerData& data, const Tokenizer& tokenizer, const std::string& text) {
  const auto json = tokenizer_json_of(data, "m.gguf");
  if (!json.ok()) return check_refusal(json.status());
  const auto again = Tokenizer::from_json(*json, "m.gguf");
  if (!again.ok() || again->size() > tokenizer.size()) std::abort();
  std::vector<Token> expected, found;
  if (!tokenizer.encode(text, Specials::recognised, expected).ok()) std::abort();
  if (!again->encode(text, Specials::recognised, found).ok()) std::abort();
  if (data.model == TokenizerData::Model::byte_level && found != expected) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  test::FaultyFileSystem files;
  files.add("m.gguf", text);
  const auto checkpoint = open_vocabulary("m.gguf", files);
  if (!checkpoint.ok()) {
    check_refusal(checkpoint.status());
    return 0;
  }
  const auto found = read_tokenizer(*checkpoint, 0, files);
  if (!found.ok()) {
    check_refusal(found.status());
    return 0;
  }
  if (!*found) return 0;
  const Tokenizer& tokenizer = **found;
  const auto vocabulary = tokenizer_data_from_gguf(gguf_vocabulary(*checkpoint->gguf), "m.gguf");
  if (!vocabulary.ok()) std::abort();
  check_json(*vocabulary, tokenizer, text);
  for (const auto& [name, spelling] : read_special_names(*checkpoint, tokenizer))
    if (!name.ends_with("_token")) std::abort();
  for (const Specials specials : {Specials::ordinary, Specials::recognised}) {
    std::vector<Token> ids;
    if (!tokenizer.encode(text, specials, ids).ok()) std::abort();
    std::string bytes;
    for (const Token id : ids) {
      if (id >= tokenizer.size()) std::abort();
      bytes += tokenizer.bytes(id);
    }
    if (tokenizer.lossless() && bytes != text) std::abort();
    if (!is_utf8(tokenizer.decode(ids, Specials::recognised))) std::abort();
  }
  return 0;
}
