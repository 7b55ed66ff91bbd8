// Room io: under which names, dtypes and shapes a quantized weight lies in a safetensors file, so that other
// programs read it: the layouts that open_checkpoint joins, the other way round.
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/base/status.hpp>
#include <nibble/formats/format.hpp>
#include <nibble/formats/scaling.hpp>
#include <nibble/io/safetensors_writer.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

// How a weight is stored.
//   mxfp4            X_blocks, X_scales                                        quant_method mxfp4
//   nvfp4            X_packed, X_scale, X_global_scale (2688 / largest)        compressed-tensors
//   fp8_e4m3, int8   X, X_scale: one a tensor or a row                         compressed-tensors
//   fp8_e4m3         X, X_scale_inv: one a tile                                fp8
//   nf4, bnb_fp4     X, X.absmax, X.quant_map, X.quant_state...; runs          bitsandbytes
//   llm_int8         Y.weight, Y.SCB, Y.weight_format                          bitsandbytes
//   f32, f16, bf16   X
struct QuantizedLayout {
  Format format = Format::none;
  std::vector<std::uint64_t> shape;  // of the values
  ScaleSharing sharing;              // of formats whose scales are Scales::shared
  bool nested = false;               // nf4, bnb_fp4: scales are quantized themselves, 256 at a time
  DType original = DType::bf16;      // what the values were, which bitsandbytes notes
};

// What a stored tensor of a weight is.
enum class Part : std::uint8_t {
  codes,
  scales,
  tensor_scale,   // f32; nvfp4: what values are divided by
  nested_scales,  // f32, one for 256 scales
  description,    // what bitsandbytes_state says
  fixed,          // bytes that are known already
};

struct StoredPart {
  TensorSpec spec;
  Part part = Part::codes;
  std::string bytes;  // of fixed
};

// The stored tensors of the weight called `name`, codes first. A file with many of them is put in order by
// order_by_width and filled through SafetensorsWriter::write, part by part. Errors: unsupported (a format
// that no published layout holds, sharing that it does not have), argument (rows that are no whole number of
// groups; llm_int8 under a name that does not end in ".weight"). Any thread.
Result<std::vector<StoredPart>> quantized_parts(const std::string& name, const QuantizedLayout& layout);

// The bytes of Part::description: JSON text padded to the length that its spec has, whatever the offset (of
// nested scales; else 0). The layout is one for which quantized_parts gave such a part. Any thread.
std::string bitsandbytes_state(const QuantizedLayout& layout, float nested_offset);

// quantization_config for config.json of a model whose weights are stored in this layout, but for the modules
// named. Null for plain formats. Errors: those of quantized_parts that do not need a name. Any thread.
Result<Json> quantization_config(const QuantizedLayout& layout, std::span<const std::string> plain_modules);

}  // namespace nib::inline v0
