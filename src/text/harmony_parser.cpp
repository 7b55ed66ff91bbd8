// Sampled tokens to messages: header, content, and again.
#include <nibble/base/concat.hpp>
#include <nibble/text/harmony.hpp>
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <utility>

namespace nib::inline v0 {
namespace {

constexpr std::size_t kMostHeader = 4096;  // bytes
constexpr std::string_view kChannel = "<|channel|>", kConstrain = "<|constrain|>";

// White space as Unicode defines it.
bool is_space(char32_t c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

// How many bytes `text`, which is UTF-8, has before its first white space, or before its first other
// character.
std::size_t length_before(std::string_view text, bool space) {
  std::size_t length = 0;
  while (length < text.size()) {
    const Utf8Step step = step_utf8(text.substr(length));
    if (is_space(step.code_point) == space) break;
    length += step.length;
  }
  return length;
}

// The words of a header: any white space around them all is dropped, but only ASCII's stands between two.
std::vector<std::string_view> words_of(std::string_view text) {
  constexpr std::string_view kBetween = " \t\n\f\r";
  text.remove_prefix(length_before(text, false));
  std::size_t end = 0;  // of the last word
  for (std::size_t at = 0; at < text.size(); at += length_before(text.substr(at), false)) {
    at += length_before(text.substr(at), true);
    end = at;
  }
  text = text.substr(0, end);
  std::vector<std::string_view> words;
  for (;;) {
    text.remove_prefix(std::min(text.find_first_not_of(kBetween), text.size()));
    if (text.empty()) return words;
    const std::size_t length = std::min(text.find_first_of(kBetween), text.size());
    words.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
}

// For messages: not the whole of a long word.
std::string quoted(std::string_view word) {
  std::string text;
  while (!word.empty() && text.size() < 80) {
    const std::size_t length = step_utf8(word).length;
    text += word.substr(0, length);
    word.remove_prefix(length);
  }
  return concat('"', text, word.empty() ? "" : "...", '"');
}

Status bad_header(std::string sentence) { return {Code::format, std::move(sentence)}; }

// "user", or "user:name". Tools are not among them: their authors are their names.
bool read_spoken_role(std::string_view word, Message& message) {
  for (const Role role : {Role::system, Role::developer, Role::user, Role::assistant}) {
    const std::string_view name = role_name(role);
    if (!word.starts_with(name)) continue;
    const std::string_view rest = word.substr(name.size());
    if (!rest.empty() && (rest.front() != ':' || rest.size() == 1)) continue;
    message.role = role;
    if (!rest.empty()) message.name = rest.substr(1);
    return true;
  }
  return false;
}

// Cuts <|channel|> and the name behind it out of the header, wherever they stand, and makes what is left fit
// for words_of.
Status take_channel(std::string& header, Message& message) {
  if (!is_utf8(header)) return bad_header("a header is not UTF-8");
  // <|constrain|> begins a word of its own, also when the model glued it to the one before.
  for (std::size_t at = 0; (at = header.find(kConstrain, at)) != std::string::npos;
       at += 1 + kConstrain.size())
    header.insert(at, 1, ' ');
  const std::size_t at = header.find(kChannel);
  if (at == std::string::npos) return {};
  const std::size_t begin = at + kChannel.size();
  const std::string_view rest = std::string_view(header).substr(begin);
  const std::string_view name = rest.substr(0, std::min(length_before(rest, true), rest.find('<')));
  if (name.empty()) return bad_header("a header has <|channel|> without a channel's name");
  message.channel = name;
  header.erase(at, kChannel.size() + name.size());
  return {};
}

// Takes the words that say who speaks off the front.
Status take_author(std::span<const std::string_view>& words, std::optional<Role> given, Message& message) {
  const auto drop_first = [&] { words = words.subspan(1); };
  if (given) {
    message.role = *given;
    if (!words.empty() && words.front() == role_name(*given)) drop_first();
    return {};
  }
  if (words.empty()) return bad_header("a header has no role");
  const std::string_view first = words.front();
  // "user:ann tool": whatever it is called, a tool that says its role is one.
  const bool named_tool =
      first.find(':') != first.npos && words.size() > 1 && words[1] == role_name(Role::tool);
  if (named_tool || !read_spoken_role(first, message)) {
    // Any other word is a tool's name, if more is said than that word: alone it is rather a misspelt role.
    if (words.size() == 1 && first != role_name(Role::tool) && !first.starts_with("to="))
      return bad_header(concat("a header begins with ", quoted(first), ", which is no role"));
    message.role = Role::tool;
    message.name = first;
    drop_first();
    if (words.empty() || words.front() != role_name(Role::tool)) return {};  // a tool may also say its role
  }
  drop_first();
  return {};
}

// Recipient and content type are what the author and the channel leave of a header.
Status read_rest(std::span<const std::string_view> words, Message& message) {
  constexpr std::string_view kTo = "to=";
  const auto take_last = [&] {
    const std::string_view last = words.back();
    words = words.first(words.size() - 1);
    return last;
  };
  const auto without_to = [&](std::string_view word) {
    return word.starts_with(kTo) ? word.substr(kTo.size()) : word;
  };
  if (words.size() > 1 && !words.back().starts_with(kTo)) message.content_type = take_last();
  if (!words.empty()) message.recipient = without_to(take_last());
  if (!words.empty())
    return bad_header(concat("a header has words too many, from ", quoted(words.front()), " on"));
  return {};
}

}  // namespace

HarmonyParser::HarmonyParser(const Harmony& harmony, std::optional<Role> role, Strictness strictness)
    : harmony_(&harmony), decoder_(harmony.tokenizer()), strictness_(strictness) {
  reset(role);
}

void HarmonyParser::reset(std::optional<Role> role) {
  decoder_ = StreamDecoder(harmony_->tokenizer());
  state_ = role ? State::header : State::expect_start;
  given_role_ = role;
  failure_ = {};
  header_.clear();
  delta_.clear();
  current_ = {};
  messages_.clear();
}

Status HarmonyParser::fail(std::string sentence) {
  state_ = State::failed;
  failure_ = {Code::format, concat("harmony: ", sentence)};
  return failure_;
}

Status HarmonyParser::push(Token id) {
  const Harmony& h = *harmony_;
  const bool ends = id == h.end_ || id == h.return_ || id == h.call_;
  delta_.clear();
  if (state_ == State::failed) return failure_;
  const std::string_view bytes = h.tokenizer_->bytes(id);
  if (bytes.empty()) return fail(concat("token ", id, " is not in the vocabulary"));
  switch (state_) {
    case State::expect_start:
      if (id != h.start_) return fail(concat("expected <|start|>, found token ", id));
      state_ = State::header;
      return {};
    case State::header:
      if (id == h.message_) return begin_content();
      if (ends && strictness_ == Strictness::lenient) return end_in_header();
      if (ends || id == h.start_)
        return fail(concat("a header ended with ", bytes, ", expected <|message|>"));
      if (bytes.size() > kMostHeader - header_.size())
        return fail(concat("a header is longer than ", kMostHeader, " bytes"));
      header_ += bytes;
      return {};
    case State::content:
      if (ends) {
        complete();
      } else {
        decoder_.push_bytes(bytes, delta_);
        current_.content += delta_;
      }
      return {};
    case State::failed:
      break;
  }
  return failure_;
}

Status HarmonyParser::begin_content() {
  std::string header = std::exchange(header_, {});
  current_ = {};
  Status status = take_channel(header, current_);
  const std::vector<std::string_view> words = words_of(header);
  std::span<const std::string_view> rest = words;
  if (status.ok()) status = take_author(rest, given_role_, current_);
  if (status.ok()) status = read_rest(rest, current_);
  if (!status.ok()) return fail(status.message());
  decoder_ = StreamDecoder(harmony_->tokenizer());
  state_ = State::content;
  return {};
}

// The model forgot <|message|>: what its header says behind author and channel is what it wanted to say. A
// header that says nothing, or not who speaks, is no message.
Status HarmonyParser::end_in_header() {
  std::string header = std::exchange(header_, {});
  const bool says_nothing = header.empty();
  current_ = {};
  if (const Status status = take_channel(header, current_); !status.ok()) return fail(status.message());
  const std::vector<std::string_view> words = words_of(header);
  std::span<const std::string_view> rest = words;
  if (!says_nothing && take_author(rest, given_role_, current_).ok()) {
    for (const std::string_view word : rest) delta_ += concat(delta_.empty() ? "" : " ", word);
    current_.content = delta_;
    messages_.push_back(std::move(current_));
  }
  expect_start();
  return {};
}

void HarmonyParser::expect_start() {
  current_ = {};
  given_role_.reset();
  state_ = State::expect_start;
}

void HarmonyParser::complete() {
  decoder_.finish(delta_);
  current_.content += delta_;
  messages_.push_back(std::move(current_));
  expect_start();
}

Status HarmonyParser::finish() {
  delta_.clear();
  if (state_ == State::failed) return failure_;
  if (state_ == State::header && strictness_ == Strictness::strict)
    return fail("the text ended inside a header");
  if (state_ == State::content) complete();
  header_.clear();
  expect_start();
  return {};
}

}  // namespace nib::inline v0
