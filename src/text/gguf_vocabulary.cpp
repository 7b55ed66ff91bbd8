// A vocabulary in the keys of a GGUF file, checked by reading it back.
#include "gguf_token_type.hpp"
#include "splitter.hpp"
#include "tokenizer_file.hpp"
#include "vocabulary_writing.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/text/tokenizer_data.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {
namespace {

using namespace gguf;  // the types of tokens

// The names of pre-tokenizers that every reader of GGUF knows, for a pattern with or without form C.
struct PreTokenizer {
  std::string_view pattern;
  bool nfc;
  std::string_view name;
};
constexpr PreTokenizer kPreTokenizers[] = {
    {"GPT-2", false, "gpt-2"}, {"GPT-2", true, "olmo"},     {"Llama 3", false, "llama-bpe"},
    {"Qwen 2", true, "qwen2"}, {"Tekken", false, "tekken"}, {"o200k", false, "gpt-4o"},
};

class Writer {
 public:
  Writer(const TokenizerData& data, std::size_t rows, std::string_view name)
      : data_(data), rows_(rows), name_(name) {}

  Result<GgufVocabulary> write() {
    if (data_.tokens.size() > rows_)
      return Status(Code::argument, concat(name_, ": has ", data_.tokens.size(),
                                           " tokens, and the model embeddings for ", rows_));
    NIB_TRY(write_tokens());
    NIB_TRY(data_.model == TokenizerData::Model::byte_level ? write_byte_level() : write_sentencepiece());
    NIB_TRY(write_around());
    NIB_TRY(read_back());
    return std::move(out_);
  }

 private:
  Status write_tokens() {
    out_.tokens = data_.tokens;
    out_.tokens.resize(rows_);
    out_.token_type.assign(rows_, kNormal);
    const bool spaced = data_.model == TokenizerData::Model::sentencepiece;
    for (Token id = 0; id < data_.tokens.size(); ++id) {
      const std::string& spelling = data_.tokens[id];
      if (spaced && spelling.size() == 6 && spelling.starts_with("<0x") && spelling.ends_with('>'))
        out_.token_type[id] = kByte;
    }
    for (const TokenizerData::Added& added : data_.added) {
      out_.tokens[added.id] = added.content;
      out_.token_type[added.id] = !added.special             ? kUserDefined
                                  : added.content == "<unk>" ? kUnknown
                                                             : kControl;
    }
    for (Token id = 0; id < rows_; ++id)
      if (out_.tokens[id].empty()) {
        out_.tokens[id] = concat("[PAD", id, "]");
        out_.token_type[id] = kUnused;
      }
    return {};
  }

  Status write_byte_level() {
    out_.model = "gpt2";
    const SplitPattern* pattern = find_split_pattern(data_.split);
    for (const PreTokenizer& row : kPreTokenizers)
      if (pattern && row.pattern == pattern->name && row.nfc == data_.nfc) out_.pre = row.name;
    if (out_.pre.empty())
      return refuse(concat("splits words by ", pattern ? pattern->name : "a pattern of its own",
                           data_.nfc ? " in form C" : ""));
    for (const TokenizerData::Merge* merge : merges_by_rank(data_))
      out_.merges.push_back(concat(data_.tokens[merge->left], " ", data_.tokens[merge->right]));
    return {};
  }

  // Scores are all that says in which order neighbours merge: those of a token are its rank, downwards.
  Status write_sentencepiece() {
    out_.model = "llama";
    out_.pre = "default";
    const bool first = data_.prefix != TokenizerData::Prefix::none;
    if (first != data_.strip_prefix)
      return refuse(first ? "puts a space before a text and keeps it when decoding"
                          : "drops a space at the front of a text when decoding and puts none there");
    out_.add_space_prefix = first;
    std::uint32_t last = 0;
    for (const TokenizerData::Merge& merge : data_.merges) last = std::max(last, merge.rank + 1);
    std::vector<std::uint32_t> rank(rows_, last);
    for (const TokenizerData::Merge& merge : data_.merges)
      rank[merge.result] = std::min(rank[merge.result], merge.rank);
    for (Token id = 0; id < rows_; ++id)
      out_.scores.push_back(out_.token_type[id] == kNormal ? -static_cast<float>(rank[id]) : 0.0f);
    return {};
  }

  Status write_around() {
    if (data_.opening.size() > 1 || data_.closing.size() > 1)
      return refuse("puts several ids before or behind a text");
    out_.add_bos_token = !data_.opening.empty();
    out_.add_eos_token = !data_.closing.empty();
    if (*out_.add_bos_token) out_.bos_token_id = data_.opening.front();
    if (*out_.add_eos_token) out_.eos_token_id = data_.closing.front();
    return {};
  }

  // What no key can say (words that are tokens, in what order equal ranks merge) must not have been needed.
  Status read_back() const {
    NIB_ASSIGN(const TokenizerData again, tokenizer_data_from_gguf(out_, name_));
    NIB_ASSIGN(const Tokenizer before, Tokenizer::from(data_, name_));
    NIB_ASSIGN(const Tokenizer after, Tokenizer::from(again, name_));
    NIB_ASSIGN(const std::optional<Token> id, first_other_cut(before, after));
    if (id)
      return refuse(concat("cuts the spelling of token ", *id, ", ", quoted(before.bytes(*id)),
                           ", into other tokens than its GGUF form"));
    return {};
  }

  Status refuse(std::string_view what) const {
    return {Code::unsupported, concat(name_, ": ", what, ", which no GGUF key says")};
  }

  const TokenizerData& data_;
  std::size_t rows_;
  std::string_view name_;
  GgufVocabulary out_;
};

}  // namespace

Result<GgufVocabulary> gguf_vocabulary_of(const TokenizerData& data, std::size_t rows,
                                          std::string_view name) {
  return within_memory(name, [&] { return Writer(data, rows, name).write(); });
}

}  // namespace nib::inline v0
