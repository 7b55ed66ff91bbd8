// Any text is a tokenizer or refused by a sentence about the file; what opens encodes its own file, both
// ways, and gives it back byte for byte unless it normalizes, and damaged text is streamed as it is decoded
// at once.
#include <nibble/text/tokenizer.hpp>
#include <nibble/text/utf8.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nib;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Tokenizer::Extra extra[] = {{"<|extra|>", 700}};
  const auto tokenizer = Tokenizer::from_json(text, "input", extra);
  if (!tokenizer.ok()) {
    const Status& status = tokenizer.status();
    if ((status.code() != Code::format && status.code() != Code::unsupported) ||
        !status.message().starts_with("input: "))
      std::abort();
    return 0;
  }
  for (const Specials specials : {Specials::ordinary, Specials::recognised}) {
    std::vector<Token> ids;
    if (!tokenizer->encode(text, specials, ids).ok()) std::abort();
    std::string bytes, streamed;
    StreamDecoder decoder(*tokenizer, Specials::recognised);
    for (const Token id : ids) {
      bytes += tokenizer->bytes(id);
      decoder.push(id, streamed);
    }
    decoder.finish(streamed);
    if (tokenizer->lossless() && bytes != text) std::abort();
    const std::string whole = tokenizer->decode(ids, Specials::recognised);
    if (streamed != whole && streamed != " " + whole) std::abort();
    for (std::string_view rest = streamed; !rest.empty();) {
      const Utf8Step step = step_utf8(rest);
      if (step.kind != Utf8Step::Kind::character) std::abort();
      rest.remove_prefix(step.length);
    }
  }
  return 0;
}
