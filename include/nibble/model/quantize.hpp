// Room model: quantize_checkpoint: a model written anew with its weights in another format, and where asked
// in the other container.
//
// A tensor streams through memory in blocks of rows, on all threads: as its own format says it, as floats,
// and as the new one. What is not quantized goes over byte for byte. Files appear whole or not at all, and
// never in the place of others unless that is wanted.
#pragma once

#include <nibble/base/cancel.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/base/status.hpp>
#include <nibble/formats/format.hpp>
#include <nibble/formats/scaling.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/io/file.hpp>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

// One way to store weights, as users name it.
struct TargetFormat {
  const char* name;        // "nf4-double"
  const char* meaning;     // in a few words
  Format safetensors;      // none: no safetensors file holds it
  Format gguf;             // none: no GGUF file holds it
  ScaleSharing sharing{};  // of formats whose scales are Scales::shared
  bool nested = false;     // the scales of nf4 and fp4 are quantized themselves
  bool has_rules = false;  // ScaleRule other than usual may be chosen
};

// All that can be written; static storage.
std::span<const TargetFormat> target_formats();
// Null pointer for a name that is none of them.
const TargetFormat* find_target_format(std::string_view name);

struct QuantizeOptions {
  const TargetFormat* format = nullptr;  // of target_formats()
  ScaleRule scale_rule = ScaleRule::usual;
  // Which tensors, by the names they have in the checkpoint. Empty: for the plain formats all; else the
  // weights of matrix products inside the layers (of mxfp4, in a model of experts, theirs alone), but not the
  // router, embeddings and head, norms and biases. Tensors of fewer than two dimensions are never quantized.
  std::function<bool(std::string_view)> only;
  Overwrite overwrite = Overwrite::no;
  std::uint64_t most_shard_bytes = std::uint64_t{5} << 30;  // of one safetensors file, if its tensors let it
  ProgressSink progress = {};                               // Stage::quantize, in bytes that are read
  const Cancel* cancel = nullptr;                           // seen within a block of rows
};

struct QuantizeReport {
  std::uint64_t tensors = 0;                        // written
  std::uint64_t quantized = 0;                      // of them, into the format asked for
  std::uint64_t weights = 0;                        // values of those
  std::uint64_t weight_bytes = 0;                   // bytes of those, scales included
  std::uint64_t bytes_before = 0, bytes_after = 0;  // of all tensors
  // Of the quantized: sums of squares of the values before, and of what changed, to six digits and the same
  // on every machine (Noise in kernels/encode.hpp).
  double signal = 0, noise = 0;
  // Sentences about what was asked for and not done, and what the other container cannot say.
  std::vector<std::string> notes;
};

// Writes `checkpoint` to `path`: a GGUF file when the name ends in ".gguf", else a directory as on Hugging
// Face, with config.json, tokenizer and templates beside the weights. From one container to the other,
// configuration and vocabulary are said in its words and read back, tensors get its names, shapes and order
// of rows. Memory: a few MiB for each thread, the scales of one tensor, the vocabulary, and where experts are
// stored the other way round (gpt-oss in a plain format) one expert.
//
// A tensor that the format cannot hold (rows that are no whole number of groups, a stack of matrices in a
// format of matrices) stays as it is, and a note says so; when no tensor is left, that is an error. Out of a
// GGUF file into a directory what is not quantized stays plain, or the MXFP4 of gpt-oss; else it becomes
// bf16, which a note says.
//
// The numbers do not depend on the number of threads. `files` is where the checkpoint was opened; what is
// written goes to the disk. Errors: argument (a rule that the format does not have, nothing to quantize,
// `path` exists, or is where the checkpoint lies), unsupported (an architecture that nibble does not know, a
// format that the container does not hold, a model or a tokenizer that the other container does not
// describe), stopped, io, memory, those of reading. After any of them nothing is left behind. One caller for
// each pool at a time.
Result<QuantizeReport> quantize_checkpoint(const Checkpoint& checkpoint, const std::string& path,
                                           const QuantizeOptions& options, Pool& pool,
                                           const FileSystem& files = disk_file_system());

}  // namespace nib::inline v0
