// A checkpoint of a published model's shape with random weights: something to measure that nobody has to
// download.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/io/file.hpp>

#include <cstdint>
#include <functional>
#include <memory>
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
inline constexpr GptOssShape kGptOss20b{.layers = 24, .vocabulary = 201088};
inline constexpr GptOssShape kGptOss120b{.layers = 36, .vocabulary = 201088, .experts = 128};

// Writes config.json and model.safetensors (MXFP4 experts, bf16 elsewhere, Hugging Face's names) into
// `folder`, which exists. Weights are small enough that activations stay finite, and large enough that they
// stay alive. Errors: io, argument (files are there already).
Status write_random_gpt_oss(const std::string& folder, const GptOssShape& shape, const Written& written);

// The same as files that are nowhere: in the folder "random", and made while they are read. What no disk has
// room for can be opened so. Weights repeat after a mebibyte, from another place in each tensor.
std::unique_ptr<FileSystem> random_gpt_oss_files(const GptOssShape& shape);

}  // namespace nib::bench
