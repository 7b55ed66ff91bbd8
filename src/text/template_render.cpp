// Runs a program.
#include "template_calls.hpp"
#include "template_program.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

namespace nib::inline v0 {
namespace {

using Value = TemplateValue;
using Node = TemplateNode;
using Kind = TemplateNode::Kind;
using ValueKind = TemplateValue::Kind;

// Constructs inside each other while they run, macros' calls included: a frame or two of ours for each.
constexpr std::size_t kDeepest = 500;

// Where a loop stands.
struct LoopState {
  const std::vector<Value>& items;
  std::size_t index = 0;
};

// Names as one part of a template sees them, its surroundings' behind its own.
struct Scope {
  Scope* parent = nullptr;
  const LoopState* loop = nullptr;
  std::vector<Value::Member> names{};

  const Value* find(std::string_view name) const {
    for (const Scope* scope = this; scope; scope = scope->parent)
      for (const auto& [key, value] : scope->names)
        if (key == name) return &value;
    return nullptr;
  }
  void set(const std::string& name, Value value) {
    for (auto& [key, old] : names)
      if (key == name) {
        old = std::move(value);
        return;
      }
    names.emplace_back(name, std::move(value));
  }
};

enum class Flow : std::uint8_t { on, stop, next };

class Machine {
 public:
  Machine(const Template::Program& program, const std::optional<TemplateDate>& date,
          const TemplateLimits& limits)
      : program_(program), date_(date), limits_(limits), work_(limits) {}

  Result<TemplateText> run(const Value& variables) {
    root_.names = variables.members();
    TemplateText out;
    NIB_ASSIGN(const Flow flow, execute(program_.root, root_, out));
    static_cast<void>(flow);
    return out;
  }

 private:
  using Evaluated = Result<Value>;

  // Statements
  // -------------------------------------------------------------------------------------------------------

  Result<Flow> execute(NodeId id, Scope& scope, TemplateText& out) {
    const Node& node = program_.nodes[id];
    const Deeper deeper(depth_);
    NIB_TRY(step(node));
    switch (node.kind) {
      case Kind::text:
        return append(node, node.value, out);
      case Kind::output: {
        NIB_ASSIGN(const Value value, evaluate(node.children[0], scope));
        return append(node, value, out);
      }
      case Kind::block:
        for (const NodeId child : node.children) {
          NIB_ASSIGN(const Flow flow, execute(child, scope, out));
          if (flow != Flow::on) return flow;
        }
        return Flow::on;
      case Kind::condition:
        return condition(node, scope, out);
      case Kind::loop:
        return loop(node, scope, out);
      case Kind::assignment:
      case Kind::member_assignment:
        return assign(node, scope);
      case Kind::block_assignment: {
        TemplateText text;
        NIB_ASSIGN(const Flow flow, execute(node.children[0], scope, text));
        scope.set(node.names[0], Value::of(std::move(text)));
        return flow;
      }
      case Kind::macro:
        macros_.emplace_back(node.text, id);
        return Flow::on;
      case Kind::stop:
        return Flow::stop;
      case Kind::next:
        return Flow::next;
      default:
        return bad(node, "an expression stands as a statement");
    }
  }

  Result<Flow> append(const Node& node, const Value& value, TemplateText& out) {
    const std::size_t before = out.cost();
    out.add(value);
    if (out.bytes().size() > limits_.output)
      return bad(node, concat("the output has more than ", limits_.output, " bytes"));
    NIB_TRY(at(node, work_.spend((out.cost() - before) / 16)));
    return Flow::on;
  }

  Result<Flow> condition(const Node& node, Scope& scope, TemplateText& out) {
    std::size_t i = 0;
    for (; i + 1 < node.children.size(); i += 2) {
      NIB_ASSIGN(const Value test, evaluate(node.children[i], scope));
      if (test.truth()) return execute(node.children[i + 1], scope, out);
    }
    return i < node.children.size() ? execute(node.children[i], scope, out) : Flow::on;
  }

