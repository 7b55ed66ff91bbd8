#include <nibble/base/bits.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/formats/storage.hpp>
#include <nibble/model/architecture.hpp>
#include <nibble/model/config.hpp>
#include <nibble/model/outline.hpp>

#include <algorithm>
#include <vector>

namespace nib::inline v0 {
namespace {

constexpr std::uint64_t kMostTensors = std::uint64_t{1} << 20;

// What the matrices of a model are stored as.
struct Rules {
  Format plain = Format::bf16;      // of all that is not quantized
  Format quantized = Format::none;  // none: nothing is
  bool only_experts = false;
  ScaleSharing sharing;           // of formats with shared scales
  std::uint64_t nested = 0;       // as in Storage
  std::vector<std::string> kept;  // parts of names of matrices that stay plain
};

std::string_view text_at(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value && value->is_string() ? std::string_view(value->as_string()) : std::string_view();
}
bool flag_at(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value && value->is_bool() && value->as_bool();
}

Result<Format> plain_format(const Json& config, const std::string& name) {
  std::string_view dtype = text_at(config, "dtype");
  if (dtype.empty()) dtype = text_at(config, "torch_dtype");
  if (dtype.empty() || dtype == "bfloat16") return Format::bf16;
  if (dtype == "float16") return Format::f16;
  if (dtype == "float32") return Format::f32;
  return Status(Code::unsupported,
                concat(name, ": dtype is \"", dtype, "\", expected bfloat16, float16 or float32"));
}

Status read_bitsandbytes(const Json& quantization, const std::string& name, Rules& rules) {
  if (flag_at(quantization, "load_in_8bit")) {
    rules.quantized = Format::llm_int8;
    rules.sharing = ScaleSharing::per_row();
    return {};
  }
  const std::string_view type = text_at(quantization, "bnb_4bit_quant_type");
  if (!flag_at(quantization, "load_in_4bit") || (type != "nf4" && type != "fp4"))
    return {Code::unsupported, concat(name,
                                      ": quantization_config is of bitsandbytes, but says neither "
                                      "load_in_8bit nor load_in_4bit with nf4 or fp4")};
  const bool nested = flag_at(quantization, "bnb_4bit_use_double_quant");
  const Storage storage =
      find_storage(type == "nf4" ? (nested ? "nf4-double" : "nf4") : (nested ? "bnb_fp4-double" : "bnb_fp4"));
  rules.quantized = storage.format;
  rules.sharing = ScaleSharing::per_run(static_cast<std::int64_t>(storage.run));
  rules.nested = storage.nested;
  return {};
}

Status read_fp8(const Json& quantization, const std::string& name, Rules& rules) {
  rules.quantized = Format::fp8_e4m3;
  const Json* block = quantization.find("weight_block_size");
  if (!block || block->is_null()) return {};  // a scale for each tensor
  const auto side = [&](std::size_t i) {
    const bool good = block->is_array() && block->items().size() == 2 && block->items()[i].is_integer();
    return good ? block->items()[i].as_integer() : 0;
  };
  if (side(0) < 1 || side(1) < 1 || side(0) > INT32_MAX || side(1) > INT32_MAX)
    return {Code::format,
            concat(name, ": quantization_config.weight_block_size must be two positive numbers")};
  rules.sharing = ScaleSharing::per_tile(side(0), side(1));
  return {};
}

Result<Rules> read_rules(const Json& config, const std::string& name) {
  Rules rules;
  NIB_ASSIGN(rules.plain, plain_format(config, name));
  const Json* quantization = config.find("quantization_config");
  const bool original = !config.find("model_type");
  if (!original && (!quantization || quantization->is_null())) return rules;
  const std::string_view method = original ? "mxfp4" : text_at(*quantization, "quant_method");
  if (method == "mxfp4") {
    rules.quantized = Format::mxfp4;
    rules.only_experts = true;
  } else if (method == "bitsandbytes") {
    NIB_TRY(read_bitsandbytes(*quantization, name, rules));
  } else if (method == "fp8") {
    NIB_TRY(read_fp8(*quantization, name, rules));
  } else {
    return Status(Code::unsupported, concat(name, ": quant_method is \"", method,
                                            "\", of these the tensors are known from the config alone: "
                                            "mxfp4, bitsandbytes, fp8"));
  }
  for (const std::string_view key : {"modules_to_not_convert", "llm_int8_skip_modules"})
    if (const Json* list = original ? nullptr : quantization->find(key); list && list->is_array())
      for (const Json& item : list->items())
        if (item.is_string()) rules.kept.push_back(item.as_string());
  return rules;
}

// Whether `pattern`, in which "*" is any text, is somewhere in the name.
bool is_in(std::string_view pattern, std::string_view name) {
  for (;;) {
    const std::string_view piece = pattern.substr(0, pattern.find('*'));
    const std::size_t at = name.find(piece);
    if (at == name.npos) return false;
    if (piece.size() == pattern.size()) return true;
    name.remove_prefix(at + piece.size());
    pattern.remove_prefix(piece.size() + 1);
  }
}

class Outliner {
 public:
  Outliner(const ModelConfig& config, const TensorNames& names, Rules rules,
           std::vector<CheckpointTensor>& out)
      : config_(config), names_(names), rules_(std::move(rules)), out_(out) {}

