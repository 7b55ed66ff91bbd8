// A vocabulary as the text of a tokenizer.json, checked by reading it back: tokenizer_json.cpp the other way
// round.
#include "splitter.hpp"
#include "string_table.hpp"
#include "tokenizer_file.hpp"
#include "vocabulary_writing.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/text/tokenizer_data.hpp>
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::inline v0 {
namespace {

constexpr std::string_view kSpaceSymbol = "\xe2\x96\x81";  // U+2581

Json text(std::string_view words) { return Json::of(std::string(words)); }
Json number(Token id) { return Json::of(static_cast<std::int64_t>(id)); }
Json step(std::string_view type, std::vector<Json::Member> more = {}) {
  more.insert(more.begin(), {"type", text(type)});
  return Json::object(std::move(more));
}
Json sequence(std::string_view list, std::vector<Json> steps) {
  return step("Sequence", {{std::string(list), Json::array(std::move(steps))}});
}
Json replace(std::string_view from, std::string_view to) {
  return step("Replace", {{"pattern", Json::object({{"String", text(from)}})}, {"content", text(to)}});
}
Json byte_level(bool regex) {
  return step("ByteLevel", {{"add_prefix_space", Json::of(false)},
                            {"trim_offsets", Json::of(true)},
                            {"use_regex", Json::of(regex)}});
}

class Writer {
 public:
  Writer(const TokenizerData& data, std::string_view name) : data_(data), name_(name) {}

  Result<std::string> write() {
    NIB_TRY(check_texts());
    put_stages();
    NIB_TRY(put_model());
    out_ += '}';
    NIB_TRY(read_back());
    return std::move(out_);
  }

 private:
  bool spaced() const { return data_.model == TokenizerData::Model::sentencepiece; }
  // What Metaspace does and the normalizers Prepend and Replace do not: leave a text alone that begins with a
  // space, or only its first piece is prefixed, or each space begins a word.
  bool needs_metaspace() const {
    using Prefix = TokenizerData::Prefix;
    return data_.split_spaces || data_.prefix == Prefix::first_piece ||
           (data_.prefix == Prefix::every_piece && !data_.prefix_before_space);
  }
  // The spelling that id has, of its own or as an added token.
  std::string_view spelling(Token id) const { return spellings_[id]; }

  Status check_texts() {
    spellings_.assign(data_.tokens.begin(), data_.tokens.end());
    for (const TokenizerData::Added& token : data_.added) {
      if (token.id >= spellings_.size()) spellings_.resize(token.id + std::size_t{1});
      spellings_[token.id] = token.content;
    }
    StringTable seen;
    for (Token id = 0; id < spellings_.size(); ++id) {
      if (!is_utf8(spellings_[id])) return refuse(concat("token ", id, " is no UTF-8"));
      if (spellings_[id].empty()) continue;
      if (seen.find(spellings_[id]) != StringTable::kNone)
        return refuse(concat("token ", id, ", ", quoted(spellings_[id]), ", is spelled as another is"));
      seen.intern(spellings_[id]);
    }
    if (spaced() && needs_metaspace() && data_.prefix != TokenizerData::Prefix::none &&
        data_.prefix_before_space)
      return refuse("a space is put before a space, and words begin at each");
    return {};
  }

  // --- all but the model

  void put_stages() {
    std::vector<Json> added;
    for (const TokenizerData::Added& token : data_.added)
      added.push_back(Json::object({{"id", number(token.id)},
                                    {"content", text(token.content)},
                                    {"single_word", Json::of(false)},
                                    {"lstrip", Json::of(false)},
                                    {"rstrip", Json::of(false)},
                                    {"normalized", Json::of(token.normalized)},
                                    {"special", Json::of(token.special)}}));
    std::sort(added.begin(), added.end(), [](const Json& a, const Json& b) {
      return a.find("id")->as_integer() < b.find("id")->as_integer();
    });
    out_ = R"({"version":"1.0","truncation":null,"padding":null)";
    put("added_tokens", Json::array(std::move(added)));
    put("normalizer", normalizer());
    put("pre_tokenizer", pre_tokenizer());
    put("post_processor", post_processor());
    put("decoder", decoder());
  }

  void put(std::string_view key, const Json& value) {
    out_ += concat(",\"", key, "\":");
    out_ += write_json(value);
  }

  Json normalizer() const {
    if (!spaced()) return data_.nfc ? step("NFC") : Json();
    if (needs_metaspace()) return Json();
    std::vector<Json> steps;
    if (data_.prefix != TokenizerData::Prefix::none)
      steps.push_back(step("Prepend", {{"prepend", text(kSpaceSymbol)}}));
    steps.push_back(replace(" ", kSpaceSymbol));
    return sequence("normalizers", std::move(steps));
  }

  Json pre_tokenizer() const {
    using Prefix = TokenizerData::Prefix;
    if (spaced() && !needs_metaspace()) return Json();
    if (spaced())
      return step("Metaspace", {{"replacement", text(kSpaceSymbol)},
                                {"prepend_scheme", text(data_.prefix == Prefix::none          ? "never"
                                                        : data_.prefix == Prefix::first_piece ? "first"
                                                                                              : "always")},
                                {"split", Json::of(data_.split_spaces)}});
    if (data_.split == kGpt2Pattern) return byte_level(true);
    Json split = step("Split", {{"pattern", Json::object({{"Regex", text(data_.split)}})},
                                {"behavior", text("Isolated")},
                                {"invert", Json::of(false)}});
    return sequence("pretokenizers", {std::move(split), byte_level(false)});
  }

  Json post_processor() const {
    if (data_.opening.empty() && data_.closing.empty()) return Json();
    std::vector<Json::Member> tokens;
    const auto around = [&](std::string_view sequence, std::int64_t type, std::vector<Json>& items) {
      const auto place = [&](std::string_view kind, std::string_view id) {
        items.push_back(Json::object(
            {{std::string(kind), Json::object({{"id", text(id)}, {"type_id", Json::of(type)}})}}));
      };
      for (const Token id : data_.opening) place("SpecialToken", spelling(id));
      place("Sequence", sequence);
      for (const Token id : data_.closing) place("SpecialToken", spelling(id));
    };
    std::vector<Json> single, pair;
    around("A", 0, single);
    around("A", 0, pair);
    around("B", 1, pair);
    for (const auto* ids : {&data_.opening, &data_.closing})
      for (const Token id : *ids)
        if (std::none_of(tokens.begin(), tokens.end(),
                         [&](const Json::Member& token) { return token.first == spelling(id); }))
          tokens.emplace_back(std::string(spelling(id)),
                              Json::object({{"id", text(spelling(id))},
                                            {"ids", Json::array({number(id)})},
                                            {"tokens", Json::array({text(spelling(id))})}}));
    return step("TemplateProcessing", {{"single", Json::array(std::move(single))},
                                       {"pair", Json::array(std::move(pair))},
                                       {"special_tokens", Json::object(std::move(tokens))}});
  }

  Json decoder() const {
    if (!spaced()) return byte_level(true);
    std::vector<Json> steps = {replace(kSpaceSymbol, " "), step("ByteFallback"), step("Fuse")};
    if (data_.strip_prefix)
      steps.push_back(step("Strip", {{"content", text(" ")},
                                     {"start", Json::of(std::int64_t{1})},
                                     {"stop", Json::of(std::int64_t{0})}}));
    return sequence("decoders", std::move(steps));
  }

  // --- the model, whose two lists are too long for a tree

  Status put_model() {
    const bool unknown = spaced() && std::any_of(data_.added.begin(), data_.added.end(),
                                                 [](const auto& token) { return token.content == "<unk>"; });
    out_ += concat(R"(,"model":{"type":"BPE","dropout":null,"unk_token":)", unknown ? "\"<unk>\"" : "null",
                   R"(,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":)",
                   flag(spaced()), R"(,"byte_fallback":)", flag(spaced()), R"(,"ignore_merges":)",
                   flag(data_.whole_words), R"(,"vocab":{)");
    // Added tokens too: readers number those that are not in it by themselves.
    bool first = true;
    for (Token id = 0; id < spellings_.size(); ++id) {
      if (spellings_[id].empty()) continue;
      out_ += concat(first ? "" : ",", write_json(text(spellings_[id])), ":", id);
      first = false;
    }
    out_ += R"(},"merges":[)";
    first = true;
    for (const TokenizerData::Merge* merge : merges_by_rank(data_)) {
      if (merge->left >= data_.tokens.size() || merge->right >= data_.tokens.size())
        return refuse("a merge has a token outside the vocabulary");
      out_ += concat(first ? "[" : ",[", write_json(text(data_.tokens[merge->left])), ",",
                     write_json(text(data_.tokens[merge->right])), "]");
      first = false;
    }
    out_ += "]}";
    return {};
  }

  static std::string_view flag(bool value) { return value ? "true" : "false"; }

  // What no setting can say must not have been needed.
  Status read_back() const {
    NIB_ASSIGN(const TokenizerData again, tokenizer_data_from_json(out_, name_));
    NIB_ASSIGN(const Tokenizer before, Tokenizer::from(data_, name_));
    NIB_ASSIGN(const Tokenizer after, Tokenizer::from(again, name_));
    for (Token id = 0; id < before.size(); ++id)
      if (before.bytes(id) != after.bytes(id) || before.is_special(id) != after.is_special(id))
        return refuse(concat("token ", id, ", ", quoted(before.bytes(id)), ", would be another one"));
    NIB_ASSIGN(const std::optional<Token> id, first_other_cut(before, after));
    if (!id) return {};
    return refuse(concat("the spelling of token ", *id, ", ", quoted(before.bytes(*id)),
                         ", would be cut into other tokens"));
  }

  Status refuse(std::string_view what) const {
    return {Code::unsupported, concat(name_, ": no tokenizer.json says what its vocabulary does: ", what)};
  }

  const TokenizerData& data_;
  std::string_view name_;
  std::vector<std::string_view> spellings_;  // by id; empty: no token
  std::string out_;
};

}  // namespace

Result<std::string> tokenizer_json_of(const TokenizerData& data, std::string_view name) {
  return within_memory(name, [&] { return Writer(data, name).write(); });
}

}  // namespace nib::inline v0
