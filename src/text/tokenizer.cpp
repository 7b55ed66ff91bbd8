#include "normalize.hpp"
#include "tokenizer_tables.hpp"
#include "word_cache.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/text/tokenizer.hpp>
#include <nibble/text/tokenizer_data.hpp>
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <utility>

namespace nib::inline v0 {
namespace {

// Form C is at most three times as long, and places in a word have 32 bits.
constexpr std::size_t kLongestText = std::size_t{1} << 30;

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

// Encodes one text; owns what the stages need while they work.
class Encoding {
 public:
  Encoding(const Tokenizer::Tables& tables, std::size_t text_size, std::vector<Token>& out)
      : tables_(tables), out_(out), cache_(text_size) {}

  void text(std::string_view text, Specials specials) {
    tables_.before.find(text, specials, matches_);
    around(matches_, text, [&](std::string_view piece) {
      if (!piece.empty()) normalized(piece, piece.data() == text.data(), specials);
    });
  }

  // Special tokens are looked for in the raw text alone, also those that are found in the normalized text:
  // what is whose is known only there.
  void text(std::string_view text, std::span<const TextRange> own) {
    const auto offset = [&](std::string_view part) {
      return static_cast<std::size_t>(part.data() - text.data());
    };
    tables_.before.find(text, 0, own, matches_);
    around(matches_, text, [&](std::string_view piece) {
      tables_.specials_after_normalizer.find(piece, offset(piece), own, middle_matches_);
      around(middle_matches_, piece, [&](std::string_view part) {
        if (!part.empty()) normalized(part, part.data() == text.data(), Specials::ordinary);
      });
    });
  }

 private:
  // A piece between added tokens of the raw text; `first`: nothing stands before it.
  void normalized(std::string_view piece, bool first, Specials specials) {
    if (tables_.characters || (tables_.nfc && !surely_nfc(piece))) {
      tables_.normalize(piece, first, normalized_);
      piece = normalized_;
    }
    tables_.after_normalizer.find(piece, specials, inner_matches_);
    around(inner_matches_, piece, [&](std::string_view rest) { words(rest); });
  }

  // Added tokens become ids; what lies between them goes to `between`.
  template <class Between>
  void around(const std::vector<AddedTokens::Match>& matches, std::string_view text, Between between) {
    std::size_t begin = 0;
    for (const AddedTokens::Match& match : matches) {
      between(text.substr(begin, match.begin - begin));
      out_.push_back(match.id);
      begin = match.begin + match.size;
    }
    between(text.substr(begin));
  }

  void words(std::string_view text) {
    while (!text.empty()) {
      const std::size_t size = tables_.next_word(text);
      if (size <= WordCache::kLongest)
        short_word(text, size);
      else
        word(text.substr(0, size));
      text.remove_prefix(size);
    }
  }

  // The first `size` bytes of `text`.
  void short_word(std::string_view text, std::size_t size) {
    const WordCache::Key key = WordCache::key_of(text.substr(0, size), text.size());
    WordCache::Slot& slot = cache_.slot(key);
    const std::size_t end = out_.size();
    if (slot.key == key) {
      out_.resize(end + slot.count);
      std::copy_n(out_.begin() + static_cast<std::ptrdiff_t>(slot.begin), slot.count,
                  out_.begin() + static_cast<std::ptrdiff_t>(end));
    } else {
      word(text.substr(0, size));
      slot = {key, end, out_.size() - end};
    }
  }

  void word(std::string_view word) {
    if (tables_.whole_words && word.size() <= tables_.tokens.longest()) {
      const Token id = tables_.tokens.find(word);
      if (id != StringTable::kNone) return out_.push_back(id);
    }
    start_.clear();
    if (tables_.characters)
      characters(word);
    else
      for (const char c : word) tables_.start_byte(c, start_);
    tables_.bpe.encode(start_, scratch_, out_);
  }

  // A character without a token is those of its bytes.
  void characters(std::string_view word) {
    for (std::size_t length; !word.empty(); word.remove_prefix(length)) {
      length = step_utf8(word).length;
      const Token id = tables_.tokens.find(word.substr(0, length));
      if (id != StringTable::kNone)
        start_.push_back(id);
      else
        for (const char c : word.substr(0, length)) tables_.start_byte(c, start_);
    }
  }

