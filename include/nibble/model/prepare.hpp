// Room model: prepare_checkpoint: a model written anew in the order in which kernels read it, so that opening
// it is reading, without packing.
#pragma once

#include <nibble/base/cancel.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/base/status.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/io/file.hpp>

#include <cstdint>
#include <string>

namespace nib::inline v0 {

struct PrepareOptions {
  Overwrite overwrite = Overwrite::no;
  ProgressSink progress = {};  // Stage::quantize, in bytes that are packed
  const Cancel* cancel = nullptr;
};

struct PrepareReport {
  std::uint64_t matrices = 0;  // packed; a stack of experts is one
  std::uint64_t others = 0;    // tensors that went over as they are: norms, biases, the embedding
  std::uint64_t bytes = 0;     // of the file
};

// Writes the directory `path` (see io/prepared.hpp): all that the model needs and nothing else, weights with
// the same numbers in the same formats, on every instruction set. It is a directory for nibble alone, and for
// versions that have the same layout (kPackedLayout): keep the model it was made of.
//
// Memory: a few MiB for each thread, and one expert or 64 MiB, whichever is more. Errors: argument (`path`
// exists, or is where the checkpoint lies), unsupported (an architecture or a format that nibble cannot run,
// a model that is prepared), format (a scale that is not a number), stopped, io, memory, those of reading.
// After any of them nothing is left behind. One caller for each pool at a time.
Result<PrepareReport> prepare_checkpoint(const Checkpoint& checkpoint, const std::string& path,
                                         const PrepareOptions& options, Pool& pool,
                                         const FileSystem& files = disk_file_system());

}  // namespace nib::inline v0
