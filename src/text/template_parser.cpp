// Words to a program.
#include "template_program.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>

#include <algorithm>
#include <charconv>
#include <utility>

namespace nib::inline v0 {
namespace {

using Word = TemplateWord;
using Node = TemplateNode;
using Kind = TemplateNode::Kind;
using Node_ = Result<NodeId>;

// Parsing and rendering recurse as deep.
constexpr std::uint32_t kDeepest = 100;

class Parser {
 public:
  Parser(std::vector<Word> words, Template::Program& program) : words_(std::move(words)), program_(program) {}

  Status parse() {
    NIB_ASSIGN(program_.root, block({}));
    for (const NodeId call : calls_) {
      const Node& node = program_.nodes[call];
      if (!is_template_function(node.text) && !program_.macros.count(node.text))
        return unsupported(node.line, concat("the function ", node.text));
    }
    return {};
  }

 private:
  // Statements
  // -------------------------------------------------------------------------------------------------------

  // Up to a tag that begins with one of `ends`, whose name has been read then (last_end_); without ends, up
  // to the end.
  Node_ block(std::initializer_list<std::string_view> ends) {
    const Deeper deeper(*this);
    NIB_TRY(deeper.check());
    Node node{.kind = Kind::block, .line = at().line};
    while (true) {
      const Word& word = at();
      if (word.kind == Word::Kind::end) {
        if (ends.size() == 0) return add(std::move(node));
        return bad(concat("the template ends, expected ", *ends.begin()));
      }
      if (word.kind == Word::Kind::text) {
        NIB_ASSIGN(node.children.emplace_back(),
                   add({.kind = Kind::text, .line = word.line, .value = TemplateValue::own(word.text)}));
        next();
      } else if (word.kind == Word::Kind::output_begin) {
        next();
        Node output{.kind = Kind::output, .line = word.line};
        NIB_ASSIGN(output.children.emplace_back(), expression());
        if (at().kind != Word::Kind::output_end) return unexpected("}}");
        next();
        NIB_ASSIGN(node.children.emplace_back(), add(std::move(output)));
      } else {
        next();
        if (at().kind != Word::Kind::name) return unexpected("the name of a statement");
        const std::string name = at().text;
        if (std::find(ends.begin(), ends.end(), name) != ends.end()) {
          last_end_ = name;
          next();
          return add(std::move(node));
        }
        NIB_ASSIGN(const NodeId child, statement(name));
        if (child != kNoNode) node.children.push_back(child);
      }
    }
  }

  Node_ statement(const std::string& name) {
    const std::uint32_t line = at().line;
    next();
    if (name == "if") return condition(line);
    if (name == "for") return loop(line);
    if (name == "set") return assignment(line);
    if (name == "macro") return macro(line);
    if (name == "generation") {  // marks what a model said, for training
      NIB_TRY(end_tag());
      NIB_ASSIGN(const NodeId body, block({"endgeneration"}));
      NIB_TRY(end_tag());
      return body;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) return bad(concat(name, " outside a loop"));
      NIB_TRY(end_tag());
      return add({.kind = name == "break" ? Kind::stop : Kind::next, .line = line});
    }
    if (name.starts_with("end") || name == "else" || name == "elif")
      return bad(concat(name, " ends nothing"));
    return unsupported(line, concat("the statement ", name));
  }

  Node_ condition(std::uint32_t line) {
    Node node{.kind = Kind::condition, .line = line};
    for (bool more = true; more;) {
      NIB_ASSIGN(node.children.emplace_back(), expression());
      NIB_TRY(end_tag());
      NIB_ASSIGN(node.children.emplace_back(), block({"endif", "elif", "else"}));
      more = last_end_ == "elif";
    }
    if (last_end_ == "else") {
      NIB_TRY(end_tag());
      NIB_ASSIGN(node.children.emplace_back(), block({"endif"}));
    }
    NIB_TRY(end_tag());
    return add(std::move(node));
  }

  Node_ loop(std::uint32_t line) {
    Node node{.kind = Kind::loop, .line = line};
    NIB_TRY(targets(node.names));
    if (!take_name("in")) return unexpected("in");
    node.children.assign(4, kNoNode);
    NIB_ASSIGN(node.children[0], disjunction());
    if (take_name("if")) {
      NIB_ASSIGN(node.children[1], expression());
    }
    if (is_name("recursive")) return unsupported(line, "a recursive loop");
    NIB_TRY(end_tag());
    ++loops_;
    NIB_ASSIGN(node.children[2], block({"endfor", "else"}));
    --loops_;
    if (last_end_ == "else") {
      NIB_TRY(end_tag());
      NIB_ASSIGN(node.children[3], block({"endfor"}));
    }
    NIB_TRY(end_tag());
    return add(std::move(node));
  }

