// nibble tokenize: every mode, on every kind of tokenizer that can be named.
#include "process.hpp"
#include "support/data.hpp"
#include <nibble/base/json.hpp>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

using namespace std::string_literals;

Finished tokenize(std::vector<std::string> more, std::string input) {
  more.insert(more.begin(), "tokenize");
  return nibble(std::move(more), std::move(input));
}

struct Vector {
  std::string id, text, ids;  // ids as the verb prints them
  bool special;
};

std::vector<Vector> read_vectors(const std::string& path) {
  const std::string lines = read_text(path);
  std::vector<Vector> vectors;
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    const auto line = parse_json(std::string_view(lines).substr(at, end - at), path);
    REQUIRE_MESSAGE(line.ok(), line.status().message());
    at = end + 1;
    std::string ids;
    for (const Json& id : line->find("ids")->items())
      ids += (ids.empty() ? "" : " ") + std::to_string(id.as_integer());
    vectors.push_back({line->find("id")->as_string(), line->find("text")->as_string(), ids,
                       line->find("special")->as_bool()});
  }
  return vectors;
}

// What each separator ends.
std::vector<std::string> parts(const std::string& out, char separator) {
  std::vector<std::string> all;
  for (std::size_t at = 0; at < out.size();) {
    const std::size_t end = out.find(separator, at);
    REQUIRE(end != std::string::npos);
    all.push_back(out.substr(at, end - at));
    at = end + 1;
  }
  return all;
}

void check_vectors(const std::string& model, const std::string& path, bool lossless) {
  CAPTURE(model);
  for (const bool special : {false, true}) {
    std::vector<Vector> many;
    std::string texts, lines;
    for (const Vector& vector : read_vectors(path)) {
      if (vector.special != special) continue;
      // A text that no list can have goes alone.
      if (vector.text.find('\0') != std::string::npos) {
        std::vector<std::string> alone = {"-m", model};
        if (special) alone.push_back("--special");
        const Finished one = tokenize(alone, vector.text);
        CHECK_MESSAGE(one.out == vector.ids + "\n", vector.id);
        continue;
      }
      many.push_back(vector);
      texts += vector.text + '\0';
      lines += vector.ids + '\n';
    }
    std::vector<std::string> arguments = {"-m", model, "-0"};
    if (special) arguments.push_back("--special");
    const Finished encoded = tokenize(arguments, texts);
    CHECK(encoded.code == 0);
    CHECK(encoded.err.empty());
    const std::vector<std::string> ids = parts(encoded.out, '\n');
    REQUIRE(ids.size() == many.size());
    for (std::size_t i = 0; i < many.size(); ++i) CHECK_MESSAGE(ids[i] == many[i].ids, many[i].id);

    const Finished decoded = tokenize({"-m", model, "-0", "--special", "--decode"}, lines);
    CHECK(decoded.code == 0);
    const std::vector<std::string> back = parts(decoded.out, '\0');
    REQUIRE(back.size() == many.size());
    for (std::size_t i = 0; lossless && i < many.size(); ++i)
      CHECK_MESSAGE(back[i] == many[i].text, many[i].id);
    // Where a text was normalized, what comes back has the same ids.
    CHECK(tokenize(arguments, decoded.out).out == encoded.out);
  }
}

TEST_CASE("tokenize: recorded ids of every vocabulary in the folder, however it is named") {
  NIB_REQUIRE_DATA(data);
  const std::string folder = data + "/tokenizers/";
  const std::multimap<std::string, std::string> also = {
      {"o200k_harmony", "gpt-oss"}, {"llama-2", "llama-spm"}, {"gpt-neox-20b", "gpt-neox"}};
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "vectors")) {
    const std::string stem = entry.path().stem().string(), vectors = entry.path().string();
    if (entry.path().extension() != ".jsonl") continue;
    ++files;
    std::vector<std::string> names = {stem};
    for (auto [at, end] = also.equal_range(stem); at != end; ++at) names.push_back(at->second);
    const bool lossless = stem == "o200k_harmony" || stem == "gpt-2" || stem == "llama-3";
    int opened = 0;
    for (const std::string& name : names) {
      const std::string json = folder + name + ".tokenizer.json",
                        gguf = folder + "ggml-vocab-" + name + ".gguf";
      const Folder own;
      if (std::filesystem::exists(json)) {
        check_vectors(json, vectors, lossless);
        // A folder with nothing else in it.
        std::filesystem::copy(json, own.path() / "tokenizer.json");
        check_vectors(own.path().string(), vectors, lossless);
        ++opened;
      }
      if (std::filesystem::exists(gguf)) {
        check_vectors(gguf, vectors, lossless);
        std::filesystem::create_directory(own.path() / "gguf");
        std::filesystem::copy(gguf, own.path() / "gguf");
        check_vectors((own.path() / "gguf").string(), vectors, lossless);
        ++opened;
      }
    }
    CHECK_MESSAGE(opened > 0, stem);
  }
  CHECK(files > 0);
}

