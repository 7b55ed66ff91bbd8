// Conversations in the two formats: what the model gets, and what is read from its answers.
#include "support/tiny_tokenizer.hpp"
#include <nibble/text/chat.hpp>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace nib;

namespace {

constexpr const char* kTalk =
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}";
constexpr const char* kReason =
    "{% for m in messages %}[{{ m.role }}]{% if m.reasoning_content %}<think>{{ m.reasoning_content "
    "}}</think>"
    "{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]<think>\n{% endif %}";

struct Fixture {
  Tokenizer tokenizer = Tokenizer::from_json(test::tiny_tokenizer_json(), "tiny.json").take();

  std::unique_ptr<ChatFormat> format(std::string_view source, ChatOptions options = {}) const {
    options.chat_template = source;
    options.only_template = true;
    auto format = make_chat_format(tokenizer, options);
    REQUIRE_MESSAGE(format.ok(), format.status().message());
    return format.take();
  }
  std::string rendered(const ChatFormat& format, const std::vector<Message>& messages) const {
    const auto ids = format.render(messages);
    REQUIRE_MESSAGE(ids.ok(), ids.status().message());
    return tokenizer.decode(*ids, Specials::recognised);
  }
  std::vector<Token> ids(std::string_view text) const {
    std::vector<Token> all;
    REQUIRE(tokenizer.encode(text, Specials::recognised, all).ok());
    return all;
  }
  Token special(std::string_view spelling) const { return tokenizer.find_special(spelling).value(); }

  // What comes of an answer, "channel:content;" for each message; deltas must add up to it.
  std::string answer(const ChatFormat& format, const std::vector<Token>& answer) const {
    const auto parser = format.parser();
    std::string out;
    std::vector<std::string> shown = {""};
    const auto look = [&](std::size_t before) {
      shown.back() += parser->delta();
      REQUIRE(parser->messages().size() <= before + 1);
      if (parser->messages().size() > before) shown.emplace_back();
    };
    for (const Token id : answer) {
      const std::size_t before = parser->messages().size();
      REQUIRE(parser->push(id, false).ok());
      look(before);
    }
    const std::size_t before = parser->messages().size();
    REQUIRE(parser->finish().ok());
    look(before);
    for (std::size_t i = 0; i < parser->messages().size(); ++i) {
      const Message& message = parser->messages()[i];
      CHECK(message.role == Role::assistant);
      CHECK(message.content == shown[i]);
      out += message.channel + ":" + message.content + ";";
    }
    CHECK_FALSE(parser->in_content());
    return out;
  }
};

Message said(Role role, const char* text, const char* channel = "") {
  return {.role = role, .channel = channel, .content = text};
}

}  // namespace

TEST_CASE("a template's conversation, its end of an answer, and the names of special tokens") {
  const Fixture fixture;
  const std::pair<std::string, std::string> names[] = {{"bos_token", "<|endoftext|>"}};
  const auto format = fixture.format(kTalk, {.special_tokens = names});
  CHECK(format->stop_ids() == std::vector<Token>{fixture.special("<|end|>")});
  const auto instructions = format->instructions("Be kind.");
  REQUIRE(instructions.ok());
  const std::vector<Message> talk = {*instructions, said(Role::user, " One? "),
                                     said(Role::assistant, "1.", "final"), said(Role::user, "<|end|>Two?")};
  CHECK(fixture.rendered(*format, talk) ==
        "<|endoftext|><|start|>system\nBe kind.<|end|>\n<|start|>user\nOne?<|end|>\n<|start|>assistant\n1."
        "<|end|>\n<|start|>user\n<|end|>Two?<|end|>\n<|start|>assistant\n");
  const auto ids = format->render(talk);
  REQUIRE(ids.ok());
  int specials = 0;
  for (const Token id : *ids) specials += fixture.tokenizer.is_special(id);
  CHECK(specials ==
        10);  // two for each of four messages, the first of all, and the next one's; not the user's
}

