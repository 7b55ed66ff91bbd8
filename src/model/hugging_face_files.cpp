#include "hugging_face_files.hpp"

#include "config_writer.hpp"
#include "rope_divisors.hpp"
#include "weight_roles.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/model/architecture.hpp>
#include <nibble/model/gguf_vocabulary.hpp>
#include <nibble/text/tokenizer.hpp>
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

namespace nib::inline v0 {
namespace {

using Members = std::vector<Json::Member>;

Json text(std::string_view words) { return Json::of(std::string(words)); }
Json number(std::uint64_t value) { return Json::of(static_cast<std::int64_t>(value)); }

class FileWriter {
 public:
  FileWriter(const Checkpoint& checkpoint, const ModelConfig& config, Format plain,
             std::vector<std::string>& notes)
      : checkpoint_(checkpoint), keys_(*checkpoint.gguf), config_(config), plain_(plain), notes_(notes) {}

  Result<HuggingFaceFiles> write() {
    NIB_TRY(ask_tensors());
    NIB_TRY(find_ids());
    NIB_TRY(write_config());
    write_generation_config();
    NIB_TRY(write_tokenizer());
    return std::move(out_);
  }

 private:
  void add(const char* name, Members members) {
    out_.companions.push_back({name, write_json(Json::object(std::move(members)), true) + "\n"});
  }

  // --- the model

  // What no key says and the tensors show: biases, a head, Llama 3's scaling.
  Status ask_tensors() {
    const TensorNames& names = dialect_of(checkpoint_, *config_.architecture);
    const auto decide = [&](Presence& presence, std::string_view pattern) {
      if (presence != Presence::if_stored) return;
      const bool stored = !pattern.empty() && checkpoint_.find(tensor_name(pattern, 0));
      presence = stored ? Presence::yes : Presence::no;
    };
    decide(config_.qkv_bias, names.qkv_bias[0]);
    decide(config_.output_bias, names.output_bias);
    decide(config_.expert_bias, names.down_bias);
    config_.tied_embeddings = config_.tied_embeddings && !checkpoint_.find(names.head);
    const CheckpointTensor* tensor = checkpoint_.find(names.rope_divisors);
    if (!tensor) return {};
    std::vector<float> divisors(config_.rotary_dim / 2);
    const std::vector<std::uint64_t> expected = {divisors.size()};
    if (tensor->shape != expected)
      return {Code::format, concat(checkpoint_.path, ": tensor ", tensor->name, " has shape ",
                                   shape_text(tensor->shape), ", expected ", shape_text(expected))};
    NIB_TRY(read_values(checkpoint_, *tensor, 0, std::span(divisors)));
    const auto scaling = config_.rope.kind == RopeKind::plain ? llama3_scaling(config_, divisors)
                                                              : std::optional<RopeScaling>();
    if (!scaling)
      return refuse(concat("tensor ", tensor->name,
                           " divides frequencies otherwise than any rope_scaling of type llama3"));
    config_.rope = *scaling;
    return {};
  }

  Status write_config() {
    Members members = config_members(config_);
    const std::string_view width_key = config_.architecture->width_key;
    if (width_key != "intermediate_size")  // of dense layers, of which the model has none
      if (const auto width = of_architecture("feed_forward_length"))
        members.emplace_back("intermediate_size", number(*width));
    members.insert(members.end(), ids_.begin(), ids_.end());
    members.emplace_back("torch_dtype", dtype_json(plain_));
    members.emplace_back("use_cache", Json::of(true));
    std::sort(members.begin(), members.end(),
              [](const Json::Member& a, const Json::Member& b) { return a.first < b.first; });
    out_.config = Json::object(std::move(members));
    const std::string name = join_path(checkpoint_.path, "config.json");
    NIB_ASSIGN(const ModelConfig again, parse_config(out_.config, name));
    std::string_view difference = first_difference(config_, again);
    if (again.qkv_bias != config_.qkv_bias || again.output_bias != config_.output_bias ||
        again.expert_bias != config_.expert_bias)
      difference = "biases";
    if (again.tied_embeddings != config_.tied_embeddings) difference = "tie_word_embeddings";
    if (difference.empty()) return {};
    return refuse(concat("no key of config.json says what this model has as ", difference));
  }