TEST_CASE("tokenize: each mode to the byte") {
  const std::string once = tokenize({}, "Once upon a time").out;
  CHECK(once.ends_with("\n"));
  CHECK(once.find_first_not_of("0123456789 \n") == std::string::npos);
  CHECK(std::count(once.begin(), once.end(), '\n') == 1);
  CHECK(tokenize({"--decode"}, once).out == "Once upon a time");
  CHECK(tokenize({"--decode"}, "  " + once + "\t\r\n ").out == "Once upon a time");
  // Ids are read across lines when they are one text.
  std::string spread = once;
  for (char& c : spread) c = c == ' ' ? '\n' : c;
  CHECK(tokenize({"--decode"}, spread).out == "Once upon a time");

  // No text, and one without a byte.
  CHECK(tokenize({}, "").out == "\n");
  CHECK(tokenize({"-0"}, "").out.empty());
  CHECK(tokenize({"-0"}, "\0"s).out == "\n");
  CHECK(tokenize({"-0"}, "\0\0"s).out == "\n\n");
  CHECK(tokenize({"--decode"}, "").out.empty());
  CHECK(tokenize({"--decode", "-0"}, "").out.empty());
  CHECK(tokenize({"--decode", "-0"}, "\n").out == "\0"s);

  // Many texts; the last may lack what ends it.
  const std::string a = tokenize({}, "a\n").out, b = tokenize({}, "the bear").out;
  CHECK(tokenize({"-0"}, "a\n\0\0the bear\0"s).out == a + "\n" + b);
  CHECK(tokenize({"-0"}, "a\n\0\0the bear"s).out == a + "\n" + b);
  CHECK(tokenize({"--null", "--decode"}, a + "\n" + b).out == "a\n\0\0the bear\0"s);
  CHECK(tokenize({"-0", "--decode"}, (a + "\n" + b).substr(0, a.size() + b.size())).out ==
        "a\n\0\0the bear\0"s);

  // Special tokens are letters unless asked for, and not said unless asked for.
  const std::string letters = tokenize({}, "<|start|>user").out,
                    special = tokenize({"--special"}, "<|start|>user").out;
  CHECK(std::count(letters.begin(), letters.end(), ' ') > std::count(special.begin(), special.end(), ' '));
  CHECK(tokenize({"--decode"}, letters).out == "<|start|>user");
  CHECK(tokenize({"--decode", "--special"}, special).out == "<|start|>user");
  CHECK(tokenize({"--decode"}, special).out == "user");
}

TEST_CASE("tokenize: any bytes are a text") {
  const std::string bytes = "\x00\xff\xfe\x80 \xc3(\xe2\x82 \xf0\x9f\x98\x80\r\n\xed\xa0\x80"s;
  const Finished encoded = tokenize({}, bytes);
  CHECK(encoded.code == 0);
  // Decoded it is UTF-8: what is none becomes U+FFFD, maximal part by maximal part.
  const std::string bad = "\xef\xbf\xbd";
  CHECK(tokenize({"--decode"}, encoded.out).out ==
        "\0"s + bad + bad + bad + " " + bad + "(" + bad + " \xf0\x9f\x98\x80\r\n" + bad + bad + bad);
}

TEST_CASE("tokenize: what is no id is named, and what came before it was said") {
  for (const char* wrong : {"1 x", "-1", "4096", "99999999999999999999", "1,2", "0x10", "1.5"}) {
    CAPTURE(wrong);
    const Finished decoded = tokenize({"--decode"}, wrong);
    CHECK(decoded.code != 0);
    CHECK(decoded.out.empty());
    CHECK(decoded.err.find("expected ids below 4096") != std::string::npos);
  }
  const std::string good = tokenize({}, "the bear").out;
  const Finished decoded = tokenize({"--decode", "-0"}, good + "what\n" + good);
  CHECK(decoded.code != 0);
  CHECK(decoded.out == "the bear\0"s);
  CHECK(decoded.err.find("\"what\"") != std::string::npos);
}

TEST_CASE("tokenize: what cannot be opened") {
  const Folder folder;
  CHECK(tokenize({"-m", folder.path().string() + "/none"}, "").code == 3);
  CHECK(tokenize({"-m", folder.path().string() + "/none.json"}, "").code == 3);
  CHECK(tokenize({"-m", folder.path().string()}, "").code == 3);
  CHECK(tokenize({"-m", folder.write("a.json", "{}")}, "").code == 4);
  CHECK(tokenize({"-m", folder.write("b.json", "")}, "").code == 4);
  CHECK(tokenize({"-m", folder.write("c.gguf", "GGUF")}, "").code == 4);
}

TEST_CASE("tokenize: a long text, as one and as many") {
  // 3 MB, so that it is cut into many pieces by every buffer.
  std::string text;
  for (int i = 0; text.size() < (std::size_t{3} << 20); ++i)
    text += "The bear had " + std::to_string(i) + " pots.\n";
  const Finished one = tokenize({}, text);
  REQUIRE(one.code == 0);
  CHECK(tokenize({"--decode"}, one.out).out == text);
  std::string many = text;
  for (char& c : many) c = c == '\n' ? '\0' : c;
  const Finished lines = tokenize({"-0"}, many);
  CHECK(tokenize({"-0", "--decode"}, lines.out).out == many);
}

}  // namespace
}  // namespace nib::test
