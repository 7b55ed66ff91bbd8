// From headers to addresses: finds the tensors, checks their shapes, and lays them out.
#include "weight_roles.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/model/architecture.hpp>
#include <nibble/model/weights.hpp>

#include <algorithm>
#include <numeric>
#include <unordered_set>

namespace nib::inline v0 {
namespace {

using Shape = std::vector<std::uint64_t>;

bool is_plain(Format format) {
  return format == Format::f32 || format == Format::f16 || format == Format::bf16;
}

// The run of both: equal when they are, where one is a whole row the other, else what divides both.
std::uint64_t shared_run(std::uint64_t a, std::uint64_t b) { return a % b == 0 ? b : std::gcd(a, b); }

std::uint64_t values(const CheckpointTensor& tensor) {
  std::uint64_t product = 1;
  for (const std::uint64_t d : tensor.shape) product *= d;
  return product;
}

}  // namespace

std::int64_t WeightLayout::RowMap::rows() const {
  if (in_strips()) return 2 * round_up(units, kStripRows);
  return std::accumulate(part_rows.begin(), part_rows.end(), std::int64_t{0});
}

bool WeightLayout::RowMap::find(std::int64_t row, Source& source) const {
  if (in_strips()) {
    const std::int64_t strip = row / kStripRows, unit = strip / 2 * kStripRows + row % kStripRows;
    if (unit >= units) return false;
    source = order == Order::halves ? Source{static_cast<std::size_t>(strip % 2), unit}
                                    : Source{0, 2 * unit + strip % 2};
    return true;
  }
  if (row >= rows()) return false;
  source = {0, row};
  if (order == Order::per_head) {  // row of q, k or v: [3][heads][head_dim]; stored [heads][3][head_dim]
    const std::int64_t head = row / head_dim % rotated_heads, which = row / head_dim / rotated_heads;
    source.row = (head * 3 + which) * head_dim + row % head_dim;
    return true;
  }
  while (source.row >= part_rows[source.part]) source.row -= part_rows[source.part++];
  if (order == Order::pairs && source.part < 2) {  // halves of a head; stored as pairs
    const std::int64_t at = source.row % head_dim, half = head_dim / 2;
    source.row += 2 * (at % half) + at / half - at;
  }
  return true;
}

// Finds tensors by name, gives them addresses, and keeps the first problem.
class WeightLayout::Builder {
 public:
  Builder(WeightLayout& layout, const Checkpoint& checkpoint, const ModelConfig& config)
      : layout_(layout), checkpoint_(checkpoint), config_(config) {}

  // Whatever is made from now on is for this place; of experts there, so many slots. 0: all of them.
  void at(Place place, std::int64_t slots = 0) {
    place_ = place;
    slots_ = place == Place::device ? slots : 0;
  }

  const Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }
  bool stored(std::string_view name) const { return checkpoint_.find(name) != nullptr; }
  bool plain(std::string_view name) const {
    const CheckpointTensor* tensor = checkpoint_.find(name);
    return tensor && is_plain(tensor->format);
  }

  // The tensor of that name and shape, in a format that can be multiplied or widened.
  const CheckpointTensor* get(std::string_view name, const Shape& expected) {
    if (!ok()) return nullptr;
    const CheckpointTensor* tensor = checkpoint_.find(name);
    if (!tensor) return fail(Code::not_found, concat("tensor ", name, " is missing"));
    if (tensor->shape != expected)
      return fail(Code::format, concat("tensor ", name, " has shape ", shape_text(tensor->shape),
                                       ", expected ", shape_text(expected)));
    if (tensor->format == Format::none)
      return fail(Code::unsupported, concat("tensor ", name, " is stored as ", dtype_name(tensor->dtype),
                                            ", which is no weight format"));
    return tensor;
  }

  const CheckpointTensor* fail(Code code, std::string sentence) {
    if (ok()) status_ = Status(code, concat(checkpoint_.path, ": ", sentence));
    return nullptr;
  }