  Result<Flow> loop(const Node& node, Scope& scope, TemplateText& out) {
    NIB_ASSIGN(const Value over, evaluate(node.children[0], scope));
    NIB_ASSIGN(std::vector<Value> items, at(node, template_items(over, work_)));
    if (node.children[1] != kNoNode) {
      std::vector<Value> kept;
      for (const Value& item : items) {
        Scope inner{.parent = &scope};
        NIB_TRY(unpack(node, item, inner));
        NIB_ASSIGN(const Value test, evaluate(node.children[1], inner));
        if (test.truth()) kept.push_back(item);
      }
      items = std::move(kept);
    }
    if (items.empty()) return node.children[3] == kNoNode ? Flow::on : execute(node.children[3], scope, out);
    for (LoopState state{items}; state.index < items.size(); ++state.index) {
      Scope inner{.parent = &scope, .loop = &state};
      NIB_TRY(unpack(node, items[state.index], inner));
      NIB_ASSIGN(const Flow flow, execute(node.children[2], inner, out));
      if (flow == Flow::stop) break;
    }
    return Flow::on;
  }

  // Sets the node's names to a value, or to its items.
  Status unpack(const Node& node, const Value& value, Scope& scope) {
    if (node.names.size() == 1) {
      scope.set(node.names[0], value);
      return {};
    }
    NIB_ASSIGN(const std::vector<Value> items, at(node, template_items(value, work_)));
    if (items.size() != node.names.size())
      return bad(node, concat("a value has ", items.size(), " items, expected ", node.names.size()));
    for (std::size_t i = 0; i < items.size(); ++i) scope.set(node.names[i], items[i]);
    return {};
  }

  Result<Flow> assign(const Node& node, Scope& scope) {
    NIB_ASSIGN(Value value, evaluate(node.children[0], scope));
    if (node.kind == Kind::assignment) {
      NIB_TRY(unpack(node, value, scope));
      return Flow::on;
    }
    const Value* found = scope.find(node.names[0]);
    if (!found || !found->is(ValueKind::name_space))
      return bad(node, concat(node.names[0], " is no namespace, so its attributes cannot be set"));
    Value space = *found;
    NIB_TRY(at(node, space.set_member(node.names[1], std::move(value))));
    return Flow::on;
  }

  // Expressions
  // -----------------------------------------------------------------------------------------------------

  Evaluated evaluate(NodeId id, Scope& scope) {
    const Node& node = program_.nodes[id];
    const Deeper deeper(depth_);
    NIB_TRY(step(node));
    switch (node.kind) {
      case Kind::literal:
        return node.value;
      case Kind::name:
        return name(node, scope);
      case Kind::list:
      case Kind::tuple:
        return list(node, scope);
      case Kind::dict:
        return dict(node, scope);
      case Kind::attribute:
        return attribute(node, scope);
      case Kind::item: {
        NIB_ASSIGN(const Value of, evaluate(node.children[0], scope));
        NIB_ASSIGN(const Value key, evaluate(node.children[1], scope));
        return at(node, template_item(of, key));
      }
      case Kind::slice:
        return slice(node, scope);
      case Kind::call:
        return call(node, scope);
      case Kind::method:
      case Kind::filter:
      case Kind::test:
        return named(node, scope);
      case Kind::negation: {
        NIB_ASSIGN(const Value value, evaluate(node.children[0], scope));
        return Value::of(!value.truth());
      }
      case Kind::minus:
      case Kind::plus:
        return sign(node, scope);
      case Kind::arithmetic:
        return arithmetic(node, scope);
      case Kind::comparison:
        return comparison(node, scope);
      case Kind::conjunction:
      case Kind::disjunction: {
        NIB_ASSIGN(Value left, evaluate(node.children[0], scope));
        if (left.truth() == (node.kind == Kind::disjunction)) return left;
        return evaluate(node.children[1], scope);
      }
      case Kind::choice: {
        NIB_ASSIGN(const Value test, evaluate(node.children[1], scope));
        if (test.truth()) return evaluate(node.children[0], scope);
        if (node.children[2] == kNoNode) return Value::undefined("the value of an if without else");
        return evaluate(node.children[2], scope);
      }
      default:
        return bad(node, "a statement stands as an expression");
    }
  }

