// tokenizer.json to tables: the vocabulary and the merges stream into flat memory, all the rest becomes a
// small tree that is then checked key by key.
#include "tokenizer_tables.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace nib::inline v0 {
namespace {

constexpr JsonLimits kLimits{.max_bytes = std::size_t{256} << 20, .max_depth = 64, .max_values = 50'000'000};
constexpr std::size_t kMostTokenBytes = 64 * 1024;
constexpr std::size_t kMostAddedTokens = 1 << 20;

// GPT-2's alphabet: the character that stands for each byte in a token's spelling.
constexpr std::array<std::uint16_t, 256> byte_alphabet() {
  std::array<std::uint16_t, 256> table{};
  std::uint16_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const bool itself = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    table[b] = itself ? static_cast<std::uint16_t>(b) : next++;
  }
  return table;
}
constexpr std::array<std::int16_t, 0x144> alphabet_bytes() {
  std::array<std::int16_t, 0x144> table{};
  for (auto& entry : table) entry = -1;
  const auto alphabet = byte_alphabet();
  for (std::size_t b = 0; b < 256; ++b) table[alphabet[b]] = static_cast<std::int16_t>(b);
  return table;
}

// A spelling in the byte alphabet as the bytes it stands for; one with other characters stands for itself.
void spelling_to_bytes(std::string_view spelling, std::string& out) {
  static constexpr auto kBytes = alphabet_bytes();
  out.clear();
  for (std::size_t at = 0; at < spelling.size();) {
    const Utf8Step step = step_utf8(spelling.substr(at));
    if (step.kind != Utf8Step::Kind::character || step.code_point >= kBytes.size() ||
        kBytes[step.code_point] < 0) {
      out.assign(spelling);
      return;
    }
    out += static_cast<char>(kBytes[step.code_point]);
    at += step.length;
  }
}

// Where in the document an event falls, as far as it matters.
enum class Region : std::uint8_t { tree, model, vocabulary, merges, merge_pair };

class Handler final : public JsonHandler {
 public:
  Handler(std::string_view name, Bpe& bpe) : name_(name), bpe_(bpe) {}

  Json root;
  std::string merge_block;  // "left right" spellings as bytes
  struct MergeText {
    std::uint32_t offset, left, right;  // where, and bytes of each
  };
  std::vector<MergeText> merges;
  bool has_vocabulary = false;

  Status on_null() override { return value(Json()); }
  Status on_bool(bool v) override { return value(Json::of(v)); }
  Status on_number(double v) override { return value(Json::of(v)); }
  Status on_integer(std::int64_t v) override {
    if (region_ != Region::vocabulary) return value(Json::of(v));
    if (v < 0 || v >= Vocabulary::kNone || !bpe_.vocabulary.add(static_cast<Token>(v), bytes_))
      return bad(concat("model.vocab: token \"", key_, "\" has id ", v, ", which is taken or out of range"));
    return {};
  }
  Status on_string(std::string_view v) override {
    if (region_ == Region::merges) {
      const std::size_t space = v.find(' ');
      if (v.starts_with("#version")) return {};
      if (space == std::string_view::npos || v.find(' ', space + 1) != std::string_view::npos)
        return bad(concat("model.merges: entry ", merges.size(), " is \"", v.substr(0, 80),
                          "\", expected two spellings"));
      return add_merge(v.substr(0, space), v.substr(space + 1));
    }
    if (region_ == Region::merge_pair) {
      if (pair_count_ == 0) left_ = v;
      if (pair_count_ == 1) right_ = v;
      ++pair_count_;
      return {};
    }
    return value(Json::of(std::string(v)));
  }
  Status on_key(std::string_view key) override {
    key_ = key;
    if (region_ != Region::vocabulary) return {};
    if (key.size() > kMostTokenBytes)
      return bad(concat("model.vocab: a token of ", key.size(), " bytes, at most ", kMostTokenBytes,
                        " are allowed"));
    spelling_to_bytes(key, bytes_);
    return {};
  }
  Status on_object_begin() override {
    if (region_ == Region::model && key_ == "vocab" && open_.size() == 2) {
      if (std::exchange(has_vocabulary, true)) return bad("model.vocab stands twice");
      region_ = Region::vocabulary;
      return {};
    }
    NIB_TRY(only_in_tree());
    if (region_ == Region::tree && open_.size() == 1 && key_ == "model") region_ = Region::model;
    open_.push_back({true, key_, {}, {}});
    return {};
  }
  Status on_object_end() override {
    if (region_ == Region::vocabulary) {
      region_ = Region::model;
      return {};
    }
    if (region_ == Region::model && open_.size() == 2) region_ = Region::tree;
    return close();
  }
  Status on_array_begin() override {
    if (region_ == Region::merges) {
      region_ = Region::merge_pair;
      pair_count_ = 0;
      return {};
    }
    if (region_ == Region::model && key_ == "merges" && open_.size() == 2) {
      region_ = Region::merges;
      return {};
    }
    NIB_TRY(only_in_tree());
    open_.push_back({false, key_, {}, {}});
    return {};
  }
  Status on_array_end() override {
    if (region_ == Region::merge_pair) {
      region_ = Region::merges;
      if (pair_count_ != 2)
        return bad(
            concat("model.merges: entry ", merges.size(), " has ", pair_count_, " spellings, expected two"));
      return add_merge(left_, right_);
    }
    if (region_ == Region::merges) {
      region_ = Region::model;
      return {};
    }
    return close();
  }