  Status targets(std::vector<std::string>& names) {
    const bool bracket = take_sign("(");
    do {
      if (at().kind != Word::Kind::name) return unexpected("the name of a variable");
      names.push_back(at().text);
      next();
    } while (take_sign(","));
    if (bracket && !take_sign(")")) return unexpected(")");
    return {};
  }

  Node_ assignment(std::uint32_t line) {
    Node node{.kind = Kind::assignment, .line = line};
    NIB_TRY(targets(node.names));
    if (take_sign(".")) {
      if (node.names.size() != 1 || at().kind != Word::Kind::name)
        return unexpected("the name of an attribute");
      node.kind = Kind::member_assignment;
      node.names.push_back(at().text);
      next();
    }
    if (take_sign("=")) {
      NIB_ASSIGN(node.children.emplace_back(), expression());
      if (is_sign(",")) return unsupported(line, "a tuple without brackets");
    } else {
      if (node.kind != Kind::assignment || node.names.size() != 1) return unexpected("=");
      if (is_sign("|")) return unsupported(line, "a filter of a block that is set");
      node.kind = Kind::block_assignment;
      NIB_TRY(end_tag());
      NIB_ASSIGN(node.children.emplace_back(), block({"endset"}));
    }
    NIB_TRY(end_tag());
    return add(std::move(node));
  }

  Node_ macro(std::uint32_t line) {
    Node node{.kind = Kind::macro, .line = line};
    if (at().kind != Word::Kind::name) return unexpected("the name of a macro");
    node.text = at().text;
    // Elsewhere a macro would see what its surroundings are at the time of the call.
    if (in_macro_ || loops_ > 0)
      return unsupported(line, concat("the macro ", node.text, " inside a loop or a macro"));
    next();
    if (!take_sign("(")) return unexpected("(");
    node.children.push_back(kNoNode);
    while (!take_sign(")")) {
      if (at().kind != Word::Kind::name) return unexpected("the name of a parameter");
      node.names.push_back(at().text);
      next();
      if (take_sign("=")) {
        NIB_ASSIGN(node.children.emplace_back(), expression());
      } else if (node.children.size() > 1) {
        return bad(concat("the parameter ", node.names.back(), " has no default, but one before it has"));
      }
      if (!take_sign(",") && !is_sign(")")) return unexpected(", or )");
    }
    NIB_TRY(end_tag());
    in_macro_ = true;
    NIB_ASSIGN(node.children[0], block({"endmacro"}));
    in_macro_ = false;
    if (at().kind == Word::Kind::name) next();  // its name again
    NIB_TRY(end_tag());
    program_.macros[node.text] = true;
    return add(std::move(node));
  }

  // Expressions, loosest first
  // ---------------------------------------------------------------------------------------

  Node_ expression() {
    const Deeper deeper(*this);
    NIB_TRY(deeper.check());
    NIB_ASSIGN(NodeId value, disjunction());
    while (is_name("if")) {
      const std::uint32_t line = at().line;
      next();
      NIB_ASSIGN(const NodeId test, disjunction());
      NodeId otherwise = kNoNode;
      if (take_name("else")) {
        NIB_ASSIGN(otherwise, expression());
      }
      NIB_ASSIGN(value, add({.kind = Kind::choice, .line = line, .children = {value, test, otherwise}}));
    }
    return value;
  }

  Node_ disjunction() {
    NIB_ASSIGN(NodeId left, conjunction());
    while (is_name("or")) {
      const std::uint32_t line = at().line;
      next();
      NIB_ASSIGN(const NodeId right, conjunction());
      NIB_ASSIGN(left, add({.kind = Kind::disjunction, .line = line, .children = {left, right}}));
    }
    return left;
  }

  Node_ conjunction() {
    NIB_ASSIGN(NodeId left, negation());
    while (is_name("and")) {
      const std::uint32_t line = at().line;
      next();
      NIB_ASSIGN(const NodeId right, negation());
      NIB_ASSIGN(left, add({.kind = Kind::conjunction, .line = line, .children = {left, right}}));
    }
    return left;
  }

