// What a tokenizer.json means.
#include "tokenizer_file.hpp"
#include "tokenizer_tables.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/text/tokenizer_data.hpp>

#include <algorithm>
#include <string>

namespace nib::inline v0 {
namespace {

constexpr Token kNoId = TokenizerFile::kNoId;
constexpr std::string_view kSpaceSymbol = "\xe2\x96\x81";  // U+2581

// The value of `key`, unless it is null or missing.
const Json* present(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value && !value->is_null() ? value : nullptr;
}
std::string_view text(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value && value->is_string() ? std::string_view(value->as_string()) : std::string_view();
}
bool flag(const Json& object, std::string_view key, bool otherwise) {
  const Json* value = object.find(key);
  return value && value->is_bool() ? value->as_bool() : otherwise;
}

// The steps of a normalizer, pre-tokenizer, post-processor or decoder: those of a Sequence, or it alone, or
// none.
std::vector<const Json*> steps_of(const Json& settings, std::string_view key, std::string_view list) {
  std::vector<const Json*> steps;
  const Json* stage = present(settings, key);
  if (!stage) return steps;
  const Json* items = text(*stage, "type") == "Sequence" ? stage->find(list) : nullptr;
  if (!items || !items->is_array()) return {stage};
  for (const Json& step : items->items()) steps.push_back(&step);
  return steps;
}

// Whether a step replaces each `from` by `to`.
bool replaces(const Json& step, std::string_view from, std::string_view to) {
  const Json* pattern = present(step, "pattern");
  return text(step, "type") == "Replace" && pattern && text(*pattern, "String") == from &&
         text(step, "content") == to;
}

// The settings: normalizer, pre-tokenizer, post-processor, decoder and the model's flags.
class Settings {
 public:
  Settings(const Json& settings, std::string_view name, TokenizerData& data)
      : settings_(settings), name_(name), data_(data) {}

  Status read() {
    if (const Json* version = present(settings_, "version"); version && text(settings_, "version") != "1.0")
      return refuse("version", quoted(text(settings_, "version")), "\"1.0\"");
    const Json& model = *settings_.find("model");
    NIB_TRY(read_model(model));
    const auto normalizers = steps_of(settings_, "normalizer", "normalizers");
    const auto pre_tokenizers = steps_of(settings_, "pre_tokenizer", "pretokenizers");
    const bool metaspace = pre_tokenizers.size() == 1 && text(*pre_tokenizers[0], "type") == "Metaspace";
    if (metaspace || (pre_tokenizers.empty() && flag(model, "byte_fallback", false))) {
      data_.model = TokenizerData::Model::sentencepiece;
      if (!flag(model, "byte_fallback", false)) return refuse("model.byte_fallback", "false", "true");
      NIB_TRY(metaspace ? read_metaspace(*pre_tokenizers[0], normalizers) : read_spaces(normalizers));
      NIB_TRY(read_spaced_decoder());
    } else {
      NIB_TRY(read_normalizer(normalizers));
      NIB_TRY(read_byte_level(pre_tokenizers));
      const Json* decoder = present(settings_, "decoder");
      if (decoder && text(*decoder, "type") != "ByteLevel")
        return refuse("decoder", quoted(text(*decoder, "type")), "ByteLevel");
    }
    return read_post_processor();
  }

 private:
  Status read_model(const Json& model) {
    if (present(model, "type") && text(model, "type") != "BPE")
      return refuse("model.type", quoted(text(model, "type")), "BPE");
    for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!text(model, key).empty()) return refuse(concat("model.", key), quoted(text(model, key)), "none");
    if (const Json* dropout = present(model, "dropout");
        dropout && dropout->is_number() && dropout->as_double() != 0)
      return refuse("model.dropout", "a chance", "none");
    // unk_token and fuse_unk are about what has no token; every byte must have one.
    data_.whole_words = flag(model, "ignore_merges", false);
    return {};
  }

  // Byte level
  // --------------------------------------------------------------------------------------------------

  Status read_normalizer(const std::vector<const Json*>& steps) {
    if (steps.empty()) return {};
    if (steps.size() > 1 || text(*steps[0], "type") != "NFC")
      return refuse("normalizer", steps.size() > 1 ? "a Sequence" : quoted(text(*steps[0], "type")),
                    "none or NFC");
    data_.nfc = true;
    return {};
  }

