// A model without a runtime around it: opened, loaded and run row by row, with every choice in the test's
// hands.
#pragma once

#include "support/backends.hpp"
#include <nibble/base/pool.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/model/transformer.hpp>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {

struct RigOptions {
  const Backend* backend = cpu_backends().back();
  Numerics numerics = Numerics::f32;
  KvFormat kv_format = KvFormat::automatic;
  int threads = 2;
  std::int64_t rows = 64;  // of one forward pass
  std::uint32_t context = 4096;
  Placement (*placement)(const ModelConfig&) = nullptr;  // with a library, of which the device is taken
  const DeviceLibrary* library = nullptr;
  int device = 0;
  std::uint32_t expert_slots = 0;  // of each layer whose experts the device computes; 0: as many as experts
  void (*mutate_config)(ModelConfig&) = nullptr;
  void (*mutate_weights)(Weights&) = nullptr;
};

class ModelRig {
 public:
  ModelRig(const std::string& path, const RigOptions& options, const FileSystem& files = disk_file_system())
      : options_(options) {
    auto checkpoint = open_checkpoint(path, files);
    REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
    auto parsed = read_config(*checkpoint);
    REQUIRE_MESSAGE(parsed.ok(), parsed.status().message());
    config = parsed.take();
    if (options.mutate_config) options.mutate_config(config);
    const Placement placement = options.placement ? options.placement(config) : Placement{};
    if (options.library) {
      auto opened = Device::open(*options.library, options.device);
      REQUIRE_MESSAGE(opened.ok(), opened.status().message());
      device_ = opened.take();
      device_memory_.emplace(device_->allocator());
    }
    auto layout = WeightLayout::make(*checkpoint, config, placement);
    REQUIRE_MESSAGE(layout.ok(), layout.status().message());
    if (options.expert_slots) {
      layout = WeightLayout::make(*checkpoint, config, placement,
                                  layout->expert_cache_bytes(options.expert_slots));
      REQUIRE_MESSAGE(layout.ok(), layout.status().message());
      REQUIRE(layout->expert_slots() == options.expert_slots);
    }
    pool_ = Pool::start(options.threads).take();
    auto loaded = layout->load(*checkpoint, config, *options.backend, options.numerics, memory_, *pool_, {},
                               nullptr, {device_.get(), device_memory_ ? &*device_memory_ : nullptr});
    REQUIRE_MESSAGE(loaded.ok(), loaded.status().message());
    weights_ = loaded.take();
    if (options.mutate_weights) options.mutate_weights(weights_);
    geometry_ = KvGeometry::make(config, resolve(options.kv_format, options.numerics), placement);
    for (std::size_t kind = 0; kind < geometry_.kinds.size(); ++kind) {
      const bool there = geometry_.kinds[kind].place == Place::device;
      pools_.push_back(std::make_unique<PagePool>(
          there ? *device_memory_ : memory_, geometry_.page_bytes(kind), there ? device_.get() : nullptr));
    }
    workspace_ = Workspace::make(config, options.rows, options.rows, options.threads, memory_).take();
    if (device_) {
      auto there = DeviceWorkspace::make(*device_, config, geometry_, options.rows, options.rows, 4096,
                                         *device_memory_);
      REQUIRE_MESSAGE(there.ok(), there.status().message());
      workspace_.on_device = there.take();
    }
    transformer_ = std::make_unique<Transformer>(config, weights_, geometry_, *options.backend,
                                                 options.numerics, *pool_, placement, device_.get());
  }

  std::unique_ptr<KvCache> cache() {
    auto made = KvCache::make(geometry_, pools_, options_.context, static_cast<std::uint32_t>(options_.rows));
    REQUIRE_MESSAGE(made.ok(), made.status().message());
    return made.take();
  }

