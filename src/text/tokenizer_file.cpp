#include "tokenizer_file.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/text/tokenizer_data.hpp>
#include <nibble/text/utf8.hpp>

namespace nib::inline v0 {
namespace {

// gpt-oss has 1.7 million values, almost all of them in the vocabulary and the merges.
constexpr JsonLimits kLimits = {
    .max_bytes = std::size_t{256} << 20, .max_depth = 32, .max_values = 20'000'000};
constexpr std::size_t kMaxSettings = 100'000;  // values outside the three large lists

// Keeps the settings as a tree and streams the three lists that may be large, in whatever order they come.
class Reader final : public JsonHandler {
 public:
  Reader(std::string_view name, TokenizerFile& file) : name_(name), file_(file) {}

  Status finish() {
    const Json* model = file_.settings.find("model");
    if (!model || !model->is_object()) return bad("model", "is missing or no object");
    if (!seen_vocab_) return bad("model.vocab", "is missing or no object");
    if (!seen_merges_) return bad("model.merges", "is missing or no array");
    return {};
  }

  Status on_null() override { return list_ == List::none ? put(Json()) : unexpected("null"); }

  Status on_bool(bool value) override {
    if (list_ == List::none) return put(Json::of(value));
    if (list_ != List::added || !in_item_) return unexpected("true or false");
    TokenizerFile::Added& token = file_.added.back();
    if (key_ == "special") token.special = value;
    if (key_ == "normalized") token.normalized = value;
    if (key_ == "single_word") token.single_word = value;
    if (key_ == "lstrip") token.lstrip = value;
    if (key_ == "rstrip") token.rstrip = value;
    return {};
  }

  Status on_integer(std::int64_t value) override {
    if (list_ == List::none) return put(Json::of(value));
    const bool id_of_added = list_ == List::added && in_item_ && key_ == "id";
    if (list_ != List::vocab && !id_of_added) return unexpected("a number");
    if (value < 0 || value > TokenizerData::kLargestId)
      return bad(where(), concat("has id ", value, ", expected 0 to ", TokenizerData::kLargestId));
    const auto id = static_cast<Token>(value);
    if (id_of_added) {
      file_.added.back().id = id;
    } else {
      if (file_.ids[spelling_] != TokenizerFile::kNoId) return bad(where(), "appears twice");
      file_.ids[spelling_] = id;
    }
    return {};
  }

  Status on_number(double value) override {
    return list_ == List::none ? put(Json::of(value)) : unexpected("a number that is no whole one");
  }

  Status on_string(std::string_view value) override {
    if (list_ == List::none) return put(Json::of(std::string(value)));
    if (list_ == List::merges) return in_item_ ? half_of_merge(value) : whole_merge(value);
    if (list_ != List::added || !in_item_ || key_ == "id") return unexpected("text");
    if (key_ == "content") file_.added.back().content = value;
    return {};
  }

  Status on_key(std::string_view key) override {
    if (list_ == List::vocab) {
      spelling_ = intern(key);
      return {};
    }
    key_ = key;
    if (list_ == List::none) open_.back().keys.emplace_back(key);
    return {};
  }

  Status on_object_begin() override {
    if (list_ == List::added && !in_item_) {
      in_item_ = true;
      file_.added.emplace_back();
      return {};
    }
    if (list_ != List::none) return unexpected("an object");
    if (open_.size() == 2 && in_model_ && key_ == "vocab") return enter(List::vocab, seen_vocab_);
    if (open_.size() == 1 && key_ == "model") in_model_ = true;
    return open();
  }

  Status on_object_end() override {
    if (list_ == List::vocab) return leave();
    if (list_ == List::added) {
      in_item_ = false;
      if (file_.added.back().id == TokenizerFile::kNoId || file_.added.back().content.empty())
        return bad(concat("added_tokens[", file_.added.size() - 1, "]"), "lacks an id or a content");
      return {};
    }
    Open closed = close();
    std::vector<Json::Member> members;
    members.reserve(closed.values.size());
    for (std::size_t i = 0; i < closed.values.size(); ++i)
      members.emplace_back(std::move(closed.keys[i]), std::move(closed.values[i]));
    if (open_.size() == 1) in_model_ = false;
    return put(Json::object(std::move(members)));
  }

