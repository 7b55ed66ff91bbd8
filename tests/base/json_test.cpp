// The JSON reader against the parsing test suite, Python's json, its own writer and hostile documents.
#include "support/data.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>

#include <bit>
#include <chrono>
#include <filesystem>
#include <limits>
#include <random>

#include <doctest/doctest.h>

using namespace nib;

namespace {

Code code_of(std::string_view text, const JsonLimits& limits = {}) {
  return parse_json(text, "text", limits).status().code();
}

std::string message_of(std::string_view text, const JsonLimits& limits = {}) {
  return parse_json(text, "config.json", limits).status().message();
}

std::string round_trip(std::string_view text, bool space = false) {
  const auto tree = parse_json(text, "text");
  REQUIRE_MESSAGE(tree.ok(), tree.status().message());
  return write_json(*tree, space);
}

// Writes down the events in order; stops with its own Status at the event numbered `stop_at`.
class Recorder final : public JsonHandler {
 public:
  explicit Recorder(int stop_at = -1) : stop_at_(stop_at) {}
  std::string events;

  Status on_null() override { return add("null "); }
  Status on_bool(bool value) override { return add(value ? "true " : "false "); }
  Status on_integer(std::int64_t value) override { return add(concat("i", value, ' ')); }
  Status on_number(double value) override { return add(concat("n", value, ' ')); }
  Status on_string(std::string_view value) override { return add(concat("s:", value, ' ')); }
  Status on_key(std::string_view key) override { return add(concat("k:", key, ' ')); }
  Status on_object_begin() override { return add("{ "); }
  Status on_object_end() override { return add("} "); }
  Status on_array_begin() override { return add("[ "); }
  Status on_array_end() override { return add("] "); }

 private:
  Status add(const std::string& event) {
    if (count_++ == stop_at_) return {Code::stopped, "the handler had enough"};
    events += event;
    return {};
  }
  int stop_at_, count_ = 0;
};

Json nested_arrays(int depth) {
  Json json = Json::of(std::int64_t{7});
  for (int i = 0; i < depth; ++i) {
    std::vector<Json> items;
    items.push_back(std::move(json));
    json = Json::array(std::move(items));
  }
  return json;
}

// A random tree of about `budget` values, grown without recursion: random containers adopt earlier trees.
Json random_tree(std::mt19937& random, int budget) {
  std::vector<Json> forest;
  for (int i = 0; i < budget; ++i) {
    const auto kind = random() % 7;
    if (kind == 0) {
      forest.emplace_back();
    } else if (kind == 1) {
      forest.push_back(Json::of(random() % 2 == 0));
    } else if (kind == 2) {
      forest.push_back(Json::of(static_cast<std::int64_t>(std::uint64_t{random()} << 32 | random())));
    } else if (kind == 3) {
      const double value = std::bit_cast<double>(std::uint64_t{random()} << 32 | random());
      forest.push_back(Json::of(value - value == 0 ? value : 0.5));
    } else if (kind == 4) {
      std::string text;
      for (auto n = random() % 9; n > 0; --n) {
        static const char* const kPieces[] = {"a", "\"", "\\", "\n", "\x01", "\x7f", "é", "日", "😀", "/"};
        text += kPieces[random() % std::size(kPieces)];
      }
      forest.push_back(Json::of(std::move(text)));
    } else {
      std::vector<Json> items;
      std::vector<Json::Member> members;
      for (auto n = random() % 5; n > 0 && !forest.empty(); --n) {
        if (kind == 5)
          items.push_back(std::move(forest.back()));
        else
          members.emplace_back(concat("key", n), std::move(forest.back()));
        forest.pop_back();
      }
      forest.push_back(kind == 5 ? Json::array(std::move(items)) : Json::object(std::move(members)));
    }
  }
  return Json::array(std::move(forest));
}

bool same(const Json& a, const Json& b) { return write_json(a) == write_json(b); }

}  // namespace

TEST_CASE("events arrive in order, unescaped") {
  Recorder recorder;
  const Status status = parse_json(R"( {"a" : [1, -2.5, true, null, "x\u00e9\ud83d\ude00\n"], "a": {}} )",
                                   "text", {}, recorder);
  CHECK(status.ok());
  CHECK(recorder.events == "{ k:a [ i1 n-2.5 true null s:xé😀\n ] k:a { } } ");
}

TEST_CASE("what a handler returns ends the parse and comes back unchanged") {
  for (int stop_at = 0; stop_at < 8; ++stop_at) {
    Recorder recorder(stop_at);
    const Status status = parse_json(R"({"a":[1,"b"],"c":2})", "text", {}, recorder);
    CHECK(status.code() == Code::stopped);
    CHECK(status.message() == "the handler had enough");
  }
}

