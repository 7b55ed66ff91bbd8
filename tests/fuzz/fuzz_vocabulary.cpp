// Any GGUF file is a tokenizer, has none, or is refused by a sentence about the file; what opens encodes its
// own file and speaks ids of its vocabulary alone.
#include "support/faulty_files.hpp"
#include <nibble/runtime/vocabulary.hpp>
#include <nibble/text/utf8.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace nib;

void check_refusal(const Status& status) {
  if (status.code() != Code::format && status.code() != Code::unsupported) std::abort();
  if (!status.message().starts_with("m.gguf: ")) std::abort();
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
    const std::string whole = tokenizer.decode(ids, Specials::recognised);
    for (std::string_view rest = whole; !rest.empty();) {
      const Utf8Step step = step_utf8(rest);
      if (step.kind != Utf8Step::Kind::character) std::abort();
      rest.remove_prefix(step.length);
    }
  }
  return 0;
}
