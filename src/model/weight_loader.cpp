// Fills the block that a layout has laid out, one tensor at a time.
#include "weight_packer.hpp"
#include "weight_uploader.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/float16.hpp>
#include <nibble/model/weights.hpp>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

namespace nib::inline v0 {
namespace {

float widen(Format format, const std::byte* at) {
  if (format == Format::f32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return format == Format::bf16 ? to_float(bf16{bits}) : to_float(f16{bits});
}

}  // namespace

class WeightLoader {
 public:
  using Matrix = WeightLayout::Matrix;
  using Vector = WeightLayout::Vector;
  using RowMap = WeightLayout::RowMap;

  // Staging for the tensors of one list of a vector, and for all of its values where they go on.
  static std::uint64_t staging_of(const Vector& v) {
    std::uint64_t bytes = v.place == Place::device ? v.bytes() : 0;
    for (std::size_t part = 0; v.exists() && part < v.stored.map.part_rows.size(); ++part)
      bytes += static_cast<std::uint64_t>(v.stored.map.part_rows[part]) * sizeof(float);
    return bytes;
  }

  WeightLoader(const Checkpoint& checkpoint, const Backend& backend, Numerics numerics, Pool& pool,
               ProgressSink progress, const Cancel* cancel, std::uint64_t total)
      : checkpoint_(checkpoint),
        backend_(backend),
        numerics_(numerics),
        progress_(progress),
        total_(total),
        pool_(pool),
        packer_(checkpoint, pool, cancel) {}

  void use(Buffer staging, std::byte* base) {
    packer_.use(std::move(staging));
    base_ = base;
  }
  // And of the device's block, with what matrices on their way there need.
  void use(const Device& device, std::byte* base, std::byte* locked, Buffer staging, Pool& pool) {
    upload_staging_ = std::move(staging);
    uploader_.emplace(packer_, device, base, locked, upload_staging_.as<std::byte>(), pool);
  }

  // Those of a layer, with nothing in them.
  Result<ExpertSlots> slots_of(const WeightLayout::Layer& layer) {
    ExpertSlots slots;
    if (!layer.down.slots) return slots;
    NIB_TRY(uploader_->clear_slots(layer.slot_table, layer.down.stored.experts, layer.down.slots));
    slots = {static_cast<int>(layer.down.slots), uploader_->at(layer.gate_up.offset),
             uploader_->at(layer.down.offset), uploader_->at(layer.slot_table)};
    return slots;
  }

  Status load_rows(const CheckpointTensor& tensor, std::uint64_t offset) {
    NIB_TRY(begin(tensor.name));
    return packer_.read(tensor.codes, base_ + offset);
  }

  // The numerics under which the kernels of matrices that share packed activations want them in one layout:
  // groups of one kind where all can take them, else those of f32. (On every processor the same.)
  Numerics shared_numerics(std::initializer_list<std::span<const Matrix>> lists) const {
    std::set<ActivationLayout> layouts;
    std::size_t count = 0;
    for (const std::span<const Matrix> list : lists)
      for (const Matrix& m : list)
        if (m.exists()) {
          layouts.insert(layout_for(backend_, m, numerics_));
          ++count;
        }
    return count == 1 || (layouts.size() == 1 && group_dwords(*layouts.begin()) > 0) ? numerics_
                                                                                     : Numerics::f32;
  }

  // How the kernel that takes any scales wants its activations; floats where there is none.
  static ActivationLayout layout_for(const Backend& backend, const Matrix& m, Numerics numerics) {
    const MatmulKernel* kernel = find_kernel(backend, m.shape(), numerics, ScaleRange::any);
    return kernel ? kernel->x : ActivationLayout::floats;
  }

  // Packs a matrix, or reads what was packed, and returns its experts' PackedWeights, kernels chosen for
  // these numerics.
  Result<std::vector<PackedWeight>> load_matrix(const Matrix& m, Numerics numerics) {
    std::vector<PackedWeight> packed;
    if (!m.exists()) return packed;
    const CheckpointTensor& named = *m.stored.tensors[0];
    NIB_TRY(begin(named.name));
    if (m.place == Place::device) {
      NIB_TRY(uploader_->matrix(m, checkpoint_.path));
      count(m);
      return experts_of(m, uploader_->home(m), nullptr);
    }
    std::byte* out = base_ + m.offset;
    place_weights(m.shape(), m.stored.experts, out, pool_);
    const PreparedMatrix* prepared = m.prepared_in(checkpoint_);
    NIB_ASSIGN(const ScaleRange scales,
               prepared ? packer_.read(m, *prepared, out) : packer_.pack(m, {0, m.stored.experts}, out));
    count(m);
    const MatmulKernel* kernel = find_kernel(backend_, m.shape(), numerics, scales);
    if (!kernel)
      return Status(Code::unsupported, concat(checkpoint_.path, ": tensor ", named.name, ": backend ",
                                              backend_.name, " cannot multiply ", format_name(m.format)));
    return experts_of(m, out, kernel);
  }