  Evaluated name(const Node& node, const Scope& scope) {
    if (const Value* value = scope.find(node.text)) return *value;
    const bool function = is_template_function(node.text) && (node.text != "strftime_now" || date_);
    if (function || find_macro(node.text)) return Value::callable(node.text);
    return Value::undefined(node.text);
  }

  Evaluated list(const Node& node, Scope& scope) {
    std::vector<Value> items;
    for (const NodeId child : node.children) {
      NIB_ASSIGN(items.emplace_back(), evaluate(child, scope));
    }
    return at(node, Value::list(std::move(items), node.kind == Kind::tuple));
  }

  Evaluated dict(const Node& node, Scope& scope) {
    std::vector<Value::Member> members;
    for (std::size_t i = 0; i + 1 < node.children.size(); i += 2) {
      NIB_ASSIGN(const Value key, evaluate(node.children[i], scope));
      NIB_ASSIGN(Value value, evaluate(node.children[i + 1], scope));
      if (!key.is(ValueKind::string))
        return bad(node, concat("a key of a dict is ", key.kind_name(), ", expected str"));
      members.emplace_back(key.text(), std::move(value));
    }
    return at(node, Value::dict(std::move(members)));
  }

  Evaluated attribute(const Node& node, Scope& scope) {
    const Node& of = program_.nodes[node.children[0]];
    if (of.kind == Kind::name && of.text == "loop")
      for (const Scope* around = &scope; around; around = around->parent)
        if (around->loop) return loop_attribute(node, *around->loop);
    NIB_ASSIGN(const Value value, evaluate(node.children[0], scope));
    return at(node, template_attribute(value, node.text));
  }

  Evaluated loop_attribute(const Node& node, const LoopState& loop) {
    const auto index = static_cast<std::int64_t>(loop.index),
               size = static_cast<std::int64_t>(loop.items.size());
    const std::string& name = node.text;
    if (name == "index") return Value::of(index + 1);
    if (name == "index0") return Value::of(index);
    if (name == "revindex") return Value::of(size - index);
    if (name == "revindex0") return Value::of(size - index - 1);
    if (name == "first") return Value::of(index == 0);
    if (name == "last") return Value::of(index + 1 == size);
    if (name == "length") return Value::of(size);
    if (name == "previtem" && index > 0) return loop.items[loop.index - 1];
    if (name == "nextitem" && index + 1 < size) return loop.items[loop.index + 1];
    if (name == "previtem" || name == "nextitem") return Value::undefined(name);
    return bad(node, concat("loop.", name, " is not supported in templates"));
  }

  Evaluated slice(const Node& node, Scope& scope) {
    NIB_ASSIGN(const Value of, evaluate(node.children[0], scope));
    Value bounds[3];
    for (std::size_t i = 0; i < 3; ++i) {
      bounds[i] = Value::none();
      if (node.children[i + 1] == kNoNode) continue;
      NIB_ASSIGN(bounds[i], evaluate(node.children[i + 1], scope));
      if (!bounds[i].is(ValueKind::none) && !bounds[i].is_integer())
        return bad(node, concat("a slice has a bound that is ", bounds[i].kind_name()));
    }
    if (of.is(ValueKind::undefined)) return at(node, template_item(of, bounds[0]));
    if (!of.is_list() && !of.is(ValueKind::string))
      return bad(node, concat("a slice of a value that is ", of.kind_name()));
    NIB_ASSIGN(const std::vector<Value> items, at(node, template_items(of, work_)));
    const auto size = static_cast<std::int64_t>(items.size());
    const std::int64_t stride = bounds[2].is_integer() ? bounds[2].integer() : 1;
    if (stride == 0) return bad(node, "a slice has a step of 0");
    // As Python clips them: to 0 and size going up, to -1 and size - 1 going down.
    const std::int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? size : size - 1;
    const auto clip = [&](const Value& bound, std::int64_t otherwise) {
      if (!bound.is_integer()) return otherwise;
      const std::int64_t place = bound.integer() < 0 ? bound.integer() + size : bound.integer();
      return std::clamp(place, low, std::max(low, high));
    };
    const std::int64_t begin = clip(bounds[0], stride > 0 ? 0 : size - 1),
                       end = clip(bounds[1], stride > 0 ? size : -1);
    std::vector<Value> kept;
    TemplateText text;
    for (std::int64_t i = begin; stride > 0 ? i < end : i > end;) {
      const Value& item = items[static_cast<std::size_t>(i)];
      if (of.is_list())
        kept.push_back(item);
      else
        text.add(item.marked());
      if (stride > 0 ? stride >= end - i : stride <= end - i) break;
      i += stride;
    }
    return of.is_list() ? at(node, Value::list(std::move(kept), of.is(ValueKind::tuple)))
                        : Value::of(std::move(text));
  }

