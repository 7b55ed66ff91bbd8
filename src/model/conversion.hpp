// Private to the room: what writing to both containers shares: which tensors are meant, and how far it is.
#pragma once

#include "encode_stream.hpp"
#include "weight_roles.hpp"
#include <nibble/model/quantize.hpp>

#include <map>
#include <string>

namespace nib::inline v0 {

constexpr bool is_plain(Format format) {
  return format == Format::f32 || format == Format::f16 || format == Format::bf16;
}

struct Conversion {
  const Checkpoint& checkpoint;
  const ModelConfig& config;
  const QuantizeOptions& options;
  Pool& pool;
  const FileSystem& files;
  Format format = Format::none;  // the one asked for, as this container has it
  QuantizeReport report = {};
  std::uint64_t total = 0, done = 0;  // bytes of the checkpoint, to be read and read already

  // Whether the tensors behind this plan are to be quantized.
  bool wanted(const WeightPlan& plan, Role role) const;
  // Why the plan cannot have the format; empty when it can.
  std::string obstacle(const WeightPlan& plan, Role role) const;
  // Tensors of which the same is to be said become one note.
  void note(const WeightPlan& plan, const std::string& what);
  void note_kept(const WeightPlan& plan, const std::string& why);
  void finish_notes();
  Status nothing_to_quantize();

  // Encodes or copies with progress; `write` is StreamHooks::write.
  Result<Encoded> encode(const WeightPlan& plan, const Encoding& how, decltype(StreamHooks::write) write);
  Status copy(const WeightPlan& plan, Format to, decltype(StreamHooks::write) write);
  StreamHooks hooks(std::uint64_t bytes, decltype(StreamHooks::write) write);
  // Counts a tensor that was written in `bytes` bytes.
  void count(std::uint64_t bytes) {
    ++report.tensors;
    report.bytes_after += bytes;
  }
  void count_quantized(const WeightPlan& plan, std::uint64_t bytes, const Noise& noise);

  struct Kept {
    std::string first;
    std::uint64_t tensors = 0;
  };
  std::map<std::string, Kept> kept = {};  // by what is said of them
};

Status write_safetensors(Conversion& conversion, const std::string& path);
Status write_gguf(Conversion& conversion, const std::string& path);

}  // namespace nib::inline v0
