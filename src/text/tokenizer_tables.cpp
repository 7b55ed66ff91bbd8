// From what a tokenizer.json says to tables that can be trusted.
#include "tokenizer_tables.hpp"

#include "tokenizer_file.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <array>
#include <string>

namespace nib::inline v0 {
namespace {

constexpr Token kNoId = TokenizerFile::kNoId;

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

// The bytes that `spelling` stands for; false when a character is not in the alphabet.
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

class Builder {
 public:
  Builder(TokenizerFile& file, std::string_view name, Tokenizer::Tables& tables)
      : file_(file), name_(name), tables_(tables) {}

  Status build(std::span<const Tokenizer::Extra> extra) {
    NIB_TRY(check_settings());
    NIB_TRY(place_vocabulary(extra));
    NIB_TRY(place_added(extra));
    fill_tokens();
    return link_merges();
  }

 private:
  // Settings
  // -----------------------------------------------------------------------------------------------------

  Status check_settings() {
    const Json& settings = file_.settings;
    if (const Json* version = present(settings, "version"); version && text(settings, "version") != "1.0")
      return refuse("version", quoted(text(settings, "version")), "\"1.0\"");
    if (const Json* normalizer = present(settings, "normalizer"))
      return refuse("normalizer", quoted(text(*normalizer, "type")), "none");
    if (const Json* decoder = present(settings, "decoder"); decoder && text(*decoder, "type") != "ByteLevel")
      return refuse("decoder", quoted(text(*decoder, "type")), "ByteLevel");
    NIB_TRY(check_model(*settings.find("model")));
    const Json* pre_tokenizer = present(settings, "pre_tokenizer");
    if (!pre_tokenizer)
      return refuse("pre_tokenizer", "none", "ByteLevel, or a Sequence of Split and ByteLevel");
    return check_pre_tokenizer(*pre_tokenizer);
  }

  Status check_model(const Json& model) {
    if (present(model, "type") && text(model, "type") != "BPE")
      return refuse("model.type", quoted(text(model, "type")), "BPE");
    for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!text(model, key).empty()) return refuse(concat("model.", key), quoted(text(model, key)), "none");
    if (const Json* dropout = present(model, "dropout");
        dropout && dropout->is_number() && dropout->as_double() != 0)
      return refuse("model.dropout", "a chance", "none");
    // unk_token, fuse_unk and byte_fallback are about bytes that have no token; link_merges() sees that all
    // have one.
    tables_.whole_words = flag(model, "ignore_merges", false);
    return {};
  }

  // ByteLevel alone (it then splits by GPT-2's pattern), or after a Split.
  Status check_pre_tokenizer(const Json& pre_tokenizer) {
    const Json* split = nullptr;
    const Json* byte_level = &pre_tokenizer;
    if (text(pre_tokenizer, "type") == "Sequence") {
      const Json* steps = present(pre_tokenizer, "pretokenizers");
      if (!steps || steps->items().size() != 2)
        return refuse("pre_tokenizer", "a Sequence of other than two steps", "Split and ByteLevel");
      split = &steps->items()[0];
      byte_level = &steps->items()[1];
      if (text(*split, "type") != "Split")
        return refuse("pre_tokenizer", quoted(text(*split, "type")), "Split");
    }
    if (text(*byte_level, "type") != "ByteLevel")
      return refuse("pre_tokenizer", quoted(text(*byte_level, "type")), "ByteLevel");
    if (flag(*byte_level, "add_prefix_space", true))
      return refuse("pre_tokenizer: ByteLevel", "add_prefix_space", "none");
    if (flag(*byte_level, "use_regex", true) == (split != nullptr))
      return refuse("pre_tokenizer",
                    split ? "ByteLevel with use_regex after Split" : "ByteLevel without use_regex",
                    "one split pattern");
    if (!split) {
      tables_.pattern = find_split_pattern(kGpt2Pattern);
      return {};
    }
    if (text(*split, "behavior") != "Isolated")
      return refuse("pre_tokenizer: Split behavior", quoted(text(*split, "behavior")), "Isolated");
    if (flag(*split, "invert", false)) return refuse("pre_tokenizer: Split", "invert", "none");
    const Json* pattern = present(*split, "pattern");
    const std::string_view regex = pattern ? text(*pattern, "Regex") : std::string_view();
    tables_.pattern = find_split_pattern(regex);
    if (!tables_.pattern)
      return refuse("pre_tokenizer: the pattern of Split", quoted(regex, 1000),
                    "a pattern of GPT-2, Llama 3, Qwen 2 or o200k");
    return {};
  }