TEST_CASE("an integer is an integer as long as 63 bits hold it") {
  CHECK(parse_json("9223372036854775807", "t")->as_integer() == std::numeric_limits<std::int64_t>::max());
  CHECK(parse_json("-9223372036854775808", "t")->as_integer() == std::numeric_limits<std::int64_t>::min());
  for (const char* text : {"9223372036854775808", "18446744073709551615", "18446744073709551616", "1.0",
                           "1e3", "-9223372036854775809"}) {
    const auto json = parse_json(text, "t");
    REQUIRE(json.ok());
    CHECK(json->kind() == Json::Kind::number);
    CHECK(json->as_double() == std::stod(text));
  }
  CHECK(message_of("[1e400]").find("config.json: byte ") == 0);
  CHECK(message_of("[1e400]").find("a number is too large") != std::string::npos);
  CHECK(code_of(std::string(400, '9')) == Code::format);
  CHECK(parse_json("1e-400", "t")->as_double() == 0);
}

TEST_CASE("a message says which file, which byte and what was wrong") {
  CHECK(message_of("{\"a\": nul}") ==
        "config.json: byte 10: syntax error while parsing value - invalid literal");
  CHECK(message_of("{\"a\" 1}").find("expected ':'") != std::string::npos);
  CHECK(message_of("").find("unexpected end of input") != std::string::npos);
  // A quotation of the document would drag megabytes of anything into the sentence.
  CHECK(message_of("\"" + std::string(1 << 20, 'x')).size() < 200);
}

TEST_CASE("only RFC 8259 is JSON") {
  for (const std::string& text : {std::string("[1]\0[2]", 7),  std::string("[1]\0", 4),
                                  std::string("\0", 1),        std::string("\xef\xbb\xbf{}"),
                                  std::string("{} x"),         std::string("// c\n1"),
                                  std::string("NaN"),          std::string("[1,]"),
                                  std::string("'a'"),          std::string("\"\xff\""),
                                  std::string("\"\xc0\xaf\""), std::string("\"\xed\xa0\x80\""),
                                  std::string("\"\\ud800\""),  std::string("\"\x01\""),
                                  std::string("01"),           std::string("+1"),
                                  std::string(".5"),           std::string("1."),
                                  std::string("Infinity"),     std::string("   ")})
    CHECK_MESSAGE(code_of(text) == Code::format, text);
}

TEST_CASE("limits hold at their exact value") {
  JsonLimits limits;
  limits.max_bytes = 5;
  CHECK(code_of("[123]", limits) == Code::ok);
  CHECK(code_of("[1234]", limits) == Code::format);
  limits = {};
  limits.max_depth = 3;
  CHECK(code_of("[[[]]]", limits) == Code::ok);
  CHECK(code_of("[[],[[]],{\"a\":{}}]", limits) == Code::ok);
  CHECK(code_of("[[[[]]]]", limits) == Code::format);
  CHECK(message_of("[[[{}]]]", limits) == "config.json: byte 4: nested deeper than 3 levels");
  limits = {};
  limits.max_values = 4;  // the object, two keys, a value, and one too many
  CHECK(code_of("{\"a\":1,\"b\"", limits) == Code::format);
  CHECK(code_of("[1,2,3]", limits) == Code::ok);
  CHECK(message_of("{\"a\":1,\"b\":2}", limits) == "config.json: byte 13: more than 4 values");
}