  void all() {
    const std::uint64_t hidden = config_.hidden, vocabulary = config_.vocabulary;
    add(names_.embedding, 0, {vocabulary, hidden});
    if (!config_.tied_embeddings) add(names_.head, 0, {vocabulary, hidden});
    add(names_.final_norm, 0, {hidden});
    add(names_.final_norm_bias, 0, {hidden});
    for (unsigned l = 0; l < config_.layers; ++l) {
      attention(l);
      feed_forward(l);
    }
  }

 private:
  using Shape = std::vector<std::uint64_t>;
  enum class Kind : std::uint8_t { plain, linear, expert };

  void attention(unsigned l) {
    const std::uint64_t hidden = config_.hidden, dim = config_.head_dim, heads = config_.heads,
                        kv = config_.kv_heads;
    add(names_.attention_norm, l, {hidden});
    add(names_.attention_norm_bias, l, {hidden});
    const std::uint64_t rows[3] = {names_.fused_qkv() ? (heads + 2 * kv) * dim : heads * dim, kv * dim,
                                   kv * dim};
    for (int part = 0; part < (names_.fused_qkv() ? 1 : 3); ++part) {
      add(names_.qkv[part], l, {rows[part], hidden}, Kind::linear);
      if (config_.qkv_bias == Presence::yes) add(names_.qkv_bias[part], l, {rows[part]});
    }
    add(names_.q_norm, l, {dim});
    add(names_.k_norm, l, {dim});
    add(names_.sinks, l, {heads});
    add(names_.output, l, {hidden, heads * dim}, Kind::linear);
    if (config_.output_bias == Presence::yes) add(names_.output_bias, l, {hidden});
  }

  void feed_forward(unsigned l) {
    const std::uint64_t hidden = config_.hidden, width = config_.expert_width;
    const bool bias = config_.expert_bias == Presence::yes;
    add(names_.mlp_norm, l, {hidden});
    add(names_.mlp_norm_bias, l, {hidden});
    if (config_.routed) {
      add(names_.router, l, {config_.experts, hidden}, Kind::linear);
      add(names_.router_bias, l, {config_.experts});
    }
    // Alternating rows that stay plain are in x out, and so is what is below them.
    const bool turned = names_.alternating() && rules_.quantized == Format::none;
    const auto matrix = [&](std::string_view name, std::uint64_t rows, std::uint64_t k) {
      expert(name, l, turned ? Shape{k, rows} : Shape{rows, k}, Kind::expert);
    };
    if (names_.alternating()) {
      matrix(names_.gate, 2 * width, hidden);
      if (bias) expert(names_.gate_bias, l, {2 * width});
    } else {
      if (is_gated(config_.activation)) matrix(names_.gate, width, hidden);
      matrix(names_.up, width, hidden);
      if (bias && is_gated(config_.activation)) expert(names_.gate_bias, l, {width});
      if (bias) expert(names_.up_bias, l, {width});
    }
    matrix(names_.down, hidden, width);
    if (bias) expert(names_.down_bias, l, {hidden});
  }

