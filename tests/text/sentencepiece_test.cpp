// SentencePiece's BPE against its definition, from both kinds of file, and what its readers refuse; the
// normalizer of form C; GGUF's keys.
#include "support/data.hpp"
#include "text/seeded_tokenizer.hpp"
#include <nibble/text/tokenizer_data.hpp>

#include <algorithm>
#include <chrono>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace nib;
using test::encode;
using test::to_utf8;

namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581
const std::vector<std::string> kCharacters = {std::string(kSpace), "a", "b", "\xc3\xa9", "\xe4\xb8\x80"};

std::string spelled(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == ' ' ? std::string(kSpace) : std::string(1, c);
  return out;
}

// A vocabulary made from a seed: <unk>, <s>, </s>, the bytes, characters, and random tokens made of two
// others. Scores fall as tokens grow; some are equal.
struct Seeded {
  GgufVocabulary gguf;

  explicit Seeded(unsigned seed, bool across_spaces) {
    std::mt19937 random(seed);
    const auto add = [&](std::string token, std::int32_t type, float score) {
      gguf.tokens.push_back(std::move(token));
      gguf.token_type.push_back(type);
      gguf.scores.push_back(score);
    };
    gguf.model = "llama";
    gguf.pre = "default";
    add("<unk>", 2, 0);
    add("<s>", 3, 0);
    add("</s>", 3, 0);
    for (int byte = 0; byte < 256; ++byte) {
      constexpr char kDigits[] = "0123456789ABCDEF";
      add(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">", 6, 0);
    }
    std::vector<std::string> parts = kCharacters;
    for (int tries = 0; parts.size() < 60 && tries < 2000; ++tries) {
      const std::string left = parts[random() % parts.size()], right = parts[random() % parts.size()];
      if (!across_spaces && right.starts_with(kSpace) && left.find_first_not_of(kSpace) != left.npos)
        continue;
      const std::string made = left + right;
      if (made.size() < 20 && std::find(parts.begin(), parts.end(), made) == parts.end())
        parts.push_back(made);
    }
    for (std::size_t i = 0; i < parts.size(); ++i)
      add(parts[i], 1, -static_cast<float>(random() % (parts.size() / 2)));
    gguf.bos_token_id = 1;
    gguf.eos_token_id = 2;
  }

  Token find(std::string_view token) const {
    const auto at = std::find(gguf.tokens.begin(), gguf.tokens.end(), token);
    return static_cast<Token>(at - gguf.tokens.begin());
  }

  // By the definition: of all neighbours that are a token together, the one of highest score, the leftmost.
  std::vector<Token> encode(std::string_view text) const {
    std::vector<std::string> symbols;
    const std::string piece = text.empty() ? "" : std::string(kSpace) + spelled(text);
    for (std::size_t at = 0; at < piece.size();) {
      std::size_t length = 1;
      while (at + length < piece.size() && (piece[at + length] & 0xc0) == 0x80) ++length;
      symbols.push_back(piece.substr(at, length));
      at += length;
    }
    while (true) {
      std::size_t best = symbols.size();
      float score = 0;
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
        const Token id = find(symbols[i] + symbols[i + 1]);
        if (id == gguf.tokens.size() || gguf.token_type[id] != 1) continue;
        if (best == symbols.size() || gguf.scores[id] > score) {
          best = i;
          score = gguf.scores[id];
        }
      }
      if (best == symbols.size()) break;
      symbols[best] += symbols[best + 1];
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
    std::vector<Token> ids;
    for (const std::string& symbol : symbols) {
      const Token id = find(symbol);
      if (id < gguf.tokens.size() && gguf.token_type[id] == 1)
        ids.push_back(id);
      else
        for (const char c : symbol) ids.push_back(3 + static_cast<Token>(static_cast<unsigned char>(c)));
    }
    return ids;
  }

  Tokenizer open() const {
    const auto data = tokenizer_data_from_gguf(gguf, "tiny.gguf");
    REQUIRE_MESSAGE(data.ok(), data.status().message());
    auto tokenizer = Tokenizer::from(*data, "tiny.gguf");
    REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
    return tokenizer.take();
  }
};

std::string random_text(std::mt19937& random, std::size_t longest) {
  std::string text;
  for (std::size_t n = random() % longest; n > 0; --n) {
    constexpr std::string_view kPieces[] = {
        " ", " ", "a", "a", "b", "\xc3\xa9", "\xe4\xb8\x80", "\xf0\x9f\x98\x80", "\n", "z"};
    text += kPieces[random() % std::size(kPieces)];
  }
  return text;
}

