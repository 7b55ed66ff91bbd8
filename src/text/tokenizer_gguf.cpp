// What the keys tokenizer.ggml.* of a GGUF file mean.
#include "gguf_token_type.hpp"
#include "splitter.hpp"
#include "string_table.hpp"
#include "tokenizer_file.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/text/tokenizer_data.hpp>
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

namespace nib::inline v0 {
namespace {

using namespace gguf;  // the types of tokens

// Names of pre-tokenizers, and of architectures whose files have none, by the published pattern they mean.
// GGUF does not say what the model's own tokenizer.json does beside: form C, and words that are tokens.
struct PreTokenizer {
  std::string_view name, pattern;
  bool nfc = false, whole_words = false;
};
constexpr PreTokenizer kPreTokenizers[] = {
    {"gpt-2", "GPT-2"},
    {"gpt2", "GPT-2"},
    {"default", "GPT-2"},
    {"mpt", "GPT-2", true},
    {"olmo", "GPT-2", true},
    {"gptneox", "GPT-2", true},
    {"llama-bpe", "Llama 3", false, true},
    {"llama3", "Llama 3", false, true},
    {"llama-v3", "Llama 3", false, true},
    {"llama", "Llama 3", false, true},
    {"qwen2", "Qwen 2", true},
    {"qwen3", "Qwen 2", true},
    {"qwen3moe", "Qwen 2", true},
    {"tekken", "Tekken", false, true},
    {"gpt-4o", "o200k", false, true},
    {"gpt-oss", "o200k", false, true},
};

class Reader {
 public:
  Reader(const GgufVocabulary& vocabulary, std::string_view name, TokenizerData& data)
      : in_(vocabulary), name_(name), data_(data) {}

  Status read() {
    if (in_.tokens.empty()) return bad("tokens", "is missing or empty");
    if (in_.tokens.size() > TokenizerData::kLargestId + std::size_t{1})
      return bad("tokens", concat("has ", in_.tokens.size(), " items, expected at most ",
                                  TokenizerData::kLargestId + 1));
    if (!in_.token_type.empty() && in_.token_type.size() != in_.tokens.size())
      return bad("token_type", concat("has ", in_.token_type.size(), " items, tokens ", in_.tokens.size()));
    data_.tokens = in_.tokens;
    for (Token id = 0; id < in_.tokens.size(); ++id) NIB_TRY(index(id));
    NIB_TRY(read_around());
    if (in_.model == "gpt2") return read_byte_level();
    if (in_.model == "llama") return read_sentencepiece();
    return {Code::unsupported, concat(name_, ": tokenizer.ggml.model is ", quoted(in_.model),
                                      ", nibble supports \"gpt2\" and \"llama\"")};
  }

 private:
  std::int32_t type(Token id) const { return in_.token_type.empty() ? kNormal : in_.token_type[id]; }

  Status index(Token id) {
    const std::int32_t type = this->type(id);
    const std::string& spelling = in_.tokens[id];
    if (type < kNormal || type > kByte)
      return bad(concat("token_type[", id, "]"), concat("is ", type, ", expected 1 to 6"));
    // Of two tokens that are spelled the same, the first is found.
    if (spellings_.find(spelling) == StringTable::kNone)
      spellings_.intern(spelling);
    else
      spellings_.append(spelling);
    if (type == kUnused) data_.tokens[id].clear();
    if (type != kUnknown && type != kControl && type != kUserDefined) return {};
    if (spelling.empty()) return {};
    if (spellings_.find(spelling) != id) {  // a second token of that spelling cannot be asked for by it
      data_.tokens[id].clear();
      return {};
    }
    data_.added.push_back({id, spelling, type != kUserDefined, false});
    return {};
  }

  Status read_around() {
    const auto add = [&](std::string_view key, std::optional<bool> wanted, std::optional<Token> id,
                         std::vector<Token>& out) -> Status {
      if (!wanted.value_or(false)) return {};
      if (!id || *id >= in_.tokens.size())
        return bad(key,
                   concat("is missing or not one of ", in_.tokens.size(), " tokens, but is to be added"));
      out.push_back(*id);
      return {};
    };
    const bool llama = in_.model == "llama";
    NIB_TRY(add("bos_token_id", llama ? in_.add_bos_token.value_or(true) : in_.add_bos_token,
                in_.bos_token_id, data_.opening));
    return add("eos_token_id", in_.add_eos_token, in_.eos_token_id, data_.closing);
  }

