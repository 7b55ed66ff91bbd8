// Room model: outline: the tensors that a checkpoint with this config.json has, told from the config alone:
// names, shapes, formats and bytes. For planning what has not been downloaded.
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/base/status.hpp>
#include <nibble/io/checkpoint.hpp>

#include <string>

namespace nib::inline v0 {

// A checkpoint without files, from which nothing can be read: WeightLayout::make takes it, load does not.
// Tensors are in the dtype that the config names, bf16 when it names none; quantization_config says which are
// quantized:
//
//   mxfp4         the experts
//   bitsandbytes  every matrix but embedding, head and what is to be skipped: nf4 or fp4 with a scale for 64
//                 values, quantized itself with bnb_4bit_use_double_quant; or llm_int8
//   fp8           the same matrices, with a scale for each block of weight_block_size, else for each tensor
//
// The original config.json of gpt-oss has no quantization_config and means mxfp4. `name` is the file, for
// messages. Errors: those of parse_config; unsupported (a dtype or a quantization that is none of these).
Result<Checkpoint> outline_checkpoint(Json config, const std::string& name);

}  // namespace nib::inline v0
