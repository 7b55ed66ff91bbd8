// Whose words a rendered template holds, and that only the template's own can be special tokens.
#include "support/data.hpp"
#include "text/seeded_tokenizer.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>
#include <nibble/text/template.hpp>
#include <nibble/text/tokenizer.hpp>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace nib;

namespace {

const TemplateDate kDate{2026, 1, 5, 13, 7, 9};

Template::Rendering render(const std::string& source, const Json& variables) {
  const auto parsed = Template::parse(source, "t");
  REQUIRE_MESSAGE(parsed.ok(), parsed.status().message());
  auto rendering = parsed->render_marked(variables, kDate);
  REQUIRE_MESSAGE(rendering.ok(), rendering.status().message());
  const auto plain = parsed->render(variables, kDate);
  REQUIRE(plain.ok());
  CHECK(*plain == rendering->text);
  std::size_t end = 0;
  for (const TextRange& range : rendering->own) {
    CHECK((range.begin > end || (range.begin == 0 && end == 0)));
    CHECK(range.end > range.begin);
    end = range.end;
  }
  CHECK(end <= rendering->text.size());
  return rendering.take();
}

// The text with the template's own words in brackets.
std::string bracketed(const std::string& source, const std::string& json) {
  const auto rendering = render(source, parse_json(json, "variables").take());
  std::string out;
  std::size_t at = 0;
  for (const TextRange& own : rendering.own) {
    out += rendering.text.substr(at, own.begin - at);
    out += "[" + rendering.text.substr(own.begin, own.end - own.begin) + "]";
    at = own.end;
  }
  return out + rendering.text.substr(at);
}

std::vector<Token> encoded(const Tokenizer& tokenizer, const Template::Rendering& rendering) {
  std::vector<Token> ids;
  const Status status = tokenizer.encode(rendering.text, rendering.own, ids);
  REQUIRE_MESSAGE(status.ok(), status.message());
  return ids;
}

std::vector<Token> specials_of(const Tokenizer& tokenizer, const std::vector<Token>& ids) {
  std::vector<Token> specials;
  for (const Token id : ids)
    if (tokenizer.is_special(id)) specials.push_back(id);
  return specials;
}

Json said(const std::vector<std::pair<std::string, std::string>>& messages) {
  std::vector<Json> all;
  for (const auto& [role, content] : messages)
    all.push_back(Json::object({{"role", Json::of(role)}, {"content", Json::of(content)}}));
  const auto text = [](const char* word) { return Json::of(std::string(word)); };
  return Json::object({{"messages", Json::array(std::move(all))},
                       {"bos_token", text("<|begin_of_text|>")},
                       {"eos_token", text("<|eot_id|>")},
                       {"add_generation_prompt", Json::of(true)}});
}

}  // namespace

TEST_CASE("what a template cuts, joins and changes keeps its origin, and what it was given never gains one") {
  const std::string json = R"({"messages":[{"role":"user","content":" <a> b "}],"bos_token":"<s>",
    "x":"gi,ven","list":["y","z"],"dict":{"k":"v","role":"r"},"n":7})";
  const std::pair<const char*, const char*> table[] = {
      {"{{ bos_token }}a{{ x }}b", "[<s>a]gi,ven[b]"},
      {"{{ 'a' + x + 'b' + 'c' }}", "[a]gi,ven[bc]"},
      {"{{ 'a' ~ n ~ none ~ true }}", "[a7NoneTrue]"},
      {"{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}<e>{% endfor %}",
       "[<|user|>]<a> b[<e>]"},
      {"{{ messages[0].content.strip() + '!' }}", "<a> b[!]"},
      {"{{ (' (' + x + ') ') | trim }}", "[(]gi,ven[)]"},
      {"{{ (' (' + x + ') ').rstrip() }}", "[ (]gi,ven[)]"},
      {"{{ ('(' + x + ')')[1:-1] }}", "gi,ven"},
      {"{{ ('(' + x + ')')[::-1] }}", "[)]nev,ig[(]"},
      {"{{ ('(' + x + ')')[0] }}{{ ('(' + x)[1] }}", "[(]g"},
      {"{% for c in '<' + x %}{{ c }}.{% endfor %}", "[<.]g[.]i[.],[.]v[.]e[.]n[.]"},
      {"{{ ('a,' + x + ',b').split(',') | join('|') }}", "[a|]gi[|]ven[|b]"},
      {"{{ ['a', x, 'b'] | join(x[2]) }}", "[a],gi,ven,[b]"},
      {"{{ '-'.join(list) }}", "y[-]z"},
      {"{{ ('1' + x + '2') | replace(',', '<>') }}", "[1]gi[<>]ven[2]"},
      {"{{ 'abc'.replace('b', x) }}", "[a]gi,ven[c]"},
      {"{{ 'ab'.replace('', x, 2) }}", "gi,ven[a]gi,ven[b]"},
      {"{{ 'ab' * 2 }}{{ x[:1] * 2 }}", "[abab]gg"},
      {"{{ 'ab' | upper }}{{ x | upper }}{{ ('a' + x) | upper }}", "[AB]GI,VENAGI,VEN"},
      {"{{ 'ab' | capitalize }}{{ x.capitalize() }}", "[Ab]Gi,ven"},
      {"{{ 'ab' | reverse }}{{ ('a' + list[0]) | reverse }}", "[ba]y[a]"},
      {"{{ ('a' + x) | first }}{{ x | last }}{{ ('a' + list[0]) | list | join }}", "[a]n[a]y"},
      {"{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(x) }}{{ m('x') }}{{ m(m(list[0])) | trim }}",
       "[<]gi,ven[><x><<]y[>>]"},
      {"{% set s %}<{{ x }}>{% endset %}{{ s }}{{ s | length }}", "[<]gi,ven[>8]"},
      {"{% set ns = namespace(t='<') %}{% set ns.t = ns.t + list[1] %}{{ ns.t }}", "[<]z"},
      // What repr() and tojson write counts as given even where a template's words went in.
      {"{{ x | tojson }}{{ '<' | tojson }}{{ ('<',) }}{{ {'<': 1} }}!", "\"gi,ven\"\"<\"('<',){'<': 1}[!]"},
      {"{% for k, v in dict.items() %}{{ k }}={{ v }};{% endfor %}", "k[=]v[;]role[=]r[;]"},
      {"{{ dict.role }}{{ dict }}{{ nothing }}{{ nothing | default('d') }}{{ x | default('d') }}",
       "r{'k': 'v', 'role': 'r'}[d]gi,ven"},
      {"{{ strftime_now('%Y') }}{{ x | string }}{{ 5 | string }}", "[2026]gi,ven[5]"},
  };
  for (const auto& row : table) {
    CAPTURE(row.first);
    CHECK(bracketed(row.first, json) == row.second);
  }
}

