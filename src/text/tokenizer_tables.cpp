// From what a reader found to tables that can be trusted.
#include "tokenizer_tables.hpp"

#include "normalize.hpp"
#include "tokenizer_file.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <string>

namespace nib::inline v0 {
namespace {

constexpr std::string_view kSpaceSymbol = "\xe2\x96\x81";  // U+2581, which SentencePiece writes for a space

// The byte alphabet of GPT-2, in which vocabularies spell bytes: printable Latin-1 stands for itself, the
// other 68 byte values are U+0100 and on, in their order. By character: the byte, or -1.
constexpr std::array<std::int16_t, 0x144> make_alphabet() {
  std::array<std::int16_t, 0x144> bytes{};
  bytes.fill(-1);
  std::size_t next = 0x100;
  for (std::int16_t byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
    bytes[itself ? static_cast<std::size_t>(byte) : next++] = byte;
  }
  return bytes;
}
constexpr auto kAlphabet = make_alphabet();

// Appends `text` with a space for each U+2581.
void append_spaced(std::string_view text, std::string& out) {
  for (std::size_t at; (at = text.find(kSpaceSymbol)) != text.npos;) {
    out += text.substr(0, at);
    out += ' ';
    text.remove_prefix(at + kSpaceSymbol.size());
  }
  out += text;
}

// "<0x0A>": the byte, or -1.
int byte_spelled_in_hex(std::string_view spelling) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling.back() != '>') return -1;
  const std::size_t high = kDigits.find(spelling[3]), low = kDigits.find(spelling[4]);
  return high == kDigits.npos || low == kDigits.npos ? -1 : static_cast<int>(high * 16 + low);
}

// Words of SentencePiece: spaces and the others behind them. No token that merges make reaches from others
// into a space, so pairs across words never merge.
std::size_t next_spaced_word(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(' ');
  return begin == text.npos ? text.size() : std::min(text.find(' ', begin), text.size());
}
// Each space begins a word.
std::size_t next_space(std::string_view text) { return std::min(text.find(' ', 1), text.size()); }
// Where a token does reach so, or where nobody knows, a text is one word.
std::size_t next_text(std::string_view text) { return text.size(); }

bool reaches_into_space(std::string_view bytes) {
  const std::size_t begin = bytes.find_first_not_of(' ');
  return begin != bytes.npos && bytes.find(' ', begin) != bytes.npos;
}

class Builder {
 public:
  Builder(const TokenizerData& data, std::string_view name, Tokenizer::Tables& tables)
      : data_(data), name_(name), tables_(tables) {}

  Status build() {
    if (data_.tokens.size() > TokenizerData::kLargestId + std::size_t{1})
      return bad(concat("the vocabulary has ", data_.tokens.size(), " tokens, expected at most ",
                        TokenizerData::kLargestId + 1));
    tables_.characters = data_.model == TokenizerData::Model::sentencepiece;
    tables_.nfc = data_.nfc;
    tables_.whole_words = data_.whole_words;
    tables_.prefix = tables_.characters ? data_.prefix : TokenizerData::Prefix::none;
    tables_.prefix_before_space = data_.prefix_before_space;
    tables_.strip_prefix = tables_.characters && data_.strip_prefix;
    NIB_TRY(place_added());
    NIB_TRY(fill_tokens());
    NIB_TRY(link_merges());
    NIB_TRY(choose_words());
    for (const auto* ids : {&data_.opening, &data_.closing})
      for (const Token id : *ids)
        if (id >= data_.tokens.size())
          return bad(concat("token ", id, " is to stand around a text, but there are ", data_.tokens.size()));
    tables_.opening = data_.opening;
    tables_.closing = data_.closing;
    return {};
  }

 private:
  Status place_added() {
    added_.resize(data_.tokens.size());
    StringTable contents, normalized_contents;
    std::string normalized;
    for (const TokenizerData::Added& token : data_.added) {
      const std::string what = concat("added token ", quoted(token.content));
      if (token.id >= data_.tokens.size() || token.content.empty())
        return bad(concat(what, " has id ", token.id, ", but there are ", data_.tokens.size(), " tokens"));
      if (added_[token.id] || contents.find(token.content) != StringTable::kNone)
        return bad(concat(what, " or its id ", token.id, " appears twice"));
      added_[token.id] = &token;
      contents.intern(token.content);
      if (token.normalized) {
        tables_.normalize(token.content, true, normalized);
        normalized_contents.intern(normalized);
      }
    }
    std::vector<AddedTokens::Spelling> before, after, specials_after;
    for (const TokenizerData::Added& token : data_.added) {
      if (token.normalized) {
        tables_.normalize(token.content, true, normalized);
        after.push_back(
            {normalized_contents.at(normalized_contents.find(normalized)), token.id, token.special});
        if (token.special) specials_after.push_back({token.content, token.id, true});
      } else {
        before.push_back({token.content, token.id, token.special});
      }
      if (!token.special) continue;
      tables_.special_contents.intern(token.content);
      tables_.special_ids.push_back(token.id);
    }
    tables_.before = AddedTokens(before);
    tables_.after_normalizer = AddedTokens(after);
    tables_.specials_after_normalizer = AddedTokens(specials_after);
    return {};
  }