  const Tokenizer::Tables& tables_;
  std::vector<Token>& out_;
  WordCache cache_;
  std::vector<Token> start_;  // what a word begins as
  Bpe::Scratch scratch_;
  std::string normalized_;
  std::vector<AddedTokens::Match> matches_, middle_matches_, inner_matches_;
};

// All or nothing.
template <class Encode>
Status encode_all(std::string_view text, std::vector<Token>& out, Encode encode) {
  if (text.size() > kLongestText)
    return {Code::argument, concat("the text has ", text.size(), " bytes, expected at most ", kLongestText)};
  const std::size_t before = out.size();
  Status status = within_memory("the tokens of a text", [&] {
    encode();
    return Status();
  });
  if (!status.ok()) out.resize(before);
  return status;
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Tables> tables) : tables_(std::move(tables)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::from(const TokenizerData& data, std::string_view name) {
  return within_memory(name, [&]() -> Result<Tokenizer> {
    NIB_ASSIGN(std::unique_ptr<Tables> tables, make_tokenizer_tables(data, name));
    return Tokenizer(std::move(tables));
  });
}

Result<Tokenizer> Tokenizer::from_json(std::string_view json, std::string_view name,
                                       std::span<const Extra> extra) {
  NIB_ASSIGN(const TokenizerData data, tokenizer_data_from_json(json, name, extra));
  return from(data, name);
}

Status Tokenizer::encode(std::string_view text, Specials specials, std::vector<Token>& out) const {
  return encode_all(text, out, [&] { Encoding(*tables_, text.size(), out).text(text, specials); });
}

Status Tokenizer::encode(std::string_view text, std::span<const TextRange> own,
                         std::vector<Token>& out) const {
  std::size_t end = 0;
  for (const TextRange& range : own) {
    if (range.begin < end || range.end < range.begin || range.end > text.size())
      return {Code::argument, concat("bytes ", range.begin, " to ", range.end, " are no part of the ",
                                     text.size(), " bytes of a text, or lie before the part named last")};
    end = range.end;
  }
  return encode_all(text, out, [&] { Encoding(*tables_, text.size(), out).text(text, own); });
}

std::span<const Token> Tokenizer::opening() const { return tables_->opening; }
std::span<const Token> Tokenizer::closing() const { return tables_->closing; }
bool Tokenizer::lossless() const { return tables_->lossless(); }

std::string_view Tokenizer::bytes(Token id) const {
  return id < tables_->tokens.size() ? tables_->tokens.at(id) : std::string_view();
}

bool Tokenizer::is_special(Token id) const { return id < tables_->special.size() && tables_->special[id]; }

std::optional<Token> Tokenizer::find_special(std::string_view content) const {
  const std::uint32_t index = tables_->special_contents.find(content);
  if (index == StringTable::kNone) return {};
  return tables_->special_ids[index];
}

std::size_t Tokenizer::size() const { return tables_->tokens.size(); }
std::string Tokenizer::kind() const {
  return tables_->characters ? "SentencePiece BPE" : concat("byte-level BPE, split as ", tables_->split_name);
}

std::string Tokenizer::decode(std::span<const Token> ids, Specials specials) const {
  std::string text;
  StreamDecoder decoder(*this, specials);
  for (const Token id : ids) decoder.push(id, text);
  decoder.finish(text);
  if (tables_->strip_prefix && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

void StreamDecoder::push(Token id, std::string& out) {
  if (specials_ == Specials::recognised || !tokenizer_->is_special(id))
    push_bytes(tokenizer_->bytes(id), out);
}

void StreamDecoder::push_bytes(std::string_view bytes, std::string& out) {
  held_ += bytes;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Utf8Step step = step_utf8(rest);
    if (step.kind == Utf8Step::Kind::unfinished) break;
    out += step.kind == Utf8Step::Kind::character ? rest.substr(0, step.length) : kReplacement;
    rest.remove_prefix(step.length);
  }
  held_.erase(0, held_.size() - rest.size());
}

void StreamDecoder::finish(std::string& out) {
  if (!held_.empty()) out += kReplacement;
  held_.clear();
}

}  // namespace nib::inline v0