TEST_CASE("published templates: every letter that was given is known as given, every other as their own") {
  NIB_REQUIRE_DATA(data);
  std::mt19937 random(20260121);
  // Letters that no template has.
  const char* letters[] = {"α", "β", "γ", "Ж", "中", "🙂", "ω"};
  int templates = 0;
  for (const auto& entry : std::filesystem::directory_iterator(data + "/chat_templates")) {
    if (entry.path().extension() != ".jinja") continue;
    const std::string source = test::read_text(entry.path().string());
    CAPTURE(entry.path().string());
    ++templates;
    for (int round = 0; round < 50; ++round) {
      const auto text = [&] {
        std::string out;
        for (std::size_t n = 1 + random() % 8; n > 0; --n)
          out += std::string(letters[random() % std::size(letters)]) + (random() % 3 ? "" : " ");
        return out;
      };
      std::vector<std::pair<std::string, std::string>> messages;
      if (random() % 2) messages.emplace_back("system", text());
      for (std::size_t n = random() % 4; n > 0; --n) {
        messages.emplace_back("user", text());
        messages.emplace_back("assistant", text());
      }
      messages.emplace_back("user", text());
      const auto rendering = render(source, said(messages));
      std::vector<bool> own(rendering.text.size());
      for (const TextRange& range : rendering.own)
        std::fill(own.begin() + static_cast<std::ptrdiff_t>(range.begin),
                  own.begin() + static_cast<std::ptrdiff_t>(range.end), true);
      for (std::size_t i = 0; i < own.size(); ++i) {
        const bool foreign = static_cast<unsigned char>(rendering.text[i]) >= 0x80;
        if (foreign) CHECK_FALSE(own[i]);
        if (!foreign && rendering.text[i] != ' ') CHECK(own[i]);
      }
    }
  }
  CHECK(templates > 2);
}

TEST_CASE("nobody but the template speaks special tokens") {
  NIB_REQUIRE_DATA(data);
  const auto tokenizer =
      Tokenizer::from_json(test::read_text(data + "/tokenizers/llama-3.tokenizer.json"), "llama-3");
  REQUIRE(tokenizer.ok());
  const std::string source = test::read_text(data + "/chat_templates/meta-llama-Llama-3.1-8B-Instruct.jinja");
  const auto honest =
      render(source, said({{"system", "S"}, {"user", "U"}, {"assistant", "A"}, {"user", "V"}}));
  const auto wanted = specials_of(*tokenizer, encoded(*tokenizer, honest));
  // As the tokenizer reads it when everything is trusted.
  std::vector<Token> trusted;
  REQUIRE(tokenizer->encode(honest.text, Specials::recognised, trusted).ok());
  CHECK(encoded(*tokenizer, honest) == trusted);
  CHECK(wanted.size() == 15);  // begin, a header's two and an end for each of four, and the next header

  std::mt19937 random(20260122);
  const char* parts[] = {"<|eot_id|>",
                         "<|begin_of_text|>",
                         "<|start_header_id|>",
                         "assistant",
                         "<|",
                         "|>",
                         "<|end_header_id|>",
                         "eot_id",
                         "\n\n",
                         "x",
                         "<",
                         "|",
                         "eot_id|>"};
  for (int round = 0; round < 300; ++round) {
    const auto text = [&] {
      std::string out;
      for (std::size_t n = random() % 6; n > 0; --n) out += parts[random() % std::size(parts)];
      return out;
    };
    const auto rendering =
        render(source, said({{"system", text()}, {"user", text()}, {"assistant", text()}, {"user", text()}}));
    CAPTURE(rendering.text);
    const auto ids = encoded(*tokenizer, rendering);
    CHECK(specials_of(*tokenizer, ids) == wanted);
    CHECK(tokenizer->decode(ids, Specials::recognised) == rendering.text);
  }
}

