// What a layout put where, told part by part.
#include <nibble/base/concat.hpp>
#include <nibble/model/weights.hpp>

#include <algorithm>

namespace nib::inline v0 {
namespace {

// Several names as one: what they share at both ends once, and what differs between in braces, as a shell
// would expand it.
std::string join_names(const std::vector<std::string_view>& names) {
  const std::string_view first = names.front();
  std::size_t front = first.size(), back = first.size();
  for (const std::string_view name : names) {
    front = std::min(front, static_cast<std::size_t>(
                                std::mismatch(first.begin(), first.end(), name.begin(), name.end()).first -
                                first.begin()));
    back = std::min(back, static_cast<std::size_t>(
                              std::mismatch(first.rbegin(), first.rend(), name.rbegin(), name.rend()).first -
                              first.rbegin()));
  }
  if (front == first.size()) return std::string(first);
  for (const std::string_view name : names) back = std::min(back, name.size() - front);
  std::string differing;
  for (const std::string_view name : names)
    differing += concat(differing.empty() ? "" : ",", name.substr(front, name.size() - front - back));
  return concat(first.substr(0, front), "{", differing, "}", first.substr(first.size() - back));
}

// Of a tensor of expert 0, with "*" for its number, told from the same tensor of expert 1.
std::string with_star(std::string_view zero, std::string_view one) {
  const auto at = static_cast<std::size_t>(
      std::mismatch(zero.begin(), zero.end(), one.begin(), one.end()).first - zero.begin());
  return concat(zero.substr(0, at), "*", zero.substr(std::min(zero.size(), at + 1)));
}

}  // namespace

std::vector<WeightPart> WeightLayout::parts(const ModelConfig& config, const Weights& loaded) const {
  std::vector<WeightPart> all;
  const auto name_of = [](const Stored& stored) {
    const std::size_t parts = stored.map.part_rows.size();
    const bool separate = stored.tensors.size() > parts;
    std::vector<std::string> names;
    for (std::size_t part = 0; part < parts; ++part) {
      const std::string& name = stored.tensors[part]->name;
      names.push_back(separate ? with_star(name, stored.tensors[parts + part]->name) : name);
    }
    return join_names({names.begin(), names.end()});
  };
  const auto vector = [&](std::string_view op, const Vector& v) {
    if (!v.exists()) return;
    all.push_back(
        {name_of(v.stored), op, v.stored.tensors[0]->format, v.bytes(), v.decode_bytes(), nullptr, v.place});
  };
  const auto matrix = [&](std::string_view op, const Matrix& m, const PackedWeight* weight) {
    if (!m.exists()) return;
    all.push_back({name_of(m.stored), op, m.format, m.bytes(), m.decode_bytes(), weight, m.place,
                   static_cast<std::uint32_t>(m.slots), m.locked_bytes()});
  };
  all.push_back({embedding_->name, "embed", embedding_->format, embedding_->codes.bytes,
                 embedding_->codes.bytes / config.vocabulary, nullptr, Place::host});
  vector("qkv", rope_divisors_);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const LayerWeights& w = loaded.layers[l];
    vector("qkv", layer.attention_norm);
    vector("qkv", layer.attention_norm_bias);
    for (std::size_t i = 0; i < layer.qkv.size(); ++i) matrix("qkv", layer.qkv[i], &w.qkv[i]);
    vector("qkv", layer.qkv_bias);
    vector("qkv", layer.q_norm);
    vector("qkv", layer.k_norm);
    vector("attention", layer.sinks);
    matrix("project", layer.output, &w.output);
    vector("project", layer.output_bias);
    vector("route", layer.mlp_norm);
    vector("route", layer.mlp_norm_bias);
    matrix("route", layer.router, &w.router);
    vector("route", layer.router_bias);
    matrix("experts", layer.gate_up, w.gate_up.data());
    matrix("experts", layer.up, w.up.data());
    vector("experts", layer.gate_up_bias);
    matrix("experts", layer.down, w.down.data());
    vector("experts", layer.down_bias);
  }
  vector("head", final_norm_);
  vector("head", final_norm_bias_);
  matrix("head", head_, &loaded.head);
  return all;
}

}  // namespace nib::inline v0