  Status on_array_begin() override {
    if (list_ == List::merges && !in_item_) {
      in_item_ = true;
      halves_ = 0;
      return {};
    }
    if (list_ != List::none) return unexpected("an array");
    if (open_.size() == 2 && in_model_ && key_ == "merges") return enter(List::merges, seen_merges_);
    if (open_.size() == 1 && key_ == "added_tokens") return enter(List::added, seen_added_);
    return open();
  }

  Status on_array_end() override {
    if (list_ == List::merges && in_item_) {
      if (halves_ != 2) return bad(where(), concat("has ", halves_, " parts, expected 2"));
      in_item_ = false;
      return {};
    }
    if (list_ != List::none) return leave();
    return put(Json::array(close().values));
  }

 private:
  enum class List : std::uint8_t { none, vocab, merges, added };
  struct Open {
    std::vector<std::string> keys;  // of an object
    std::vector<Json> values;
  };

  Status bad(std::string_view place, std::string_view what) const {
    return {Code::format, concat(name_, ": ", place, " ", what)};
  }
  std::string where() const {
    switch (list_) {
      case List::vocab:
        return concat("model.vocab: token ", quoted(file_.spellings.at(spelling_)));
      case List::merges:
        return concat("model.merges[", file_.merges.size() - (in_item_ && halves_ > 0 ? 1 : 0), "]");
      case List::added:
        return concat("added_tokens[", file_.added.size() - (in_item_ ? 1 : 0), "]");
      case List::none:
        break;
    }
    return "top level";
  }
  Status unexpected(std::string_view what) const {
    const std::string_view expected = list_ == List::vocab    ? "an id"
                                      : list_ == List::merges ? "text or a pair of texts"
                                      : in_item_              ? "what an added token has there"
                                                              : "an object";
    return bad(where(), concat("is or contains ", what, ", expected ", expected));
  }

  Status enter(List list, bool& seen) {
    if (seen) return bad(key_, "appears twice");
    seen = true;
    list_ = list;
    return put(Json());
  }
  Status leave() {
    list_ = List::none;
    return {};
  }

  Status open() {
    open_.emplace_back();
    return {};
  }
  Open close() {
    Open closed = std::move(open_.back());
    open_.pop_back();
    return closed;
  }
  Status put(Json value) {
    if (++settings_ > kMaxSettings)
      return bad("settings",
                 concat("outside vocab, merges and added_tokens have more than ", kMaxSettings, " values"));
    if (open_.empty())
      file_.settings = std::move(value);
    else
      open_.back().values.push_back(std::move(value));
    return {};
  }

  std::uint32_t intern(std::string_view spelling) {
    const std::uint32_t index = file_.spellings.intern(spelling);
    if (index == file_.ids.size()) file_.ids.push_back(TokenizerFile::kNoId);
    return index;
  }
  Status whole_merge(std::string_view merge) {
    if (merge.starts_with("#version")) return {};
    const std::size_t space = merge.find(' ');
    if (space == merge.npos || merge.find(' ', space + 1) != merge.npos)
      return bad(where(), concat("is ", quoted(merge), ", expected two tokens with one space between"));
    const std::uint32_t left = intern(merge.substr(0, space));
    file_.merges.emplace_back(left, intern(merge.substr(space + 1)));
    return {};
  }
  Status half_of_merge(std::string_view token) {
    const std::uint32_t index = intern(token);
    ++halves_;
    if (halves_ == 1) file_.merges.emplace_back(index, 0);
    if (halves_ == 2) file_.merges.back().second = index;
    return {};
  }

  std::string_view name_;
  TokenizerFile& file_;
  std::vector<Open> open_;  // the settings' open containers
  std::string key_;         // the last one
  std::size_t settings_ = 0, halves_ = 0;
  std::uint32_t spelling_ = 0;
  List list_ = List::none;
  bool in_model_ = false, in_item_ = false;
  bool seen_vocab_ = false, seen_merges_ = false, seen_added_ = false;
};

}  // namespace

Result<TokenizerFile> read_tokenizer_file(std::string_view json, std::string_view name) {
  TokenizerFile file;
  Reader reader(name, file);
  NIB_TRY(parse_json(json, name, kLimits, reader));
  NIB_TRY(reader.finish());
  return file;
}

std::string quoted(std::string_view text, std::size_t longest) {
  if (text.size() <= longest) return concat("\"", text, "\"");
  std::size_t end = 0;
  while (true) {
    const std::size_t next = end + step_utf8(text.substr(end)).length;
    if (next > longest) break;
    end = next;
  }
  return concat("\"", text.substr(0, end), "...\"");
}

}  // namespace nib::inline v0