  Node_ negation() {
    const std::uint32_t line = at().line;
    std::size_t count = 0;
    while (take_name("not")) ++count;
    NIB_ASSIGN(NodeId value, comparison());
    for (; count > 0; --count) {
      NIB_ASSIGN(value, add({.kind = Kind::negation, .line = line, .children = {value}}));
    }
    return value;
  }

  Node_ comparison() {
    Node node{.kind = Kind::comparison, .line = at().line};
    NIB_ASSIGN(const NodeId first, sum());
    node.children.push_back(first);
    while (true) {
      std::string sign;
      if (at().kind == Word::Kind::sign)
        for (const std::string_view known : {"==", "!=", "<=", ">=", "<", ">"})
          if (at().text == known) sign = known;
      if (is_name("in")) sign = "in";
      if (is_name("not") && peek().kind == Word::Kind::name && peek().text == "in") {
        sign = "not in";
        next();
      }
      if (sign.empty()) break;
      next();
      node.names.push_back(sign);
      NIB_ASSIGN(node.children.emplace_back(), sum());
    }
    return node.names.empty() ? Node_(first) : add(std::move(node));
  }

  using Level = Node_ (Parser::*)();
  Node_ left_to_right(std::initializer_list<std::string_view> signs, Level operand) {
    NIB_ASSIGN(NodeId left, (this->*operand)());
    while (at().kind == Word::Kind::sign && std::find(signs.begin(), signs.end(), at().text) != signs.end()) {
      Node node{.kind = Kind::arithmetic, .line = at().line, .text = at().text, .children = {left}};
      next();
      NIB_ASSIGN(node.children.emplace_back(), (this->*operand)());
      NIB_ASSIGN(left, add(std::move(node)));
    }
    return left;
  }
  Node_ sum() { return left_to_right({"+", "-"}, &Parser::concatenation); }
  Node_ concatenation() { return left_to_right({"~"}, &Parser::product); }
  Node_ product() { return left_to_right({"*", "/", "//", "%"}, &Parser::unary_with_filters); }
  Node_ unary_with_filters() { return unary(true); }

  Node_ unary(bool filters) {
    const Deeper deeper(*this);
    NIB_TRY(deeper.check());
    const std::uint32_t line = at().line;
    NodeId value = kNoNode;
    if (is_sign("-") || is_sign("+")) {
      const Kind kind = is_sign("-") ? Kind::minus : Kind::plus;
      next();
      NIB_ASSIGN(const NodeId operand, unary(false));
      NIB_ASSIGN(value, add({.kind = kind, .line = line, .children = {operand}}));
    } else {
      NIB_ASSIGN(value, primary());
      NIB_ASSIGN(value, postfix(value));
    }
    if (is_sign("**")) return unsupported(line, "**");
    return filters ? filtered(value) : Node_(value);
  }

  Node_ primary() {
    const Word word = at();
    Node node{.kind = Kind::literal, .line = word.line};
    switch (word.kind) {
      case Word::Kind::name:
        next();
        if (word.text == "true" || word.text == "True" || word.text == "false" || word.text == "False")
          node.value = TemplateValue::of(word.text == "true" || word.text == "True");
        else if (word.text == "none" || word.text == "None")
          node.value = TemplateValue::none();
        else
          node = {.kind = Kind::name, .line = word.line, .text = word.text};
        return add(std::move(node));
      case Word::Kind::string: {
        std::string text;
        for (; at().kind == Word::Kind::string; next()) text += at().text;
        node.value = TemplateValue::own(text);
        return add(std::move(node));
      }
      case Word::Kind::integer: {
        std::int64_t value = 0;
        if (std::from_chars(word.text.data(), word.text.data() + word.text.size(), value).ec != std::errc())
          return bad(concat("the number ", word.text.substr(0, 40), " is too large"));
        next();
        node.value = TemplateValue::of(value);
        return add(std::move(node));
      }
      case Word::Kind::number: {
        double value = 0;
        if (std::from_chars(word.text.data(), word.text.data() + word.text.size(), value).ec != std::errc())
          return bad(concat("the number ", word.text.substr(0, 40), " is too large or too small"));
        next();
        node.value = TemplateValue::of(value);
        return add(std::move(node));
      }
      default:
        break;
    }
    if (take_sign("(")) return brackets(word.line);
    if (take_sign("[")) {
      node.kind = Kind::list;
      while (!take_sign("]")) {
        NIB_ASSIGN(node.children.emplace_back(), expression());
        if (!take_sign(",") && !is_sign("]")) return unexpected(", or ]");
      }
      return add(std::move(node));
    }
    if (take_sign("{")) {
      node.kind = Kind::dict;
      while (!take_sign("}")) {
        NIB_ASSIGN(node.children.emplace_back(), expression());
        if (!take_sign(":")) return unexpected(":");
        NIB_ASSIGN(node.children.emplace_back(), expression());
        if (!take_sign(",") && !is_sign("}")) return unexpected(", or }");
      }
      return add(std::move(node));
    }
    return unexpected("an expression");
  }