// A tokenizer.json of the same kind, whose merges are given.
std::string json(std::string_view normalizer, std::string_view pre_tokenizer, std::string_view merges) {
  std::string vocab = R"("<unk>":0,"<s>":1,"</s>":2)";
  for (unsigned byte = 0; byte < 256; ++byte) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    vocab += concat(",\"<0x", kDigits[byte / 16], kDigits[byte % 16], ">\":", 3 + byte);
  }
  std::size_t id = 259;
  for (const std::string_view token : {"\u2581", "a", "b", "ab", "\u2581a", "\u2581ab", "\u2581\u2581"})
    vocab += concat(",\"", token, "\":", id++);
  return concat(
      R"({"version":"1.0","added_tokens":[{"id":1,"content":"<s>","special":true,"normalized":false},)",
      R"({"id":2,"content":"</s>","special":true,"normalized":false}],"normalizer":)", normalizer,
      R"(,"pre_tokenizer":)", pre_tokenizer,
      R"(,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},)",
      R"({"Sequence":{"id":"A"}},{"SpecialToken":{"id":"</s>"}}],"special_tokens":{"<s>":{"id":"<s>",)",
      R"("ids":[1]},"</s>":{"id":"</s>","ids":[2]}}},"decoder":{"type":"Sequence","decoders":[)",
      R"({"type":"Replace","pattern":{"String":"\u2581"},"content":" "},{"type":"ByteFallback"},)",
      R"({"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},"model":{"type":"BPE",)",
      R"("unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,"vocab":{)", vocab, R"(},"merges":[)",
      merges, "]}}");
}

constexpr std::string_view kLegacy =
    R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"\u2581"},)"
    R"({"type":"Replace","pattern":{"String":" "},"content":"\u2581"}]})";
constexpr std::string_view kMerges = R"("a b","\u2581 ab","\u2581 a","\u2581 \u2581")";

Tokenizer open(const std::string& text) {
  auto tokenizer = Tokenizer::from_json(text, "tiny.json");
  REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
  return tokenizer.take();
}

}  // namespace

TEST_CASE("pairs of characters merge by score, and what has no token falls back to bytes") {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    const Seeded tiny(seed, seed % 2 == 0);
    const Tokenizer tokenizer = tiny.open();
    std::mt19937 random(seed + 100);
    for (int round = 0; round < 200; ++round) {
      const std::string text = random_text(random, round % 20 ? 30 : 200);
      CAPTURE(text);
      const std::vector<Token> ids = encode(tokenizer, text);
      REQUIRE(ids == tiny.encode(text));
      CHECK(tokenizer.decode(ids, Specials::ordinary) == text);
    }
  }
}

TEST_CASE("a vocabulary without equal scores is the same through a tokenizer.json") {
  const unsigned first = std::random_device{}();
  for (unsigned seed = first; seed != first + 40; ++seed) {
    CAPTURE(seed);
    Seeded tiny(seed, seed % 2 == 0);
    std::mt19937 random(seed + 100);
    std::vector<float> scores;
    for (std::size_t id = 0; id < tiny.gguf.scores.size(); ++id) scores.push_back(-static_cast<float>(id));
    std::shuffle(scores.begin(), scores.end(), random);
    tiny.gguf.scores = scores;
    const auto data = tokenizer_data_from_gguf(tiny.gguf, "tiny.gguf");
    REQUIRE_MESSAGE(data.ok(), data.status().message());
    const auto written = tokenizer_json_of(*data, "tiny.gguf");
    REQUIRE_MESSAGE(written.ok(), written.status().message());
    const Tokenizer tokenizer = open(*written);
    for (int round = 0; round < 200; ++round) {
      const std::string text = random_text(random, round % 20 ? 30 : 200);
      CAPTURE(text);
      const std::vector<Token> ids = encode(tokenizer, text);
      REQUIRE(ids == tiny.encode(text));
      CHECK(tokenizer.decode(ids, Specials::ordinary) == text);
    }
  }
}

TEST_CASE("any bytes are encoded, byte by byte where they are no character") {
  const Tokenizer tokenizer = Seeded(3, true).open();
  std::mt19937 random(4);
  for (int round = 0; round < 2000; ++round) {
    std::string text(1 + random() % 30, '\0'), bytes;
    for (char& c : text) c = static_cast<char>(random() % 2 ? random() : 'a');
    for (const Token id : encode(tokenizer, text)) bytes += tokenizer.bytes(id);
    REQUIRE(bytes == " " + text);
  }
  CHECK(encode(tokenizer, "").empty());
  CHECK(encode(tokenizer, "\xff") == std::vector<Token>{Seeded(3, true).find(kSpace), 3 + 0xff});
}

