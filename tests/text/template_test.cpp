// Chat templates: what jinja2 rendered on conversations of ours (templates.json, written by
// template_peer.py --record), what is refused at load and in which words, and the limits.
#include "support/data.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>
#include <nibble/text/template.hpp>

#include <filesystem>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace nib;

namespace {

const TemplateDate kDate{2026, 1, 5, 13, 7, 9};

Json recorded() {
  auto records = parse_json(test::read_text(NIBBLE_TEXT_FIXTURES "/templates.json"), "templates.json");
  REQUIRE_MESSAGE(records.ok(), records.status().message());
  return records.take();
}

Json variables(std::string_view json) {
  auto tree = parse_json(json, "variables");
  REQUIRE_MESSAGE(tree.ok(), tree.status().message());
  return tree.take();
}

// Renders as was recorded, or is refused as jinja2 refused.
void check(const std::string& source, const std::string& name, const Json& record) {
  CAPTURE(name);
  const auto parsed = Template::parse(source, name);
  REQUIRE_MESSAGE(parsed.ok(), parsed.status().message());
  const auto text = parsed->render(*record.find("variables"), kDate);
  if (record.find("text")->is_string()) {
    REQUIRE_MESSAGE(text.ok(), text.status().message());
    CHECK(*text == record.find("text")->as_string());
  } else {
    REQUIRE(!text.ok());
    CHECK((text.status().code() == Code::argument || text.status().code() == Code::format));
    CHECK(text.status().message().starts_with(name + ": "));
  }
}

Result<std::string> render(const std::string& source, std::string_view json = "{}",
                           const TemplateLimits& limits = {}) {
  const auto parsed = Template::parse(source, "t");
  REQUIRE_MESSAGE(parsed.ok(), parsed.status().message());
  return parsed->render(variables(json), kDate, limits);
}

std::string repeat(std::string_view unit, std::size_t times) {
  std::string text;
  for (std::size_t i = 0; i < times; ++i) text += unit;
  return text;
}

}  // namespace

TEST_CASE("every construct renders as jinja2 rendered it") {
  std::size_t count = 0;
  const Json records = recorded();
  for (const Json& record : records.items())
    if (const Json* source = record.find("template")) {
      check(source->as_string(), record.find("name")->as_string(), record);
      ++count;
    }
  CHECK(count > 30);
}

TEST_CASE("published templates render as jinja2 rendered them") {
  NIB_REQUIRE_DATA(root);
  std::set<std::string> seen;
  const Json records = recorded();
  for (const Json& record : records.items()) {
    const Json* file = record.find("file");
    if (!file) continue;
    const std::string path = root + "/" + file->as_string();
    if (!std::filesystem::exists(path)) continue;
    seen.insert(path);
    std::string source = test::read_text(path);
    if (path.ends_with(".json")) source = parse_json(source, path)->find("chat_template")->as_string();
    check(source, path, record);
  }
  CHECK(seen.size() > 3);
  // Whatever else lies there opens.
  for (const auto& entry : std::filesystem::directory_iterator(root + "/chat_templates"))
    if (entry.path().extension() == ".jinja") {
      const auto parsed = Template::parse(test::read_text(entry.path().string()), entry.path().string());
      CHECK_MESSAGE(parsed.ok(), parsed.status().message());
    }
}

TEST_CASE("what nibble does not know is refused at load, by line and name") {
  const std::pair<std::string_view, std::string_view> unknown[] = {
      {"a\n{% include 'x' %}", "t: line 2: the statement include"},
      {"{% extends 'x' %}", "the statement extends"},
      {"{% import 'x' as y %}", "the statement import"},
      {"{% call f() %}{% endcall %}", "the statement call"},
      {"{% raw %}{{ x }}{% endraw %}", "the statement raw"},
      {"\n\n{{ x | sort }}", "t: line 3: the filter sort"},
      {"{{ x is sameas y }}", "the test sameas"},
      {"{{ x.format(1) }}", "the method format"},
      {"{{ lipsum() }}", "the function lipsum"},
      {"{{ x[0]() }}", "a call of what is no name"},
      {"{{ 2 ** 3 }}", "**"},
      {"{{ f(*x) }}", "an argument *"},
      {"{% for x in y recursive %}{% endfor %}", "a recursive loop"},
      {"{% set x = 1, 2 %}", "a tuple without brackets"},
      {"{% for x in y %}{% macro m() %}{% endmacro %}{% endfor %}", "the macro m inside a loop"},
  };
  for (const auto& row : unknown) {
    const std::string_view source = row.first, message = row.second;
    const auto parsed = Template::parse(source, "t");
    CAPTURE(source);
    REQUIRE(!parsed.ok());
    CAPTURE(parsed.status().message());
    CHECK(parsed.status().code() == Code::unsupported);
    CHECK(parsed.status().message().find(message) != std::string::npos);
  }
}

