// A quantized weight with random codes, written to a directory as the library lays it out.
#pragma once

#include "io/tiny.hpp"
#include <nibble/io/quantized_parts.hpp>

#include <algorithm>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace nib::test {

struct WrittenWeight {
  QuantizedLayout layout;
  std::map<Part, std::string> bytes;  // of each part
};

// One layout of every kind that can be written.
inline std::vector<QuantizedLayout> layouts_to_write() {
  const auto shared = [](Format format, std::vector<std::uint64_t> shape, ScaleSharing sharing,
                         bool nested = false) {
    QuantizedLayout layout;
    layout.format = format;
    layout.shape = std::move(shape);
    layout.sharing = sharing;
    layout.nested = nested;
    layout.original = nested ? DType::f16 : DType::bf16;
    return layout;
  };
  const auto grouped = [&](Format format, std::vector<std::uint64_t> shape) {
    return shared(format, std::move(shape), {});
  };
  return {grouped(Format::bf16, {3, 5}),
          grouped(Format::f32, {7}),
          grouped(Format::mxfp4, {2, 3, 64}),
          grouped(Format::nvfp4, {5, 48}),
          shared(Format::fp8_e4m3, {5, 6}, ScaleSharing::per_tensor()),
          shared(Format::fp8_e4m3, {5, 6}, ScaleSharing::per_row()),
          shared(Format::fp8_e4m3, {130, 257}, ScaleSharing::per_tile(128, 128)),
          shared(Format::int8, {5, 6}, ScaleSharing::per_row()),
          shared(Format::int8, {5, 6}, ScaleSharing::per_tensor()),
          shared(Format::llm_int8, {5, 7}, ScaleSharing::per_row()),
          shared(Format::nf4, {9, 33}, ScaleSharing::per_run(64)),
          shared(Format::bnb_fp4, {9, 33}, ScaleSharing::per_run(32)),
          shared(Format::nf4, {97, 301}, ScaleSharing::per_run(64), true)};
}

// Random bytes that are numbers in the part's type.
inline std::string random_part(const StoredPart& part, std::mt19937& random) {
  std::string bytes = random_bytes(*tensor_bytes(part.spec.dtype, part.spec.shape), random());
  const bool fp8 = part.spec.dtype == DType::f8_e4m3;
  const bool halves = part.spec.dtype == DType::bf16;
  if (part.spec.dtype == DType::f32) {
    std::uniform_real_distribution<float> uniform(0.1f, 2.0f);
    for (std::size_t i = 0; i < bytes.size(); i += 4) {
      const float value = uniform(random);
      std::copy_n(reinterpret_cast<const char*>(&value), 4, bytes.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (fp8 && (bytes[i] & 0x7f) == 0x7f) bytes[i] = 0x30;
    if (fp8 && part.part == Part::scales) bytes[i] = static_cast<char>(bytes[i] & 0x7f);
    if (halves && i % 2 == 1) bytes[i] = static_cast<char>(bytes[i] & 0xbf);  // no infinity, no NaN
    if (part.spec.name.ends_with("_scales")) bytes[i] = static_cast<char>(100 + (bytes[i] & 31));
  }
  return bytes;
}

// Writes `directory`/model.safetensors with the weight called "m.weight", and config.json beside it.
inline Result<WrittenWeight> write_weight(const std::string& directory, const QuantizedLayout& layout,
                                          std::mt19937& random) {
  NIB_ASSIGN(const std::vector<StoredPart> parts, quantized_parts("m.weight", layout));
  std::vector<TensorSpec> specs;
  for (const StoredPart& part : parts) specs.push_back(part.spec);
  order_by_width(specs);
  NIB_ASSIGN(SafetensorsWriter writer, SafetensorsWriter::create(directory + "/model.safetensors", specs));
  WrittenWeight written{layout, {}};
  for (const StoredPart& part : parts) {
    std::string bytes = part.part == Part::fixed ? part.bytes
                        : part.part == Part::description
                            ? bitsandbytes_state(layout, layout.nested ? 0.1f : 0)
                            : random_part(part, random);
    // In two pieces, the second before the first.
    const auto all = std::as_bytes(std::span(bytes));
    const std::size_t half = bytes.size() / 2;
    NIB_TRY(writer.write(part.spec.name, half, all.subspan(half)));
    NIB_TRY(writer.write(part.spec.name, 0, all.first(half)));
    if (part.part != Part::fixed) written.bytes[part.part] = std::move(bytes);
  }
  NIB_TRY(writer.finish());
  const std::string skipped[] = {"lm_head"};
  NIB_ASSIGN(Json config, quantization_config(layout, skipped));
  std::ofstream(directory + "/config.json") << write_json(
      Json::object({{"model_type", Json::of(std::string("llama"))}, {"quantization_config", config}}));
  return written;
}

}  // namespace nib::test