  Evaluated sign(const Node& node, Scope& scope) {
    NIB_ASSIGN(const Value value, evaluate(node.children[0], scope));
    if (!value.is_number()) return bad(node, concat("a sign before a value that is ", value.kind_name()));
    if (node.kind == Kind::plus) return value.is_integer() ? Value::of(value.integer()) : value;
    if (!value.is_integer()) return Value::of(-value.number());
    std::int64_t out = 0;
    if (__builtin_sub_overflow(std::int64_t{0}, value.integer(), &out)) return bad(node, kTooLarge);
    return Value::of(out);
  }

  Evaluated arithmetic(const Node& node, Scope& scope) {
    NIB_ASSIGN(const Value a, evaluate(node.children[0], scope));
    NIB_ASSIGN(const Value b, evaluate(node.children[1], scope));
    const std::string& sign = node.text;
    if (sign == "~" || (sign == "+" && a.is(ValueKind::string) && b.is(ValueKind::string))) {
      TemplateText text;
      text.add(a);
      text.add(b);
      NIB_TRY(at(node, work_.spend_text(text.cost())));
      return Value::of(std::move(text));
    }
    if (sign == "+" && a.is_list() && a.kind() == b.kind()) {
      NIB_TRY(at(node, work_.spend(a.items().size() + b.items().size())));
      std::vector<Value> items = a.items();
      items.insert(items.end(), b.items().begin(), b.items().end());
      return at(node, Value::list(std::move(items), a.is(ValueKind::tuple)));
    }
    if (sign == "*" && a.is(ValueKind::string) && b.is_integer()) return repeat(node, a, b.integer());
    if (sign == "*" && b.is(ValueKind::string) && a.is_integer()) return repeat(node, b, a.integer());
    for (const Value* value : {&a, &b})
      if (value->is(ValueKind::undefined)) return at(node, template_attribute(*value, ""));
    if (!a.is_number() || !b.is_number())
      return bad(node, concat(sign, " between values that are ", a.kind_name(), " and ", b.kind_name()));
    if (a.is_integer() && b.is_integer() && sign != "/")
      return at(node, template_whole(sign, a.integer(), b.integer()));
    const double x = a.number(), y = b.number();
    if (sign == "+") return Value::of(x + y);
    if (sign == "-") return Value::of(x - y);
    if (sign == "*") return Value::of(x * y);
    if (y == 0) return bad(node, "a division by zero");
    if (sign == "/") return Value::of(x / y);
    double rest = std::fmod(x, y);
    if (rest != 0 && (rest < 0) != (y < 0)) rest += y;
    return Value::of(sign == "%" ? rest : std::floor((x - rest) / y + 0.5));
  }

  Evaluated repeat(const Node& node, const Value& string, std::int64_t times) {
    TemplateText out;
    const TemplateText& text = string.marked();
    if (times <= 0 || text.bytes().empty()) return Value::of(std::move(out));
    const auto count = static_cast<std::size_t>(times);
    if (count > limits_.output / text.bytes().size())
      return bad(node, concat("a text of more than ", limits_.output, " bytes is made"));
    NIB_TRY(at(node, work_.spend(count * text.cost() / 16 + 1)));
    for (std::size_t i = 0; i < count; ++i) out.add(text);
    return Value::of(std::move(out));
  }

  Evaluated comparison(const Node& node, Scope& scope) {
    NIB_ASSIGN(Value left, evaluate(node.children[0], scope));
    for (std::size_t i = 0; i < node.names.size(); ++i) {
      NIB_ASSIGN(Value right, evaluate(node.children[i + 1], scope));
      NIB_ASSIGN(const bool holds, at(node, compare(left, node.names[i], right)));
      if (!holds) return Value::of(false);
      left = std::move(right);
    }
    return Value::of(true);
  }

