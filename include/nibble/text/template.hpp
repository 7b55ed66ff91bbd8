// Room text: Template: chat templates as models ship them: a bounded subset of Jinja, rendered as jinja2 does
// with the settings of transformers (trim_blocks, lstrip_blocks, loop controls, no autoescape).
//
//   statements  for (with if, else, break, continue), if, set (also of a block, and of a namespace's
//               attributes), macro, generation
//   expressions everything but **, %-formatting and lambdas of other engines; slices; Python's arithmetic,
//               comparisons and truth
//   functions   raise_exception, strftime_now, namespace, range, dict, and the template's macros
//   filters, tests, methods: those of which templates make use; an unknown one is an error at load
//
// A template is other people's code: it can run neither forever nor out of memory, and reads nothing but what
// it is given; not the clock either.
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/base/status.hpp>
#include <nibble/text/range.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

struct TemplateLimits {
  std::size_t output = std::size_t{16} << 20;  // bytes
  // Constructs evaluated, items of lists made, and each 16 bytes of text made.
  std::size_t steps = 10'000'000;
};

// What strftime_now() says: a day of the Gregorian calendar and a time of day.
struct TemplateDate {
  int year = 1970, month = 1, day = 1, hour = 0, minute = 0, second = 0;
};

// Immutable after parsing; every const function may be called from any number of threads.
class Template {
 public:
  // `name` is used in messages: "chat_template.jinja: line 3: ...". The source may have 1 MiB. Errors: format
  // (it cannot be read), unsupported (a construct that nibble does not know, by name and line), memory.
  static Result<Template> parse(std::string_view source, std::string_view name);

  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  // The text for `variables`, an object: messages, tools, add_generation_prompt, bos_token, eos_token and
  // what else the template asks for. Without a date strftime_now is not defined. Errors: argument
  // (raise_exception's words; variables that are no object, or nested deeper than 64), format (what the
  // template does with them cannot be done, by line; a limit is reached), memory.
  Result<std::string> render(const Json& variables, const std::optional<TemplateDate>& date = {},
                             const TemplateLimits& limits = {}) const;

  // The text, and which of it the template says in its own words. What it was given (a message's content,
  // tools, their arguments) is not among them, however the template cuts and joins it, so spellings of
  // special tokens in it can be left what they are: text. Tokenizer::encode() takes both. Of the variables
  // two kinds count as the template's own, for which the caller vouches: the roles of `messages`, and strings
  // whose name ends in _token. So do numbers, truth values and the date.
  struct Rendering {
    std::string text;
    std::vector<TextRange> own;  // in order, apart from each other
  };
  // Errors: as render().
  Result<Rendering> render_marked(const Json& variables, const std::optional<TemplateDate>& date = {},
                                  const TemplateLimits& limits = {}) const;

  struct Program;  // private to the room; public by name so that its parser can be a function of its own

 private:
  explicit Template(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

}  // namespace nib::inline v0