  // A part of a matrix or vector: its name in this layer (with "<>" for the expert), and its rows.
  struct Part {
    std::string_view pattern;
    std::int64_t rows;
  };
  // `k` 0: a vector. `experts` 0: not of experts.
  Stored collect(unsigned layer, const std::vector<Part>& parts, std::int64_t k, std::int64_t experts = 0,
                 RowMap map = {}, bool transposed = false) {
    Stored stored{{}, std::move(map), std::max(experts, std::int64_t{1}), false};
    for (const Part& part : parts) stored.map.part_rows.push_back(part.rows);
    const bool separate = parts.front().pattern.find("<>") != std::string_view::npos;
    stored.experts_inside = !separate && config_.routed && experts > 0;
    for (std::int64_t e = 0; e < (separate ? experts : 1); ++e)
      for (const Part& part : parts) {
        Shape shape;
        if (stored.experts_inside) shape.push_back(static_cast<std::uint64_t>(experts));
        if (transposed) shape.push_back(static_cast<std::uint64_t>(k));
        shape.push_back(static_cast<std::uint64_t>(part.rows));
        if (k > 0 && !transposed) shape.push_back(static_cast<std::uint64_t>(k));
        stored.tensors.push_back(get(tensor_name(part.pattern, layer, static_cast<unsigned>(e)), shape));
      }
    return stored;
  }

  // Gives a matrix its address and counts it; `active` of its experts are read for one token.
  Matrix matrix(Stored stored, std::int64_t k, std::string_view kind, std::int64_t active,
                bool transposed = false) {
    Matrix m{std::move(stored), Format::none, k, 0, transposed, 0, active, place_};
    if (!ok()) return m;
    m.format = m.stored.tensors[0]->format;
    for (const CheckpointTensor* tensor : m.stored.tensors)
      if (tensor->format != m.format)
        fail(Code::unsupported, concat("tensors ", m.stored.tensors[0]->name, " and ", tensor->name,
                                       " are one matrix here and must have one format, found ",
                                       format_name(m.format), " and ", format_name(tensor->format)));
    const FormatInfo& info = format_info(m.format);
    if (k % info.group != 0)
      fail(Code::unsupported, concat("tensor ", m.stored.tensors[0]->name, " has rows of ", k,
                                     " values, and ", info.name, " stores ", info.group, " together"));
    if (!ok()) return m;
    if (info.scales == Scales::shared) {
      std::uint64_t run = static_cast<std::uint64_t>(k);
      for (const CheckpointTensor* tensor : m.stored.tensors) run = shared_run(run, row_scale_run(*tensor));
      m.scale_run = static_cast<std::int64_t>(run);
      if (run % info.group != 0)
        fail(Code::unsupported, concat("tensor ", m.stored.tensors[0]->name, " changes its scale every ", run,
                                       " values, and ", info.name, " stores ", info.group, " together"));
    }
    if (!ok()) return m;
    check_prepared(m);
    if (place_ == Place::device && device_form(m.shape()) == DeviceForm::none)
      fail(Code::unsupported, concat("tensor ", m.stored.tensors[0]->name, " is ", info.name,
                                     ", which a device cannot multiply; leave its layer to the processor"));
    if (!ok()) return m;
    const std::string name = concat(kind, " (", format_name(m.format), ")");
    if (slots_ > 0 && m.stored.experts > 1) {
      m.slots = slots_;
      m.locked = layout_.locked_bytes_;
      layout_.locked_bytes_ += m.locked_bytes();
      WeightGroup& all = group_of(concat(name, ", page-locked"), Place::host);
      all.bytes += m.locked_bytes();
      count(m.stored, all);
    }
    m.offset = reserve(m.bytes());
    WeightGroup& group = group_of(
        m.slots ? concat(name, ", ", m.slots, " slots for ", m.stored.experts, " in each layer") : name);
    group.bytes += m.bytes();
    group.decode_bytes += m.decode_bytes();
    count(m.stored, group);
    std::uint64_t parameters = 0;
    for (const CheckpointTensor* tensor : m.stored.tensors) parameters += values(*tensor);
    group.active_parameters +=
        parameters / static_cast<std::uint64_t>(m.stored.experts) * static_cast<std::uint64_t>(active);
    return m;
  }