 private:
  struct Open {
    bool object;
    std::string key;
    std::vector<Json> items;
    std::vector<Json::Member> members;
  };

  Status bad(std::string sentence) const { return Status(Code::format, concat(name_, ": ", sentence)); }
  Status only_in_tree() const {
    if (region_ == Region::tree || region_ == Region::model) return {};
    return bad(region_ == Region::vocabulary ? "model.vocab: expected an id for each token"
                                             : "model.merges: expected pairs of spellings");
  }
  Status value(Json v) {
    NIB_TRY(only_in_tree());
    if (open_.empty())
      root = std::move(v);
    else if (open_.back().object)
      open_.back().members.emplace_back(key_, std::move(v));
    else
      open_.back().items.push_back(std::move(v));
    return {};
  }
  Status close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    key_ = std::move(done.key);
    return value(done.object ? Json::object(std::move(done.members)) : Json::array(std::move(done.items)));
  }
  Status add_merge(std::string_view left, std::string_view right) {
    spelling_to_bytes(left, bytes_);
    MergeText text{static_cast<std::uint32_t>(merge_block.size()), static_cast<std::uint32_t>(bytes_.size()),
                   0};
    merge_block += bytes_;
    spelling_to_bytes(right, bytes_);
    text.right = static_cast<std::uint32_t>(bytes_.size());
    merge_block += bytes_;
    if (merge_block.size() > 0x7fff'ffffu) return bad("model.merges is too large");
    merges.push_back(text);
    return {};
  }

  std::string_view name_;
  Bpe& bpe_;
  Region region_ = Region::tree;
  std::vector<Open> open_;
  std::string key_, bytes_, left_, right_;
  int pair_count_ = 0;
};

// Checks the small tree and fills in the rest of the tables.
class Builder {
 public:
  Builder(const Json& root, std::string_view name, Tokenizer::Tables& tables)
      : root_(root), name_(name), tables_(tables) {}

  Status check_model() const {
    const Json* model = get(root_, "model");
    if (!model || !model->is_object()) return missing("model", "an object");
    if (text(*model, "type") != "BPE")
      return refuse(concat("model.type \"", text(*model, "type"), "\" is not supported (known: BPE)"));
    for (const char* key : {"unk_token", "continuing_subword_prefix", "end_of_word_suffix"})
      if (const Json* value = get(*model, key); value && !(value->is_string() && value->as_string().empty()))
        return refuse(concat("model.", key, " is not supported"));
    if (const Json* dropout = get(*model, "dropout");
        dropout && !(dropout->is_number() && dropout->as_double() == 0))
      return refuse("model.dropout is not supported");
    if (flag(*model, "byte_fallback")) return refuse("model.byte_fallback is not supported");
    tables_.bpe.whole_words_first = flag(*model, "ignore_merges");
    return {};
  }