  std::optional<std::uint64_t> of_architecture(std::string_view key) const {
    const auto name = keys_.find("general.architecture");
    const auto value = keys_.find(concat(name ? name->as_string().value_or("") : "", ".", key));
    const auto whole = value ? value->as_unsigned() : std::nullopt;
    return whole && *whole > 0 && *whole <= UINT32_MAX ? whole : std::nullopt;
  }

  // --- the tokenizer

  // The ids that begin and end a text, and what fills one up.
  Status find_ids() {
    NIB_ASSIGN(const std::vector<std::uint32_t> stops, read_stop_ids(checkpoint_));
    for (const NamedToken& token : gguf_named_tokens(keys_))
      if (token.id < config_.vocabulary)
        named_.push_back(token);
      else
        notes_.push_back(concat("the id of the token called ", token.name, " is ", token.id,
                                ", which is none of ", config_.vocabulary, ", and is left out"));
    const auto id_of = [&](std::string_view name) {
      for (const NamedToken& token : named_)
        if (token.name == name) ids_.emplace_back(concat(name, "_token_id"), number(token.id));
    };
    id_of("bos");
    for (const std::uint32_t stop : stops)
      if (stop < config_.vocabulary) stops_.push_back(number(stop));
    if (!stops_.empty()) ids_.emplace_back("eos_token_id", stops_.front());
    id_of("pad");
    return {};
  }

  // All ids that end a text, of which config.json has the first.
  void write_generation_config() {
    Members members = ids_;
    for (auto& [name, id] : members)
      if (name == "eos_token_id" && stops_.size() > 1) id = Json::array(stops_);
    if (!members.empty()) add("generation_config.json", std::move(members));
  }

  Status write_tokenizer() {
    if (!has_vocabulary(keys_)) {
      notes_.push_back("the file has no tokenizer, so the directory has no tokenizer.json either");
      return {};
    }
    const auto data = tokenizer_data_from_gguf(gguf_vocabulary(keys_), checkpoint_.path);
    if (!data.ok()) return advise(data.status());
    auto json = tokenizer_json_of(*data, checkpoint_.path);
    if (!json.ok()) return advise(json.status());
    out_.companions.push_back({"tokenizer.json", json.take()});
    NIB_ASSIGN(const Tokenizer tokenizer, Tokenizer::from(*data, checkpoint_.path));
    Members members;
    for (const auto& [name, id] : named_)
      if (const std::string_view spelling = tokenizer.bytes(id); !spelling.empty())
        members.emplace_back(concat(name, "_token"), text(spelling));
    if (checkpoint_.chat_template) {
      if (!is_utf8(*checkpoint_.chat_template))
        return {Code::format, concat(checkpoint_.path, ": key tokenizer.chat_template is no UTF-8")};
      members.emplace_back("chat_template", text(*checkpoint_.chat_template));
    }
    members.emplace_back("clean_up_tokenization_spaces", Json::of(false));
    members.emplace_back("model_max_length", number(config_.max_context));
    members.emplace_back("tokenizer_class", text("PreTrainedTokenizerFast"));
    add("tokenizer_config.json", std::move(members));
    return {};
  }

  Status refuse(std::string_view what) const {
    return advise({Code::unsupported, concat(checkpoint_.path, ": ", what)});
  }
  static Status advise(const Status& status) {
    if (status.code() != Code::unsupported) return status;
    return {status.code(), concat(status.message(), "; a name that ends in .gguf keeps it as it is")};
  }

  const Checkpoint& checkpoint_;
  const GgufMetadata& keys_;
  ModelConfig config_;  // with what the tensors show
  const Format plain_;
  std::vector<std::string>& notes_;
  std::vector<NamedToken> named_;
  Members ids_;              // of those
  std::vector<Json> stops_;  // ids that end a text
  HuggingFaceFiles out_;
};

}  // namespace

Result<HuggingFaceFiles> hugging_face_files(const Checkpoint& checkpoint, const ModelConfig& config,
                                            Format plain, std::vector<std::string>& notes) {
  return FileWriter(checkpoint, config, plain, notes).write();
}

}  // namespace nib::inline v0