  Status read_byte_level() {
    data_.model = TokenizerData::Model::byte_level;
    const auto known = std::find_if(std::begin(kPreTokenizers), std::end(kPreTokenizers),
                                    [&](const PreTokenizer& row) { return row.name == in_.pre; });
    if (known == std::end(kPreTokenizers)) {
      std::string names;
      for (const PreTokenizer& row : kPreTokenizers) names += concat(names.empty() ? "" : ", ", row.name);
      return {Code::unsupported,
              concat(name_, ": tokenizer.ggml.pre is ", quoted(in_.pre), ", nibble supports ", names)};
    }
    for (const SplitPattern& pattern : split_patterns())
      if (pattern.name == known->pattern) data_.split = pattern.regex;
    data_.nfc = known->nfc;
    data_.whole_words = known->whole_words;
    std::string joined;
    for (std::uint32_t rank = 0; rank < in_.merges.size(); ++rank) {
      const std::string_view merge = in_.merges[rank];
      // A token may begin with a space symbol, but never with a space: the first behind it stands between.
      const std::size_t space = merge.find(' ', 1);
      const std::string key = concat("merges[", rank, "]");
      if (space == merge.npos) return bad(key, concat("is ", quoted(merge), ", expected two tokens"));
      joined = merge.substr(0, space);
      joined += merge.substr(space + 1);
      const std::uint32_t left = spellings_.find(merge.substr(0, space)),
                          right = spellings_.find(merge.substr(space + 1)), result = spellings_.find(joined);
      if (left == StringTable::kNone || right == StringTable::kNone || result == StringTable::kNone)
        return bad(key, concat(quoted(merge), " has a part, or makes what is, no token"));
      data_.merges.push_back({left, right, result, rank});
    }
    return {};
  }

  // Any two neighbours merge whose concatenation is a token, the highest score first: so every way to cut a
  // token into two others is a merge, and its rank is that of the score.
  Status read_sentencepiece() {
    data_.model = TokenizerData::Model::sentencepiece;
    data_.prefix = in_.add_space_prefix.value_or(true) ? TokenizerData::Prefix::every_piece
                                                       : TokenizerData::Prefix::none;
    data_.strip_prefix = in_.add_space_prefix.value_or(true);
    if (in_.scores.size() != in_.tokens.size())
      return bad("scores", concat("has ", in_.scores.size(), " items, tokens ", in_.tokens.size()));
    std::vector<Token> order;
    for (Token id = 0; id < in_.tokens.size(); ++id) {
      if (in_.scores[id] != in_.scores[id]) return bad(concat("scores[", id, "]"), "is not a number");
      if (type(id) == kNormal && spellings_.find(in_.tokens[id]) == id) order.push_back(id);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](Token a, Token b) { return in_.scores[a] > in_.scores[b]; });
    std::uint32_t rank = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
      if (i > 0 && in_.scores[order[i]] != in_.scores[order[i - 1]]) ++rank;
      NIB_TRY(add_cuts(order[i], rank));
    }
    return {};
  }

  Status add_cuts(Token id, std::uint32_t rank) {
    const std::string_view spelling = in_.tokens[id];
    if (spelling.size() > kLongestToken)
      return bad(concat("tokens[", id, "]"),
                 concat("has ", spelling.size(), " bytes, expected at most ", kLongestToken));
    for (std::size_t cut = 0, length = 0; cut < spelling.size(); cut += length) {
      length = step_utf8(spelling.substr(cut)).length;
      if (length == spelling.size()) break;  // one character
      const std::uint32_t character = spellings_.find(spelling.substr(cut, length));
      if (character == StringTable::kNone || type(character) != kNormal)
        return {Code::unsupported,
                concat(name_, ": tokenizer.ggml.tokens[", id, "] is ", quoted(spelling),
                       ", of which a character is no token, nibble supports tokens made of others")};
      if (cut == 0) continue;
      const std::uint32_t left = spellings_.find(spelling.substr(0, cut)),
                          right = spellings_.find(spelling.substr(cut));
      if (left != StringTable::kNone && right != StringTable::kNone && type(left) == kNormal &&
          type(right) == kNormal)
        data_.merges.push_back({left, right, id, rank});
    }
    return {};
  }

  Status bad(std::string_view key, std::string_view what) const {
    return {Code::format, concat(name_, ": tokenizer.ggml.", key, " ", what)};
  }

  // Cutting is quadratic in it. (Llama's longest has 48 bytes.)
  static constexpr std::size_t kLongestToken = 4096;

  const GgufVocabulary& in_;
  std::string_view name_;
  TokenizerData& data_;
  StringTable spellings_;
};

}  // namespace

Result<TokenizerData> tokenizer_data_from_gguf(const GgufVocabulary& vocabulary, std::string_view name) {
  return within_memory(name, [&]() -> Result<TokenizerData> {
    TokenizerData data;
    NIB_TRY(Reader(vocabulary, name, data).read());
    return data;
  });
}

}  // namespace nib::inline v0
