// Sampled tokens to messages: header, content, and again.
#include <nibble/base/concat.hpp>
#include <nibble/text/harmony.hpp>

#include <algorithm>
#include <utility>

namespace nib::inline v0 {
namespace {

constexpr std::size_t kMostHeader = 4096;  // bytes
constexpr std::string_view kChannel = "<|channel|>", kConstrain = "<|constrain|>";

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (std::size_t at = 0; at < text.size();) {
    while (at < text.size() && is_space(text[at])) ++at;
    const std::size_t begin = at;
    while (at < text.size() && !is_space(text[at])) ++at;
    if (at > begin) words.emplace_back(text.substr(begin, at - begin));
  }
  return words;
}

std::optional<Role> role_of(std::string_view name) {
  for (const Role role : {Role::system, Role::developer, Role::user, Role::assistant, Role::tool})
    if (role_name(role) == name) return role;
  return {};
}

std::string without_to(const std::string& word) { return word.starts_with("to=") ? word.substr(3) : word; }

}  // namespace

HarmonyParser::HarmonyParser(const Harmony& harmony, std::optional<Role> role)
    : harmony_(&harmony), decoder_(harmony.tokenizer()) {
  reset(role);
}

void HarmonyParser::reset(std::optional<Role> role) {
  decoder_ = StreamDecoder(harmony_->tokenizer());
  state_ = role ? State::header : State::expect_start;
  given_role_ = role;
  header_.clear();
  delta_.clear();
  current_ = {};
  messages_.clear();
}

Status HarmonyParser::fail(std::string sentence) {
  state_ = State::failed;
  return Status(Code::format, concat("harmony: ", sentence));
}

Status HarmonyParser::push(Token id) {
  const Harmony& h = *harmony_;
  const bool ends = id == h.end_ || id == h.return_ || id == h.call_;
  delta_.clear();
  switch (state_) {
    case State::failed:
      return fail("the parser met an error before: reset it");
    case State::expect_start:
      if (id != h.start_) return fail(concat("expected <|start|>, found token ", id));
      state_ = State::header;
      return {};
    case State::header:
      if (id == h.message_) return parse_header();
      if (ends || id == h.start_)
        return fail(concat("a header ended with ", h.tokenizer_->bytes(id), ", expected <|message|>"));
      header_ += h.tokenizer_->bytes(id);
      if (header_.size() > kMostHeader)
        return fail(concat("a header is longer than ", kMostHeader, " bytes"));
      return {};
    case State::content:
      if (ends) {
        complete();
        return {};
      }
      decoder_.push_bytes(h.tokenizer_->bytes(id), delta_);
      current_.content += delta_;
      return {};
  }
  return {};
}

void HarmonyParser::complete() {
  decoder_.finish(delta_);
  current_.content += delta_;
  messages_.push_back(std::move(current_));
  current_ = {};
  given_role_.reset();
  state_ = State::expect_start;
}

Status HarmonyParser::finish() {
  delta_.clear();
  if (state_ == State::header && !(header_.empty() && given_role_))
    return fail("the text ended inside a header");
  if (state_ == State::content) complete();
  return {};
}

// The channel is cut out wherever it stands; what is left are words: role, recipient, content type.
Status HarmonyParser::parse_header() {
  std::string header = std::exchange(header_, {});
  Message& message = current_;
  message = {};
  if (const std::size_t at = header.find(kChannel); at != std::string::npos) {
    const std::size_t begin = at + kChannel.size();
    std::size_t end = begin;
    while (end < header.size() && !is_space(header[end]) && header[end] != '<') ++end;
    if (end == begin) return fail("a header has <|channel|> without a channel's name");
    message.channel = header.substr(begin, end - begin);
    header.erase(at, end - at);
  }
  if (const std::size_t at = header.find(kConstrain);
      at != std::string::npos && at > 0 && !is_space(header[at - 1]))
    header.insert(at, " ");
  std::vector<std::string> words = words_of(header);

  if (given_role_) {
    message.role = *given_role_;
    if (!words.empty() && words.front() == role_name(message.role)) words.erase(words.begin());
  } else {
    if (words.empty()) return fail("a header has no role");
    const std::string first = words.front();
    const std::size_t colon = first.find(':');
    if (const auto role = role_of(first)) {
      message.role = *role;
      words.erase(words.begin());
    } else if (const auto named = role_of(std::string_view(first).substr(0, std::min(colon, first.size())));
               named && colon != std::string::npos) {
      message.role = *named;
      message.name = first.substr(colon + 1);
      words.erase(words.begin());
    } else if (words.size() > 1 || first.starts_with("to=")) {
      message.role = Role::tool;
      message.name = first;
      words.erase(words.begin());
    } else {
      return fail(concat("a header begins with \"", first.substr(0, 80), "\", which is no role"));
    }
  }
  if (!words.empty() && words.back().starts_with("to=")) {
    message.recipient = without_to(words.back());
    words.pop_back();
  } else if (words.size() == 1) {
    message.recipient = words.back();
    words.pop_back();
  } else if (words.size() > 1) {
    message.content_type = words.back();
    words.pop_back();
    message.recipient = without_to(words.back());
    words.pop_back();
  }
  if (!words.empty())
    return fail(concat("a header has words too many, from \"", words.front().substr(0, 80), "\" on"));
  decoder_ = StreamDecoder(harmony_->tokenizer());
  state_ = State::content;
  return {};
}

}  // namespace nib::inline v0