  // ByteLevel alone (it then splits by GPT-2's pattern), or after a Split.
  Status read_byte_level(const std::vector<const Json*>& steps) {
    if (steps.empty())
      return refuse("pre_tokenizer", "none", "Metaspace, ByteLevel, or a Sequence of Split and ByteLevel");
    if (steps.size() > 2)
      return refuse("pre_tokenizer", "a Sequence of more than two steps", "Split and ByteLevel");
    const Json* split = steps.size() == 2 ? steps[0] : nullptr;
    const Json& byte_level = *steps.back();
    if (split && text(*split, "type") != "Split")
      return refuse("pre_tokenizer", quoted(text(*split, "type")), "Split");
    if (text(byte_level, "type") != "ByteLevel")
      return refuse("pre_tokenizer", quoted(text(byte_level, "type")), "ByteLevel");
    if (flag(byte_level, "add_prefix_space", true))
      return refuse("pre_tokenizer: ByteLevel", "add_prefix_space", "none");
    if (flag(byte_level, "use_regex", true) == (split != nullptr))
      return refuse("pre_tokenizer",
                    split ? "ByteLevel with use_regex after Split" : "ByteLevel without use_regex",
                    "one split pattern");
    data_.split = kGpt2Pattern;
    if (!split) return {};
    if (text(*split, "behavior") != "Isolated")
      return refuse("pre_tokenizer: Split behavior", quoted(text(*split, "behavior")), "Isolated");
    if (flag(*split, "invert", false)) return refuse("pre_tokenizer: Split", "invert", "none");
    const Json* pattern = present(*split, "pattern");
    data_.split = pattern ? text(*pattern, "Regex") : std::string_view();
    if (!find_split_pattern(data_.split))
      return refuse("pre_tokenizer: the pattern of Split", quoted(data_.split, 1000),
                    "a pattern of GPT-2, Llama 3, Qwen 2, Tekken or o200k");
    return {};
  }

  // SentencePiece
  // -----------------------------------------------------------------------------------------------

  // No pre-tokenizer; the normalizer puts a space before every piece and writes spaces as U+2581.
  Status read_spaces(std::vector<const Json*> steps) {
    data_.prefix = TokenizerData::Prefix::none;
    if (!steps.empty() && text(*steps[0], "type") == "Prepend") {
      if (text(*steps[0], "prepend") != kSpaceSymbol)
        return refuse("normalizer: Prepend", quoted(text(*steps[0], "prepend")), "\"\u2581\"");
      data_.prefix = TokenizerData::Prefix::every_piece;
      steps.erase(steps.begin());
    }
    if (steps.size() != 1 || !replaces(*steps[0], " ", kSpaceSymbol))
      return refuse("normalizer",
                    steps.empty() ? "none, without a pre-tokenizer" : quoted(text(*steps[0], "type")),
                    "Prepend, and Replace of spaces by \"\u2581\"");
    return {};
  }

  Status read_metaspace(const Json& step, const std::vector<const Json*>& normalizers) {
    using Prefix = TokenizerData::Prefix;
    if (!normalizers.empty())
      return refuse("normalizer", concat(quoted(text(*normalizers[0], "type")), " with Metaspace"), "none");
    if (text(step, "replacement") != kSpaceSymbol)
      return refuse("pre_tokenizer: Metaspace replacement", quoted(text(step, "replacement")), "\"\u2581\"");
    std::string_view scheme = text(step, "prepend_scheme");
    if (scheme.empty()) scheme = "always";
    if (!flag(step, "add_prefix_space", true)) scheme = "never";
    if (scheme != "always" && scheme != "first" && scheme != "never")
      return refuse("pre_tokenizer: Metaspace prepend_scheme", quoted(scheme), "always, first or never");
    data_.prefix = scheme == "always"  ? Prefix::every_piece
                   : scheme == "first" ? Prefix::first_piece
                                       : Prefix::none;
    data_.prefix_before_space = false;
    data_.split_spaces = flag(step, "split", true);
    return {};
  }

  // Replace, ByteFallback, Fuse, and Strip of the prefix; or Metaspace for all of it.
  Status read_spaced_decoder() {
    const auto steps = steps_of(settings_, "decoder", "decoders");
    data_.strip_prefix = false;
    for (const Json* step : steps) {
      const std::string_view type = text(*step, "type");
      if (type == "Strip") {
        const Json* start = step->find("start");
        const Json* stop = step->find("stop");
        if (text(*step, "content") != " " || !start || start->as_integer() != 1 || !stop ||
            stop->as_integer() != 0)
          return refuse("decoder: Strip", "of other than one space at the front", "that");
        data_.strip_prefix = true;
      } else if (type == "Metaspace") {
        data_.strip_prefix = text(*step, "prepend_scheme") != "never";
      } else if (type != "ByteFallback" && type != "Fuse" && !replaces(*step, kSpaceSymbol, " ")) {
        return refuse("decoder", quoted(type),
                      "Replace of \"\u2581\" by spaces, ByteFallback, Fuse and Strip");
      }
    }
    return {};
  }

  // What stands around a text
  // -----------------------------------------------------------------------------------

  Status read_post_processor() {
    for (const Json* step : steps_of(settings_, "post_processor", "processors")) {
      const std::string_view type = text(*step, "type");
      if (type == "TemplateProcessing")
        NIB_TRY(read_template(*step));
      else if (type != "ByteLevel")
        return refuse("post_processor", quoted(type), "TemplateProcessing and ByteLevel");
    }
    return {};
  }