  // A matrix whose parts may be in different formats: one where they are in the same, else one for each run
  // of parts that are, which `map` describes as well.
  std::vector<Matrix> matrices(unsigned layer, const std::vector<Part>& parts, std::int64_t k,
                               std::int64_t experts, const RowMap& map, std::string_view kind,
                               std::int64_t active, bool transposed = false) {
    const auto format = [&](const Part& part) {
      const CheckpointTensor* tensor = checkpoint_.find(tensor_name(part.pattern, layer));
      return tensor ? tensor->format : Format::none;
    };
    std::vector<Matrix> made;
    for (std::size_t first = 0, end; first < parts.size() && ok(); first = end) {
      RowMap of_these = map;
      bool all_same = first == 0;
      for (const Part& part : parts) all_same &= format(part) == format(parts[0]);
      for (end = first + 1; end < parts.size() && format(parts[end]) == format(parts[first]); ++end)
        if (!all_same && map.order == RowMap::Order::pairs && end == 2)
          break;  // v is in another order than k
      if (!all_same && (map.order == RowMap::Order::halves || first == 2))
        of_these.order = RowMap::Order::stacked;
      const std::vector<Part> run(parts.begin() + static_cast<std::ptrdiff_t>(first),
                                  parts.begin() + static_cast<std::ptrdiff_t>(end));
      made.push_back(
          matrix(collect(layer, run, k, experts, of_these, transposed), k, kind, active, transposed));
      if (ok() && end < parts.size() && made.back().shape().rows % kStripRows != 0 &&
          map.order != RowMap::Order::halves)
        fail(Code::unsupported,
             concat("tensor ", made.back().stored.tensors[0]->name, " has ", made.back().shape().rows,
                    " rows; beside one in another format ", kStripRows, " must divide them"));
    }
    return made;
  }

  // The table of the layer's slots.
  std::uint64_t slot_table() {
    const std::uint64_t bytes = slot_table_bytes(config_.experts, slots_);
    group_of("tables of slots").bytes += bytes;
    return reserve(bytes);
  }

  Vector vector(Stored stored) {
    Vector v{std::move(stored), 0, 1, place_};
    if (v.stored.experts > 1) v.active = config_.experts_per_token;
    if (!ok()) return v;
    for (const CheckpointTensor* tensor : v.stored.tensors)
      if (!is_plain(tensor->format))
        fail(Code::unsupported, concat("tensor ", tensor->name, " is stored as ", format_name(tensor->format),
                                       ", which a vector may not be"));
    if (!ok()) return v;
    v.offset = reserve(v.bytes());
    WeightGroup& group = group_of("norms, biases, sinks");
    group.bytes += v.bytes();
    group.decode_bytes += v.decode_bytes();
    count(v.stored, group);
    return v;
  }
  Vector vector(std::string_view pattern, unsigned layer, std::int64_t width) {
    return vector(collect(layer, {{pattern, width}}, 0));
  }

  void embedding(std::string_view name) {
    layout_.embedding_ = get(name, {config_.vocabulary, config_.hidden});
    if (!ok()) return;
    const CheckpointTensor& table = *layout_.embedding_;
    if (!is_plain(table.format) && format_info(table.format).scales != Scales::inside)
      return static_cast<void>(
          fail(Code::unsupported, concat("tensor ", name, " is stored as ", format_name(table.format),
                                         ", which an embedding may not be")));
    if (!table.scaling.factors.empty())  // rows are looked up by their own bytes alone
      return static_cast<void>(
          fail(Code::unsupported, concat("tensor ", name, " is ", format_name(table.format),
                                         " with a factor for the whole tensor, which an "
                                         "embedding may not have")));
    layout_.embedding_offset_ = reserve(table.codes.bytes);
    WeightGroup& group = group_of(concat("embedding (", format_name(table.format), ")"));
    group.bytes += table.codes.bytes;
    group.decode_bytes += table.codes.bytes / config_.vocabulary;
    count({{&table}, {}, 1, false}, group);
  }

