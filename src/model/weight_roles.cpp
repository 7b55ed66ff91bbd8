#include "weight_roles.hpp"

#include <nibble/base/concat.hpp>

#include <algorithm>
#include <set>

namespace nib::inline v0 {
namespace {

constexpr std::string_view kGgufEmbedding = "token_embd.weight";

// One kind of tensor in the two dialects, and what it is.
struct Pair {
  std::string_view from, to;
  Role role = Role::other;
  RowOrder order = {};
};

class Translator {
 public:
  Translator(const Checkpoint& checkpoint, const ModelConfig& config, const TensorNames& from,
             const TensorNames& to)
      : checkpoint_(checkpoint), config_(config), from_(from), to_(to) {}

  Result<std::vector<GgufWeight>> translate(std::vector<std::string>& unused) {
    NIB_TRY(add({from_.embedding, to_.embedding, Role::embedding}, 0));
    NIB_TRY(add({from_.final_norm, to_.final_norm}, 0));
    NIB_TRY(add({from_.final_norm_bias, to_.final_norm_bias}, 0));
    if (!config_.tied_embeddings || checkpoint_.find(from_.head))
      NIB_TRY(add({from_.head, to_.head, Role::head}, 0));
    for (unsigned layer = 0; layer < config_.layers; ++layer) {
      NIB_TRY(add_attention(layer));
      NIB_TRY(add_feed_forward(layer));
    }
    for (const CheckpointTensor& tensor : checkpoint_.tensors)
      if (!used_.contains(&tensor)) unused.push_back(tensor.name);
    return std::move(out_);
  }

 private:
  Status add_attention(unsigned layer) {
    NIB_TRY(add({from_.attention_norm, to_.attention_norm}, layer));
    NIB_TRY(add({from_.attention_norm_bias, to_.attention_norm_bias}, layer));
    if (from_.fused_qkv() != to_.fused_qkv())
      return {Code::unsupported, concat(checkpoint_.path, ": has q, k and v in one matrix, and GGUF three")};
    for (int i = 0; i < 3; ++i) {
      RowOrder order;
      order.head_dim = config_.head_dim;
      order.heads = config_.heads;
      if (to_.qkv_order == QkvOrder::pairs && i < 2) order.kind = RowOrder::pairs;
      if (from_.qkv_order == QkvOrder::per_head && to_.qkv_order == QkvOrder::heads)
        order.kind = RowOrder::by_parts;
      NIB_TRY(add({from_.qkv[i], to_.qkv[i], Role::matrix, order}, layer));
      NIB_TRY(add({from_.qkv_bias[i], to_.qkv_bias[i], Role::other, order}, layer, config_.qkv_bias));
    }
    NIB_TRY(add({from_.q_norm, to_.q_norm}, layer));
    NIB_TRY(add({from_.k_norm, to_.k_norm}, layer));
    NIB_TRY(add({from_.sinks, to_.sinks}, layer));
    NIB_TRY(add({from_.output, to_.output, Role::matrix}, layer));
    return add({from_.output_bias, to_.output_bias}, layer, config_.output_bias);
  }

  Status add_feed_forward(unsigned layer) {
    const Role role = config_.routed ? Role::experts : Role::matrix;
    NIB_TRY(add({from_.mlp_norm, to_.mlp_norm}, layer));
    NIB_TRY(add({from_.mlp_norm_bias, to_.mlp_norm_bias}, layer));
    if (config_.routed) {
      NIB_TRY(add({from_.router, to_.router, Role::router}, layer));
      NIB_TRY(add({from_.router_bias, to_.router_bias}, layer));
    }
    const bool gated = is_gated(config_.activation);
    if (gated && from_.alternating()) {
      for (const bool up : {false, true}) {
        const RowOrder order{up ? RowOrder::odd : RowOrder::even};
        NIB_TRY(add({from_.gate, up ? to_.up : to_.gate, role, order}, layer));
        NIB_TRY(add({from_.gate_bias, up ? to_.up_bias : to_.gate_bias, Role::other, order}, layer,
                    config_.expert_bias));
      }
    } else {
      NIB_TRY(add({from_.gate, to_.gate, role}, layer));
      NIB_TRY(add({from_.gate_bias, to_.gate_bias}, layer, config_.expert_bias));
      NIB_TRY(add({from_.up, to_.up, role}, layer));
      NIB_TRY(add({from_.up_bias, to_.up_bias}, layer, config_.expert_bias));
    }
    NIB_TRY(add({from_.down, to_.down, role}, layer));
    return add({from_.down_bias, to_.down_bias}, layer, config_.expert_bias);
  }