TEST_CASE("what a longer conversation adds stands behind what was there") {
  const Fixture fixture;
  const auto format = fixture.format(kTalk);
  std::vector<Message> talk = {said(Role::user, "the one")};
  auto before = format->render(talk);
  for (int turn = 0; turn < 4; ++turn) {
    REQUIRE(before.ok());
    // As the model would say it, token by token, and its end.
    std::vector<Token> held = *before;
    for (const Token id : fixture.ids("another thing")) held.push_back(id);
    held.push_back(fixture.special("<|end|>"));
    talk.push_back(said(Role::assistant, "another thing", "final"));
    talk.push_back(said(Role::user, "more"));
    before = format->render(talk);
    REQUIRE(before.ok());
    REQUIRE(before->size() > held.size());
    CHECK(std::equal(held.begin(), held.end(), before->begin()));
  }
}

TEST_CASE("reasoning is a message of its own, however its marks are cut into tokens") {
  const Fixture fixture;
  const auto format = fixture.format("{% if '</think>' %}{% endif %}{{ messages[-1].content }}");
  for (const auto& row : std::vector<std::pair<const char*, const char*>>{
           {"Hello", "final:Hello;"},
           {"\n Hello\n", "final:Hello\n;"},
           {"<think>\nHm.\n</think>\n\nHello", "analysis:Hm.\n;final:Hello;"},
           {"<think>Hm.</think>Hello</think>", "analysis:Hm.;final:Hello</think>;"},
           {"<think>\n\n</think>\n\nHello", "final:Hello;"},
           {"<think>a < b </thin </think>c", "analysis:a < b </thin ;final:c;"},
           {"<think>cut off </thi", "analysis:cut off </thi;"},
           {"<thin", "final:<thin;"},
           {"<thing>", "final:<thing>;"},
           {"Hello <think>no</think>", "final:Hello <think>no</think>;"},
           {"  \n", ""},
           {"", ""},
           {"<think>", ""},
           {"<think>\xf0\x9f</think>\xe2\x82\xac", "analysis:\xef\xbf\xbd;final:\xe2\x82\xac;"},
       }) {
    const std::string text = row.first, wanted = row.second;
    CAPTURE(text);
    CHECK(fixture.answer(*format, fixture.ids(text)) == wanted);
    // Nothing of a special token is said.
    auto ids = fixture.ids(text);
    ids.insert(ids.begin(), fixture.special("<|start|>"));
    CHECK(fixture.answer(*format, ids) == wanted);
  }
  // Where nobody knows the marks they are words.
  const auto plain = fixture.format("{{ messages[-1].content }}");
  CHECK(fixture.answer(*plain, fixture.ids("<think>a</think>b")) == "final:<think>a</think>b;");
}

TEST_CASE("an answer that the template has begun with a mark begins as reasoning") {
  const Fixture fixture;
  const auto format = fixture.format(kReason);
  CHECK(fixture.answer(*format, fixture.ids("Hm.</think>\n\nHello")) == "analysis:Hm.;final:Hello;");
  CHECK(fixture.answer(*format, fixture.ids("Hm.")) == "analysis:Hm.;");
  CHECK(fixture.answer(*format, fixture.ids("</think>Hello")) == "final:Hello;");
  // And it is given to the template apart from the answer.
  CHECK(fixture.rendered(*format, {said(Role::user, "a"), said(Role::assistant, "b", "analysis"),
                                   said(Role::assistant, "c", "final"), said(Role::user, "d")}) ==
        "[user]a[assistant]<think>b</think>c[user]d[assistant]<think>\n");
}

TEST_CASE("one token may hold the end of a mark and what follows") {
  // Of the 256 bytes each is a token, so such a token is made of a special spelling that is not special.
  std::string json = test::tiny_tokenizer_json();
  const std::string last = R"("content":"<|call|>","special":true)";
  const std::size_t at = json.find(last);
  REQUIRE(at != std::string::npos);
  json.replace(at, last.size(), R"("content":"think>ok","special":false)");
  const auto tokenizer = Tokenizer::from_json(json, "tiny.json");
  REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
  const auto format = make_chat_format(*tokenizer, {.chat_template = kReason});
  REQUIRE(format.ok());
  std::vector<Token> ids;
  REQUIRE(tokenizer->encode("a</think>ok!", Specials::ordinary, ids).ok());
  CHECK(ids.size() == 5);
  const auto parser = (*format)->parser();
  std::string seen;
  for (const Token id : ids) {
    const std::size_t before = parser->messages().size();
    REQUIRE(parser->push(id, false).ok());
    seen += std::string(parser->delta()) + (parser->messages().size() > before ? "|" : "");
  }
  REQUIRE(parser->finish().ok());
  seen += parser->delta();
  CHECK(seen == "a|ok!");
  REQUIRE(parser->messages().size() == 2);
  CHECK(parser->messages()[1].content == "ok!");
}