  Result<bool> compare(const Value& a, const std::string& sign, const Value& b) {
    // Values may be large: equality and membership look at all of them.
    if (b.is_list()) NIB_TRY(work_.spend(b.items().size()));
    if (b.is_members()) NIB_TRY(work_.spend(b.members().size()));
    if (sign == "==") return a == b;
    if (sign == "!=") return !(a == b);
    if (sign == "in") return template_contains(b, a);
    if (sign == "not in") {
      NIB_ASSIGN(const bool contains, template_contains(b, a));
      return !contains;
    }
    NIB_ASSIGN(const int order, template_order(a, b, sign));
    if (sign == "<") return order < 0;
    if (sign == "<=") return order <= 0;
    return sign == ">" ? order > 0 : order >= 0;
  }

  // Calls
  // -------------------------------------------------------------------------------------------------------

  Status arguments(const Node& node, std::size_t first, Scope& scope, TemplateArguments& out) {
    for (std::size_t i = first; i < node.children.size(); ++i) {
      NIB_ASSIGN(out.plain.emplace_back(), evaluate(node.children[i], scope));
    }
    for (const auto& [name, child] : node.arguments) {
      NIB_ASSIGN(Value value, evaluate(child, scope));
      out.named.emplace_back(name, std::move(value));
    }
    return {};
  }

  // Method, filter or test.
  Evaluated named(const Node& node, Scope& scope) {
    NIB_ASSIGN(const Value of, evaluate(node.children[0], scope));
    TemplateArguments given;
    NIB_TRY(arguments(node, 1, scope, given));
    if (node.kind == Kind::method) return at(node, template_method(node.text, of, given, work_));
    if (node.kind == Kind::filter) return at(node, template_filter(node.text, of, given, work_));
    NIB_ASSIGN(const bool holds, at(node, template_test(node.text, of, given.plain)));
    return Value::of(holds);
  }

  Evaluated call(const Node& node, Scope& scope) {
    TemplateArguments given;
    NIB_TRY(arguments(node, 0, scope, given));
    if (const Node* macro = find_macro(node.text)) return call_macro(node, *macro, given);
    const std::string& name = node.text;
    if (name == "namespace" || name == "dict") return make_members(node, given);
    if (name == "range") return range(node, given);
    if (name == "raise_exception") {
      std::string message;
      if (!given.plain.empty()) given.plain[0].print(message);
      return Status(Code::argument, concat(program_.name, ": ", message));
    }
    if (name == "strftime_now" && date_) {
      if (given.plain.size() != 1 || !given.plain[0].is(ValueKind::string))
        return bad(node, "strftime_now wants one text");
      NIB_ASSIGN(std::string text, at(node, template_date(given.plain[0].text(), *date_)));
      return Value::own(text);
    }
    return bad(node, concat("'", name, "' is undefined"));
  }

  // The macro of that name that was met last, or null.
  const Node* find_macro(std::string_view name) const {
    for (auto macro = macros_.rbegin(); macro != macros_.rend(); ++macro)
      if (macro->first == name) return &program_.nodes[macro->second];
    return nullptr;
  }

  Evaluated call_macro(const Node& node, const Node& macro, const TemplateArguments& given) {
    Scope scope{.parent = &root_};
    const std::size_t count = macro.names.size(), required = count - (macro.children.size() - 1);
    if (given.plain.size() > count)
      return bad(node, concat(macro.text, " takes ", count, " arguments, not ", given.plain.size()));
    for (const auto& [name, value] : given.named) {
      const auto place = std::find(macro.names.begin(), macro.names.end(), name) - macro.names.begin();
      if (static_cast<std::size_t>(place) == count)
        return bad(node, concat(macro.text, " has no parameter ", name));
      if (static_cast<std::size_t>(place) < given.plain.size())
        return bad(node, concat(macro.text, " has its parameter ", name, " twice"));
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (const Value* argument = given.find(i, macro.names[i])) {
        scope.set(macro.names[i], *argument);
      } else if (i >= required) {
        NIB_ASSIGN(Value value, evaluate(macro.children[1 + i - required], scope));
        scope.set(macro.names[i], std::move(value));
      } else {
        scope.set(macro.names[i], Value::undefined(macro.names[i]));
      }
    }
    TemplateText text;
    NIB_ASSIGN(const Flow flow, execute(macro.children[0], scope, text));
    static_cast<void>(flow);
    return Value::of(std::move(text));
  }