  // Ids
  // ----------------------------------------------------------------------------------------------------------

  // What has which id: places in file_.spellings and file_.added.
  struct Place {
    std::uint32_t spelling = StringTable::kNone, added = StringTable::kNone;
    bool free() const { return spelling == StringTable::kNone && added == StringTable::kNone; }
  };

  Status place_vocabulary(std::span<const Tokenizer::Extra> extra) {
    Token largest = 0;
    for (const Token id : file_.ids)
      if (id != kNoId) largest = std::max(largest, id);
    for (const TokenizerFile::Added& token : file_.added) largest = std::max(largest, token.id);
    for (const Tokenizer::Extra& token : extra) {
      if (token.id > TokenizerFile::kLargestId || token.content.empty())
        return {Code::argument, concat(name_, ": extra token ", quoted(token.content), " has id ", token.id,
                                       ", expected a text and an id up to ", TokenizerFile::kLargestId)};
      largest = std::max(largest, token.id);
    }
    places_.resize(largest + std::size_t{1});
    for (std::uint32_t i = 0; i < file_.spellings.size(); ++i) {
      if (file_.ids[i] == kNoId) continue;
      Place& place = places_[file_.ids[i]];
      if (!place.free())
        return bad(concat("model.vocab: ", quoted(file_.spellings.at(place.spelling)), " and ",
                          quoted(file_.spellings.at(i)), " both have id ", file_.ids[i]));
      place.spelling = i;
    }
    return {};
  }

  Status place_added(std::span<const Tokenizer::Extra> extra) {
    StringTable contents;
    for (std::uint32_t i = 0; i < file_.added.size(); ++i) NIB_TRY(place_added(i, contents));
    for (const Tokenizer::Extra& token : extra) {
      if (!places_[token.id].free()) continue;
      file_.added.push_back({.id = token.id, .content = token.content, .special = true, .normalized = false});
      NIB_TRY(place_added(static_cast<std::uint32_t>(file_.added.size() - 1), contents));
    }
    std::vector<AddedTokens::Spelling> before, after;
    for (const TokenizerFile::Added& token : file_.added) {
      (token.normalized ? after : before).push_back({token.content, token.id, token.special});
      if (!token.special) continue;
      tables_.special_contents.intern(token.content);
      tables_.special_ids.push_back(token.id);
    }
    tables_.before = AddedTokens(before);
    tables_.after_normalizer = AddedTokens(after);
    return {};
  }

  Status place_added(std::uint32_t index, StringTable& contents) {
    const TokenizerFile::Added& token = file_.added[index];
    const std::string what = concat("added_tokens: ", quoted(token.content));
    if (token.single_word) return refuse(what, "single_word", "plain ones");
    if (token.lstrip) return refuse(what, "lstrip", "plain ones");
    if (token.rstrip) return refuse(what, "rstrip", "plain ones");
    Place& place = places_[token.id];
    if (place.added != StringTable::kNone || contents.find(token.content) != StringTable::kNone)
      return bad(concat(what, " or its id ", token.id, " appears twice"));
    const Token in_vocabulary = file_.id_of(token.content);
    if (in_vocabulary != kNoId ? in_vocabulary != token.id : place.spelling != StringTable::kNone)
      return bad(concat(what, " has id ", token.id,
                        ", but model.vocab gives it another, or gives that id to another token"));
    std::string bytes;
    if (in_vocabulary != kNoId && spelled_bytes(token.content, bytes) && bytes != token.content)
      return bad(concat(what, " is in model.vocab, where that spelling stands for other bytes"));
    place.added = index;
    contents.intern(token.content);
    return {};
  }