 private:
  // Whether a prepared file holds this matrix, in as many bytes as it has here.
  void check_prepared(const Matrix& m) {
    if (!checkpoint_.prepared) return;
    const std::string& name = m.stored.tensors[0]->name;
    const PreparedMatrix* found = m.prepared_in(checkpoint_);
    if (!found) return static_cast<void>(fail(Code::format, concat("tensor ", name, " is not prepared")));
    const std::uint64_t bytes = m.shape().bytes();
    if (found->records != static_cast<std::uint64_t>(m.stored.experts) || found->record_bytes < bytes)
      fail(Code::format, concat("tensor ", name, " is prepared as ", found->records, " records of ",
                                found->record_bytes, " bytes, expected ", m.stored.experts, " of ", bytes));
    if (found->finding > static_cast<std::uint8_t>(ScaleRange::any))
      fail(Code::format, concat("tensor ", name, " is prepared with the finding ", found->finding,
                                ", expected at most ", static_cast<int>(ScaleRange::any)));
  }

  std::uint64_t reserve(std::uint64_t bytes) {
    std::uint64_t& all = layout_.bytes_[static_cast<int>(place_)];
    const std::uint64_t offset = all;
    all = round_up(offset + bytes, std::uint64_t{place_ == Place::device ? 128u : 64u});
    return offset;
  }
  // Tensors that the model uses twice (an embedding that is its head) are of the group that had them first.
  void count(const Stored& stored, WeightGroup& group) {
    for (const CheckpointTensor* tensor : stored.tensors) {
      if (!counted_.insert(tensor).second) continue;
      group.parameters += values(*tensor);
      group.stored_bytes += stored_bytes(*tensor);
    }
  }
  WeightGroup& group_of(std::string_view name) { return group_of(name, place_); }
  WeightGroup& group_of(std::string_view name, Place place) {
    for (WeightGroup& group : layout_.groups_)
      if (group.name == name && group.place == place) return group;
    return layout_.groups_.emplace_back(WeightGroup{std::string(name), 0, 0, 0, 0, 0, place});
  }

  WeightLayout& layout_;
  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  Status status_;
  Place place_ = Place::host;
  std::int64_t slots_ = 0;
  std::unordered_set<const CheckpointTensor*> counted_;
};

void WeightLayout::add_attention(Builder& builder, const TensorNames& names, const ModelConfig& config,
                                 unsigned l, Layer& layer) {
  const std::int64_t hidden = config.hidden, heads = config.heads, kv = config.kv_heads,
                     dim = config.head_dim;
  RowMap map;
  map.head_dim = dim;
  map.rotated_heads = heads;
  if (names.qkv_order == QkvOrder::per_head) map.order = RowMap::Order::per_head;
  if (names.qkv_order == QkvOrder::pairs) map.order = RowMap::Order::pairs;
  const auto qkv_parts = [&](const std::string_view(&patterns)[3]) -> std::vector<Builder::Part> {
    if (names.fused_qkv()) return {{patterns[0], (heads + 2 * kv) * dim}};
    return {{patterns[0], heads * dim}, {patterns[1], kv * dim}, {patterns[2], kv * dim}};
  };
  layer.attention_norm = builder.vector(names.attention_norm, l, hidden);
  if (!names.attention_norm_bias.empty())
    layer.attention_norm_bias = builder.vector(names.attention_norm_bias, l, hidden);
  layer.qkv = builder.matrices(l, qkv_parts(names.qkv), hidden, 0, map, "attention", 1);
  for (Matrix& m : layer.qkv) m.rotary = config.rotary_dim;
  if (has(builder, config.qkv_bias, names.qkv_bias[0], l))
    layer.qkv_bias = builder.vector(builder.collect(l, qkv_parts(names.qkv_bias), 0, 0, map));
  if (!names.q_norm.empty()) {
    layer.q_norm = builder.vector(names.q_norm, l, dim);
    layer.k_norm = builder.vector(names.k_norm, l, dim);
  }
  if (!names.sinks.empty()) layer.sinks = builder.vector(names.sinks, l, heads);
  layer.output =
      builder.matrix(builder.collect(l, {{names.output, hidden}}, heads * dim), heads * dim, "attention", 1);
  if (has(builder, config.output_bias, names.output_bias, l))
    layer.output_bias = builder.vector(names.output_bias, l, hidden);
}