TEST_CASE("depth is bounded by the limit, never by the stack") {
  CHECK(code_of(std::string(1'000'000, '[')) == Code::format);
  JsonLimits limits;
  limits.max_depth = 1'000'000;
  const std::string arrays = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  CHECK(round_trip("1") == "1");
  auto deep = parse_json(arrays, "t", limits);
  REQUIRE(deep.ok());
  CHECK(write_json(*deep) == arrays);
  const Json copy = *deep;
  *deep = Json();
  CHECK(write_json(copy) == arrays);

  std::string objects;
  for (int i = 0; i < 300'000; ++i) objects += "{\"a\":[1,";
  objects += "null";
  for (int i = 0; i < 300'000; ++i) objects += "],\"b\":{}}";
  const auto mixed = parse_json(objects, "t", limits);
  REQUIRE(mixed.ok());
  const Json mixed_copy = *mixed;
  CHECK(write_json(mixed_copy) == objects);
}

TEST_CASE("trees copy, move and come apart whatever their shape") {
  std::mt19937 random(20250801);
  for (int round = 0; round < 300; ++round) {
    Json tree = random_tree(random, 1 + static_cast<int>(random() % 200));
    const std::string text = write_json(tree);
    Json copy = tree;
    CHECK(same(copy, tree));
    Json moved = std::move(copy);
    CHECK(copy.is_null());
    CHECK(write_json(moved) == text);
    Json& alias = moved;
    moved = std::move(alias);
    CHECK(write_json(moved) == text);
    moved = nested_arrays(static_cast<int>(random() % 50));
    CHECK(write_json(tree) == text);
    // What is written reads back as the same tree.
    const auto again = parse_json(text, "t", {.max_depth = 1000});
    REQUIRE_MESSAGE(again.ok(), again.status().message());
    CHECK(write_json(*again) == text);
  }
}

TEST_CASE("objects keep order and duplicates; find gives the last") {
  const auto json = parse_json(R"({"b":1,"a":2,"b":3})", "t");
  REQUIRE(json.ok());
  CHECK(json->members().size() == 3);
  CHECK(json->members()[0].first == "b");
  CHECK(json->find("b")->as_integer() == 3);
  CHECK(json->find("c") == nullptr);
  CHECK(Json::of(true).find("b") == nullptr);
}

// Expected texts recorded from Python 3.11: json.dumps(value, ensure_ascii=False[, separators=(",", ":")]).
TEST_CASE("write_json writes what Python writes") {
  CHECK(round_trip(R"({ "a" : [ 1 , { } , [ ] ], "b": null})") == R"({"a":[1,{},[]],"b":null})");
  CHECK(round_trip(R"({"a":[1,{},[]],"b":null})", true) == R"({"a": [1, {}, []], "b": null})");
  CHECK(round_trip(R"("\u0000\u001f\b\f\n\r\t\"\\\/\u007f\u00e9\ud83d\ude00\u2028")") ==
        "\"\\u0000\\u001f\\b\\f\\n\\r\\t\\\"\\\\/\x7fé😀\xe2\x80\xa8\"");
  const std::pair<double, const char*> kNumbers[] = {{0.0, "0.0"},
                                                     {-0.0, "-0.0"},
                                                     {1.0, "1.0"},
                                                     {0.1, "0.1"},
                                                     {1e-5, "1e-05"},
                                                     {0.0001, "0.0001"},
                                                     {0.00012345, "0.00012345"},
                                                     {1e15, "1000000000000000.0"},
                                                     {1e16, "1e+16"},
                                                     {9999999999999998.0, "9999999999999998.0"},
                                                     {1.2345678901234568e17, "1.2345678901234568e+17"},
                                                     {1e22, "1e+22"},
                                                     {1e30, "1e+30"},
                                                     {5e-324, "5e-324"},
                                                     {1.7976931348623157e308, "1.7976931348623157e+308"},
                                                     {-2.5, "-2.5"}};
  for (const auto& [value, text] : kNumbers) CHECK(write_json(Json::of(value)) == text);
  CHECK(write_json(Json::of(std::numeric_limits<double>::infinity())) == "Infinity");
}

TEST_CASE("the JSON parsing test suite") {
  NIB_REQUIRE_DATA(root);
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root + "/json")) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() != ".json") continue;
    const Code code = code_of(nib::test::read_text(entry.path().string()));
    if (name[0] == 'y') CHECK_MESSAGE(code == Code::ok, name);
    if (name[0] == 'n') CHECK_MESSAGE(code == Code::format, name);
    if (name[0] == 'i') CHECK_MESSAGE((code == Code::ok || code == Code::format), name);
    ++seen;
  }
  CHECK(seen > 100);
}

TEST_CASE("damaged documents are read or refused, never more") {
  const std::string text =
      R"({"a":[1,-2.5e3,true,null,"x\u00e9\ud83d\ude00\n"],"b":{"c":{},"d":[[]]},"é":"日本"})";
  for (std::size_t cut = 0; cut < text.size(); ++cut) CHECK(code_of(text.substr(0, cut)) == Code::format);
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string damaged = text;
    for (auto n = 1 + random() % 3; n > 0; --n)
      damaged[random() % damaged.size()] ^= static_cast<char>(1 << random() % 8);
    const auto tree = parse_json(damaged, "t");
    refused += !tree.ok();
    if (tree.ok()) CHECK(parse_json(write_json(*tree), "t").ok());
  }
  CHECK(refused > 1000);
  CHECK(refused < 20000);
}

TEST_CASE("a 12 MB tokenizer.json is read in a fraction of a second") {
  NIB_REQUIRE_DATA(root);
  const std::string text = nib::test::read_text(root + "/tokenizers/gpt-oss.tokenizer.json");
  Recorder recorder;
  const auto begin = std::chrono::steady_clock::now();
  CHECK(parse_json(text, "tokenizer.json", {}, recorder).ok());
  const auto middle = std::chrono::steady_clock::now();
  const auto tree = parse_json(text, "tokenizer.json");
  const auto end = std::chrono::steady_clock::now();
  REQUIRE(tree.ok());
  CHECK(tree->find("model")->find("vocab")->members().size() > 190'000);
  const auto ms = [](auto span) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(span).count();
  };
  MESSAGE("events " << ms(middle - begin) << " ms, tree " << ms(end - middle) << " ms");
}
