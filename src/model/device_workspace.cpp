// The activations of a forward pass on a device.
#include "take_routing.hpp"
#include <nibble/model/transformer.hpp>

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace nib::inline v0 {
namespace {

// Rows of bf16 begin at multiples of 64.
std::int64_t bf16_floats(std::int64_t rows, std::int64_t width) {
  return rows * std::max(row_stride(width), round_up(width, std::int64_t{64}) / 2);
}

}  // namespace

template <class Take>
void DeviceWorkspace::carve(const ModelConfig& config, std::int64_t rows, std::int64_t logit_rows,
                            Take&& take) {
  const std::int64_t entries = rows * config.experts_per_token;
  take(x, rows * row_stride(config.hidden));
  take(normed, bf16_floats(std::max(rows, logit_rows), config.hidden));
  take(squares, std::max(rows, logit_rows) * norm_squares(config.hidden));
  take(qkv, rows * row_stride(config.qkv_rows()));
  take(attention, bf16_floats(rows, std::int64_t{config.heads} * config.head_dim));
  take(router_logits, rows * row_stride(config.experts));
  take_routing(routing, config, rows, take);
  take(expert_outputs, entries * row_stride(config.hidden));
  take(logits, logit_rows * row_stride(config.vocabulary));
  digests.carve(config.vocabulary, logit_rows, take);
  take(packed_inner, bf16_floats(entries, config.expert_width) * std::int64_t{sizeof(float)});
  const DeviceLimits limits{rows,
                            logit_rows,
                            config.hidden,
                            config.heads,
                            config.kv_heads,
                            config.head_dim,
                            config.experts,
                            config.experts_per_token,
                            config.expert_width,
                            config.vocabulary};
  tile_floats = static_cast<std::int64_t>(device_scratch_bytes(limits) / sizeof(float));
  take(tiles, tile_floats);
  take(picked_, logit_rows);
  take(inputs_, input_bytes_);
}

// Room for cos, sin, the rows of each kind and the page tables, of which every session of a batch has one,
// each from a multiple of 64 on.
static std::int64_t most_input_bytes(const ModelConfig& config, const KvGeometry& kv, std::int64_t rows,
                                     std::uint64_t page_addresses) {
  const auto angles = rows * config.rotary_dim / 2 * std::int64_t{sizeof(float)};
  const auto kinds = static_cast<std::int64_t>(kv.kinds.size());
  return 2 * angles + kinds * rows * std::int64_t{sizeof(KvRow)} +
         static_cast<std::int64_t>(page_addresses * sizeof(std::byte*)) + (2 + kinds * (rows + 1)) * 64;
}

std::uint64_t DeviceWorkspace::bytes(const ModelConfig& config, const KvGeometry& kv, std::int64_t rows,
                                     std::int64_t logit_rows, std::uint64_t page_addresses) {
  DeviceWorkspace shape;
  shape.input_bytes_ = most_input_bytes(config, kv, rows, page_addresses);
  std::uint64_t total = 0;
  shape.carve(config, rows, logit_rows, [&](auto*& pointer, std::int64_t count) {
    total += round_up(static_cast<std::uint64_t>(count) * sizeof *pointer, std::uint64_t{256});
  });
  return total;
}

Result<std::unique_ptr<DeviceWorkspace>> DeviceWorkspace::make(const Device& device,
                                                               const ModelConfig& config,
                                                               const KvGeometry& kv, std::int64_t rows,
                                                               std::int64_t logit_rows,
                                                               std::uint64_t page_addresses, Memory& memory) {
  std::unique_ptr<DeviceWorkspace> made(new DeviceWorkspace);
  made->device_ = &device;
  made->kv_ = &kv;
  made->input_bytes_ = most_input_bytes(config, kv, rows, page_addresses);
  made->kv_rows_.resize(kv.kinds.size());
  NIB_ASSIGN(made->memory_,
             Buffer::make(bytes(config, kv, rows, logit_rows, page_addresses), memory, Purpose::activations,
                          "the activations of a forward pass on the device"));
  std::byte* next = made->memory_.data();
  // Counters and what lies beyond widths is read as zeros.
  NIB_TRY(device.clear(next, made->memory_.size()));
  made->carve(config, rows, logit_rows, [&](auto*& pointer, std::int64_t count) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(next);
    next += round_up(static_cast<std::uint64_t>(count) * sizeof *pointer, std::uint64_t{256});
  });
  return made;
}

Status DeviceWorkspace::place(std::span<const BatchRow> batch, const Workspace& host, std::size_t half) {
  // What grows comes last: as long as the batch has as many rows, ops find all else where it was before.
  staged_.clear();
  // Makes room in what will be sent, and returns where.
  const auto reserve = [&](std::size_t bytes) {
    const std::size_t at = round_up(staged_.size(), std::size_t{64});
    staged_.resize(at + bytes);
    return at;
  };
  const auto write = [&](std::size_t at, const void* data, std::size_t bytes) {
    if (bytes > 0) std::memcpy(staged_.data() + at, data, bytes);
  };
  const std::size_t angles = batch.size() * half * sizeof(float), cos_at = reserve(angles),
                    sin_at = reserve(angles);
  write(cos_at, host.cos, angles);
  write(sin_at, host.sin, angles);
  cos = reinterpret_cast<float*>(inputs_ + cos_at);
  sin = reinterpret_cast<float*>(inputs_ + sin_at);
  std::vector<std::size_t> rows_at(kv_->kinds.size());
  for (std::size_t kind = 0; kind < rows_at.size(); ++kind) {
    if (kv_->kinds[kind].place != Place::device) continue;
    rows_at[kind] = reserve(batch.size() * sizeof(KvRow));
    kv_rows_[kind] = reinterpret_cast<const KvRow*>(inputs_ + rows_at[kind]);
  }
  for (std::size_t kind = 0; kind < rows_at.size(); ++kind) {
    if (kv_->kinds[kind].place != Place::device) continue;
    const KvCache* cache = nullptr;
    std::byte* const* table = nullptr;
    for (std::size_t r = 0; r < batch.size(); ++r) {
      if (batch[r].cache != cache) {  // rows of a session stand together
        cache = batch[r].cache;
        const std::span<std::byte* const> pages = cache->pages(kind);
        const std::size_t at = reserve(pages.size_bytes());
        write(at, pages.data(), pages.size_bytes());
        table = reinterpret_cast<std::byte* const*>(inputs_ + at);
      }
      KvRow row = cache->row(kind, batch[r].position);
      row.pages = table;
      write(rows_at[kind] + r * sizeof row, &row, sizeof row);
    }
  }
  if (staged_.size() > static_cast<std::size_t>(input_bytes_))
    return Status(Code::internal, "the key/value cache has more pages than were planned for");
  NIB_TRY(device_->upload(inputs_, staged_.data(), staged_.size()));
  return pick(host.picked);
}

Status DeviceWorkspace::pick(std::span<const std::int32_t> rows) {
  return device_->upload(picked_, rows.data(), rows.size_bytes());
}

}  // namespace nib::inline v0