void WeightLayout::add_experts(Builder& builder, const TensorNames& names, const ModelConfig& config,
                               unsigned l, Layer& layer) {
  const std::int64_t hidden = config.hidden, width = config.expert_width, experts = config.experts;
  layer.mlp_norm = builder.vector(names.mlp_norm, l, hidden);
  if (!names.mlp_norm_bias.empty()) layer.mlp_norm_bias = builder.vector(names.mlp_norm_bias, l, hidden);
  if (config.routed) {
    layer.router = builder.matrix(builder.collect(l, {{names.router, experts}}, hidden), hidden, "router", 1);
    if (!names.router_bias.empty()) layer.router_bias = builder.vector(names.router_bias, l, experts);
  }
  RowMap map;
  map.units = width;
  std::vector<Builder::Part> parts, biases;
  if (names.alternating()) {
    map.order = RowMap::Order::alternating;
    parts = {{names.gate, 2 * width}};
    biases = {{names.gate_bias, 2 * width}};
  } else if (is_gated(config.activation)) {
    map.order = RowMap::Order::halves;
    parts = {{names.gate, width}, {names.up, width}};
    biases = {{names.gate_bias, width}, {names.up_bias, width}};
  } else {
    parts = {{names.up, width}};
    biases = {{names.up_bias, width}};
  }
  const std::string_view kind = config.routed ? "experts" : "feed-forward";
  // Alternating rows saved in a plain format are saved in x out, and so is what is below them.
  const auto transposed = [&](std::string_view pattern) {
    return names.alternating() && builder.plain(tensor_name(pattern, l));
  };
  std::vector<Matrix> gate_up = builder.matrices(l, parts, hidden, experts, map, kind,
                                                 config.experts_per_token, transposed(parts.front().pattern));
  if (gate_up.size() == 2 && gate_up[0].place == Place::device)
    return static_cast<void>(
        builder.fail(Code::unsupported,
                     concat("tensors ", gate_up[0].stored.tensors[0]->name, " and ",
                            gate_up[1].stored.tensors[0]->name, " are in different formats, which a device ",
                            "cannot multiply together; leave these experts to the processor")));
  if (!gate_up.empty()) layer.gate_up = std::move(gate_up[0]);
  if (gate_up.size() == 2) layer.up = std::move(gate_up[1]);
  const bool turned = transposed(names.down);
  layer.down = builder.matrix(builder.collect(l, {{names.down, hidden}}, width, experts, {}, turned), width,
                              kind, config.experts_per_token, turned);
  if (has(builder, config.expert_bias, biases.front().pattern, l)) {
    layer.gate_up_bias = builder.vector(builder.collect(l, biases, 0, experts, map));
    layer.down_bias = builder.vector(builder.collect(l, {{names.down_bias, hidden}}, 0, experts));
  }
  if (layer.down.slots) layer.slot_table = builder.slot_table();
}

bool WeightLayout::has(const Builder& builder, Presence presence, std::string_view pattern, unsigned layer) {
  if (presence != Presence::if_stored) return presence == Presence::yes;
  return !pattern.empty() && builder.stored(tensor_name(pattern, layer));
}