TEST_CASE("what is no template is refused at load, by line") {
  for (const std::string_view source : {"{{",
                                        "{{ x",
                                        "{{ x }",
                                        "{% if x %}",
                                        "{% endif %}",
                                        "{% else %}",
                                        "{% if %}{% endif %}",
                                        "{% for x %}{% endfor %}",
                                        "{% for 1 in x %}{% endfor %}",
                                        "{# x",
                                        "{{ 'x }}",
                                        "{{ \"\\ud800\" }}",
                                        "{{ [1, }}",
                                        "{{ (1 }}",
                                        "{{ ) }}",
                                        "{{ {1} }}",
                                        "{{ x[] }}",
                                        "{{ x. }}",
                                        "{{ x | }}",
                                        "{{ x is }}",
                                        "{{ a b }}",
                                        "{{ ; }}",
                                        "{% break %}",
                                        "{{ 99999999999999999999 }}",
                                        "{% set x %}",
                                        "{% macro m(a=1, b) %}{% endmacro %}",
                                        "{% macro m %}{% endmacro %}",
                                        "{{ f(a=1, 2) }}",
                                        "{% %}",
                                        "{{ }}",
                                        "{% if x %}{% else %}{% elif y %}{% endif %}"}) {
    const auto parsed = Template::parse(source, "t");
    CAPTURE(source);
    REQUIRE(!parsed.ok());
    CHECK(parsed.status().code() == Code::format);
    CHECK(parsed.status().message().starts_with("t: line 1: "));
  }
  CHECK(!Template::parse(std::string((1 << 20) + 1, 'x'), "t").ok());
}

TEST_CASE("a template's own complaint is the message") {
  const auto text = render("a\n{{ raise_exception('roles must alternate') }}");
  REQUIRE(!text.ok());
  CHECK(text.status().code() == Code::argument);
  CHECK(text.status().message() == "t: roles must alternate");
  const auto used = render("a\n{{ message.content.parts }}", R"({"message":{}})");
  REQUIRE(!used.ok());
  CHECK(used.status().message() == "t: line 2: 'content' is undefined");
  CHECK(!Template::parse("x", "t")->render(Json::of(true)).ok());
}

TEST_CASE("the date is the caller's") {
  const auto parsed = Template::parse("{{ strftime_now('%d %b %Y') if strftime_now is defined }}", "t");
  REQUIRE(parsed.ok());
  CHECK(*parsed->render(variables("{}"), TemplateDate{2024, 2, 29}) == "29 Feb 2024");
  CHECK(parsed->render(variables("{}"))->empty());
  CHECK(!parsed->render(variables("{}"), TemplateDate{2024, 13, 1}).ok());
  CHECK(!render("{{ strftime_now('%Q') }}").ok());
}

TEST_CASE("slow: no template runs forever, out of memory or out of stack") {
  const std::string hostile[] = {
      "{% for i in range(1000000000) %}x{% endfor %}",
      "{% for i in range(2000) %}{% for j in range(2000) %}{% for k in range(2000) %}{% endfor %}{% endfor "
      "%}{% endfor %}",
      "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor "
      "%}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}",
      "{% set ns = namespace() %}{% set ns.x = ns %}",
      "{% set ns = namespace() %}{% set x = [ns] %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
      "{{ 'x' * 1000000000000 }}",
      "{{ 'x' * 9223372036854775807 }}",
      "{{ 'xxxx'|replace('', 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy' * 1000000) }}",
      "{{ ['x' * 1000000]|join * 1000000 }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ -9223372036854775807 - 2 }}",
      "{{ 9223372036854775807 * 2 }}",
      "{{ 1 % 0 }}",
  };
  for (const std::string& source : hostile) {
    CAPTURE(source);
    const auto text = render(source);
    REQUIRE(!text.ok());
    CHECK(text.status().code() == Code::format);
  }
  CHECK(!render("{{ x }}", R"({"x":"0123456789"})", {.output = 9}).ok());
  CHECK(render("{{ x }}", R"({"x":"0123456789"})", {.output = 10}).ok());
  CHECK(!render("{% for x in range(100) %}{% endfor %}", "{}", {.steps = 100}).ok());
  // Nested deeper than anybody writes.
  CHECK(!Template::parse("{{ " + repeat("(", 10'000) + "1" + repeat(")", 10'000) + " }}", "t").ok());
  CHECK(!Template::parse("{{ " + repeat("-", 10'000) + "1 }}", "t").ok());
  CHECK(!Template::parse("{{ " + repeat("1 + ", 10'000) + "1 }}", "t").ok());
  CHECK(!Template::parse("{{ x" + repeat("[x", 10'000), "t").ok());
  CHECK(!Template::parse(repeat("{% if x %}", 10'000), "t").ok());
  std::string deep = R"({"x":)" + repeat("[", 60) + repeat("]", 60) + "}";
  CHECK(render("{{ x }}", deep).ok());
}

TEST_CASE("cut and damaged templates are errors or texts") {
  const Json records = recorded();
  std::mt19937 random(20260109);
  for (const Json& record : records.items()) {
    const Json* source = record.find("template");
    if (!source) continue;
    for (int round = 0; round < 60; ++round) {
      std::string damaged = source->as_string();
      if (round % 2) damaged.resize(random() % damaged.size());
      for (std::size_t n = random() % 3; n > 0 && !damaged.empty(); --n)
        damaged[random() % damaged.size()] ^= static_cast<char>(1 << random() % 8);
      const auto parsed = Template::parse(damaged, "t");
      Status status = parsed.status();
      if (parsed.ok())
        status =
            parsed->render(*record.find("variables"), kDate, {.output = 1 << 20, .steps = 100'000}).status();
      if (!status.ok()) CHECK(status.message().starts_with("t: "));
    }
  }
}
