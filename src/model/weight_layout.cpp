// From headers to addresses: finds the tensors, checks their shapes, and lays them out.
#include <nibble/base/concat.hpp>
#include <nibble/model/architecture.hpp>
#include <nibble/model/weights.hpp>

#include <algorithm>

namespace nib::inline v0 {
namespace {

using Shape = std::vector<std::uint64_t>;

std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += concat(i ? ", " : "", shape[i]);
  return text + "]";
}

// Finds tensors by name and keeps the first problem.
class Finder {
 public:
  explicit Finder(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  const Status& status() const { return status_; }

  // The tensor of that name with one of the shapes given, in a format that can be multiplied or widened.
  const CheckpointTensor* get(std::string_view name, const Shape& expected,
                              const Shape* alternative = nullptr) {
    if (!status_.ok()) return nullptr;
    const CheckpointTensor* tensor = checkpoint_.find(name);
    if (!tensor) return fail(Code::not_found, concat("tensor ", name, " is missing"));
    if (tensor->shape != expected && !(alternative && tensor->shape == *alternative))
      return fail(Code::format, concat("tensor ", name, " has shape ", shape_text(tensor->shape),
                                       ", expected ", shape_text(expected)));
    if (tensor->format == Format::none)
      return fail(Code::unsupported, concat("tensor ", name, " is stored as ", dtype_name(tensor->dtype),
                                            ", which is no weight format"));
    if (tile_bytes(tensor->format, 1) == 0)
      return fail(Code::unsupported, concat("tensor ", name, " is stored as ", format_name(tensor->format),
                                            ", which no kernel multiplies"));
    return tensor;
  }

  const CheckpointTensor* fail(Code code, std::string sentence) {
    if (status_.ok()) status_ = Status(code, concat(checkpoint_.path, ": ", sentence));
    return nullptr;
  }

 private:
  const Checkpoint& checkpoint_;
  Status status_;
};

// The dialect whose embedding the checkpoint has, else the first (whose names the errors will then use).
const TensorNames& pick_dialect(const Checkpoint& checkpoint, const Architecture& architecture) {
  for (const TensorNames& names : architecture.dialects)
    if (checkpoint.find(names.embedding)) return names;
  return architecture.dialects.front();
}

std::uint64_t values(const CheckpointTensor& tensor) {
  std::uint64_t product = 1;
  for (const std::uint64_t d : tensor.shape) product *= d;
  return product;
}

}  // namespace

std::uint64_t WeightLayout::reserve(std::uint64_t bytes) {
  const std::uint64_t offset = bytes_;
  bytes_ = round_up(bytes_ + bytes, std::uint64_t{64});
  return offset;
}

Result<WeightLayout> WeightLayout::make(const Checkpoint& checkpoint, const ModelConfig& config) {
  WeightLayout layout;
  Finder finder(checkpoint);
  const TensorNames& names = pick_dialect(checkpoint, *config.architecture);

  const auto group = [&](std::string_view name) -> WeightGroup& {
    for (WeightGroup& g : layout.groups_)
      if (g.name == name) return g;
    return layout.groups_.emplace_back(WeightGroup{std::string(name), 0, 0, 0, 0});
  };
  // Gives a matrix its address and adds it to its group; `active` of its experts are read for one token.
  const auto place = [&](Matrix& matrix, std::string_view kind, std::int64_t active) {
    if (!finder.status().ok()) return;
    matrix.format = matrix.parts[0]->format;
    for (const CheckpointTensor* part : matrix.parts)
      if (part->format != matrix.format)
        finder.fail(Code::unsupported,
                    concat("tensors ", matrix.parts[0]->name, " and ", part->name,
                           " are one matrix here and must have one format, found ",
                           format_name(matrix.format), " and ", format_name(part->format)));
    const std::uint64_t each = matrix.shape().bytes();
    matrix.offset = layout.reserve(each * static_cast<std::uint64_t>(matrix.experts));
    WeightGroup& of = group(concat(kind, " (", format_name(matrix.format), ")"));
    of.bytes += each * static_cast<std::uint64_t>(matrix.experts);
    of.decode_bytes += each * static_cast<std::uint64_t>(active);
    for (const CheckpointTensor* part : matrix.parts) {
      of.parameters += values(*part);
      of.active_parameters +=
          values(*part) / static_cast<std::uint64_t>(matrix.experts) * static_cast<std::uint64_t>(active);
    }
  };
  const auto matrix = [&](std::vector<std::pair<std::string, std::int64_t>> parts, std::int64_t k) {
    Matrix m;
    m.k = k;
    for (const auto& [name, rows] : parts) {
      m.parts.push_back(finder.get(name, {static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(k)}));
      m.rows += rows;
    }
    return m;
  };
  const auto place_vector = [&](Vector& v) {
    if (!finder.status().ok()) return;
    const std::uint64_t bytes = static_cast<std::uint64_t>(v.lists * v.padded()) * sizeof(float);
    v.offset = layout.reserve(bytes);
    WeightGroup& of = group("vectors (f32)");
    of.bytes += bytes;
    of.decode_bytes += bytes / static_cast<std::uint64_t>(v.lists);
    for (const CheckpointTensor* part : v.parts) of.parameters += values(*part);
  };
  const auto vector = [&](std::vector<std::pair<std::string, std::int64_t>> parts) {
    Vector v;
    for (const auto& [name, width] : parts) {
      v.parts.push_back(finder.get(name, {static_cast<std::uint64_t>(width)}));
      v.width += width;
    }
    place_vector(v);
    return v;
  };
  const auto expert_vector = [&](std::string_view name, std::int64_t width, bool interleaved) {
    Vector v;
    v.width = width;
    v.lists = config.experts;
    v.interleaved = interleaved;
    v.parts.push_back(finder.get(name, {config.experts, static_cast<std::uint64_t>(width)}));
    place_vector(v);
    return v;
  };
  // [E, rows, k] in mxfp4, [E, k, rows] when saved in a plain format.
  const auto expert_matrix = [&](std::string_view name, std::int64_t rows, std::int64_t k, bool interleaved) {
    Matrix m;
    m.k = k;
    m.experts = config.experts;
    m.interleaved = interleaved;
    m.width = rows / 2;
    m.rows = interleaved ? 2 * round_up(rows / 2, kStripRows) : rows;
    const Shape out_in{config.experts, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(k)};
    const Shape in_out{config.experts, static_cast<std::uint64_t>(k), static_cast<std::uint64_t>(rows)};
    const CheckpointTensor* stored = checkpoint.find(name);
    m.transposed = stored && stored->format != Format::mxfp4;
    m.parts.push_back(finder.get(name, m.transposed ? in_out : out_in));
    place(m, "experts", config.experts_per_token);
    return m;
  };

  const std::int64_t hidden = config.hidden, heads = config.heads, kv = config.kv_heads,
                     dim = config.head_dim;
  layout.embedding_ = finder.get(names.embedding, {config.vocabulary, config.hidden});
  if (finder.status().ok()) {
    const CheckpointTensor& embedding = *layout.embedding_;
    if (embedding.scales.bytes)
      finder.fail(Code::unsupported,
                  concat("tensor ", embedding.name, " is quantized, which an embedding may not be"));
    layout.embedding_offset_ = layout.reserve(embedding.codes.bytes);
    WeightGroup& of = group(concat("embedding (", format_name(embedding.format), ")"));
    of.bytes += embedding.codes.bytes;
    of.decode_bytes += embedding.codes.bytes / config.vocabulary;
    of.parameters += values(embedding);
  }
  for (unsigned l = 0; l < config.layers && finder.status().ok(); ++l) {
    const auto name = [l](std::string_view pattern) { return layer_name(pattern, l); };
    const auto qkv_parts =
        [&](const std::string_view(&patterns)[3]) -> std::vector<std::pair<std::string, std::int64_t>> {
      if (names.fused_qkv()) return {{name(patterns[0]), (heads + 2 * kv) * dim}};
      return {{name(patterns[0]), heads * dim}, {name(patterns[1]), kv * dim}, {name(patterns[2]), kv * dim}};
    };
    Layer& layer = layout.layers_.emplace_back();
    layer.attention_norm = vector({{name(names.attention_norm), hidden}});
    layer.qkv = matrix(qkv_parts(names.qkv), hidden);
    place(layer.qkv, "attention", 1);
    layer.qkv_bias = vector(qkv_parts(names.qkv_bias));
    layer.sinks = vector({{name(names.sinks), heads}});
    layer.output = matrix({{name(names.output), hidden}}, heads * dim);
    place(layer.output, "attention", 1);
    layer.output_bias = vector({{name(names.output_bias), hidden}});
    layer.mlp_norm = vector({{name(names.mlp_norm), hidden}});
    layer.router = matrix({{name(names.router), config.experts}}, hidden);
    place(layer.router, "router", 1);
    layer.router_bias = vector({{name(names.router_bias), config.experts}});
    layer.gate_up = expert_matrix(name(names.gate_up), 2 * std::int64_t{config.expert_width}, hidden, true);
    layer.gate_up_bias = expert_vector(name(names.gate_up_bias), 2 * std::int64_t{config.expert_width}, true);
    layer.down = expert_matrix(name(names.down), hidden, config.expert_width, false);
    layer.down_bias = expert_vector(name(names.down_bias), hidden, false);
  }
  layout.final_norm_ = vector({{std::string(names.final_norm), hidden}});
  const bool tied = config.tied_embeddings && !checkpoint.find(names.head);
  layout.head_ = matrix({{std::string(tied ? names.embedding : names.head), config.vocabulary}}, hidden);
  place(layout.head_, "head", 1);
  if (!finder.status().ok()) return finder.status();
  return layout;
}

}  // namespace nib::inline v0