TEST_CASE("where a space is put, by kind of file") {
  using Tokens = std::vector<std::string>;
  const auto tokens = [](const Tokenizer& tokenizer, std::string_view text) {
    Tokens out;
    for (const Token id : encode(tokenizer, text, Specials::recognised))
      out.emplace_back(tokenizer.bytes(id));
    return out;
  };
  const Tokenizer legacy = open(json(kLegacy, "null", kMerges));
  CHECK(tokens(legacy, "ab ab") == Tokens{" ab", " ab"});
  CHECK(tokens(legacy, " ab") == Tokens{" ", " ab"});
  CHECK(tokens(legacy, "<s>ab</s> b") == Tokens{"<s>", " ab", "</s>", "  ", "b"});
  CHECK(tokens(legacy,
               "a\u2581"
               "b") == Tokens{" a", " ", "b"});  // U+2581 is a space too
  CHECK(legacy.opening().size() == 1);
  CHECK(legacy.opening()[0] == 1);
  CHECK(legacy.closing()[0] == 2);
  const auto metaspace = [](std::string_view scheme, std::string_view split) {
    return concat(R"({"type":"Metaspace","replacement":"\u2581","prepend_scheme":")", scheme, R"(","split":)",
                  split, "}");
  };
  const Tokenizer first = open(json("null", metaspace("first", "false"), kMerges));
  CHECK(tokens(first, "ab ab") == Tokens{" ab", " ab"});
  CHECK(tokens(first, " ab") == Tokens{" ab"});
  CHECK(tokens(first, "ab<s>ab") == Tokens{" ab", "<s>", "ab"});
  CHECK(tokens(first, "<s>ab") == Tokens{"<s>", "ab"});
  const Tokenizer always = open(json("null", metaspace("always", "true"), kMerges));
  CHECK(tokens(always, "ab<s>ab") == Tokens{" ab", "<s>", " ab"});
  CHECK(tokens(always, "a  b") == Tokens{" a", " ", " ", "b"});  // each space begins a word
  const Tokenizer never = open(json("null", metaspace("never", "false"), kMerges));
  CHECK(tokens(never, "ab  ab") == Tokens{"ab", " ", " ab"});
}

TEST_CASE("what tokenizer.json of this kind may not say") {
  const auto refused = [](const std::string& text, std::string_view named, Code code = Code::unsupported) {
    const auto tokenizer = Tokenizer::from_json(text, "tiny.json");
    REQUIRE(!tokenizer.ok());
    CAPTURE(tokenizer.status().message());
    CHECK(tokenizer.status().code() == code);
    CHECK(tokenizer.status().message().find(named) != std::string::npos);
  };
  const auto swap = [](std::string text, std::string_view from, std::string_view to) {
    const std::size_t at = text.find(from);
    REQUIRE(at != text.npos);
    return text.replace(at, from.size(), to);
  };
  const std::string good = json(kLegacy, "null", kMerges);
  refused(swap(good, R"("prepend":"\u2581")", R"("prepend":"_")"), "Prepend");
  refused(swap(good, R"({"String":" "})", R"({"Regex":" "})"), "normalizer");
  refused(swap(good, R"("type":"Strip")", R"("type":"CTC")"), "CTC");
  refused(swap(good, R"("start":1)", R"("start":2)"), "Strip");
  refused(swap(good, R"("ids":[1])", R"("ids":[-1])"), "<s>", Code::format);
  refused(swap(good, R"("ids":[1])", R"("ids":[900])"), "900", Code::format);
  refused(swap(good, R"("<0x41>":68,)", ""), "byte 65", Code::format);
  refused(json("null", R"({"type":"Metaspace","replacement":"_"})", kMerges), "Metaspace");
  refused(json("null", R"({"type":"Metaspace","replacement":"\u2581","prepend_scheme":"last"})", kMerges),
          "last");
}