  Status add(const Pair& pair, unsigned layer, Presence presence = Presence::yes) {
    if (pair.from.empty() || presence == Presence::no) return {};
    const std::string first = tensor_name(pair.from, layer);
    if (presence == Presence::if_stored && !checkpoint_.find(first)) return {};
    GgufWeight weight{{}, pair.role};
    WeightPlan& plan = weight.plan;
    plan.name = tensor_name(pair.to, layer);
    if (pair.to.empty())
      return {Code::unsupported, concat(checkpoint_.path, ": GGUF has no name for tensor ", first)};
    plan.order = pair.order;
    const bool separate = pair.from.find("<>") != pair.from.npos;
    for (unsigned expert = 0; expert < (separate ? config_.experts : 1); ++expert) {
      const std::string name = tensor_name(pair.from, layer, expert);
      const CheckpointTensor* tensor = checkpoint_.find(name);
      if (!tensor) return {Code::not_found, concat(checkpoint_.path, ": tensor ", name, " is missing")};
      if (tensor->format == Format::none)
        return {Code::unsupported, concat(checkpoint_.path, ": tensor ", name, " is stored as ",
                                          tensor->type_name, ", which is no weight format")};
      if (!plan.parts.empty() && plan.parts[0]->shape != tensor->shape)
        return {Code::format,
                concat(checkpoint_.path, ": tensor ", name, " has shape ", shape_text(tensor->shape),
                       ", that of expert 0 ", shape_text(plan.parts[0]->shape))};
      plan.parts.push_back(tensor);
      used_.insert(tensor);
    }
    NIB_TRY(shape(plan, pair, separate));
    // A bias is a column to whoever orders rows, and a row to whoever stores it.
    out_.push_back(std::move(weight));
    return {};
  }

  // What the written tensor's shape is, and whether that fits the order of its rows.
  Status shape(WeightPlan& plan, const Pair& pair, bool separate) {
    const CheckpointTensor& stored = *plan.parts[0];
    plan.shape = stored.shape;
    const auto wrong = [&] {
      return Status(Code::format, concat(checkpoint_.path, ": tensor ", stored.name, " has shape ",
                                         shape_text(stored.shape), ", which its model does not have"));
    };
    if (pair.role == Role::other) return order_vector(plan, wrong);
    if (plan.shape.size() != (config_.routed && pair.role == Role::experts && !separate ? 3u : 2u))
      return wrong();
    const bool plain =
        stored.format == Format::f32 || stored.format == Format::f16 || stored.format == Format::bf16;
    if (pair.role == Role::experts && from_.alternating() && plain) {
      plan.turned = true;
      std::swap(plan.shape[1], plan.shape[2]);
    }
    std::uint64_t& rows = plan.shape[plan.shape.size() - 2];
    const std::uint64_t heads = plan.order.kind == RowOrder::by_parts ? 3 * config_.heads : 1;
    const std::uint64_t unit =
        static_cast<std::uint64_t>(std::max<std::int64_t>(1, plan.order.head_dim)) * heads;
    if (plan.order.kind == RowOrder::by_parts ? rows != unit : rows % unit != 0) return wrong();
    if (plan.order.kind == RowOrder::even || plan.order.kind == RowOrder::odd) {
      if (rows % 2 != 0) return wrong();
      rows /= 2;
    }
    if (separate) plan.shape.insert(plan.shape.begin(), config_.experts);
    return {};
  }

  // The values of a vector move as the rows of its matrix do: as rows of one value.
  template <class Wrong>
  Status order_vector(WeightPlan& plan, const Wrong& wrong) {
    plan.values_as_rows = plan.order.kind != RowOrder::same;
    if (!plan.values_as_rows) return {};
    if (plan.shape.empty()) return wrong();
    std::uint64_t& size = plan.shape.back();
    if (plan.order.kind == RowOrder::even || plan.order.kind == RowOrder::odd) {
      if (size % 2 != 0) return wrong();
      size /= 2;
    } else if (size % static_cast<std::uint64_t>(plan.order.head_dim) != 0 ||
               (plan.order.kind == RowOrder::by_parts && size != 3ull * config_.heads * config_.head_dim)) {
      return wrong();
    }
    return {};
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const TensorNames &from_, &to_;
  std::vector<GgufWeight> out_;
  std::set<const CheckpointTensor*> used_;
};

}  // namespace

const TensorNames& dialect_of(const Checkpoint& checkpoint, const Architecture& architecture) {
  const TensorNames* known = nullptr;
  for (const TensorNames& names : architecture.dialects) {
    if (!checkpoint.find(names.embedding)) continue;
    if (checkpoint.find(tensor_name(names.down, 0, 0))) return names;
    if (!known) known = &names;
  }
  return known ? *known : architecture.dialects.front();
}

std::map<std::string, Role, std::less<>> roles_of(const TensorNames& names, const ModelConfig& config) {
  std::map<std::string, Role, std::less<>> roles;
  const auto add = [&](std::string_view pattern, Role role, unsigned layer) {
    if (pattern.empty()) return;
    const bool separate = pattern.find("<>") != pattern.npos;
    for (unsigned expert = 0; expert < (separate ? config.experts : 1); ++expert)
      roles[tensor_name(pattern, layer, expert)] = role;
  };
  add(names.embedding, Role::embedding, 0);
  add(names.head, Role::head, 0);
  const Role feed_forward = config.routed ? Role::experts : Role::matrix;
  for (unsigned layer = 0; layer < config.layers; ++layer) {
    for (const std::string_view pattern : names.qkv) add(pattern, Role::matrix, layer);
    add(names.output, Role::matrix, layer);
    if (config.routed) add(names.router, Role::router, layer);
    for (const std::string_view pattern : {names.gate, names.up, names.down})
      add(pattern, feed_forward, layer);
  }
  return roles;
}

Result<std::vector<GgufWeight>> gguf_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                             std::vector<std::string>& unused) {
  const Architecture& architecture = *config.architecture;
  for (const TensorNames& to : architecture.dialects)
    if (to.embedding == kGgufEmbedding)
      return Translator(checkpoint, config, dialect_of(checkpoint, architecture), to).translate(unused);
  return Status(Code::unsupported, concat(checkpoint.path, ": GGUF has no names for ", architecture.name));
}

}  // namespace nib::inline v0
