#include "weight_roles.hpp"

#include <nibble/base/concat.hpp>

#include <algorithm>
#include <set>

namespace nib::inline v0 {
namespace {

constexpr std::string_view kGgufEmbedding = "token_embd.weight";

bool is_each(std::string_view pattern) { return pattern.find("<>") != pattern.npos; }

// One kind of tensor in the two dialects, and what it is.
struct Pair {
  std::string_view from, to;
  Role role = Role::other;
  RowOrder order = {};
  std::string_view second = {};  // the ups beside the gates, where `to` has both in one
};

class Translator {
 public:
  Translator(const Checkpoint& checkpoint, const ModelConfig& config, const TensorNames& from,
             const TensorNames& to)
      : checkpoint_(checkpoint), config_(config), from_(from), to_(to) {}

  Result<std::vector<NamedWeight>> translate(std::vector<std::string>& unused) {
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
      if (!used_.contains(&tensor) && tensor.name != from_.rope_divisors) unused.push_back(tensor.name);
    return std::move(out_);
  }

 private:
  // How the rows of q (0), k (1) and v (2) lie in `to`, seen from `from`.
  RowOrder::Kind qkv_order(int part) const {
    const QkvOrder from = from_.qkv_order, to = to_.qkv_order;
    if (from == to) return RowOrder::same;
    if (from == QkvOrder::per_head) return RowOrder::by_parts;
    if (to == QkvOrder::per_head) return RowOrder::by_heads;
    if (part == 2) return RowOrder::same;
    return to == QkvOrder::pairs ? RowOrder::pairs : RowOrder::halves;
  }