  Status check_normalizer() const {
    if (const Json* normalizer = get(root_, "normalizer"))
      return refuse(concat("normalizer \"", text(*normalizer, "type"), "\" is not supported"));
    return {};
  }

  // Sequence[Split(a known pattern, Isolated), ByteLevel(no prefix space, no pattern of its own)].
  Status check_pre_tokenizer() const {
    const Json* pre = get(root_, "pre_tokenizer");
    if (!pre) return missing("pre_tokenizer", "a Sequence of Split and ByteLevel");
    const Json* steps = get(*pre, "pretokenizers");
    if (text(*pre, "type") != "Sequence" || !steps || !steps->is_array() || steps->items().size() != 2)
      return refuse(concat("pre_tokenizer \"", text(*pre, "type"),
                           "\" is not supported (known: Sequence of Split and ByteLevel)"));
    const Json &split = steps->items()[0], &bytes = steps->items()[1];
    const Json* pattern = get(split, "pattern");
    if (text(split, "type") != "Split" || text(split, "behavior") != "Isolated" || flag(split, "invert") ||
        !pattern)
      return refuse(concat("pre_tokenizer step \"", text(split, "type"),
                           "\" is not supported (known: Split with behavior Isolated)"));
    const SplitPattern* known = find_split_pattern(text(*pattern, "Regex"));
    if (!known)
      return refuse(concat("pre_tokenizer: the split pattern ", text(*pattern, "Regex").substr(0, 400),
                           " is not known"));
    tables_.next_word = known->next;
    const Json* use_regex = get(bytes, "use_regex");
    if (text(bytes, "type") != "ByteLevel" || flag(bytes, "add_prefix_space") || !use_regex ||
        !use_regex->is_bool() || use_regex->as_bool())
      return refuse(
          "pre_tokenizer: expected ByteLevel without prefix space and without a pattern of its own after "
          "Split");
    return {};
  }

  Status add_tokens(std::span<const Tokenizer::Extra> extra) {
    const Json* added = get(root_, "added_tokens");
    if (added && !added->is_array()) return missing("added_tokens", "a list");
    if (added && added->items().size() > kMostAddedTokens) return refuse("added_tokens: too many");
    if (added)
      for (const Json& token : added->items()) NIB_TRY(add_listed(token));
    for (const Tokenizer::Extra& token : extra)
      if (!tables_.bpe.vocabulary.has(token.id)) NIB_TRY(add(token.id, token.content, true));
    return {};
  }

  // Ids become findable and the merges known.
  Status link(const Handler& read) {
    Bpe& bpe = tables_.bpe;
    bpe.vocabulary.index();
    for (unsigned b = 0; b < 256; ++b) {
      const char byte = static_cast<char>(b);
      bpe.byte_tokens[b] = bpe.vocabulary.find({&byte, 1});
      if (bpe.byte_tokens[b] == Vocabulary::kNone)
        return Status(Code::format, concat(name_, ": model.vocab lacks a token for byte ", b,
                                           ", which byte-level BPE needs"));
    }
    bpe.merges.reserve(read.merges.size());
    for (std::size_t rank = 0; rank < read.merges.size(); ++rank) {
      const auto& text = read.merges[rank];
      const std::string_view both =
          std::string_view(read.merge_block).substr(text.offset, text.left + text.right);
      const Token left = bpe.vocabulary.find(both.substr(0, text.left)),
                  right = bpe.vocabulary.find(both.substr(text.left));
      const Token result = bpe.vocabulary.find(both);
      if (left == Vocabulary::kNone || right == Vocabulary::kNone || result == Vocabulary::kNone)
        return Status(Code::format, concat(name_, ": model.merges: entry ", rank,
                                           " merges or makes a token that model.vocab lacks"));
      bpe.merges.add(left, right, {static_cast<std::uint32_t>(rank), result});
    }
    return {};
  }

