// Harmony, sampled tokens to messages: the published vectors, every shape of a header, text as it comes, and
// whatever else may come.
#include "harmony_rig.hpp"

#include <random>
#include <sstream>

namespace nib::test {
namespace {

TEST_CASE("published token vectors parse to their messages") {
  NIB_REQUIRE_DATA(data);
  const Harmony& harmony = published_harmony(data);
  const std::vector<Token> answer = {200005, 35644, 200008, 1844,   31064,  25,     392,    4827,  382,
                                     220,    17,    659,    220,    17,     16842,  12295,  81645, 13,
                                     51441,  6052,  13,     200007, 200006, 173781, 200005, 17196, 200008,
                                     17,     659,   220,    17,     314,    220,    19,     13,    200002};
  CHECK(parsed(harmony, answer, Role::assistant).messages ==
        std::vector<Message>{{.role = Role::assistant,
                              .channel = "analysis",
                              .content = "User asks: \"What is 2 + 2?\" Simple arithmetic. Provide answer."},
                             {.role = Role::assistant, .channel = "final", .content = "2 + 2 = 4."}});

  std::istringstream numbers(read_text(data + "/harmony/test_simple_tool_call.txt"));
  std::vector<Token> call;
  for (Token id; numbers >> id;) call.push_back(id);
  REQUIRE(call.size() == 39);
  CHECK(parsed(harmony, call, Role::assistant).messages ==
        std::vector<Message>{{.role = Role::assistant,
                              .channel = "analysis",
                              .content = "User asks: \"What is the weather in Tokyo?\" We need to use "
                                         "lookup_weather tool."},
                             {.role = Role::assistant,
                              .recipient = "lookup_weather",
                              .channel = "analysis",
                              .content_type = "code",
                              .content = "{\"location\": \"Tokyo\"}"}});
  // The same call with recipient and channel the other way around.
  const std::vector<Token> turned = {200005, 35644, 316,  28,   29712, 170154, 3490,
                                     200008, 10848, 7693, 1243, 392,   173844, 18583};
  CHECK(parsed(harmony, turned, Role::assistant).messages.front() ==
        parsed(harmony, call, Role::assistant).messages.back());

  std::string response = read_text(data + "/harmony/test_tool_response_parsing.txt");
  while (response.ends_with('\n')) response.pop_back();
  CHECK(parsed(harmony, tokens_of(harmony, response), std::nullopt).messages ==
        std::vector<Message>{{.role = Role::tool,
                              .name = "browser.search",
                              .recipient = "assistant",
                              .channel = "commentary",
                              .content = "{\"result\": \"https://openai.com/\"} "}});
}

// What openai-harmony says about these, but for named authors, which it does not read back.
TEST_CASE("every shape of a header") {
  struct Case {
    std::optional<Role> role;
    const char* header;
    std::optional<Message> message;  // none: refused
  };
  constexpr Role A = Role::assistant;
  const auto make = [](Role role, const char* recipient = "", const char* channel = "", const char* type = "",
                       const char* name = "") { return Message{role, name, recipient, channel, type, "x"}; };
  const Case cases[] = {
      {A, "", make(A)},
      {A, "<|channel|>final", make(A, "", "final")},
      {A, "assistant<|channel|>final", make(A, "", "final")},
      {A, " to=f<|channel|>c", make(A, "f", "c")},
      {A, "<|channel|>c to=f", make(A, "f", "c")},
      {A, "<|channel|>c to=f <|constrain|>json", make(A, "f", "c", "<|constrain|>json")},
      {A, "<|channel|>c to=f<|constrain|>json", make(A, "f", "c", "<|constrain|>json")},
      {A, " to=f<|channel|>c <|constrain|>json", make(A, "f", "c", "<|constrain|>json")},
      {A, " to=f<|channel|>c json", make(A, "f", "c", "json")},
      {A, "<|channel|>c f json", make(A, "f", "c", "json")},
      {A, "<|channel|>c json", make(A, "json", "c")},
      {A, "<|channel|>c<|constrain|>json", make(A, "<|constrain|>json", "c")},
      {A, "<|channel|>c<d", make(A, "<d", "c")},
      {A, "<|channel|>c\u00a0to=f", make(A, "f", "c")},
      {A, "<|channel|>c\u3000json", make(A, "json", "c")},
      {A, "<|channel|>c\u2028d e\u0085", make(A, "d", "c", "e")},
      {A, "to=f\n\u3000json", make(A, "f", "", "\u3000json")},
      {A, "user", make(A, "user")},
      {A, "to=f <|constrain|>a<|constrain|>b", {}},
      {A, "<|channel|>a<|channel|>b", make(A, "<|channel|>b", "a")},
      {A, "<|channel|>", {}},
      {A, "<|channel|> c", {}},
      {A, "<|channel|>c a b json", {}},
      {A, "<|channel|>c json to=f", {}},
      {A, "to=a to=b", {}},
      {A, "user to=f", {}},
      {Role::tool, " to=assistant", make(Role::tool, "assistant")},
      {{}, "user", make(Role::user)},
      {{}, " user", make(Role::user)},
      {{}, "system", make(Role::system)},
      {{}, "developer", make(Role::developer)},
      {{}, "assistant to=f<|channel|>c", make(A, "f", "c")},
      {{}, "assistant assistant", make(A, "assistant")},
      {{}, "functions.f to=assistant<|channel|>c", make(Role::tool, "assistant", "c", "", "functions.f")},
      {{}, "functions.f json", make(Role::tool, "json", "", "", "functions.f")},
      {{}, "tool", make(Role::tool, "", "", "", "tool")},
      {{}, "to=f", make(Role::tool, "", "", "", "to=f")},
      {{}, "user:bob", make(Role::user, "", "", "", "bob")},
      {{}, "assistant:bob to=f", make(A, "f", "", "", "bob")},
      {{}, "tool:bob to=f", make(Role::tool, "f", "", "", "tool:bob")},
      {{}, "user:bob tool", make(Role::tool, "", "", "", "user:bob")},
      {{}, "user:bob tool to=f", make(Role::tool, "f", "", "", "user:bob")},
      {{}, "functions.f tool to=g", make(Role::tool, "g", "", "", "functions.f")},
      {{}, "user tool", make(Role::user, "tool")},
      {{}, "user:", {}},
      {{}, "User", {}},
      {{}, "functions.f<|channel|>c", {}},
      {{}, "", {}},
      {{}, " ", {}},
      {{}, "user assistant to=f", {}},
  };
  for (const Case& c : cases) {
    CAPTURE(c.header);
    const std::string text = std::string(c.role ? "" : "<|start|>") + c.header + "<|message|>x<|end|>";
    const Parsed result = parsed(tiny_harmony(), tokens_of(tiny_harmony(), text), c.role);
    CHECK(result.status.ok() == c.message.has_value());
    if (!c.message) CHECK(result.status.code() == Code::format);
    if (c.message && result.status.ok()) CHECK(result.messages == std::vector{*c.message});
  }
}

TEST_CASE("text as it comes") {
  HarmonyParser parser(tiny_harmony());
  const auto push = [&](std::string_view text) {
    std::string delta;
    for (const Token id : tokens_of(tiny_harmony(), text)) {
      REQUIRE(parser.push(id).ok());
      delta += parser.delta();
    }
    return delta;
  };
  CHECK(push("<|channel|>analysis to=python code") == "");
  CHECK(!parser.in_content());
  CHECK(push("<|message|>") == "");
  REQUIRE(parser.in_content());
  CHECK(
      parser.current() ==
      Message{.role = Role::assistant, .recipient = "python", .channel = "analysis", .content_type = "code"});
  CHECK(push("a") == "a");
  CHECK(push("\xe6\x97") == "");
  CHECK(parser.current().content == "a");
  CHECK(push("\xa5") == "日");
  CHECK(parser.current().content == "a日");
  CHECK(push("\xf0\x9f\xff") == "\ufffd\ufffd");
  CHECK(push("<|channel|>") == "<|channel|>");  // no command here: what it spells
  CHECK(push("\xf0\x9f") == "");
  CHECK(parser.messages().empty());
  CHECK(push("<|end|>") == "\ufffd");  // of the message that it completes
  CHECK(!parser.in_content());
  REQUIRE(parser.messages().size() == 1);
  CHECK(parser.messages()[0].content == "a日\ufffd\ufffd<|channel|>\ufffd");
  CHECK(push("<|start|>assistant<|channel|>final<|message|>b\xe6") == "b");
  CHECK(parser.current().recipient == "");
  REQUIRE(parser.finish().ok());
  CHECK(parser.delta() == "\ufffd");
  REQUIRE(parser.messages().size() == 2);
  CHECK(parser.messages()[1] == Message{.role = Role::assistant, .channel = "final", .content = "b\ufffd"});
  REQUIRE(parser.finish().ok());
  CHECK(parser.messages().size() == 2);
}

TEST_CASE("what is rendered parses back, and its deltas add up") {
  std::mt19937 random(4);
  const std::string_view pieces[] = {"a story", "é", "日本", "<|end|>", " to=x", "\n", "{}", "🙂", "the"};
  const auto pick = [&](std::initializer_list<const char*> from) {
    return std::string(from.begin()[random() % from.size()]);
  };
  for (int round = 0; round < 1000; ++round) {
    std::vector<Message> messages;
    std::string contents;
    for (auto count = 1 + random() % 4; count > 0; --count) {
      Message m{.role = static_cast<Role>(random() % 5)};
      m.channel = pick({"", "analysis", "commentary", "final", "réflexion"});
      m.recipient = pick({"", "functions.f", "python", "assistant"});
      if (!m.recipient.empty()) m.content_type = pick({"", "json", "<|constrain|>json", "code"});
      if (m.role == Role::tool) {
        m.name = pick({"functions.f", "browser.open", "日本"});
        if (m.recipient.empty()) m.recipient = "assistant";
      } else {
        m.name = pick({"", "", "bob", "a:b"});
      }
      for (auto n = random() % 5; n > 0; --n) m.content += pieces[random() % std::size(pieces)];
      contents += m.content;
      messages.push_back(std::move(m));
    }
    const auto ids = tiny_harmony().render(messages, {.drop_analysis = false, .next = std::nullopt}).take();
    for (const Strictness strictness : {Strictness::strict, Strictness::lenient}) {
      const Parsed result = parsed(tiny_harmony(), ids, std::nullopt, strictness);
      REQUIRE_MESSAGE(result.status.ok(), result.status.message());
      CHECK(result.messages == messages);
      CHECK(result.deltas == contents);
    }
  }
}

TEST_CASE("a bad stream is one error until a reset") {
  const auto id = [](const char* spelling) { return *tiny_harmony().tokenizer().find_special(spelling); };
  const Token bad[] = {id("<|end|>"), id("<|return|>"), id("<|call|>"), id("<|start|>"), 100'000, ~Token{0}};
  for (const Token token : bad) {
    HarmonyParser parser(tiny_harmony());
    const Status first = parser.push(token);
    CHECK(first.code() == Code::format);
    CHECK(parser.push(id("<|message|>")).message() == first.message());
    CHECK(parser.finish().message() == first.message());
    parser.reset();
    CHECK(parser.push(id("<|message|>")).ok());
    CHECK(parser.push('a').ok());
    CHECK(parser.finish().ok());
    CHECK(parser.messages() == std::vector<Message>{{.role = Role::assistant, .content = "a"}});
  }
  HarmonyParser parser(tiny_harmony(), std::nullopt);
  CHECK(parser.push('a').code() == Code::format);
  parser.reset(Role::assistant);
  CHECK(parser.finish().code() == Code::format);  // nothing was said
  parser.reset(std::nullopt);
  CHECK(parser.finish().ok());  // nothing was asked
  CHECK(parser.messages().empty());
  parser.reset(std::nullopt);
  REQUIRE(parser.push(id("<|start|>")).ok());
  CHECK(parser.finish().code() == Code::format);
  parser.reset();
  REQUIRE(parser.push(0xe6).ok());  // half a character
  CHECK(parser.push(id("<|message|>")).message() == "harmony: a header is not UTF-8");
}

TEST_CASE("a header has its limit") {
  const Token message = *tiny_harmony().tokenizer().find_special("<|message|>");
  HarmonyParser parser(tiny_harmony());
  for (int i = 0; i < 4096; ++i) REQUIRE(parser.push('a').ok());
  CHECK(parser.push(message).ok());
  CHECK(parser.current().recipient.size() == 4096);
  parser.reset();
  for (int i = 0; i < 4096; ++i) REQUIRE(parser.push('a').ok());
  CHECK(parser.push('a').message() == "harmony: a header is longer than 4096 bytes");
}

TEST_CASE("a lenient parser takes a header without its end for what was meant") {
  const auto lenient = [](const char* text, std::optional<Role> role = Role::assistant) {
    const Parsed result = parsed(tiny_harmony(), tokens_of(tiny_harmony(), text), role, Strictness::lenient);
    REQUIRE_MESSAGE(result.status.ok(), result.status.message());
    return result;
  };
  const Parsed forgot = lenient("<|channel|>final hi  there<|end|><|start|>user<|message|>x<|end|>");
  CHECK(forgot.messages ==
        std::vector<Message>{{.role = Role::assistant, .channel = "final", .content = "hi there"},
                             {.role = Role::user, .content = "x"}});
  CHECK(forgot.deltas == "hi therex");
  CHECK(lenient("<|channel|>final<|return|>").messages ==
        std::vector<Message>{{.role = Role::assistant, .channel = "final"}});
  CHECK(lenient("<|start|>user hello<|end|>", std::nullopt).messages ==
        std::vector<Message>{{.role = Role::user, .content = "hello"}});
  CHECK(lenient("<|end|>").messages.empty());
  CHECK(lenient("<|start|>nobody<|end|>", std::nullopt).messages.empty());
  // The stream ended: nothing of that message was said.
  CHECK(lenient("").messages.empty());
  CHECK(lenient("<|channel|>fin").messages.empty());
  CHECK(lenient("<|message|>a<|end|><|start|>assist").messages.size() == 1);
  CHECK(!parsed(tiny_harmony(), tokens_of(tiny_harmony(), "a<|start|>"), Role::user, Strictness::lenient)
             .status.ok());
}

TEST_CASE("random tokens are messages or an error") {
  std::mt19937 random(5);
  const auto size = static_cast<unsigned>(tiny_harmony().tokenizer().size());
  const auto well_formed = tokens_of(
      tiny_harmony(),
      "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>so<|return|>");
  int fine = 0;
  for (int round = 0; round < 5000; ++round) {
    // Half are noise; half are a good answer with a few tokens changed or the end cut off.
    std::vector<Token> ids;
    if (round % 4 < 2) {
      for (auto n = random() % 60; n > 0; --n) ids.push_back(static_cast<Token>(random() % size));
    } else {
      ids.assign(well_formed.begin(),
                 well_formed.end() - static_cast<std::ptrdiff_t>(random() % well_formed.size()));
    }
    for (auto n = random() % 4; n > 0 && !ids.empty(); --n)
      ids[random() % ids.size()] =
          static_cast<Token>(random() % 2 ? size - 1 - random() % 8 : random() % size);
    const auto role = round % 2 ? std::optional(Role::assistant) : std::nullopt;
    const Parsed result =
        parsed(tiny_harmony(), ids, role, round % 3 ? Strictness::lenient : Strictness::strict);
    if (!result.status.ok()) {
      CHECK(result.status.code() == Code::format);
      CHECK(result.status.message().starts_with("harmony: "));
      continue;
    }
    std::string contents;
    for (const Message& m : result.messages) contents += m.content;
    CHECK(result.deltas == contents);
    fine += !contents.empty();
  }
  CHECK(fine > 100);
}

}  // namespace
}  // namespace nib::test