  // Null when the model has no such vector.
  Result<const float*> load_vector(const Vector& v) {
    if (!v.exists()) return static_cast<const float*>(nullptr);
    if (packer_.stopped()) return packer_.stopped_status();
    const bool goes_on = v.place == Place::device;
    // The tensors are staged behind the values then.
    auto* all =
        goes_on ? reinterpret_cast<float*>(packer_.staging()) : reinterpret_cast<float*>(base_ + v.offset);
    const RowMap& map = v.stored.map;
    for (std::int64_t e = 0; e < v.stored.experts; ++e) {
      const std::byte* parts[WeightPacker::kMostParts];
      std::byte* next = packer_.staging() + (goes_on ? v.bytes() : 0);
      for (std::size_t part = 0; part < map.part_rows.size(); ++part) {
        const CheckpointTensor& tensor = v.stored.tensor(e, part);
        const std::uint64_t size = format_info(tensor.format).code_bytes;
        const std::uint64_t bytes = static_cast<std::uint64_t>(map.part_rows[part]) * size;
        NIB_TRY(read_plane(checkpoint_, tensor.codes,
                           static_cast<std::uint64_t>(v.stored.first_row(e, part)) * size, {next, bytes}));
        parts[part] = std::exchange(next, next + bytes);
      }
      float* out = all + e * v.padded();
      std::fill(out, out + v.padded(), 0.0f);
      for (std::int64_t row = 0; row < map.rows(); ++row)
        if (RowMap::Source from; map.find(row, from)) {
          const Format format = v.stored.tensor(e, from.part).format;
          out[row] = widen(format, parts[from.part] +
                                       static_cast<std::uint64_t>(from.row) * format_info(format).code_bytes);
        }
    }
    done_ += static_cast<std::uint64_t>(v.values()) * sizeof(float);
    if (!goes_on) return static_cast<const float*>(all);
    NIB_TRY(uploader_->values({all, static_cast<std::size_t>(v.values())}, v.offset));
    return reinterpret_cast<const float*>(uploader_->at(v.offset));
  }

 private:
  void count(const Matrix& m) {
    for (const CheckpointTensor* tensor : m.stored.tensors)
      done_ += tensor->codes.bytes + tensor->scales.bytes;
  }
  static std::vector<PackedWeight> experts_of(const Matrix& m, const std::byte* first,
                                              const MatmulKernel* kernel) {
    std::vector<PackedWeight> packed;
    for (std::int64_t e = 0; e < m.stored.experts; ++e) {
      PackedWeight weight = m.shape();
      weight.data = first + static_cast<std::uint64_t>(e) * m.expert_bytes();
      weight.kernel = kernel;
      packed.push_back(weight);
    }
    return packed;
  }

  Status begin(std::string_view name) {
    if (progress_({Stage::pack, done_, total_, name}) || packer_.stopped()) return packer_.stopped_status();
    return {};
  }