  void sort_added() {
    const auto finish = [&](std::vector<Token>& tokens, std::vector<bool>& first) {
      const Vocabulary& vocabulary = tables_.bpe.vocabulary;
      std::sort(tokens.begin(), tokens.end(),
                [&](Token a, Token b) { return vocabulary.bytes(a) < vocabulary.bytes(b); });
      first.assign(256, false);
      for (const Token id : tokens) first[static_cast<std::uint8_t>(vocabulary.bytes(id)[0])] = true;
    };
    finish(tables_.always, tables_.first_always);
    finish(tables_.recognised, tables_.first_recognised);
  }

 private:
  static const Json* get(const Json& object, std::string_view key) {
    const Json* value = object.find(key);
    return value && value->is_null() ? nullptr : value;
  }
  static std::string text(const Json& object, std::string_view key) {
    const Json* value = object.find(key);
    return value && value->is_string() ? value->as_string() : "";
  }
  static bool flag(const Json& object, std::string_view key) {
    const Json* value = object.find(key);
    return value && value->is_bool() && value->as_bool();
  }
  Status missing(std::string_view key, std::string_view expected) const {
    return Status(Code::format,
                  concat(name_, ": key \"", key, "\" is missing or of the wrong type, expected ", expected));
  }
  Status refuse(std::string_view sentence) const {
    return Status(Code::unsupported, concat(name_, ": ", sentence));
  }

  Status add_listed(const Json& token) {
    const Json* id = get(token, "id");
    const std::string content = text(token, "content");
    if (!id || !id->is_integer() || id->as_integer() < 0 || id->as_integer() >= Vocabulary::kNone ||
        content.empty() || content.size() > kMostTokenBytes)
      return missing("added_tokens", "objects with an id and a content");
    for (const char* key : {"single_word", "lstrip", "rstrip"})
      if (flag(token, key))
        return refuse(concat("added_tokens: \"", content, "\" has ", key, ", which is not supported"));
    return add(static_cast<Token>(id->as_integer()), content, flag(token, "special"));
  }
  Status add(Token id, std::string_view content, bool special) {
    Vocabulary& vocabulary = tables_.bpe.vocabulary;
    if (vocabulary.has(id) ? vocabulary.bytes(id) != content : !vocabulary.add(id, content))
      return Status(Code::format, concat(name_, ": added_tokens: \"", content, "\" has id ", id,
                                         ", which is taken or out of range"));
    if (special) {
      if (tables_.special.size() <= id) tables_.special.resize(id + std::size_t{1});
      tables_.special[id] = true;
    } else {
      tables_.always.push_back(id);
    }
    tables_.recognised.push_back(id);
    return {};
  }

  const Json& root_;
  std::string_view name_;
  Tokenizer::Tables& tables_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer::Tables>> read_tokenizer_tables(std::string_view json, std::string_view name,
                                                                 std::span<const Tokenizer::Extra> extra) {
  auto tables = std::make_unique<Tokenizer::Tables>();
  Handler handler(name, tables->bpe);
  NIB_TRY(parse_json(json, name, kLimits, handler));
  if (!handler.root.is_object()) return Status(Code::format, concat(name, ": expected an object"));
  Builder builder(handler.root, name, *tables);
  NIB_TRY(builder.check_model());
  if (!handler.has_vocabulary) return Status(Code::format, concat(name, ": key \"model.vocab\" is missing"));
  NIB_TRY(builder.check_normalizer());
  NIB_TRY(builder.check_pre_tokenizer());
  NIB_TRY(builder.add_tokens(extra));
  NIB_TRY(builder.link(handler));
  builder.sort_added();
  return tables;
}

}  // namespace nib::inline v0