  Evaluated make_members(const Node& node, TemplateArguments& given) {
    std::vector<Value::Member> members;
    for (const Value& from : given.plain) {
      if (!from.is(ValueKind::dict))
        return bad(node, concat(node.text, " wants names with values, or a dict"));
      members.insert(members.end(), from.members().begin(), from.members().end());
    }
    NIB_TRY(at(node, work_.spend(members.size())));
    for (auto& member : given.named) members.push_back(std::move(member));
    if (node.text == "dict") return at(node, Value::dict(std::move(members)));
    Value space = Value::name_space();
    for (auto& [key, value] : members) NIB_TRY(at(node, space.set_member(key, std::move(value))));
    return space;
  }

  Evaluated range(const Node& node, const TemplateArguments& given) {
    std::int64_t bounds[3] = {0, 0, 1};
    if (given.plain.empty() || given.plain.size() > 3) return bad(node, "range wants one to three numbers");
    for (std::size_t i = 0; i < given.plain.size(); ++i) {
      if (!given.plain[i].is_integer())
        return bad(node, concat("range of a value that is ", given.plain[i].kind_name()));
      bounds[given.plain.size() == 1 ? 1 : i] = given.plain[i].integer();
    }
    const auto [begin, end, stride] = bounds;
    if (stride == 0) return bad(node, "range has a step of 0");
    std::vector<Value> items;
    for (std::int64_t i = begin; stride > 0 ? i < end : i > end;) {
      NIB_TRY(at(node, work_.spend(1)));
      items.push_back(Value::of(i));
      if (__builtin_add_overflow(i, stride, &i)) break;
    }
    return at(node, Value::list(std::move(items)));
  }

  class Deeper {
   public:
    explicit Deeper(std::size_t& depth) : depth_(depth) { ++depth_; }
    ~Deeper() { --depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    std::size_t& depth_;
  };

  Status step(const Node& node) {
    if (depth_ > kDeepest) return bad(node, concat("runs deeper into itself than ", kDeepest, " constructs"));
    return at(node, work_.spend(1));
  }

  Status bad(const Node& node, std::string_view what) const {
    return {Code::format, concat(program_.name, ": line ", node.line, ": ", what)};
  }
  // The same in the name of a place.
  Status at(const Node& node, Status status) const {
    if (status.ok()) return status;
    return {status.code(), concat(program_.name, ": line ", node.line, ": ", status.message())};
  }
  template <class T>
  Result<T> at(const Node& node, Result<T> result) const {
    if (result.ok()) return result;
    return at(node, result.status());
  }

  static constexpr std::string_view kTooLarge = "a whole number is too large";

  const Template::Program& program_;
  const std::optional<TemplateDate>& date_;
  const TemplateLimits& limits_;
  TemplateWork work_;
  Scope root_;
  std::vector<std::pair<std::string_view, NodeId>> macros_;
  std::size_t depth_ = 0;
};

}  // namespace

Result<Template::Rendering> Template::render_marked(const Json& variables,
                                                    const std::optional<TemplateDate>& date,
                                                    const TemplateLimits& limits) const {
  return within_memory(program_->name, [&]() -> Result<Rendering> {
    if (!variables.is_object())
      return Status(Code::argument, concat(program_->name, ": the variables are no object"));
    NIB_ASSIGN(const TemplateValue values, template_variables(variables));
    NIB_ASSIGN(TemplateText text, Machine(*program_, date, limits).run(values));
    return Rendering{std::move(text).take_bytes(), std::move(text).take_own()};
  });
}

Result<std::string> Template::render(const Json& variables, const std::optional<TemplateDate>& date,
                                     const TemplateLimits& limits) const {
  NIB_ASSIGN(Rendering rendering, render_marked(variables, date, limits));
  return std::move(rendering.text);
}

}  // namespace nib::inline v0