  Node_ brackets(std::uint32_t line) {
    Node tuple{.kind = Kind::tuple, .line = line};
    if (take_sign(")")) return add(std::move(tuple));
    NIB_ASSIGN(const NodeId first, expression());
    if (take_sign(")")) return first;
    tuple.children.push_back(first);
    while (!take_sign(")")) {
      if (!take_sign(",")) return unexpected(", or )");
      if (take_sign(")")) break;
      NIB_ASSIGN(tuple.children.emplace_back(), expression());
    }
    return add(std::move(tuple));
  }

  Node_ postfix(NodeId value) {
    while (true) {
      const std::uint32_t line = at().line;
      if (take_sign(".")) {
        if (at().kind == Word::Kind::integer) return unsupported(line, "an item by a number behind a point");
        if (at().kind != Word::Kind::name) return unexpected("the name of an attribute");
        const std::string name = at().text;
        next();
        if (!is_sign("(")) {
          NIB_ASSIGN(value, add({.kind = Kind::attribute, .line = line, .text = name, .children = {value}}));
          continue;
        }
        if (!is_template_method(name)) return unsupported(line, concat("the method ", name));
        Node node{.kind = Kind::method, .line = line, .text = name, .children = {value}};
        NIB_TRY(arguments(node));
        NIB_ASSIGN(value, add(std::move(node)));
      } else if (take_sign("[")) {
        NIB_ASSIGN(value, subscript(value, line));
      } else if (is_sign("(")) {
        const Node callee = program_.nodes[value];
        if (callee.kind != Kind::name) return unsupported(line, "a call of what is no name");
        Node node{.kind = Kind::call, .line = line, .text = callee.text};
        NIB_TRY(arguments(node));
        NIB_ASSIGN(value, add(std::move(node)));
        calls_.push_back(value);
      } else {
        return value;
      }
    }
  }

  Node_ subscript(NodeId value, std::uint32_t line) {
    Node slice{.kind = Kind::slice, .line = line, .children = {value, kNoNode, kNoNode, kNoNode}};
    std::size_t part = 1;
    for (; part < 4; ++part) {
      if (!is_sign(":") && !is_sign("]")) {
        NIB_ASSIGN(slice.children[part], expression());
      }
      if (!take_sign(":")) break;
    }
    if (!take_sign("]")) return unexpected("]");
    if (part > 1) return add(std::move(slice));
    if (slice.children[1] == kNoNode) return bad("[] without what is asked for");
    return add({.kind = Kind::item, .line = line, .children = {value, slice.children[1]}});
  }

  Status arguments(Node& node) {
    if (!take_sign("(")) return unexpected("(");
    while (!take_sign(")")) {
      if (is_sign("*") || is_sign("**")) return unsupported(at().line, concat("an argument ", at().text));
      if (at().kind == Word::Kind::name && peek().kind == Word::Kind::sign && peek().text == "=") {
        const std::string name = at().text;
        next();
        next();
        NIB_ASSIGN(const NodeId value, expression());
        node.arguments.emplace_back(name, value);
      } else {
        if (!node.arguments.empty()) return bad("an argument without a name behind one with a name");
        NIB_ASSIGN(node.children.emplace_back(), expression());
      }
      if (!take_sign(",") && !is_sign(")")) return unexpected(", or )");
    }
    return {};
  }

  Node_ filtered(NodeId value) {
    while (true) {
      const std::uint32_t line = at().line;
      if (take_sign("|")) {
        if (at().kind != Word::Kind::name) return unexpected("the name of a filter");
        Node node{.kind = Kind::filter, .line = line, .text = at().text, .children = {value}};
        if (!is_template_filter(node.text)) return unsupported(line, concat("the filter ", node.text));
        next();
        if (is_sign("(")) NIB_TRY(arguments(node));
        NIB_ASSIGN(value, add(std::move(node)));
      } else if (take_name("is")) {
        NIB_ASSIGN(value, test(value, line));
      } else {
        return value;
      }
    }
  }

