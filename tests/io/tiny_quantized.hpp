// Quantized checkpoints of a few hundred bytes, one of each kind, with the values they mean by arithmetic of
// their own.
#pragma once

#include "io/tiny.hpp"

#include <cmath>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace nib::test {

struct TinyQuantized {
  std::string kind;
  std::string config;                // quantization_config
  std::vector<TinyTensor> tensors;   // those of "w" (or "m.weight") and an unquantized "plain"
  std::string name, format;          // of the one tensor they are
  std::vector<std::uint64_t> shape;  // of it
  std::vector<double> values;        // of it
};

inline std::string bytes_of(std::span<const float> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

class TinyQuantizer {
 public:
  explicit TinyQuantizer(std::mt19937::result_type seed) : random_(seed) {}

  std::vector<TinyQuantized> all() {
    return {bitsandbytes("nf4", false),
            bitsandbytes("fp4", true),
            bitsandbytes("nf4", true),
            llm_int8(),
            fp8_block(),
            fp8("tensor"),
            fp8("row"),
            fp8("stack"),
            int8_rows(),
            int8_groups(),
            nvfp4(true, 1),
            nvfp4(false, 1),
            nvfp4(false, 2)};
  }

 private:
  std::vector<float> reals(std::size_t count) {
    std::uniform_real_distribution<float> uniform(0.1f, 2.0f);
    std::vector<float> values(count);
    for (float& value : values) value = uniform(random_);
    return values;
  }
  std::vector<float> signed_reals(std::size_t count) {
    std::vector<float> values = reals(count);
    for (float& value : values)
      if (random_() % 2) value = -value;
    return values;
  }
  static std::vector<float> levels(const std::string& type) {
    if (type == "nf4")
      return {-1.0f,
              -0.6961928009986877f,
              -0.5250730514526367f,
              -0.39491748809814453f,
              -0.28444138169288635f,
              -0.18477343022823334f,
              -0.09105003625154495f,
              0.0f,
              0.07958029955625534f,
              0.16093020141124725f,
              0.24611230194568634f,
              0.33791524171829224f,
              0.44070982933044434f,
              0.5626170039176941f,
              0.7229568362236023f,
              1.0f};
    std::vector<float> all;
    for (const double magnitude : {0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0})
      all.push_back(static_cast<float>(magnitude / 12));
    for (std::size_t i = 0; i < 8; ++i) all.push_back(-all[i]);
    return all;
  }
  std::string codes(std::size_t count) { return random_bytes(count, random_()); }
  // Eight-bit floats that are numbers.
  std::string fp8_codes(std::size_t count, bool positive) {
    std::string bytes = codes(count);
    for (char& byte : bytes) {
      if (positive) byte = static_cast<char>(byte & 0x7f);
      if ((byte & 0x7f) == 0x7f) byte = 0x21;
    }
    return bytes;
  }

  static std::uint8_t at(const std::string& bytes, std::size_t i) {
    return static_cast<std::uint8_t>(bytes[i]);
  }
  static double e4m3(std::uint8_t code) {
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    const double value = exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
    return code & 128 ? -value : value;
  }
  static double e2m1(int code) {
    constexpr double kValues[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    return code & 8 ? -kValues[code & 7] : kValues[code];
  }

  void finish(TinyQuantized& tiny) { tiny.tensors.push_back({"plain", "BF16", "[3]", codes(6)}); }

  // 3 x 7: the codes' count is odd and blocks of 4 run across rows, the last one short. Real blocks are
  // longer.
  TinyQuantized bitsandbytes(const std::string& type, bool nested) {
    TinyQuantized tiny;
    tiny.kind = concat("bitsandbytes ", type, nested ? " nested" : "");
    tiny.config = R"({"quant_method":"bitsandbytes","load_in_4bit":true})";
    tiny.name = "w";
    tiny.format = type == "nf4" ? "nf4" : "bnb_fp4";
    tiny.shape = {3, 7};
    const std::string packed = codes(11);
    const std::vector<float> map = levels(type), nested_map = signed_reals(256);
    const std::string absmax_codes = codes(6);
    std::vector<float> absmax = reals(6), nested_absmax = reals(2);
    const float offset = 0.75f;
    if (nested)
      for (std::size_t i = 0; i < 6; ++i) {
        absmax[i] = nested_map[at(absmax_codes, i)] * nested_absmax[i / 4];
        absmax[i] += offset;
      }
    for (std::size_t i = 0; i < 21; ++i) {
      const int code = i % 2 ? at(packed, i / 2) & 15 : at(packed, i / 2) >> 4;
      tiny.values.push_back(static_cast<double>(map[static_cast<std::size_t>(code)]) * absmax[i / 4]);
    }
    const std::string state = concat(
        R"({"quant_type": ")", type, R"(", "blocksize": 4, "dtype": "bfloat16", "shape": [3, 7])",
        nested ? R"(, "nested_blocksize": 4, "nested_dtype": "float32", "nested_offset": 0.75})" : "}");
    tiny.tensors = {{"w", "U8", "[11,1]", packed},
                    {"w.quant_map", "F32", "[16]", bytes_of(map)},
                    {"w.quant_state.bitsandbytes__" + type, "U8", concat("[", state.size(), "]"), state}};
    if (nested) {
      tiny.tensors.push_back({"w.absmax", "U8", "[6]", absmax_codes});
      tiny.tensors.push_back({"w.nested_absmax", "F32", "[2]", bytes_of(nested_absmax)});
      tiny.tensors.push_back({"w.nested_quant_map", "F32", "[256]", bytes_of(nested_map)});
    } else {
      tiny.tensors.push_back({"w.absmax", "F32", "[6]", bytes_of(absmax)});
    }
    finish(tiny);
    return tiny;
  }

  TinyQuantized llm_int8() {
    TinyQuantized tiny{"LLM.int8", R"({"quant_method":"bitsandbytes","load_in_8bit":true})",
                       {},         "m.weight",
                       "llm_int8", {3, 5},
                       {}};
    const std::string packed = codes(15);
    const std::vector<float> rows = reals(3);
    for (std::size_t i = 0; i < 15; ++i)
      tiny.values.push_back(static_cast<std::int8_t>(at(packed, i)) * static_cast<double>(rows[i / 5]) / 127);
    tiny.tensors = {{"m.weight", "I8", "[3,5]", packed},
                    {"m.SCB", "F32", "[3]", bytes_of(rows)},
                    {"m.weight_format", "U8", "[]", std::string(1, '\0')}};
    finish(tiny);
    return tiny;
  }

  // Blocks of 2 x 4 on 5 x 6: the last of each direction is partial.
  TinyQuantized fp8_block() {
    TinyQuantized tiny{
        "fp8 block", R"({"quant_method":"fp8","weight_block_size":[2,4]})", {}, "w", "fp8_e4m3", {5, 6}, {}};
    const std::string packed = fp8_codes(30, false);
    const std::vector<float> grid = reals(6);
    for (std::size_t r = 0; r < 5; ++r)
      for (std::size_t c = 0; c < 6; ++c)
        tiny.values.push_back(e4m3(at(packed, r * 6 + c)) * static_cast<double>(grid[r / 2 * 2 + c / 4]));
    tiny.tensors = {{"w", "F8_E4M3", "[5,6]", packed}, {"w_scale_inv", "F32", "[3,2]", bytes_of(grid)}};
    finish(tiny);
    return tiny;
  }

  TinyQuantized fp8(const std::string& strategy) {
    TinyQuantized tiny{"fp8 " + strategy,
                       R"({"quant_method":"compressed-tensors","format":"float-quantized"})",
                       {},
                       "w",
                       "fp8_e4m3",
                       {4, 3},
                       {}};
    const std::string packed = fp8_codes(12, false);
    std::string scales_shape = "[1]";
    std::size_t each = 12;
    if (strategy == "row") {
      scales_shape = "[4,1]";
      each = 3;
    } else if (strategy == "stack") {
      tiny.shape = {2, 2, 3};
      scales_shape = "[2,1,1]";
      each = 6;
    }
    const std::vector<float> scales = reals(12 / each);
    for (std::size_t i = 0; i < 12; ++i)
      tiny.values.push_back(e4m3(at(packed, i)) * static_cast<double>(scales[i / each]));
    tiny.tensors = {{"w", "F8_E4M3", strategy == "stack" ? "[2,2,3]" : "[4,3]", packed},
                    {"w_scale", "F32", scales_shape, bytes_of(scales)}};
    finish(tiny);
    return tiny;
  }

  TinyQuantized int8_rows() {
    TinyQuantized tiny{"int8 rows", R"({"quant_method":"compressed-tensors","format":"int-quantized"})",
                       {},          "w",
                       "int8",      {4, 3},
                       {}};
    const std::string packed = codes(12);
    const std::vector<float> scales = {0.5f, 2.0f, 0.25f, 4.0f};  // bf16 holds them
    std::string halves;
    for (const float scale : scales) halves += bytes_of(std::span(&scale, 1)).substr(2);
    for (std::size_t i = 0; i < 12; ++i)
      tiny.values.push_back(static_cast<std::int8_t>(at(packed, i)) * static_cast<double>(scales[i / 3]));
    tiny.tensors = {{"w", "I8", "[4,3]", packed}, {"w_scale", "BF16", "[4,1]", halves}};
    finish(tiny);
    return tiny;
  }

  // Two scales a row, of which the second has one value.
  TinyQuantized int8_groups() {
    TinyQuantized tiny{
        "int8 groups",
        R"({"quant_method":"compressed-tensors","format":"int-quantized","config_groups":{"a":{"weights":)"
        R"({"strategy":"group","group_size":2}}}})",
        {},
        "w",
        "int8",
        {4, 3},
        {}};
    const std::string packed = codes(12);
    const std::vector<float> scales = reals(8);
    for (std::size_t i = 0; i < 12; ++i)
      tiny.values.push_back(static_cast<std::int8_t>(at(packed, i)) *
                            static_cast<double>(scales[i / 3 * 2 + i % 3 / 2]));
    tiny.tensors = {{"w", "I8", "[4,3]", packed}, {"w_scale", "F32", "[4,2]", bytes_of(scales)}};
    finish(tiny);
    return tiny;
  }

  // [2, 32] or a stack of two, each with its factor.
  TinyQuantized nvfp4(bool compressed_tensors, std::size_t matrices) {
    TinyQuantized tiny;
    tiny.kind = concat("nvfp4 ", compressed_tensors ? "compressed-tensors" : "modelopt", " ", matrices);
    tiny.config = compressed_tensors
                      ? R"({"quant_method":"compressed-tensors","format":"nvfp4-pack-quantized"})"
                      : R"({"quant_method":"modelopt","quant_algo":"NVFP4"})";
    tiny.name = "w";
    tiny.format = "nvfp4";
    if (matrices > 1) tiny.shape = {matrices};
    tiny.shape.insert(tiny.shape.end(), {2, 32});
    const std::string packed = codes(32 * matrices), scales = fp8_codes(4 * matrices, true);
    const std::vector<float> factors = reals(matrices);
    for (std::size_t i = 0; i < 64 * matrices; ++i) {
      const int code = i % 2 ? at(packed, i / 2) >> 4 : at(packed, i / 2) & 15;
      const double factor = factors[i / 64];
      tiny.values.push_back(e2m1(code) * e4m3(at(scales, i / 16)) *
                            (compressed_tensors ? 1 / factor : factor));
    }
    const std::string lead = matrices > 1 ? concat("[", matrices, ",") : "[";
    tiny.tensors = {{compressed_tensors ? "w_packed" : "w", "U8", lead + "2,16]", packed},
                    {"w_scale", "F8_E4M3", lead + "2,2]", scales},
                    {compressed_tensors ? "w_global_scale" : "w_scale_2", "F32", concat("[", matrices, "]"),
                     bytes_of(factors)}};
    finish(tiny);
    return tiny;
  }

  std::mt19937 random_;
};

// Directory "m" with that checkpoint.
inline void add_tiny_quantized(FaultyFileSystem& files, const TinyQuantized& tiny) {
  files.add("m/config.json", concat("{\"quantization_config\":", tiny.config, "}"));
  files.add("m/model.safetensors", safetensors_of(tiny.tensors));
}

}  // namespace nib::test
