// Room io: Checkpoint: what a model's directory holds: the configuration, where the tokenizer is, and for
// every tensor its format, logical shape and the bytes of its planes. No weight is read here.
//
// A tensor may be stored in two planes, codes and scales; they are one tensor here, possibly in two files:
//   MXFP4   X_blocks [..., G, 16] and X_scales [..., G] (Hugging Face), X.blocks and X.scales (the original
//   layout)
//           are X: Format::mxfp4, shape [..., 32 G]
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/base/status.hpp>
#include <nibble/formats/format.hpp>
#include <nibble/io/file.hpp>
#include <nibble/io/safetensors.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

// A run of bytes in one of a checkpoint's files.
struct Plane {
  std::uint32_t file = 0;    // index into Checkpoint::files
  std::uint64_t offset = 0;  // from the beginning of that file
  std::uint64_t bytes = 0;   // 0: there is no such plane
};

struct CheckpointTensor {
  std::string name;
  Format format = Format::none;      // none: stored in a dtype that is no weight format; see dtype
  DType dtype = DType::u8;           // of the stored elements (u8 for mxfp4)
  std::vector<std::uint64_t> shape;  // logical: what the values form, row-major
  Plane codes;
  Plane scales;
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

  Json config;  // an object; null when there is none (only without needs.config)
  std::optional<Json> generation_config, tokenizer_config;  // objects
  std::optional<std::string> tokenizer_path;                // of tokenizer.json, unread
  std::optional<std::string> chat_template;  // chat_template.jinja, else the one in tokenizer_config.json

  // Null pointer when there is no such tensor.
  const CheckpointTensor* find(std::string_view name) const;
};

// Opens what `path` names:
//   a directory            through model.safetensors.index.json, else model.safetensors, else every
//   *.safetensors in it an index or a shard    the directory it lies in (a shard is named
//   "...-00001-of-00002.safetensors") any other .safetensors that file alone, with the configuration beside
//   it
// With an index, its weight_map decides what exists and where; other tensors of the shards are ignored.
//
// Errors: not_found (the path, a shard, config.json), format (a file contradicts itself or another),
// unsupported (a file of another kind, a quantization that nibble does not read), io, memory. Messages name
// file and tensor or key. Any thread.
Result<Checkpoint> open_checkpoint(const std::string& path, const FileSystem& files = disk_file_system(),
                                   CheckpointNeeds needs = {});

// Bytes of a plane from `offset_in_plane` on. Errors: argument (past the end of the plane), those of read_at.
Status read_plane(const Checkpoint& checkpoint, const Plane& plane, std::uint64_t offset_in_plane,
                  std::span<std::byte> out);

}  // namespace nib::inline v0
