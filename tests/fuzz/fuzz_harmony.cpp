// A conversation out of any bytes renders or is refused by name, and what was rendered parses to as many
// messages. Any stream of ids is messages or an error that stays, and a message's content is the sum of its
// deltas.
#include "text/utf8.hpp"
#include <nibble/base/json.hpp>
#include <nibble/text/harmony.hpp>
#include <nibble/text/tokenizer.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace nib;

constexpr std::string_view kSpecials[] = {"<|start|>",     "<|end|>",    "<|message|>", "<|channel|>",
                                          "<|constrain|>", "<|return|>", "<|call|>",    "<|endoftext|>"};

// The 256 bytes, each its own id, and behind them the special tokens of harmony.
Tokenizer tokenizer() {
  std::string vocabulary, added;
  char32_t elsewhere = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool itself = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
    std::string spelling;
    test::append_utf8(itself ? byte : elsewhere++, spelling);
    vocabulary += byte ? "," : "";
    vocabulary += write_json(Json::of(spelling)) + ":" + std::to_string(byte);
  }
  for (std::size_t i = 0; i < std::size(kSpecials); ++i) {
    added += i ? "," : "";
    added += "{\"id\":" + std::to_string(256 + i) + ",\"content\":\"" + std::string(kSpecials[i]) +
             "\",\"special\":true,\"normalized\":false}";
  }
  auto made =
      Tokenizer::from_json("{\"added_tokens\":[" + added +
                               "],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                               "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{" +
                               vocabulary + "}}}",
                           "bytes");
  if (!made.ok()) std::abort();
  return made.take();
}

// Reads the input from its front; the end gives zeros.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : text_(reinterpret_cast<const char*>(data), size) {}
  bool empty() const { return text_.empty(); }
  std::uint8_t byte() {
    if (text_.empty()) return 0;
    const auto byte = static_cast<std::uint8_t>(text_.front());
    text_.remove_prefix(1);
    return byte;
  }
  std::string text() {
    const std::string_view text = text_.substr(0, byte());
    text_.remove_prefix(text.size());
    return std::string(text);
  }

 private:
  std::string_view text_;
};

void render(const Harmony& harmony, Input input) {
  std::vector<Message> messages;
  while (!input.empty()) {
    Message message;
    const std::uint8_t shape = input.byte();
    message.role = static_cast<Role>(shape % 5);
    if (shape & 0x08) message.name = input.text();
    if (shape & 0x10) message.recipient = input.text();
    if (shape & 0x20) message.channel = input.text();
    if (shape & 0x40) message.content_type = input.text();
    if (shape & 0x80) message.content_type.insert(0, "<|constrain|>");
    message.content = input.text();
    messages.push_back(std::move(message));
  }
  const auto ids = harmony.render(messages, {.drop_analysis = false, .next = {}});
  if (!ids.ok()) {
    if (ids.status().code() != Code::argument) std::abort();
    return;
  }
  HarmonyParser parser(harmony, {});
  for (const Token id : *ids)
    if (!parser.push(id).ok()) return;  // a header may hold anything, and then means nothing
  if (parser.messages().size() != messages.size()) std::abort();
  for (const Message& message : messages)
    if (!harmony.render({&message, 1}).ok()) std::abort();
}

void parse(const Harmony& harmony, Input input, Strictness strictness) {
  const std::uint8_t begin = input.byte();
  HarmonyParser parser(harmony, begin < 5 ? std::optional(static_cast<Role>(begin)) : std::nullopt,
                       strictness);
  std::size_t complete = 0;
  std::string content;  // of the message at hand, by its deltas
  bool failed = false;
  const auto look = [&](const Status& status) {
    if (failed && status.ok()) std::abort();
    if (!status.ok() && (status.code() != Code::format || !status.message().starts_with("harmony: ")))
      std::abort();
    failed = !status.ok();
    if (failed) return;
    content += parser.delta();
    if (parser.messages().size() > complete + 1) std::abort();
    if (parser.messages().size() == complete + 1) {
      if (parser.messages().back().content != content) std::abort();
      ++complete;
      content.clear();
    } else if (parser.in_content() ? parser.current().content != content : !content.empty()) {
      std::abort();
    }
  };
  while (!input.empty()) {
    // 0xf5 to 0xff are in no UTF-8: they stand for special tokens, and for ids that are none.
    const std::uint8_t byte = input.byte();
    look(parser.push(byte < 0xf5 ? byte : Token{256} + byte - 0xf5));
  }
  look(parser.finish());
  if (!failed && parser.in_content()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Tokenizer kTokenizer = tokenizer();
  static const Harmony kHarmony = Harmony::make(kTokenizer).take();
  render(kHarmony, Input(data, size));
  for (const Strictness strictness : {Strictness::strict, Strictness::lenient})
    parse(kHarmony, Input(data, size), strictness);
  return 0;
}