TEST_CASE("GGUF: what its keys may not say") {
  const auto refused = [](const GgufVocabulary& vocabulary, std::string_view named,
                          Code code = Code::format) {
    const auto data = tokenizer_data_from_gguf(vocabulary, "tiny.gguf");
    Status status = data.status();
    if (data.ok()) status = Tokenizer::from(*data, "tiny.gguf").status();
    CAPTURE(status.message());
    CHECK(status.code() == code);
    CHECK(status.message().starts_with("tiny.gguf: "));
    CHECK(status.message().find(named) != std::string::npos);
  };
  const GgufVocabulary good = Seeded(5, false).gguf;
  const auto change = [&](auto how) {
    GgufVocabulary vocabulary = good;
    how(vocabulary);
    return vocabulary;
  };
  refused({}, "tokens is missing");
  refused(change([](auto& v) { v.model = "bert"; }), "bert", Code::unsupported);
  refused(change([](auto& v) { v.scores.pop_back(); }), "scores");
  refused(change([](auto& v) { v.scores[7] = std::numeric_limits<float>::quiet_NaN(); }), "scores[7]");
  refused(change([](auto& v) { v.token_type.pop_back(); }), "token_type");
  refused(change([](auto& v) { v.token_type[3] = 9; }), "token_type[3]");
  refused(change([](auto& v) { v.bos_token_id = 100'000; }), "bos_token_id");
  refused(change([](auto& v) { v.tokens.back() = "aq"; }), "character", Code::unsupported);
  refused(change([](auto& v) { v.tokens.back() = std::string(5000, 'a'); }), "5000");
  refused(change([](auto& v) { v.token_type[3 + 65] = 5; }), "byte 65");
  const auto bytes = [&](auto how) {
    GgufVocabulary vocabulary;
    vocabulary.model = "gpt2";
    vocabulary.pre = "gpt-2";
    for (int byte = 0; byte < 256; ++byte)
      vocabulary.tokens.push_back(test::SeededTokenizer::spell(std::string(1, static_cast<char>(byte))));
    how(vocabulary);
    return vocabulary;
  };
  refused(bytes([](auto& v) { v.pre = "elsewhere"; }), "elsewhere", Code::unsupported);
  refused(bytes([](auto& v) { v.merges = {"a"}; }), "merges[0]");
  refused(bytes([](auto& v) { v.merges = {"a b"}; }), "merges[0]");
  refused(bytes([](auto& v) { v.tokens[65] = "zz"; }), "byte 65");
}

TEST_CASE("GGUF: control tokens, tokens of the user, and those that text cannot make") {
  Seeded tiny(6, false);
  GgufVocabulary& v = tiny.gguf;
  const auto ab = static_cast<Token>(v.tokens.size());
  for (const auto& [token, type] : {std::pair{"<tool>", 4}, std::pair{"<gone>", 5}}) {
    v.tokens.emplace_back(token);
    v.token_type.push_back(type);
    v.scores.push_back(0);
  }
  const Tokenizer tokenizer = tiny.open();
  CHECK(encode(tokenizer, "<tool>") == std::vector<Token>{ab});
  CHECK(!tokenizer.is_special(ab));
  CHECK(encode(tokenizer, "<gone>").size() > 1);
  CHECK(encode(tokenizer, "<s>").size() > 1);
  CHECK(encode(tokenizer, "<0x41>").size() > 1);
  CHECK(encode(tokenizer, "<s>", Specials::recognised) == std::vector<Token>{1});
  REQUIRE(tokenizer.opening().size() == 1);
  CHECK(tokenizer.opening()[0] == 1);
  v.add_bos_token = false;
  v.add_eos_token = true;
  v.add_space_prefix = false;
  const Tokenizer other = tiny.open();
  CHECK(other.opening().empty());
  REQUIRE(other.closing().size() == 1);
  CHECK(other.closing()[0] == 2);
  CHECK(other.decode(encode(other, "a b"), Specials::ordinary) == "a b");
  CHECK(other.bytes(encode(other, "a b").front()).starts_with("a"));
}

TEST_CASE("form C: composed, ordered, and in reasonable time for any marks") {
  test::SeededTokenizer tiny(7, "ab", 5);
  std::string text = tiny.json();
  const std::string from = R"("normalizer":null)";
  text.replace(text.find(from), from.size(), R"("normalizer":{"type":"NFC"})");
  const Tokenizer tokenizer = open(text);
  CHECK(!tokenizer.lossless());
  const auto normalized = [&](std::string_view in) {
    return tokenizer.decode(encode(tokenizer, in), Specials::ordinary);
  };
  CHECK(normalized("plain") == "plain");
  CHECK(normalized(to_utf8(U"e\u0301")) == to_utf8(U"\u00e9"));
  CHECK(normalized(to_utf8(U"e\u0301\u0323")) == to_utf8(U"\u1eb9\u0301"));  // the lower mark goes first
  CHECK(normalized(to_utf8(U"\u1100\u1161\u11a8")) == to_utf8(U"\uac01"));
  CHECK(normalized(to_utf8(U"\u212b \u0958 \u2126")) == to_utf8(U"\u00c5 \u0915\u093c \u03a9"));
  CHECK(normalized(to_utf8(U"\u1f82")) == to_utf8(U"\u1f82"));
  CHECK(tokenizer.bytes(encode(tokenizer, "\xff").at(0)) == "\xff");
  // Marks of two classes in turns: bubbling them into order would take hours.
  std::string marks = "a";
  for (int i = 0; i < 200'000; ++i) marks += to_utf8(U"\u0301\u0323");
  const auto begin = std::chrono::steady_clock::now();
  CHECK(normalized(marks).size() > 700'000);
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30));
}