std::uint64_t WeightLayout::expert_cache_bytes(std::int64_t slots) const {
  std::uint64_t bytes = 0;
  for (const Layer& layer : layers_)
    if (layer.down.place == Place::device) {
      const std::int64_t experts = layer.down.stored.experts;
      bytes +=
          (layer.gate_up.expert_bytes() + layer.down.expert_bytes()) * static_cast<std::uint64_t>(slots) +
          (slots < experts ? slot_table_bytes(experts, slots) : 0);
    }
  return bytes;
}

Result<WeightLayout> WeightLayout::make(const Checkpoint& checkpoint, const ModelConfig& config,
                                        const Placement& placement, std::uint64_t expert_cache) {
  NIB_ASSIGN(WeightLayout whole, make_with(checkpoint, config, placement, 0));
  if (expert_cache == 0) return whole;
  if (!config.routed || whole.expert_cache_bytes(1) == 0)
    return Status(Code::argument,
                  concat(checkpoint.path, ": a cache of experts was asked for, but ",
                         config.routed ? "the device computes none" : "the model has none to choose among"));
  std::int64_t slots = config.experts;
  while (slots >= config.experts_per_token && whole.expert_cache_bytes(slots) > expert_cache) --slots;
  if (slots < config.experts_per_token)
    return Status(Code::budget,
                  concat(checkpoint.path, ": a cache of ", expert_cache, " bytes does not hold the ",
                         config.experts_per_token, " experts of a token in each layer; the smallest that ",
                         "does has ", whole.expert_cache_bytes(config.experts_per_token), " bytes"));
  if (slots == config.experts) return whole;
  return make_with(checkpoint, config, placement, static_cast<std::uint32_t>(slots));
}

Result<WeightLayout> WeightLayout::make_with(const Checkpoint& checkpoint, const ModelConfig& config,
                                             const Placement& placement, std::uint32_t slots) {
  if (checkpoint.prepared && checkpoint.prepared->layout != kPackedLayout)
    return Status(Code::unsupported,
                  concat(checkpoint.path, ": is prepared in layout ", checkpoint.prepared->layout,
                         ", this version reads layout ", kPackedLayout, "; prepare it again"));
  if (!placement.layers.empty() && placement.layers.size() != config.layers)
    return Status(Code::argument, concat(checkpoint.path, ": the placement is of ", placement.layers.size(),
                                         " layers, the model has ", config.layers));
  WeightLayout layout;
  layout.slots_ = slots;
  Builder builder(layout, checkpoint, config);
  const TensorNames& names = dialect_of(checkpoint, *config.architecture);
  const std::int64_t hidden = config.hidden, vocabulary = config.vocabulary;
  builder.embedding(names.embedding);
  for (unsigned l = 0; l < config.layers && builder.ok(); ++l) {
    Layer& layer = layout.layers_.emplace_back();
    builder.at(placement.layer(l).attention);
    add_attention(builder, names, config, l, layer);
    builder.at(placement.layer(l).experts, slots);
    add_experts(builder, names, config, l, layer);
  }
  builder.at(Place::host);  // whatever computes, the host looks them up
  if (!names.rope_divisors.empty() && builder.stored(names.rope_divisors))
    layout.rope_divisors_ = builder.vector(names.rope_divisors, 0, config.rotary_dim / 2);
  builder.at(placement.head);
  layout.final_norm_ = builder.vector(names.final_norm, 0, hidden);
  if (!names.final_norm_bias.empty())
    layout.final_norm_bias_ = builder.vector(names.final_norm_bias, 0, hidden);
  const bool tied = config.tied_embeddings && !checkpoint.find(names.head);
  layout.head_ = builder.matrix(
      builder.collect(0, {{tied ? names.embedding : names.head, vocabulary}}, hidden), hidden, "head", 1);
  if (!builder.ok()) return builder.status();
  return layout;
}

}  // namespace nib::inline v0