TEST_CASE("special tokens of a text of two origins, against the definition") {
  test::SeededTokenizer seeded(7, "ab<>", 60);
  for (const char* added : {"<a>", "<a>b", "<a>bb<", "b>", ">a", "<b><a>", "a<a"})
    if (std::ranges::find(seeded.vocabulary, added) == seeded.vocabulary.end()) seeded.added.push_back(added);
  REQUIRE(seeded.added.size() > 3);
  const Tokenizer tokenizer = seeded.open();
  std::mt19937 random(20260123);
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (std::size_t n = random() % 30; n > 0; --n) text += "ab<>"[random() % 4];
    std::vector<TextRange> own;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t begin = at + random() % 6, end = begin + random() % 8;
      if (end > text.size()) break;
      own.push_back({begin, end});
      at = end;
    }
    // At each place the longest spelling that lies in one part; what is left over is plain.
    std::vector<Token> wanted;
    std::size_t plain = 0;
    const auto flush = [&](std::size_t end) {
      REQUIRE(tokenizer.encode(text.substr(plain, end - plain), Specials::ordinary, wanted).ok());
    };
    for (std::size_t at = 0; at < text.size();) {
      std::size_t best = seeded.added.size();
      for (const TextRange& part : own)
        for (std::size_t i = 0; i < seeded.added.size(); ++i) {
          const std::string& spelling = seeded.added[i];
          if (part.begin <= at && at + spelling.size() <= part.end &&
              text.compare(at, spelling.size(), spelling) == 0 &&
              (best == seeded.added.size() || spelling.size() > seeded.added[best].size()))
            best = i;
        }
      if (best == seeded.added.size()) {
        ++at;
        continue;
      }
      flush(at);
      wanted.push_back(static_cast<Token>(seeded.vocabulary.size() + best));
      plain = at += seeded.added[best].size();
    }
    flush(text.size());
    std::vector<Token> ids;
    REQUIRE(tokenizer.encode(text, own, ids).ok());
    CAPTURE(text);
    REQUIRE(ids == wanted);
  }
}

TEST_CASE("parts that are none are refused") {
  const Tokenizer tokenizer = test::SeededTokenizer(8, "ab", 5).open();
  std::vector<Token> ids = {1};
  for (const std::vector<TextRange>& own :
       {std::vector<TextRange>{{2, 1}}, {{0, 4}}, {{1, 2}, {1, 3}}, {{2, 3}, {0, 1}}}) {
    const Status status = tokenizer.encode("aba", own, ids);
    CHECK(status.code() == Code::argument);
    CHECK(ids.size() == 1);
  }
  CHECK(tokenizer.encode("aba", std::vector<TextRange>{{0, 1}, {1, 3}, {3, 3}}, ids).ok());
}

TEST_CASE("special tokens of SentencePiece's models, also those that are found in the normalized text") {
  for (const bool normalized : {false, true}) {
    const auto entry = [&](int id, const char* content) {
      return concat(R"({"id":)", id, R"(,"content":")", content,
                    R"(","special":true,"lstrip":false,"rstrip":false,"single_word":false,"normalized":)",
                    normalized ? "true}" : "false}");
    };
    std::string bytes;
    for (int b = 0; b < 256; ++b) {
      constexpr const char* kDigits = "0123456789ABCDEF";
      bytes += concat(R"(,"<0x)", kDigits[b / 16], kDigits[b % 16], R"(>":)", b + 10);
    }
    const std::string json = concat(
        R"({"added_tokens":[)", entry(1, "<s>"), ",", entry(2, "</s>"),
        R"(],"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace",)"
        R"("pattern":{"String":" "},"content":"▁"}]},"pre_tokenizer":null,"post_processor":null,"decoder":)"
        R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},)"
        R"({"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},)"
        R"("model":{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,"vocab":{"<unk>":0,)"
        R"("<s>":1,"</s>":2,"▁":3,"a":4,"b":5,"▁a":6)",
        bytes, R"(},"merges":["▁ a"]}})");
    const auto tokenizer = Tokenizer::from_json(json, "sp");
    REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
    // "<s>" of the template, "a</s>" of the user, "</s>" of the template.
    std::vector<Token> ids;
    const std::string text = "<s>a</s></s>";
    REQUIRE(tokenizer->encode(text, std::vector<TextRange>{{0, 3}, {8, 12}}, ids).ok());
    CHECK(specials_of(*tokenizer, ids) == std::vector<Token>{1, 2});
    CHECK(ids.front() == 1);
    CHECK(ids.back() == 2);
    CHECK(tokenizer->decode(ids, Specials::recognised).find("a</s></s>") != std::string::npos);
  }
}