  // Feeds tokens to the cache in chunks and returns the logits of every row [tokens][vocabulary].
  std::vector<float> feed(KvCache& cache, std::span<const std::uint32_t> tokens) {
    std::vector<float> all;
    for (std::size_t at = 0; at < tokens.size();) {
      const std::size_t rows =
          std::min<std::size_t>(tokens.size() - at, static_cast<std::size_t>(options_.rows));
      REQUIRE(cache.extend(static_cast<std::int64_t>(rows)).ok());
      std::vector<BatchRow> batch;
      for (std::size_t i = 0; i < rows; ++i)
        batch.push_back({&cache, tokens[at + i], cache.length() + static_cast<std::int64_t>(i), true});
      forward(batch, all);
      cache.advance(static_cast<std::int64_t>(rows));
      at += rows;
    }
    cache.checkpoint();
    return all;
  }

  // Of a pass alone, which may fail.
  Status attempt(std::span<const BatchRow> batch, std::span<const DrawnRow> drawn = {}) {
    return transformer_->forward(batch, workspace_, nullptr, drawn);
  }
  const Workspace& workspace() const { return workspace_; }
  const Device& device() const { return *device_; }
  const Pool& pool() const { return *pool_; }
  void forward(std::span<const BatchRow> batch, std::vector<float>& logits) {
    const Status done = attempt(batch);
    REQUIRE_MESSAGE(done.ok(), done.message());
    for (std::size_t i = 0; i < workspace_.picked.size(); ++i) {
      const float* row = workspace_.logits + static_cast<std::int64_t>(i) * transformer_->logit_stride();
      logits.insert(logits.end(), row, row + config.vocabulary);
    }
  }

  // Experts copied to slots so far, of each layer that has any.
  std::vector<std::int64_t> copied() const {
    std::vector<std::int64_t> out;
    for (const LayerWeights& layer : weights_.layers) {
      if (!layer.slots.count) continue;
      std::int64_t numbers[2] = {};
      REQUIRE(device_->download(numbers, layer.slots.table, sizeof numbers).ok());
      out.push_back(numbers[1]);
    }
    return out;
  }

  ModelConfig config;

 private:
  RigOptions options_;
  Memory memory_;
  std::unique_ptr<Device> device_;
  std::optional<Memory> device_memory_;
  std::unique_ptr<Pool> pool_;
  Weights weights_;
  KvGeometry geometry_;
  std::vector<std::unique_ptr<PagePool>> pools_;
  Workspace workspace_;
  std::unique_ptr<Transformer> transformer_;
};

// golden.safetensors: what an independent implementation computed.
struct Golden {
  std::vector<std::uint32_t> input_ids, greedy_ids;
  std::vector<float> logits;  // [input_ids][vocabulary]

  static std::vector<std::byte> read(const std::string& path, std::string_view name) {
    auto file = disk_file_system().open(path);
    REQUIRE_MESSAGE(file.ok(), file.status().message());
    auto header = read_safetensors_header(**file);
    REQUIRE_MESSAGE(header.ok(), header.status().message());
    for (const TensorEntry& entry : header->tensors)
      if (entry.name == name) {
        std::vector<std::byte> bytes(entry.bytes);
        REQUIRE((*file)->read_at(entry.offset, bytes).ok());
        return bytes;
      }
    FAIL(path << " has no tensor " << name);
    return {};
  }
  static bool has(const std::string& path, std::string_view name) {
    auto file = disk_file_system().open(path);
    REQUIRE_MESSAGE(file.ok(), file.status().message());
    auto header = read_safetensors_header(**file);
    REQUIRE_MESSAGE(header.ok(), header.status().message());
    return std::any_of(header->tensors.begin(), header->tensors.end(),
                       [&](const TensorEntry& entry) { return entry.name == name; });
  }
  static std::vector<std::uint32_t> ids(const std::string& path, std::string_view name) {
    const auto bytes = read(path, name);
    std::vector<std::uint32_t> out;
    for (std::size_t i = 0; i < bytes.size(); i += 8)
      out.push_back(*reinterpret_cast<const std::uint32_t*>(&bytes[i]));
    return out;
  }
  static std::vector<float> floats(const std::string& path, std::string_view name) {
    const auto bytes = read(path, name);
    const auto* values = reinterpret_cast<const float*>(bytes.data());
    return {values, values + bytes.size() / 4};
  }
  static Golden load(const std::string& folder) {
    const std::string path = folder + "/golden.safetensors";
    return {ids(path, "input_ids"), ids(path, "greedy_ids"), floats(path, "logits")};
  }
};

}  // namespace nib::test