  const Checkpoint& checkpoint_;
  const Backend& backend_;
  Numerics numerics_;
  ProgressSink progress_;
  std::uint64_t total_, done_ = 0;
  Pool& pool_;
  WeightPacker packer_;
  std::byte* base_ = nullptr;
  Buffer upload_staging_;
  std::optional<WeightUploader> uploader_;
};

std::uint64_t WeightLayout::upload_bytes() const {
  std::uint64_t most = 0;
  each_matrix([&](const Matrix& m) {
    if (m.place == Place::device) most = std::max(most, WeightUploader::staging_of(m));
  });
  return most;
}

std::uint64_t WeightLayout::staging_bytes(int threads) const {
  std::uint64_t most = 64 * 1024;
  each_matrix([&](const Matrix& m) { most = std::max(most, WeightPacker::staging_of(m)); });
  each_vector([&](const Vector& v) { most = std::max(most, WeightLoader::staging_of(v)); });
  return round_up(most, std::uint64_t{64}) * static_cast<std::uint64_t>(threads) + upload_bytes();
}

namespace {

// A router decides on the small differences of few outputs: it is not rounded further than to bf16.
Numerics router_numerics(Numerics numerics) { return numerics == Numerics::int8 ? Numerics::bf16 : numerics; }

// Formats of weights that bf16 holds exactly, scales and all.
bool bf16_holds(Format format) {
  switch (format) {
    case Format::bf16:
    case Format::mxfp8_e4m3:
    case Format::mxfp8_e5m2:
    case Format::mxfp6_e2m3:
    case Format::mxfp6_e3m2:
      return true;
    default:
      return false;
  }
}

}  // namespace

Status WeightLayout::check_int8(const Checkpoint& checkpoint, const Backend& backend) const {
  const auto check = [&](const Matrix& m) -> Status {
    if (!m.exists() || bf16_holds(m.format) ||
        WeightLoader::layout_for(backend, m, Numerics::int8) == ActivationLayout::bytes)
      return {};
    return Status(Code::unsupported,
                  concat(checkpoint.path, ": tensor ", m.stored.tensors[0]->name, " is ",
                         format_name(m.format), ", which int8 numerics cannot multiply; bf16 numerics can, ",
                         "or int8 where such tensors are allowed to be computed as under bf16"));
  };
  for (const Layer& layer : layers_) {
    for (const Matrix& m : layer.qkv) NIB_TRY(check(m));
    for (const Matrix* m : {&layer.output, &layer.gate_up, &layer.up, &layer.down}) NIB_TRY(check(*m));
  }
  return check(head_);
}

Result<Weights> WeightLayout::load(const Checkpoint& checkpoint, const ModelConfig& config,
                                   const Backend& backend, Numerics numerics, Memory& memory, Pool& pool,
                                   ProgressSink progress, const Cancel* cancel, DeviceMemory device) const {
  Weights weights;
  const std::uint64_t here = bytes(Place::host), there = bytes(Place::device);
  if (there > 0 && !device.device)
    return Status(Code::argument, concat(checkpoint.path, ": is placed on a device, and there is none"));
  NIB_ASSIGN(weights.memory,
             Buffer::make(here, memory, Purpose::weights, concat("the weights of ", checkpoint.path)));
  const std::uint64_t for_upload = upload_bytes();
  NIB_ASSIGN(Buffer staging, Buffer::make(staging_bytes(pool.threads()) - for_upload, memory,
                                          Purpose::staging, "the buffers for reading weights"));
  std::byte* base = weights.memory.data();
  WeightLoader loader(checkpoint, backend, numerics, pool, progress, cancel,
                      here + there + locked_bytes_ - (slots_ ? expert_cache_bytes(slots_) : 0));
  loader.use(std::move(staging), base);
  if (there > 0) {
    NIB_ASSIGN(weights.device_memory,
               Buffer::make(there, *device.memory, Purpose::weights,
                            concat("the weights of ", checkpoint.path, " on the device")));
    NIB_ASSIGN(Buffer upload,
               Buffer::make(for_upload, memory, Purpose::staging, "the buffers for weights of the device"));
    if (locked_bytes_ > 0) {
      NIB_ASSIGN(weights.locked_memory,
                 Buffer::make(locked_bytes_, memory, Purpose::weights,
                              concat("page-locked memory for the experts of ", checkpoint.path),
                              device.device->locked_allocator()));
    }
    loader.use(*device.device, weights.device_memory.data(), weights.locked_memory.data(), std::move(upload),
               pool);
  }

  weights.embedding = {embedding_->format, config.vocabulary, config.hidden, base + embedding_offset_};
  NIB_TRY(loader.load_rows(*embedding_, embedding_offset_));
  const auto one = [&](const Matrix& m, Numerics kind, PackedWeight& out) -> Status {
    NIB_ASSIGN(std::vector<PackedWeight> packed, loader.load_matrix(m, kind));
    if (!packed.empty()) out = packed.front();
    return {};
  };
  for (const Layer& from : layers_) {
    LayerWeights& to = weights.layers.emplace_back();
    NIB_ASSIGN(to.attention_norm, loader.load_vector(from.attention_norm));
    NIB_ASSIGN(to.attention_norm_bias, loader.load_vector(from.attention_norm_bias));
    for (const Matrix& m : from.qkv) {
      NIB_ASSIGN(std::vector<PackedWeight> packed, loader.load_matrix(m, loader.shared_numerics({from.qkv})));
      to.qkv.push_back(packed.front());
    }
    NIB_ASSIGN(to.qkv_bias, loader.load_vector(from.qkv_bias));
    NIB_ASSIGN(to.q_norm, loader.load_vector(from.q_norm));
    NIB_ASSIGN(to.k_norm, loader.load_vector(from.k_norm));
    NIB_ASSIGN(to.sinks, loader.load_vector(from.sinks));
    NIB_TRY(one(from.output, numerics, to.output));
    NIB_ASSIGN(to.output_bias, loader.load_vector(from.output_bias));
    NIB_ASSIGN(to.mlp_norm, loader.load_vector(from.mlp_norm));
    NIB_ASSIGN(to.mlp_norm_bias, loader.load_vector(from.mlp_norm_bias));
    NIB_TRY(one(from.router, router_numerics(numerics), to.router));
    NIB_ASSIGN(to.router_bias, loader.load_vector(from.router_bias));
    const Numerics gate_up = loader.shared_numerics({{&from.gate_up, 1}, {&from.up, 1}});
    NIB_ASSIGN(to.gate_up, loader.load_matrix(from.gate_up, gate_up));
    NIB_ASSIGN(to.up, loader.load_matrix(from.up, gate_up));
    NIB_ASSIGN(to.gate_up_bias, loader.load_vector(from.gate_up_bias));
    NIB_ASSIGN(to.down, loader.load_matrix(from.down, numerics));
    NIB_ASSIGN(to.down_bias, loader.load_vector(from.down_bias));
    NIB_ASSIGN(to.slots, loader.slots_of(from));
  }
  NIB_ASSIGN(weights.final_norm, loader.load_vector(final_norm_));
  NIB_ASSIGN(weights.final_norm_bias, loader.load_vector(final_norm_bias_));
  NIB_ASSIGN(weights.rope_divisors, loader.load_vector(rope_divisors_));
  NIB_TRY(one(head_, numerics, weights.head));
  return weights;
}

}  // namespace nib::inline v0