  Node_ test(NodeId value, std::uint32_t line) {
    const bool negated = take_name("not");
    if (at().kind != Word::Kind::name) return unexpected("the name of a test");
    Node node{.kind = Kind::test, .line = line, .text = at().text, .children = {value}};
    if (!is_template_test(node.text)) return unsupported(line, concat("the test ", node.text));
    next();
    const Word& word = at();
    const bool operand =
        word.kind == Word::Kind::string || word.kind == Word::Kind::integer ||
        word.kind == Word::Kind::number || is_sign("[") || is_sign("{") ||
        (word.kind == Word::Kind::name && word.text != "else" && word.text != "or" && word.text != "and" &&
         word.text != "is" && word.text != "if" && word.text != "in" && word.text != "not");
    if (is_sign("(")) {
      NIB_TRY(arguments(node));
      if (!node.arguments.empty()) return unsupported(line, "a named argument of a test");
    } else if (operand) {
      NIB_ASSIGN(const NodeId first, primary());
      NIB_ASSIGN(node.children.emplace_back(), postfix(first));
    }
    NIB_ASSIGN(NodeId result, add(std::move(node)));
    if (!negated) return result;
    return add({.kind = Kind::negation, .line = line, .children = {result}});
  }

  // -----------------------------------------------------------------------------------------------------

  // Counts how deep the parser is in itself.
  class Deeper {
   public:
    explicit Deeper(Parser& parser) : parser_(parser) { ++parser.depth_; }
    ~Deeper() { --parser_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    Status check() const {
      return parser_.depth_ <= kDeepest ? Status() : parser_.bad(concat("nested deeper than ", kDeepest));
    }

   private:
    Parser& parser_;
  };

  Node_ add(Node node) {
    const auto below = [&](NodeId child) {
      if (child != kNoNode) node.depth = std::max(node.depth, program_.nodes[child].depth + 1);
    };
    for (const NodeId child : node.children) below(child);
    for (const auto& [name, child] : node.arguments) below(child);
    if (node.depth > 2 * kDeepest)
      return Status(Code::format,
                    concat(program_.name, ": line ", node.line, ": nested deeper than ", 2 * kDeepest));
    program_.nodes.push_back(std::move(node));
    return static_cast<NodeId>(program_.nodes.size() - 1);
  }

  const Word& at() const { return words_[at_]; }
  const Word& peek() const { return words_[std::min(at_ + 1, words_.size() - 1)]; }
  void next() {
    if (at_ + 1 < words_.size()) ++at_;
  }
  bool is_name(std::string_view name) const { return at().kind == Word::Kind::name && at().text == name; }
  bool is_sign(std::string_view sign) const { return at().kind == Word::Kind::sign && at().text == sign; }
  bool take_name(std::string_view name) {
    const bool is = is_name(name);
    if (is) next();
    return is;
  }
  bool take_sign(std::string_view sign) {
    const bool is = is_sign(sign);
    if (is) next();
    return is;
  }
  Status end_tag() {
    if (at().kind != Word::Kind::block_end) return unexpected("%}");
    next();
    return {};
  }

  Status bad(std::string_view what) const {
    return {Code::format, concat(program_.name, ": line ", at().line, ": ", what)};
  }
  Status unexpected(std::string_view expected) const {
    constexpr std::string_view kNames[] = {"text",     "{%", "%}", "{{", "}}",     "",
                                           "a string", "",   "",   "",   "the end"};
    const std::string_view kind = kNames[static_cast<std::size_t>(at().kind)];
    return bad(concat("found ", kind.empty() ? std::string_view(at().text).substr(0, 100) : kind,
                      ", expected ", expected));
  }
  Status unsupported(std::uint32_t line, std::string_view what) const {
    return {Code::unsupported, concat(program_.name, ": line ", line, ": ", what.substr(0, 200),
                                      " is not supported in templates")};
  }

  std::vector<Word> words_;
  Template::Program& program_;
  std::vector<NodeId> calls_;
  std::string last_end_;
  std::size_t at_ = 0, loops_ = 0;
  std::uint32_t depth_ = 0;
  bool in_macro_ = false;
};

}  // namespace

Template::Template(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

Result<Template> Template::parse(std::string_view source, std::string_view name) {
  return within_memory(name, [&]() -> Result<Template> {
    NIB_ASSIGN(std::vector<TemplateWord> words, read_template_words(source, name));
    auto program = std::make_unique<Program>();
    program->name = name;
    NIB_TRY(Parser(std::move(words), *program).parse());
    return Template(std::move(program));
  });
}

}  // namespace nib::inline v0