  // One tensor of all experts, one of each, or one of a dense layer: as the name says.
  void expert(std::string_view pattern, unsigned l, Shape shape, Kind kind = Kind::plain) {
    if (pattern.find("<>") != pattern.npos) {
      for (unsigned e = 0; e < config_.experts; ++e) add(pattern, l, shape, kind, e);
      return;
    }
    if (config_.routed) shape.insert(shape.begin(), config_.experts);
    add(pattern, l, std::move(shape), kind);
  }

  void add(std::string_view pattern, unsigned l, Shape shape, Kind kind = Kind::plain, unsigned e = 0) {
    if (pattern.empty()) return;
    CheckpointTensor tensor;
    tensor.name = tensor_name(pattern, l, e);
    tensor.shape = std::move(shape);
    const bool quantized = rules_.quantized != Format::none &&
                           (kind == Kind::expert || (kind == Kind::linear && !rules_.only_experts)) &&
                           std::none_of(rules_.kept.begin(), rules_.kept.end(),
                                        [&](const std::string& part) { return is_in(part, tensor.name); });
    tensor.format = quantized ? rules_.quantized : rules_.plain;
    const FormatInfo& info = format_info(tensor.format);
    const std::size_t rank = tensor.shape.size();
    const std::uint64_t k = tensor.shape.back(), rows = rank > 1 ? tensor.shape[rank - 2] : 1,
                        stack = rank > 2 ? tensor.shape.front() : 1,
                        groups = stack * rows * ceil_div(k, std::uint64_t{info.group});
    tensor.codes.bytes = groups * info.code_bytes;
    if (info.scales == Scales::plane) tensor.scales.bytes = groups * info.scale_bytes;
    if (info.scales == Scales::shared) {
      tensor.scaling.sharing = rules_.sharing;
      const auto scales = stack * static_cast<std::uint64_t>(rules_.sharing.count(
                                      static_cast<std::int64_t>(rows), static_cast<std::int64_t>(k)));
      tensor.scales.bytes = rules_.nested ? scales : scales * sizeof(float);
      if (rules_.nested) tensor.scaling.nested_scales.bytes = ceil_div(scales, rules_.nested) * sizeof(float);
    }
    out_.push_back(std::move(tensor));
  }

  const ModelConfig& config_;
  const TensorNames& names_;
  Rules rules_;
  std::vector<CheckpointTensor>& out_;
};

}  // namespace

Result<Checkpoint> outline_checkpoint(Json config, const std::string& name) {
  NIB_ASSIGN(const ModelConfig parsed, parse_config(config, name));
  NIB_ASSIGN(Rules rules, read_rules(config, name));
  constexpr std::uint64_t kMostOfLayer = 24;  // and those of each expert
  if (std::uint64_t{parsed.layers} * (kMostOfLayer + 3 * std::uint64_t{parsed.experts}) > kMostTensors)
    return Status(Code::unsupported, concat(name, ": ", parsed.layers, " layers of ", parsed.experts,
                                            " experts may have more than ", kMostTensors, " tensors"));
  Checkpoint checkpoint;
  checkpoint.path = checkpoint.directory = name;
  Outliner(parsed, parsed.architecture->dialects.front(), std::move(rules), checkpoint.tensors).all();
  std::sort(checkpoint.tensors.begin(), checkpoint.tensors.end(),
            [](const CheckpointTensor& a, const CheckpointTensor& b) { return a.name < b.name; });
  checkpoint.config = std::move(config);
  return checkpoint;
}

}  // namespace nib::inline v0
