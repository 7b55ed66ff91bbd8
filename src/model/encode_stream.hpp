// Private to the room: a weight through memory in blocks of rows: read as floats, encoded, handed on.
#pragma once

#include "row_source.hpp"
#include <nibble/formats/scaling.hpp>
#include <nibble/io/quantized_parts.hpp>
#include <nibble/kernels/encode.hpp>
#include <nibble/model/quantize.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace nib::inline v0 {

struct Encoding {
  Format format = Format::none;
  ScaleSharing sharing = {};
  bool nested = false;
  ScaleRule rule = ScaleRule::usual;
};

struct StreamHooks {
  // Bytes of a part of the encoded weight, from any thread, one call at a time. Codes come in order; so do
  // scales beside them; the others each in one piece at the end.
  std::function<Status(Part part, std::uint64_t offset, std::span<const std::byte> bytes)> write;
  // Between blocks: so many rows are done, of `of` rows. What it returns ends the stream.
  std::function<Status(std::int64_t rows, std::int64_t of)> step;
};

struct Encoded {
  Noise noise;  // of each row (of the rows in which its scales repeat), and these added in their order
  float nested_offset = 0;
};

// Whether the encoder of this format has that rule.
bool has_scale_rule(Format format, ScaleRule rule);

// The rows of `plan` are a whole number of groups. Formats that need a largest magnitude first are read
// twice.
Result<Encoded> encode_weight(RowSource& source, const WeightPlan& plan, const Encoding& how, Pool& pool,
                              const StreamHooks& hooks);

// Whether copy_weight can: every part is stored in a format that both containers spell alike, or as MXFP4,
// which is the same numbers in other blocks, and nothing of it is turned or moved value by value.
bool can_copy(const WeightPlan& plan, Format to);

// The bytes of `plan` as they are stored, row by row in its order; MXFP4 of safetensors is put into the
// blocks of GGUF, or the other way round. The plan is one that can be copied.
Status copy_weight(const Checkpoint& checkpoint, RowSource& source, const WeightPlan& plan, Format to,
                   Pool& pool, const StreamHooks& hooks);

// A plane as it is.
Status copy_plane(const Checkpoint& checkpoint, const Plane& plane, const StreamHooks& hooks, Part part);

}  // namespace nib::inline v0
