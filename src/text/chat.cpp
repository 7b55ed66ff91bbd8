#include "answer_parsers.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/text/chat.hpp>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace nib::inline v0 {
namespace {

Json text_json(std::string_view text) { return Json::of(std::string(text)); }

class HarmonyChat final : public ChatFormat {
 public:
  HarmonyChat(Harmony harmony, std::optional<Message> system)
      : harmony_(std::move(harmony)), system_(std::move(system)) {
    stop_ids_ = harmony_.stop_ids();
  }

  Result<std::vector<Token>> render(std::span<const Message> messages) const override {
    std::vector<Message> all;
    if (system_) all.push_back(*system_);
    all.insert(all.end(), messages.begin(), messages.end());
    return harmony_.render(all, {.drop_analysis = false});
  }
  Result<Message> instructions(std::string text) const override {
    return developer_message({.instructions = std::move(text)});
  }
  std::unique_ptr<AnswerParser> parser() const override { return harmony_answer(harmony_); }

 private:
  Harmony harmony_;
  std::optional<Message> system_;  // that the model's template begins with
};

class TemplateChat final : public ChatFormat {
 public:
  TemplateChat(const Tokenizer& tokenizer, Template program, const ChatOptions& options)
      : tokenizer_(tokenizer), program_(std::move(program)), date_(options.date) {
    for (const auto& [name, spelling] : options.special_tokens)
      variables_.emplace_back(name, text_json(spelling));
    // What transformers gives to every template, and the name that several have for this wish.
    variables_.emplace_back("tools", Json());
    variables_.emplace_back("documents", Json());
    variables_.emplace_back("reasoning_effort", text_json(options.reasoning));
    thinking_.known = options.chat_template.find(ThinkingMarks::kEnd) != std::string_view::npos ||
                      knows_spelling(ThinkingMarks::kEnd);
    learn_habits();
  }

  Result<std::vector<Token>> render(std::span<const Message> messages) const override {
    NIB_ASSIGN(const Template::Rendering rendering, rendered(messages, true));
    std::vector<Token> ids;
    NIB_TRY(tokenizer_.encode(rendering.text, rendering.own, ids));
    return ids;
  }
  Result<Message> instructions(std::string text) const override {
    return Message{.role = Role::system, .content = std::move(text)};
  }
  std::unique_ptr<AnswerParser> parser() const override { return template_answer(tokenizer_, thinking_); }

 private:
  // A token of its own, special or not.
  bool knows_spelling(std::string_view spelling) const {
    std::vector<Token> ids;
    return tokenizer_.encode(spelling, Specials::recognised, ids).ok() && ids.size() == 1;
  }

  Result<Template::Rendering> rendered(std::span<const Message> messages, bool answer_follows) const {
    std::vector<Json> all;
    for (std::size_t i = 0; i < messages.size();) {
      std::vector<Json::Member> members = {{"role", text_json(role_name(messages[i].role))}};
      if (messages[i].role == Role::assistant) {
        // What harmony has as several messages is one with its reasoning set apart.
        std::string content, reasoning;
        for (; i < messages.size() && messages[i].role == Role::assistant; ++i)
          (messages[i].channel == "analysis" ? reasoning : content) += messages[i].content;
        members.emplace_back("content", Json::of(std::move(content)));
        if (!reasoning.empty()) members.emplace_back("reasoning_content", Json::of(std::move(reasoning)));
      } else {
        members.emplace_back("content", Json::of(messages[i++].content));
      }
      all.push_back(Json::object(std::move(members)));
    }
    std::vector<Json::Member> variables = variables_;
    variables.emplace_back("messages", Json::array(std::move(all)));
    variables.emplace_back("add_generation_prompt", Json::of(answer_follows));
    return program_.render_marked(Json::object(std::move(variables)), date_);
  }

  // How the template begins an answer and ends one, seen from a small conversation. Some refuse it: they have
  // no such habits.
  void learn_habits() {
    const Message talk[] = {{.role = Role::user, .content = "1"}, {.role = Role::assistant, .content = "2"}};
    if (const auto asked = rendered(std::span(talk, 1), true); asked.ok()) {
      std::string_view text = asked->text;
      text = text.substr(0, text.find_last_not_of(" \n") + 1);
      thinking_.begun = text.ends_with(ThinkingMarks::kBegin);
    }
    const auto answered = rendered(talk, false);
    if (!answered.ok() || answered->own.empty() || answered->own.back().end != answered->text.size()) return;
    // Behind the last word that was given.
    const std::string_view end = std::string_view(answered->text).substr(answered->own.back().begin);
    std::vector<Token> ids;
    if (!tokenizer_.encode(end, Specials::recognised, ids).ok()) return;
    const auto special =
        std::find_if(ids.begin(), ids.end(), [&](Token id) { return tokenizer_.is_special(id); });
    if (special != ids.end()) stop_ids_ = {*special};
  }

  const Tokenizer& tokenizer_;
  Template program_;
  std::optional<TemplateDate> date_;
  std::vector<Json::Member> variables_;
  ThinkingMarks thinking_;
};

Result<std::unique_ptr<ChatFormat>> harmony_chat(Harmony harmony, const ChatOptions& options) {
  std::optional<Message> system;
  if (options.chat_template.find("<|start|>system") != std::string_view::npos) {
    SystemContent content{.reasoning = std::string(options.reasoning)};
    if (options.date) {
      char date[48];
      std::snprintf(date, sizeof date, "%04d-%02d-%02d", options.date->year, options.date->month,
                    options.date->day);
      content.current_date = date;
    }
    NIB_ASSIGN(system, system_message(content));
  }
  return std::unique_ptr<ChatFormat>(std::make_unique<HarmonyChat>(std::move(harmony), std::move(system)));
}

}  // namespace

Result<std::unique_ptr<ChatFormat>> make_chat_format(const Tokenizer& tokenizer, const ChatOptions& options) {
  const std::string_view source = options.chat_template;
  const bool writes_harmony = source.empty() || source.find("<|start|>") != source.npos;
  if (auto harmony = Harmony::make(tokenizer); harmony.ok() && writes_harmony && !options.only_template)
    return harmony_chat(harmony.take(), options);
  if (source.empty())
    return Status(Code::unsupported, concat(options.template_name,
                                            ": there is none, and the vocabulary is not that of harmony"));
  NIB_ASSIGN(Template program, Template::parse(source, options.template_name));
  return std::unique_ptr<ChatFormat>(std::make_unique<TemplateChat>(tokenizer, std::move(program), options));
}

}  // namespace nib::inline v0