  Status read_template(const Json& step) {
    const Json* single = step.find("single");
    if (!single || !single->is_array()) return bad("post_processor: single is missing or no array");
    bool behind = false;
    for (const Json& item : single->items()) {
      const Json* special = present(item, "SpecialToken");
      if (!special) {
        behind = true;
        continue;
      }
      const std::string_view id = text(*special, "id");
      const Json* tokens = step.find("special_tokens");
      const Json* entry = tokens ? tokens->find(id) : nullptr;
      const Json* ids = entry ? entry->find("ids") : nullptr;
      if (!ids || !ids->is_array())
        return bad(concat("post_processor: special_tokens lacks ", quoted(id), " or its ids"));
      for (const Json& token : ids->items()) {
        if (!token.is_integer() || token.as_integer() < 0 || token.as_integer() > TokenizerData::kLargestId)
          return bad(concat("post_processor: special_tokens: an id of ", quoted(id), " is none"));
        (behind ? data_.closing : data_.opening).push_back(static_cast<Token>(token.as_integer()));
      }
    }
    return {};
  }

  Status bad(std::string_view sentence) const { return {Code::format, concat(name_, ": ", sentence)}; }
  Status refuse(std::string_view key, std::string_view found, std::string_view supported) const {
    return {Code::unsupported, concat(name_, ": ", key, " is ", found, ", nibble supports ", supported)};
  }

  const Json& settings_;
  std::string_view name_;
  TokenizerData& data_;
};

// Vocabulary, added tokens and merges.
class Lists {
 public:
  Lists(TokenizerFile& file, std::string_view name, TokenizerData& data)
      : file_(file), name_(name), data_(data) {}

  Status read(std::span<const Tokenizer::Extra> extra) {
    NIB_TRY(place_vocabulary(extra));
    NIB_TRY(place_added(extra));
    return link_merges();
  }

 private:
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
      if (token.id > TokenizerData::kLargestId || token.content.empty())
        return {Code::argument, concat(name_, ": extra token ", quoted(token.content), " has id ", token.id,
                                       ", expected a text and an id up to ", TokenizerData::kLargestId)};
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
    data_.tokens.resize(places_.size());
    for (Token id = 0; id < places_.size(); ++id)
      if (places_[id].spelling != StringTable::kNone)
        data_.tokens[id] = file_.spellings.at(places_[id].spelling);
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
    for (TokenizerFile::Added& token : file_.added)
      data_.added.push_back({token.id, std::move(token.content), token.special, token.normalized});
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
    if (data_.model == TokenizerData::Model::byte_level && in_vocabulary != kNoId &&
        spelled_bytes(token.content, bytes) && bytes != token.content)
      return bad(concat(what, " is in model.vocab, where that spelling stands for other bytes"));
    place.added = index;
    contents.intern(token.content);
    return {};
  }

  Status link_merges() {
    std::vector<bool> special(places_.size());
    for (const TokenizerData::Added& token : data_.added) special[token.id] = token.special;
    data_.merges.reserve(file_.merges.size());
    std::string joined;
    for (std::uint32_t rank = 0; rank < file_.merges.size(); ++rank) {
      const auto [left, right] = file_.merges[rank];
      joined = file_.spellings.at(left);
      joined += file_.spellings.at(right);
      const Token result = file_.id_of(joined);
      if (file_.ids[left] == kNoId || file_.ids[right] == kNoId || result == kNoId)
        return bad(concat("model.merges[", rank, "]: ", quoted(file_.spellings.at(left)), " and ",
                          quoted(file_.spellings.at(right)), " or what they make is not in model.vocab"));
      if (special[result])
        return bad(concat("model.merges[", rank, "] makes the special token ", quoted(joined)));
      data_.merges.push_back({file_.ids[left], file_.ids[right], result, rank});
    }
    return {};
  }

  Status bad(std::string_view sentence) const { return {Code::format, concat(name_, ": ", sentence)}; }
  Status refuse(std::string_view key, std::string_view found, std::string_view supported) const {
    return {Code::unsupported, concat(name_, ": ", key, " is ", found, ", nibble supports ", supported)};
  }

  TokenizerFile& file_;
  std::string_view name_;
  TokenizerData& data_;
  std::vector<Place> places_;  // by id
};

}  // namespace

Result<TokenizerData> tokenizer_data_from_json(std::string_view json, std::string_view name,
                                               std::span<const Tokenizer::Extra> extra) {
  return within_memory(name, [&]() -> Result<TokenizerData> {
    NIB_ASSIGN(TokenizerFile file, read_tokenizer_file(json, name));
    TokenizerData data;
    NIB_TRY(Settings(file.settings, name, data).read());
    NIB_TRY(Lists(file, name, data).read(extra));
    return data;
  });
}

}  // namespace nib::inline v0
