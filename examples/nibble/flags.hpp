// What the command line says, verb by verb, as plain data.
#pragma once

#include <nibble/kernels/numerics.hpp>
#include <nibble/runtime/sampler.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace nib::program {

// Which model, and how it is opened.
struct ModelFlags {
  std::string model;  // as typed; empty: the one that comes with the program
  std::uint32_t context = 0;
  int threads = 0;
  std::string backend;
  Numerics numerics = Numerics::bf16;
  bool allow_fallback = false;
  KvFormat kv_format = KvFormat::automatic;
  std::uint64_t memory = 0;  // bytes; 0: what this process may still take

  std::uint32_t gpu_layers = 0;  // the last so many; more than there are: the head, too
  bool host_experts = false;     // of these layers
  std::uint16_t device = 0;
  std::uint64_t device_memory = 0;  // bytes; 0: what is free there
  std::uint64_t expert_cache = 0;   // bytes there for experts; 0: as many as they take
  bool may_be_fast = false;         // long prompts, where the device can
  std::string cuda_library;         // its file or folder; empty: where it was installed with the program
};

// What is not given is the model's own wish (generation_config.json).
struct SamplingFlags {
  std::optional<std::uint64_t> seed;
  std::optional<float> temperature, top_p, min_p, repeat_penalty;
  std::optional<std::uint32_t> top_k;
};

struct RunFlags {
  ModelFlags model;
  SamplingFlags sampling;
  std::optional<std::string> prompt;       // "-": standard input
  std::optional<std::string> prompt_file;  // "-": standard input
  std::int64_t most_tokens = 256;          // -1: until the model ends or the context is full
  std::vector<std::string> stop_texts;
  bool specials = false;
  bool ignore_stops = false;
  bool statistics = false;
};

struct ChatFlags {
  ModelFlags model;
  SamplingFlags sampling;
  std::string instructions;
  std::string reasoning = "medium";
  std::string chat_template;      // a file; empty: the model's own
  std::int64_t most_tokens = -1;  // of one answer
  bool statistics = false;
};

struct InspectFlags {
  ModelFlags model;
  bool tensors = false;
  bool json = false;
};

struct PlanFlags {
  ModelFlags model;
  std::string params;  // counts and formats; empty: of a model
  std::string config;  // a config.json in place of a model; empty: none
  std::uint32_t sessions = 1;
  bool json = false;
};

struct ExplainFlags {
  ModelFlags model;
  bool tensors = false;
  bool json = false;
};

struct PerplexityFlags {
  ModelFlags model;                          // its context: the window
  std::string file;                          // "-": standard input
  std::string against;                       // another model; empty: none
  std::optional<Numerics> against_numerics;  // else those of the model
  std::uint32_t stride = 0;
  std::uint64_t windows = 0;
  bool bos = false;
  bool specials = false;
  bool json = false;
};

struct BenchFlags {
  ModelFlags model;  // its context follows from the others
  std::vector<std::uint32_t> contexts{0}, batches{1};
  std::uint32_t prompt = 512, decode = 128, rounds = 3;
  bool account = false;  // of every decoded token
  bool json = false;
};

struct DoctorFlags {
  int threads = 0;
  std::string cuda_library;  // as in ModelFlags
  bool json = false;
};

struct TokenizeFlags {
  std::string model;      // as typed; empty: the one that comes with the program
  bool specials = false;  // special tokens are read, and written, by their spelling
  bool decode = false;
  bool many = false;  // texts end with NUL, their ids with a line
};

struct QuantizeFlags {
  std::string from;  // the model, as typed
  std::string to;    // "….gguf": a file; else a directory
  std::string format;
  std::string only;  // an extended regular expression over names of tensors; empty: the usual ones
  std::string scale_rule;
  bool prepare = false;  // instead of another format
  bool overwrite = false;
  int threads = 0;
};

}  // namespace nib::program
