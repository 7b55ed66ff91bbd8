// What a plan and an open read first: a checkpoint's headers, understood. Private to the room.
#pragma once

#include <nibble/io/checkpoint.hpp>
#include <nibble/model/kv_cache.hpp>
#include <nibble/model/weights.hpp>
#include <nibble/runtime/plan.hpp>

#include <optional>
#include <string_view>

namespace nib::inline v0 {

struct OpenedHeaders {
  Checkpoint checkpoint;
  ModelConfig config;
  std::optional<WeightLayout> weights;  // none for a vocabulary alone
  Placement placement;
  KvGeometry kv;
  const Backend* backend = nullptr;
  std::uint32_t rows = 0;        // of one forward pass
  std::uint32_t logit_rows = 0;  // of these, whose logits there is room for
  std::uint32_t context = 0;     // of the session planned for
  std::uint64_t budget = 0;
};

Result<OpenedHeaders> open_headers(const Runtime& runtime, std::string_view path, const ModelOptions& model,
                                   const SessionOptions& session, std::uint32_t sessions);

// Bytes of the cache of one session in one place, and its pages there.
std::uint64_t kv_cache_bytes(const KvGeometry& kv, Place place, std::uint32_t context, std::uint32_t rows);
std::uint64_t kv_cache_pages(const KvGeometry& kv, Place place, std::uint32_t context, std::uint32_t rows);

}  // namespace nib::inline v0