  Status add_attention(unsigned layer) {
    NIB_TRY(add({from_.attention_norm, to_.attention_norm}, layer));
    NIB_TRY(add({from_.attention_norm_bias, to_.attention_norm_bias}, layer));
    if (from_.fused_qkv() != to_.fused_qkv())
      return {Code::unsupported,
              concat(checkpoint_.path, ": has q, k and v in ",
                     from_.fused_qkv() ? "one matrix" : "three matrices", ", and what is to be written in ",
                     to_.fused_qkv() ? "one" : "three")};
    for (int i = 0; i < 3; ++i) {
      const RowOrder order{qkv_order(i), config_.head_dim, config_.heads};
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
    NIB_TRY(add_gates(layer, role));
    NIB_TRY(add({from_.down, to_.down, role}, layer));
    return add({from_.down_bias, to_.down_bias}, layer, config_.expert_bias);
  }

  Status add_gates(unsigned layer, Role role) {
    const Presence bias = config_.expert_bias;
    const bool gated = is_gated(config_.activation);
    if (gated && from_.alternating() && !to_.alternating()) {
      for (const bool up : {false, true}) {
        const RowOrder order{up ? RowOrder::odd : RowOrder::even};
        NIB_TRY(add({from_.gate, up ? to_.up : to_.gate, role, order}, layer));
        NIB_TRY(add({from_.gate_bias, up ? to_.up_bias : to_.gate_bias, Role::other, order}, layer, bias));
      }
      return {};
    }
    if (gated && !from_.alternating() && to_.alternating()) {
      const RowOrder order{RowOrder::alternating};
      NIB_TRY(add({from_.gate, to_.gate, role, order, from_.up}, layer));
      return add({from_.gate_bias, to_.gate_bias, Role::other, order, from_.up_bias}, layer, bias);
    }
    NIB_TRY(add({from_.gate, to_.gate, role}, layer));
    NIB_TRY(add({from_.gate_bias, to_.gate_bias}, layer, bias));
    NIB_TRY(add({from_.up, to_.up, role}, layer));
    return add({from_.up_bias, to_.up_bias}, layer, bias);
  }

  Status add(const Pair& pair, unsigned layer, Presence presence = Presence::yes) {
    if (pair.from.empty() || presence == Presence::no) return {};
    const std::string first = tensor_name(pair.from, layer);
    if (presence == Presence::if_stored && !checkpoint_.find(first)) return {};
    if (pair.to.empty())
      return {Code::unsupported, concat(checkpoint_.path, ": there is no name for tensor ", first, " in ",
                                        to_.embedding == kGgufEmbedding ? "GGUF" : "a directory of ",
                                        to_.embedding == kGgufEmbedding ? "" : config_.architecture->name)};
    const bool each = is_each(pair.to);
    for (unsigned expert = 0; expert < (each ? config_.experts : 1); ++expert)
      NIB_TRY(add_one(pair, layer, expert));
    return {};
  }

  // The tensor of `pair.to`, of that expert where each has its own.
  Status add_one(const Pair& pair, unsigned layer, unsigned expert) {
    NamedWeight weight{{}, pair.role};
    WeightPlan& plan = weight.plan;
    plan.name = tensor_name(pair.to, layer, expert);
    plan.order = pair.order;
    if (is_each(pair.from) && !is_each(pair.to))
      for (unsigned e = 0; e < config_.experts; ++e) NIB_TRY(add_part(pair.from, layer, e, plan));
    else
      NIB_TRY(add_part(pair.from, layer, expert, plan));
    if (!pair.second.empty()) NIB_TRY(add_part(pair.second, layer, expert, plan));
    if (is_each(pair.to) && !is_each(pair.from)) plan.first_matrix = expert;
    NIB_TRY(shape(plan, pair));
    out_.push_back(std::move(weight));
    return {};
  }

  Status add_part(std::string_view pattern, unsigned layer, unsigned expert, WeightPlan& plan) {
    const std::string name = tensor_name(pattern, layer, expert);
    const CheckpointTensor* tensor = checkpoint_.find(name);
    if (!tensor) return {Code::not_found, concat(checkpoint_.path, ": tensor ", name, " is missing")};
    if (tensor->format == Format::none)
      return {Code::unsupported, concat(checkpoint_.path, ": tensor ", name, " is stored as ",
                                        tensor->type_name, ", which is no weight format")};
    if (!plan.parts.empty() && plan.parts[0]->shape != tensor->shape)
      return {Code::format,
              concat(checkpoint_.path, ": tensor ", name, " has shape ", shape_text(tensor->shape),
                     ", that of ", plan.parts[0]->name, " ", shape_text(plan.parts[0]->shape))};
    plan.parts.push_back(tensor);
    used_.insert(tensor);
    return {};
  }

  // What the written tensor's shape is, and whether that fits the order of its rows.
  Status shape(WeightPlan& plan, const Pair& pair) const {
    const CheckpointTensor& stored = *plan.parts[0];
    plan.shape = stored.shape;
    const auto wrong = [&] {
      return Status(Code::format, concat(checkpoint_.path, ": tensor ", stored.name, " has shape ",
                                         shape_text(stored.shape), ", which its model does not have"));
    };
    if (pair.role == Role::other) {
      // A bias is a column to whoever orders rows, and a row to whoever stores it: its values move as the
      // rows of its matrix do, as rows of one value.
      plan.values_as_rows = plan.order.kind != RowOrder::same;
      if (!plan.values_as_rows) return {};
      return !plan.shape.empty() && order_rows(plan.order, plan.shape.back()) ? Status() : wrong();
    }
    const bool stacked = config_.routed && pair.role == Role::experts && !is_each(pair.from);
    if (plan.shape.size() != (stacked ? 3u : 2u)) return wrong();
    if (stacked && plan.shape[0] != config_.experts) return wrong();
    const bool plain =
        stored.format == Format::f32 || stored.format == Format::f16 || stored.format == Format::bf16;
    if (pair.role == Role::experts && from_.alternating() && plain) {
      plan.turned = Turned::stored;
      std::swap(plan.shape[1], plan.shape[2]);
    }
    if (!order_rows(plan.order, plan.shape[plan.shape.size() - 2])) return wrong();
    if (is_each(pair.from) && !is_each(pair.to)) plan.shape.insert(plan.shape.begin(), config_.experts);
    if (stacked && is_each(pair.to)) plan.shape.erase(plan.shape.begin());
    return {};
  }

  // From how many rows there are to how many are written; false: so many cannot be put in that order.
  bool order_rows(const RowOrder& order, std::uint64_t& rows) const {
    const auto head = static_cast<std::uint64_t>(std::max<std::int64_t>(1, order.head_dim));
    switch (order.kind) {
      case RowOrder::same:
        return true;
      case RowOrder::pairs:
      case RowOrder::halves:
        return rows % head == 0;
      case RowOrder::by_parts:
      case RowOrder::by_heads:
        return rows == 3 * head * config_.heads;
      case RowOrder::even:
      case RowOrder::odd:
        if (rows % 2 != 0) return false;
        rows /= 2;
        return true;
      case RowOrder::alternating:
        rows *= 2;
        return true;
    }
    return false;
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const TensorNames &from_, &to_;
  std::vector<NamedWeight> out_;
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

const TensorNames* gguf_names(const Architecture& architecture) {
  for (const TensorNames& names : architecture.dialects)
    if (names.embedding == kGgufEmbedding) return &names;
  return nullptr;
}

const TensorNames& hugging_face_names(const Architecture& architecture) {
  return architecture.dialects.front();
}

Result<std::vector<NamedWeight>> weights_named(const TensorNames& to, const Checkpoint& checkpoint,
                                               const ModelConfig& config, std::vector<std::string>& unused) {
  return Translator(checkpoint, config, dialect_of(checkpoint, *config.architecture), to).translate(unused);
}

}  // namespace nib::inline v0