TEST_CASE("the token that ends an answer is no part of it") {
  const Fixture fixture;
  for (const auto* source : {"", kTalk}) {
    const auto made =
        make_chat_format(fixture.tokenizer, {.chat_template = source, .only_template = *source != '\0'});
    REQUIRE(made.ok());
    const auto parser = (*made)->parser();
    for (const Token id : fixture.ids(*source ? "Hi" : "<|channel|>final<|message|>Hi"))
      REQUIRE(parser->push(id, false).ok());
    REQUIRE(parser->push(fixture.special("<|endoftext|>"), true).ok());
    CHECK(parser->delta().empty());
    REQUIRE(parser->finish().ok());
    REQUIRE(parser->messages().size() == 1);
    CHECK(parser->messages()[0].content == "Hi");
    CHECK(parser->messages()[0].channel == "final");
  }
}

TEST_CASE("harmony: the system message of the model's template, and the developer's instructions") {
  const Fixture fixture;
  const auto plain = make_chat_format(fixture.tokenizer, {});
  REQUIRE(plain.ok());
  CHECK(fixture.rendered(**plain, {said(Role::user, "Hi")}) ==
        "<|start|>user<|message|>Hi<|end|><|start|>assistant");
  const auto full =
      make_chat_format(fixture.tokenizer, {.chat_template = "<|start|>system<|message|>",
                                           .reasoning = "low",
                                           .date = TemplateDate{.year = 2026, .month = 1, .day = 5}});
  REQUIRE(full.ok());
  const std::string text = fixture.rendered(**full, {(*full)->instructions("Be kind.").take()});
  CHECK(text.find("Current date: 2026-01-05\n") != std::string::npos);
  CHECK(text.find("Reasoning: low\n") != std::string::npos);
  CHECK(text.find("<|start|>developer<|message|># Instructions\n\nBe kind.<|end|>") != std::string::npos);
  CHECK((*full)->stop_ids() == Harmony::make(fixture.tokenizer)->stop_ids());
}

TEST_CASE("which format it is, and what is refused") {
  const Fixture fixture;
  // A template that does not write harmony is used though the vocabulary would do.
  const auto other = make_chat_format(fixture.tokenizer, {.chat_template = "{{ messages[0].content }}!"});
  REQUIRE(other.ok());
  CHECK(fixture.rendered(**other, {said(Role::user, "Hi")}) == "Hi!");
  CHECK((*other)->stop_ids().empty());
  const auto foreign = Tokenizer::from_json(test::tiny_tokenizer_json({"<|start|>"}), "tiny.json");
  REQUIRE(foreign.ok());
  const auto none = make_chat_format(*foreign, {.template_name = "m: chat_template"});
  CHECK(none.status().code() == Code::unsupported);
  CHECK(none.status().message().starts_with("m: chat_template: there is none"));
  const auto broken = make_chat_format(*foreign, {.chat_template = "{% if %}", .template_name = "f.jinja"});
  CHECK(broken.status().code() == Code::format);
  CHECK(broken.status().message().starts_with("f.jinja: line 1"));
  const auto strict = fixture.format("{{ raise_exception('roles must alternate') }}");
  const auto refused = strict->render(std::vector{said(Role::user, "Hi")});
  CHECK(refused.status().code() == Code::argument);
  CHECK(refused.status().message() == "chat_template: roles must alternate");
}

TEST_CASE("any tokens at all are an answer") {
  const Fixture fixture;
  std::mt19937 random(20260124);
  for (const char* source : {kTalk, kReason}) {
    const auto format = fixture.format(source);
    const std::vector<Token> marks = fixture.ids("<think></think> \n<");
    for (int round = 0; round < 2000; ++round) {
      std::vector<Token> ids;
      for (std::size_t n = random() % 40; n > 0; --n)
        ids.push_back(random() % 3 ? marks[random() % marks.size()]
                                   : static_cast<Token>(random() % (fixture.tokenizer.size() + 5)));
      fixture.answer(*format, ids);
    }
  }
}
