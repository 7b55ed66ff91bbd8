#include "tokenizer_tables.hpp"
#include <nibble/text/tokenizer.hpp>
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <utility>

namespace nib::inline v0 {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

// The longest of `tokens` (sorted by bytes) that `text` begins with, or kNone. Each byte narrows the range of
// tokens that still fit, so the work is bounded by the longest token.
Token longest_at(std::string_view text, const std::vector<Token>& tokens, const Vocabulary& vocabulary) {
  Token found = Vocabulary::kNone;
  auto begin = tokens.begin(), end = tokens.end();
  for (std::size_t depth = 0; begin != end; ++depth) {
    if (vocabulary.bytes(*begin).size() == depth) found = *begin++;
    if (depth == text.size()) break;
    const auto byte = static_cast<std::uint8_t>(text[depth]);
    const auto at_depth = [&](Token id) { return static_cast<std::uint8_t>(vocabulary.bytes(id)[depth]); };
    begin = std::partition_point(begin, end, [&](Token id) { return at_depth(id) < byte; });
    end = std::partition_point(begin, end, [&](Token id) { return at_depth(id) == byte; });
  }
  return found;
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Tables> tables) : tables_(std::move(tables)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::from_json(std::string_view json, std::string_view name,
                                       std::span<const Extra> extra) {
  NIB_ASSIGN(std::unique_ptr<Tables> tables, read_tokenizer_tables(json, name, extra));
  return Tokenizer(std::move(tables));
}

Status Tokenizer::encode(std::string_view text, Specials specials, std::vector<Token>& out) const {
  const Tables& t = *tables_;
  const bool recognise = specials == Specials::recognised;
  const std::vector<Token>& added = recognise ? t.recognised : t.always;
  const std::vector<bool>& first = recognise ? t.first_recognised : t.first_always;
  BpeScratch scratch;
  const auto encode_words = [&](std::string_view rest) {
    while (!rest.empty()) {
      const std::size_t length = t.next_word(rest);
      t.bpe.encode(rest.substr(0, length), scratch, out);
      rest.remove_prefix(length);
    }
  };
  std::size_t begin = 0;  // of the text since the last added token
  for (std::size_t at = 0; !added.empty() && at < text.size(); ++at) {
    if (!first[static_cast<std::uint8_t>(text[at])]) continue;
    const Token id = longest_at(text.substr(at), added, t.bpe.vocabulary);
    if (id == Vocabulary::kNone) continue;
    encode_words(text.substr(begin, at - begin));
    out.push_back(id);
    begin = at + t.bpe.vocabulary.bytes(id).size();
    at = begin - 1;
  }
  encode_words(text.substr(begin));
  return {};
}

std::string_view Tokenizer::bytes(Token id) const { return tables_->bpe.vocabulary.bytes(id); }
bool Tokenizer::is_special(Token id) const { return id < tables_->special.size() && tables_->special[id]; }
std::size_t Tokenizer::size() const { return tables_->bpe.vocabulary.size(); }

std::optional<Token> Tokenizer::find_special(std::string_view content) const {
  const Token id = longest_at(content, tables_->recognised, tables_->bpe.vocabulary);
  if (id == Vocabulary::kNone || bytes(id) != content || !is_special(id)) return {};
  return id;
}

std::string Tokenizer::decode(std::span<const Token> ids, Specials specials) const {
  std::string text;
  StreamDecoder decoder(*this, specials);
  for (const Token id : ids) decoder.push(id, text);
  decoder.finish(text);
  return text;
}

void StreamDecoder::push(Token id, std::string& out) {
  if (specials_ == Specials::ordinary && tokenizer_->is_special(id)) return;
  push_bytes(tokenizer_->bytes(id), out);
}

void StreamDecoder::push_bytes(std::string_view bytes, std::string& out) {
  held_ += bytes;
  std::size_t at = 0;
  while (at < held_.size()) {
    const std::string_view rest = std::string_view(held_).substr(at);
    const Utf8Step step = step_utf8(rest);
    if (step.kind == Utf8Step::Kind::unfinished) break;
    out += step.kind == Utf8Step::Kind::character ? rest.substr(0, step.length) : kReplacement;
    at += step.length;
  }
  held_.erase(0, at);
}

void StreamDecoder::finish(std::string& out) {
  if (!held_.empty()) out += kReplacement;
  held_.clear();
}

}  // namespace nib::inline v0
