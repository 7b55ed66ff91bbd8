// Room io: Checkpoint: what a model's directory or GGUF file holds: the configuration, where the tokenizer
// is, and for every tensor its format, logical shape and the bytes of its planes. No weight is read here,
// only the few bytes that describe a quantized tensor.
//
// What files store in several tensors is one tensor here, with several planes, possibly in several files. X
// is the name it has here:
//
//   MXFP4                 X_blocks U8 [..., G, 16] and X_scales U8 [..., G]; in the original layout X.blocks
//                         and X.scales
//   NVFP4                 X U8 [..., in / 2], X_scale F8_E4M3 [..., in / 16], X_scale_2 F32 (ModelOpt);
//                         X_packed, X_scale, X_global_scale, which divides (compressed-tensors)
//   FP8                   X F8_E4M3 or F8_E5M2 with X_scale_inv, one for each block of weight_block_size, or
//                         with X_scale, one for each tensor, row or block
//   bitsandbytes 4 bits   X U8, X.absmax, X.quant_map, X.quant_state.bitsandbytes__nf4 (or __fp4) and, where
//                         scales are quantized too, X.nested_absmax, X.nested_quant_map
//   LLM.int8              Y.weight I8 and Y.SCB are Y.weight
//   int8                  X I8 with X_scale (compressed-tensors)
//   NVFP4 in GGUF         Y.weight and, where there is one, Y.scale are Y.weight
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/base/status.hpp>
#include <nibble/formats/format.hpp>
#include <nibble/formats/scaling.hpp>
#include <nibble/io/file.hpp>
#include <nibble/io/gguf.hpp>
#include <nibble/io/safetensors.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

// A run of bytes in one of a checkpoint's files.
struct Plane {
  static constexpr std::uint32_t kNowhere = UINT32_MAX;
  std::uint32_t file = 0;    // index into Checkpoint::files, or kNowhere: its bytes are in a prepared matrix
  std::uint64_t offset = 0;  // from the beginning of that file
  std::uint64_t bytes = 0;   // 0: there is no such plane
};

// How a quantized tensor is scaled, beyond what its Format says.
struct Scaling {
  DType type = DType::u8;  // of the elements of the scales plane
  // Which of them belongs to a value. Tiles are those of a matrix, shape[rank - 2] rows of shape[rank - 1]
  // values; in a stack of matrices the scales of one follow those of the one before. A run is one of the
  // whole tensor.
  ScaleSharing sharing;
  // What every value is multiplied by on top: nothing (1), one number, or one for each matrix of a stack.
  std::vector<double> factors;

  // Double quantization (nf4, bnb_fp4): the scales plane holds a byte a scale, see NestedScales.
  Plane nested_scales;             // f32; no bytes: there is none
  std::vector<float> nested_map;   // 256
  std::uint64_t nested_group = 0;  // scales that share one of nested_scales
  float nested_offset = 0;
};

struct CheckpointTensor {
  std::string name;
  Format format = Format::none;      // none: stored in a type that is no weight format here; see type_name
  DType dtype = DType::u8;           // of the stored elements (u8 for blocks and packed codes)
  std::string_view type_name;        // what the file calls them: "BF16", "U8", "Q4_K"; static storage
  std::vector<std::uint64_t> shape;  // logical: what the values form, row-major
  Plane codes;
  Plane scales;
  Scaling scaling;
};

// Bytes of all planes.
constexpr std::uint64_t stored_bytes(const CheckpointTensor& tensor) {
  return tensor.codes.bytes + tensor.scales.bytes + tensor.scaling.nested_scales.bytes;
}

// A matrix, or all experts of one, in the order in which kernels read it: records of which each is one
// expert, padded to record_bytes.
struct PreparedMatrix {
  Plane plane;
  std::uint64_t records = 0, record_bytes = 0;
  std::uint8_t finding = 0;  // 0..9: what was seen while packing, as those who pack mean it
};
struct Prepared {
  std::uint32_t layout = 0;  // version of the packed order
  // By the name of the first of the tensors that were packed into it.
  std::map<std::string, PreparedMatrix, std::less<>> matrices;
};