  // A special token is found by no word, even where the vocabulary has it too: a text in which nothing is
  // special can spell its letters, but not it. Of two tokens that spell the same the first is found.
  Status fill_tokens() {
    tables_.special.resize(data_.tokens.size());
    tables_.byte_tokens.fill(TokenizerFile::kNoId);
    std::size_t total = 0;
    for (const std::string& token : data_.tokens) total += token.size();
    for (const TokenizerData::Added& token : data_.added) total += token.content.size();
    tables_.tokens.reserve(data_.tokens.size(), total);
    std::string bytes;
    for (Token id = 0; id < data_.tokens.size(); ++id) {
      const auto* added = added_[id];
      tables_.special[id] = added && added->special;
      const std::string_view spelling = added ? added->content : data_.tokens[id];
      const bool findable = token_bytes(spelling, id, added != nullptr, bytes);
      if (findable && !tables_.special[id] && tables_.tokens.find(bytes) == StringTable::kNone)
        tables_.tokens.intern(bytes);
      else
        tables_.tokens.append(bytes);
    }
    for (unsigned byte = 0; byte < 256; ++byte) {
      const char text = static_cast<char>(byte);
      Token& token = tables_.byte_tokens[byte];
      if (!tables_.characters) token = tables_.tokens.find({&text, 1});
      const bool in_utf8 = byte < 0xc0 || (byte > 0xc1 && byte < 0xf5);
      if (token == StringTable::kNone) tables_.all_bytes = false;
      if (token == StringTable::kNone && in_utf8)
        return bad(
            concat("the vocabulary has no token for byte ", byte, ", expected one for each byte of UTF-8"));
    }
    return {};
  }

  // What the token stands for, and whether words may be made of it. An added token stands for its content;
  // merges may make it where its spelling in the alphabet is the same.
  bool token_bytes(std::string_view spelling, Token id, bool added, std::string& bytes) {
    bytes.clear();
    if (spelling.empty()) return false;
    if (tables_.characters) {
      const int byte = added ? -1 : byte_spelled_in_hex(spelling);
      if (byte >= 0) {
        bytes = static_cast<char>(byte);
        tables_.byte_tokens[static_cast<std::size_t>(byte)] = id;
        return false;
      }
      if (added)
        bytes = spelling;
      else
        append_spaced(spelling, bytes);
      return true;
    }
    if (spelled_bytes(spelling, bytes) && !(added && bytes != spelling)) return true;
    bytes = spelling;
    return false;
  }

  Status link_merges() {
    PairTable<Bpe::Merge> merges(data_.merges.size());
    std::string joined;
    for (const TokenizerData::Merge& merge : data_.merges) {
      const std::size_t count = data_.tokens.size();
      if (merge.left >= count || merge.right >= count || merge.result >= count)
        return bad(concat("a merge has a token outside the ", count, " of the vocabulary"));
      joined = tables_.tokens.at(merge.left);
      joined += tables_.tokens.at(merge.right);
      if (tables_.special[merge.result])
        return bad(concat("a merge makes the special token ", quoted(joined)));
      if (joined != tables_.tokens.at(merge.result))
        return bad(concat("a merge makes ", quoted(tables_.tokens.at(merge.result)), " of ", quoted(joined)));
      reaches_into_space_ = reaches_into_space_ || reaches_into_space(joined);
      merges.at(merge.left, merge.right) = {merge.rank, merge.result};
    }
    tables_.bpe = Bpe(std::move(merges));
    return {};
  }

  Status choose_words() {
    if (tables_.characters) {
      tables_.next_word = data_.split_spaces    ? next_space
                          : reaches_into_space_ ? next_text
                                                : next_spaced_word;
      return {};
    }
    const SplitPattern* pattern = find_split_pattern(data_.split);
    if (!pattern)
      return {Code::unsupported, concat(name_, ": the split pattern ", quoted(data_.split, 1000),
                                        " is not known, nibble supports those of GPT-2, Llama 3, Qwen 2, "
                                        "Tekken and o200k")};
    tables_.next_word = pattern->next;
    tables_.split_name = pattern->name;
    return {};
  }

  Status bad(std::string_view sentence) const { return {Code::format, concat(name_, ": ", sentence)}; }

  const TokenizerData& data_;
  std::string_view name_;
  Tokenizer::Tables& tables_;
  std::vector<const TokenizerData::Added*> added_;  // by id
  bool reaches_into_space_ = false;
};

}  // namespace

bool spelled_bytes(std::string_view spelling, std::string& out) {
  out.clear();
  while (!spelling.empty()) {
    const Utf8Step step = step_utf8(spelling);
    if (step.kind != Utf8Step::Kind::character || step.code_point >= kAlphabet.size()) return false;
    const std::int16_t byte = kAlphabet[step.code_point];
    if (byte < 0) return false;
    out += static_cast<char>(byte);
    spelling.remove_prefix(step.length);
  }
  return true;
}

void Tokenizer::Tables::normalize(std::string_view text, bool first_piece, std::string& out) const {
  using Prefix = TokenizerData::Prefix;
  out.clear();
  if (!characters) {
    if (nfc)
      append_nfc(text, out);
    else
      out = text;
    return;
  }
  const bool spaced = text.starts_with(' ') || text.starts_with(kSpaceSymbol);
  if ((prefix == Prefix::every_piece || (prefix == Prefix::first_piece && first_piece)) &&
      (prefix_before_space || !spaced))
    out += ' ';
  append_spaced(text, out);
}

Result<std::unique_ptr<Tokenizer::Tables>> make_tokenizer_tables(const TokenizerData& data,
                                                                 std::string_view name) {
  auto tables = std::make_unique<Tokenizer::Tables>();
  NIB_TRY(Builder(data, name, *tables).build());
  return tables;
}

}  // namespace nib::inline v0
