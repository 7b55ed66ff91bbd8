// A chat template taken apart. Private to the room.
#pragma once

#include "template_value.hpp"
#include <nibble/text/template.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nib::inline v0 {

// Nodes lie in one list and name each other by their places in it.
using NodeId = std::uint32_t;
inline constexpr NodeId kNoNode = ~NodeId{0};

struct TemplateNode {
  enum class Kind : std::uint8_t {
    // Expressions.
    literal,      // value
    name,         // text
    list,         // children
    tuple,        // children
    dict,         // children: key, value, key, value
    attribute,    // children[0].text
    item,         // children[0][children[1]]
    slice,        // children: of, start, stop, step; kNoNode where left out
    call,         // text(children, arguments)
    method,       // children[0].text(children[1...], arguments)
    filter,       // children[0] | text(children[1...], arguments)
    test,         // children[0] is text(children[1...])
    negation,     // not children[0]
    minus,        // - children[0]
    plus,         // + children[0]
    arithmetic,   // children[0] text children[1]: + - * / // % ~
    comparison,   // children[0] names[0] children[1] names[1] ...
    conjunction,  // children[0] and children[1]
    disjunction,  // children[0] or children[1]
    choice,       // children[0] if children[1] else children[2], which may be kNoNode
    // Statements.
    text,        // value, as it stands
    output,      // children[0]
    block,       // children
    condition,   // children: test, block, test, block, ..., and a last block for else
    loop,        // for names in children[0] if children[1]: children[2], else children[3]; kNoNode: none
    assignment,  // names = children[0]
    member_assignment,  // names[0].names[1] = children[0]
    block_assignment,   // names[0] = what children[0] prints
    macro,              // text(names), body children[0], defaults of the last parameters behind it
    stop,               // break
    next,               // continue
  };

  Kind kind;
  std::uint32_t line = 0;
  std::uint32_t depth = 0;  // of the nodes below
  std::string text{};
  TemplateValue value{};
  std::vector<NodeId> children{};
  std::vector<std::string> names{};
  std::vector<std::pair<std::string, NodeId>> arguments{};  // by name
};

struct Template::Program {
  std::string name;
  std::vector<TemplateNode> nodes;
  NodeId root = kNoNode;
  std::unordered_map<std::string, bool> macros;  // names that a call may have
};

// Words of the language and texts between them.
struct TemplateWord {
  enum class Kind : std::uint8_t {
    text,
    block_begin,
    block_end,
    output_begin,
    output_end,
    name,
    string,
    integer,
    number,
    sign,
    end
  };
  Kind kind;
  std::uint32_t line;
  std::string text;  // of a string what it says
};

// Errors: format, by name and line.
Result<std::vector<TemplateWord>> read_template_words(std::string_view source, std::string_view name);

// What is known by name: functions, filters, tests, methods.
bool is_template_function(std::string_view name);
bool is_template_filter(std::string_view name);
bool is_template_test(std::string_view name);
bool is_template_method(std::string_view name);

}  // namespace nib::inline v0