  // Tables
  // -------------------------------------------------------------------------------------------------------

  // A special token is found by no word, even where the vocabulary has it too: a text in which nothing is
  // special can spell its letters, but not it.
  void fill_tokens() {
    tables_.special.resize(places_.size());
    std::string bytes;
    for (Token id = 0; id < places_.size(); ++id) {
      const Place& place = places_[id];
      const auto* added = place.added == StringTable::kNone ? nullptr : &file_.added[place.added];
      const bool in_vocabulary = place.spelling != StringTable::kNone;
      tables_.special[id] = added && added->special;
      if (in_vocabulary && !tables_.special[id] && spelled_bytes(file_.spellings.at(place.spelling), bytes))
        tables_.tokens.intern(bytes);
      else
        tables_.tokens.append(added           ? std::string_view(added->content)
                              : in_vocabulary ? file_.spellings.at(place.spelling)
                                              : std::string_view());
    }
  }

  Status link_merges() {
    std::array<Token, 256> byte_tokens;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const char text = static_cast<char>(byte);
      byte_tokens[byte] = tables_.tokens.find({&text, 1});
      if (byte_tokens[byte] == StringTable::kNone)
        return bad(concat("model.vocab has no token for byte ", byte, ", expected one for each of 256"));
    }
    PairTable<Bpe::Merge> merges(file_.merges.size());
    std::string joined;
    for (std::uint32_t rank = 0; rank < file_.merges.size(); ++rank) {
      const auto [left, right] = file_.merges[rank];
      joined = file_.spellings.at(left);
      joined += file_.spellings.at(right);
      const Token result = file_.id_of(joined);
      if (file_.ids[left] == kNoId || file_.ids[right] == kNoId || result == kNoId)
        return bad(concat("model.merges[", rank, "]: ", quoted(file_.spellings.at(left)), " and ",
                          quoted(file_.spellings.at(right)), " or what they make is not in model.vocab"));
      if (tables_.special[result])
        return bad(concat("model.merges[", rank, "] makes the special token ", quoted(joined)));
      merges.at(file_.ids[left], file_.ids[right]) = {rank, result};
    }
    tables_.bpe = Bpe(byte_tokens, std::move(merges));
    return {};
  }

  // ---------------------------------------------------------------------------------------------------------------

  // The value of `key`, unless it is null or missing.
  static const Json* present(const Json& object, std::string_view key) {
    const Json* value = object.find(key);
    return value && !value->is_null() ? value : nullptr;
  }
  static std::string_view text(const Json& object, std::string_view key) {
    const Json* value = object.find(key);
    return value && value->is_string() ? std::string_view(value->as_string()) : std::string_view();
  }
  static bool flag(const Json& object, std::string_view key, bool otherwise) {
    const Json* value = object.find(key);
    return value && value->is_bool() ? value->as_bool() : otherwise;
  }
  Status bad(std::string_view sentence) const { return {Code::format, concat(name_, ": ", sentence)}; }
  Status refuse(std::string_view key, std::string_view found, std::string_view supported) const {
    return {Code::unsupported, concat(name_, ": ", key, " is ", found, ", nibble supports ", supported)};
  }

  TokenizerFile& file_;
  std::string_view name_;
  Tokenizer::Tables& tables_;
  std::vector<Place> places_;  // by id
};

}  // namespace

Result<std::unique_ptr<Tokenizer::Tables>> read_tokenizer_tables(std::string_view json, std::string_view name,
                                                                 std::span<const Tokenizer::Extra> extra) {
  NIB_ASSIGN(TokenizerFile file, read_tokenizer_file(json, name));
  auto tables = std::make_unique<Tokenizer::Tables>();
  NIB_TRY(Builder(file, name, *tables).build(extra));
  return tables;
}

}  // namespace nib::inline v0