// What the caller cannot do without. A vocabulary alone needs neither.
struct CheckpointNeeds {
  bool config = true;
  bool weights = true;
};

// Movable, immutable after opening, and then safe from any number of threads. It keeps its files open.
struct Checkpoint {
  std::string path;       // as the user gave it
  std::string directory;  // where the configuration was looked for
  std::vector<std::unique_ptr<File>> files;
  std::vector<CheckpointTensor> tensors;  // sorted by name

  Json config;  // an object; null when there is none: in a GGUF file, or without needs.config
  std::optional<Json> generation_config, tokenizer_config;  // objects
  std::optional<std::string> tokenizer_path;                // of tokenizer.json, unread
  // chat_template.jinja, else chat_template.json, else tokenizer_config.json; tokenizer.chat_template in a
  // GGUF file
  std::optional<std::string> chat_template;

  // Of a GGUF file (the first of a split one), which is configuration and tokenizer at once; else nothing.
  // Its tensors have their names of that file.
  std::optional<GgufMetadata> gguf;

  // Of a prepared model (see prepared.hpp); then tensors are described, and those without a file are packed
  // in one of the matrices.
  std::optional<Prepared> prepared;

  // Null pointer when there is no such tensor.
  const CheckpointTensor* find(std::string_view name) const;
};

// Opens what `path` names:
//   a directory            by model.safetensors.index.json, else model.safetensors, else every *.safetensors
//                          in it, else the one GGUF file in it
//   an index or a shard    the directory it lies in (a shard: "...-00001-of-00002.safetensors")
//   another .safetensors   that file alone, with the configuration beside it
//   a .gguf file           that file alone; if it is "...-00001-of-00002.gguf", all files of the split
// With an index, its weight_map decides what exists and where; other tensors of the shards are ignored. What
// a directory called "original" lacks of the tokenizer is looked for in the one above it.
//
// Errors: not_found (the path, a shard, config.json), format (a file contradicts itself or another),
// unsupported (a file of another kind, a quantization that nibble does not read), argument (a directory of
// several GGUF files), io, memory. Messages name file and tensor or key. Any thread.
Result<Checkpoint> open_checkpoint(const std::string& path, const FileSystem& files = disk_file_system(),
                                   CheckpointNeeds needs = {});

// Bytes of a plane from `offset_in_plane` on. Errors: argument (past the end of the plane), unsupported (the
// plane is packed in a prepared file), those of read_at.
Status read_plane(const Checkpoint& checkpoint, const Plane& plane, std::uint64_t offset_in_plane,
                  std::span<std::byte> out);

// Values of the tensor as numbers, from the first of row `first_row` on; rows are those of the last dimension
// (a tensor without dimensions is one row of one). out.size() is a whole number of rows. The product of
// level, scale and factor is rounded to T once. For looking at weights and for checking faster paths: it
// decodes one value after the other. Errors: unsupported (Format::none), argument (rows that are not there),
// memory, those of read_at. Any thread.
Status read_values(const Checkpoint& checkpoint, const CheckpointTensor& tensor, std::uint64_t first_row,
                   std::span<float> out);
Status read_values(const Checkpoint& checkpoint, const CheckpointTensor& tensor, std::uint64_t first_row,
                   std::span<double> out);

// How many consecutive values of a row share a scale, for a format whose scales a tensor shares in its own
// way: the largest run that begins anew in every row. Runs that go on over the ends of rows become shorter
// ones.
std::uint64_t row_scale_run(const CheckpointTensor& tensor);
// The f32 scales of row `row`, one for each run of row_scale_run values or a divisor of it, the last cut
// short: out.size() = ceil(values in a row / run). Errors: those of read_at. Any thread.
Status read_row_scales(const Checkpoint& checkpoint, const CheckpointTensor& tensor, std::uint64_t row,
                       std::uint64_t run, std::span<float> out);

// What values of row `row` are multiplied by beyond level and scale: 1 unless the tensor has factors.
double row_factor(const CheckpointTensor& tensor, std::uint64_t row);

}  // namespace nib::inline v0
