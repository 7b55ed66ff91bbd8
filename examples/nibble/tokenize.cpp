// nibble tokenize: texts to ids and back, with nothing of a model but its tokenizer.
#include "exit_code.hpp"
#include "input.hpp"
#include "paths.hpp"
#include "terminal.hpp"
#include "verbs.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/io/file.hpp>
#include <nibble/runtime/vocabulary.hpp>
#include <nibble/text/tokenizer.hpp>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace nib::program {
namespace {

constexpr std::uint64_t kMostInputBytes = std::uint64_t{1} << 30;

// That of what was named, or of a repository in the cache; weights need not be there.
Result<Tokenizer> open_tokenizer(const TokenizeFlags& flags, std::string& advice) {
  const FileSystem& files = disk_file_system();
  std::string path = flags.model;
  if (path.empty() || files.kind(path) == PathKind::missing) {
    auto found = find_model(flags.model);
    if (!found.ok()) {
      advice = advice_about(std::string_view(flags.model));
      return found.status();
    }
    path = found->path;
  }
  NIB_ASSIGN(const Checkpoint checkpoint, open_vocabulary(path, files));
  NIB_ASSIGN(std::optional<Tokenizer> tokenizer, read_tokenizer(checkpoint, 0, files));
  if (!tokenizer) return Status(Code::not_found, concat(path, ": there is no tokenizer"));
  return std::move(*tokenizer);
}

// Standard output, a piece of bounded size at a time.
class Output {
 public:
  Status add(std::string_view bytes) {
    held_ += bytes;
    return held_.size() < kPiece ? Status() : flush();
  }
  Status flush() {
    NIB_TRY(put(held_));
    held_.clear();
    return {};
  }

 private:
  static constexpr std::size_t kPiece = std::size_t{1} << 20;
  std::string held_;
};

Status encode(const Tokenizer& tokenizer, std::string_view text, Specials specials, Output& out) {
  std::vector<Token> ids;
  NIB_TRY(tokenizer.encode(text, specials, ids));
  char word[16];
  for (std::size_t i = 0; i < ids.size(); ++i) {
    char* begin = word;
    if (i) *begin++ = ' ';
    const char* end = std::to_chars(begin, std::end(word), ids[i]).ptr;
    NIB_TRY(out.add({word, static_cast<std::size_t>(end - word)}));
  }
  return out.add("\n");
}

Status decode(const Tokenizer& tokenizer, std::string_view line, Specials specials, Output& out) {
  constexpr std::string_view kBetween = " \t\r\n";
  std::vector<Token> ids;
  for (line.remove_prefix(std::min(line.find_first_not_of(kBetween), line.size())); !line.empty();
       line.remove_prefix(std::min(line.find_first_not_of(kBetween), line.size()))) {
    const std::string_view word = line.substr(0, line.find_first_of(kBetween));
    Token id = 0;
    const auto read = std::from_chars(word.data(), word.data() + word.size(), id);
    if (read.ec != std::errc() || read.ptr != word.data() + word.size() || id >= tokenizer.size())
      return {Code::argument, concat("standard input: has \"", word.substr(0, 40), "\", expected ids below ",
                                     tokenizer.size())};
    ids.push_back(id);
    line.remove_prefix(word.size());
  }
  return out.add(tokenizer.decode(ids, specials));
}

// Each part of the input; the last may lack the separator that ends it.
template <class Use>
Status for_each_part(std::string_view text, char separator, Use use) {
  if (text.empty()) return {};
  if (text.ends_with(separator)) text.remove_suffix(1);
  while (true) {
    const std::size_t end = text.find(separator);
    NIB_TRY(use(text.substr(0, end)));
    if (end == text.npos) return {};
    text.remove_prefix(end + 1);
  }
}

}  // namespace

int tokenize(const TokenizeFlags& flags) {
  std::string advice;
  const auto tokenizer = open_tokenizer(flags, advice);
  if (!tokenizer.ok()) return fail(tokenizer.status(), advice);
  const auto input = read_input("-", kMostInputBytes);
  if (!input.ok()) return fail(input.status());
  const Specials specials = flags.specials ? Specials::recognised : Specials::ordinary;
  Output out;
  Status status;
  if (flags.decode && flags.many) {
    status = for_each_part(*input, '\n', [&](std::string_view line) {
      NIB_TRY(decode(*tokenizer, line, specials, out));
      return out.add({"\0", 1});
    });
  } else if (flags.decode) {
    status = decode(*tokenizer, *input, specials, out);
  } else if (flags.many) {
    status = for_each_part(*input, '\0',
                           [&](std::string_view text) { return encode(*tokenizer, text, specials, out); });
  } else {
    status = encode(*tokenizer, *input, specials, out);
  }
  // What came before an error was right.
  const Status flushed = out.flush();
  if (status.ok()) status = flushed;
  return status.ok() ? kSuccess : fail(status);
}

}  // namespace nib::program
