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
#include <string>
#include <string_view>
#include <vector>

namespace nib::program {
namespace {

constexpr std::uint64_t kMostTokenizerBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kMostInputBytes = std::uint64_t{1} << 30;

// A tokenizer.json, or the one of a directory or of a repository in the cache; weights need not be there.
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
  if (files.is_directory(path) || path.ends_with(".gguf")) {
    NIB_ASSIGN(const Checkpoint checkpoint,
               open_checkpoint(path, files, {.config = false, .weights = false}));
    NIB_ASSIGN(std::optional<Tokenizer> tokenizer, read_tokenizer(checkpoint, 0, files));
    if (!tokenizer) return Status(Code::not_found, concat(path, ": there is no tokenizer"));
    return std::move(*tokenizer);
  }
  NIB_ASSIGN(const std::unique_ptr<File> file, files.open(path));
  NIB_ASSIGN(const std::string text, read_all(*file, kMostTokenizerBytes));
  return Tokenizer::from_json(text, path);
}

Status encode(const Tokenizer& tokenizer, std::string_view text, Specials specials, std::string& out) {
  std::vector<Token> ids;
  NIB_TRY(tokenizer.encode(text, specials, ids));
  for (std::size_t i = 0; i < ids.size(); ++i) out += concat(i ? " " : "", ids[i]);
  out += '\n';
  return {};
}

Status decode(const Tokenizer& tokenizer, std::string_view line, Specials specials, std::string& out) {
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
  out += tokenizer.decode(ids, specials);
  return {};
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
  std::string advice, out;
  const auto tokenizer = open_tokenizer(flags, advice);
  if (!tokenizer.ok()) return fail(tokenizer.status(), advice);
  const auto input = read_input("-", kMostInputBytes);
  if (!input.ok()) return fail(input.status());
  const Specials specials = flags.specials ? Specials::recognised : Specials::ordinary;
  Status status;
  if (flags.decode && flags.many) {
    status = for_each_part(*input, '\n', [&](std::string_view line) {
      Status decoded = decode(*tokenizer, line, specials, out);
      out += '\0';
      return decoded;
    });
  } else if (flags.decode) {
    status = decode(*tokenizer, *input, specials, out);
  } else if (flags.many) {
    status = for_each_part(*input, '\0',
                           [&](std::string_view text) { return encode(*tokenizer, text, specials, out); });
  } else {
    status = encode(*tokenizer, *input, specials, out);
  }
  if (status.ok()) status = put(out);
  return status.ok() ? kSuccess : fail(status);
}

}  // namespace nib::program
