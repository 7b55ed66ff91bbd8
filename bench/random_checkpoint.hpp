// A checkpoint of a published model's shape with random weights: something to measure that nobody has to
// download.
#pragma once

#include <nibble/base/status.hpp>

#include <cstdint>
#include <functional>
#include <string>

namespace nib::bench {

// Called with bytes written and bytes in all.
using Written = std::function<void(std::uint64_t done, std::uint64_t total)>;

// gpt-oss-20b, but for the number of layers and the vocabulary, which say nothing about its layers' speed.
struct GptOssShape {
  std::uint32_t layers = 4;
  std::uint32_t vocabulary = 32768;
  std::uint32_t hidden = 2880;
  std::uint32_t experts = 32, experts_per_token = 4, expert_width = 2880;
  std::uint32_t heads = 64, kv_heads = 8, head_dim = 64;
};

// Writes config.json and model.safetensors (MXFP4 experts, bf16 elsewhere, Hugging Face's names) into
// `folder`, which exists. Weights are small enough that activations stay finite, and large enough that they
// stay alive. Errors: io, argument (files are there already).
Status write_random_gpt_oss(const std::string& folder, const GptOssShape& shape, const Written& written);

}  // namespace nib::bench
