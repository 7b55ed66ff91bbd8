// Quantized checkpoints: each kind is one tensor with the values that its formula gives, whole and in pieces,
// and each contradiction is refused by the name of the tensor.
#include "io/tiny_quantized.hpp"
#include <nibble/io/checkpoint.hpp>

#include <algorithm>

#include <doctest/doctest.h>

using namespace nib;
using test::FaultyFileSystem;
using test::safetensors_of;
using test::TinyQuantized;
using test::TinyTensor;

namespace {

template <class T>
void check_values(const Checkpoint& checkpoint, const TinyQuantized& tiny) {
  const CheckpointTensor* tensor = checkpoint.find(tiny.name);
  REQUIRE(tensor != nullptr);
  CHECK(std::string(format_name(tensor->format)) == tiny.format);
  CHECK(tensor->shape == tiny.shape);
  const std::uint64_t columns = tiny.shape.back(), rows = tiny.values.size() / columns;
  // All rows at once, and every run of rows: the blocks of some begin in the middle.
  for (std::uint64_t first = 0; first <= rows; ++first)
    for (std::uint64_t count = 0; count <= rows - first; ++count) {
      std::vector<T> out(count * columns);
      const Status status = read_values(checkpoint, *tensor, first, std::span<T>(out));
      REQUIRE_MESSAGE(status.ok(), status.message());
      for (std::size_t i = 0; i < out.size(); ++i) {
        const double expected = tiny.values[first * columns + i];
        // Exact in f32; as doubles, a factor is one rounding more.
        CHECK(std::abs(static_cast<double>(out[i]) - expected) <=
              std::abs(expected) * (sizeof(T) == sizeof(float) ? 0x1p-24 : 0x1p-51));
      }
    }
  std::vector<T> out(columns);
  CHECK(read_values(checkpoint, *tensor, rows, std::span<T>(out)).code() == Code::argument);
  CHECK(read_values(checkpoint, *tensor, ~std::uint64_t{0}, std::span<T>(out)).code() == Code::argument);
  CHECK(read_values(checkpoint, *tensor, 0, std::span<T>(out).first(columns - 1)).code() == Code::argument);
}

void check_refused(const std::vector<TinyTensor>& tensors, const std::string& config, Code code,
                   const std::string& said) {
  FaultyFileSystem files;
  files.add("m/config.json", "{\"quantization_config\":" + config + "}");
  files.add("m/model.safetensors", safetensors_of(tensors));
  const Status status = open_checkpoint("m", files).status();
  CHECK_MESSAGE(status.code() == code, status.message());
  CHECK_MESSAGE(status.message().find(said) != std::string::npos, status.message());
  CHECK(status.message().find("m/model.safetensors: tensor ") == 0);
}

TinyQuantized of_kind(const std::string& kind) {
  for (TinyQuantized& tiny : test::TinyQuantizer(1).all())
    if (tiny.kind == kind) return tiny;
  FAIL("no " << kind);
  return {};
}

TinyTensor& tensor_of(TinyQuantized& tiny, const std::string& name) {
  for (TinyTensor& tensor : tiny.tensors)
    if (tensor.name == name) return tensor;
  FAIL("no " << name);
  return tiny.tensors[0];
}

}  // namespace

TEST_CASE("every kind of quantized checkpoint is one tensor with its values") {
  for (int seed = 0; seed < 20; ++seed)
    for (const TinyQuantized& tiny : test::TinyQuantizer(static_cast<unsigned>(seed)).all()) {
      CAPTURE(tiny.kind);
      FaultyFileSystem files;
      test::add_tiny_quantized(files, tiny);
      const auto checkpoint = open_checkpoint("m", files);
      REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
      REQUIRE(checkpoint->tensors.size() == 2);
      CHECK(checkpoint->find("plain")->format == Format::bf16);
      check_values<float>(*checkpoint, tiny);
      check_values<double>(*checkpoint, tiny);
    }
}

TEST_CASE("every part of a quantized tensor is needed, and missed by name") {
  for (const TinyQuantized& tiny : test::TinyQuantizer(1).all())
    for (std::size_t i = 0; i < tiny.tensors.size(); ++i) {
      const std::string& gone = tiny.tensors[i].name;
      if (gone == "plain" || gone == "m.weight_format") continue;
      CAPTURE(tiny.kind);
      CAPTURE(gone);
      TinyQuantized half = tiny;
      half.tensors.erase(half.tensors.begin() + static_cast<std::ptrdiff_t>(i));
      FaultyFileSystem files;
      test::add_tiny_quantized(files, half);
      const auto checkpoint = open_checkpoint("m", files);
      // Only the scale of an int8 or fp8 weight, or of a packed one, can stand alone: it is a tensor like any
      // other.
      if (checkpoint.ok()) {
        // What is left is tensors like any other, and none of them is the weight.
        const CheckpointTensor* left = checkpoint->find(tiny.name);
        CHECK((left == nullptr || left->format == Format::none));
      } else {
        CHECK(checkpoint.status().code() == Code::format);
        CHECK(checkpoint.status().message().find("m/model.safetensors: tensor '") == 0);
      }
    }
}

TEST_CASE("bitsandbytes: what quant_state must not say") {
  const TinyQuantized good = of_kind("bitsandbytes nf4 nested");
  const std::string state_name = "w.quant_state.bitsandbytes__nf4";
  const auto with_state = [&](const std::string& state, const std::string& said) {
    TinyQuantized bad = good;
    TinyTensor& tensor = tensor_of(bad, state_name);
    tensor.data = state;
    tensor.shape = concat("[", state.size(), "]");
    check_refused(bad.tensors, bad.config, Code::format, said);
  };
  const std::string nested = R"("nested_blocksize":4,"nested_dtype":"float32","nested_offset":0.5)";
  const std::string named = "tensor '" + state_name + "'";
  with_state("", named + ": byte 0");
  with_state("[]", named + " holds no JSON object");
  with_state("{", named + ": byte");
  with_state(R"({"blocksize":4})", named + " does not say shape and blocksize");
  with_state(R"({"shape":[3,7]})", named + " does not say shape and blocksize");
  with_state(R"({"shape":[3,7],"blocksize":0})", named + " has a value for key 'blocksize'");
  with_state(R"({"shape":[3,7],"blocksize":-4})", named + " has a value for key 'blocksize'");
  with_state(R"({"shape":[3,7.5],"blocksize":4})", named + " has a value for key 'shape'");
  with_state(R"({"shape":[3,-7],"blocksize":4})", named + " has a value for key 'shape'");
  with_state(R"({"shape":21,"blocksize":4})", named + " has a value for key 'shape'");
  with_state(R"({"shape":[3,7],"blocksize":4,"new":1})", named + " has a value for key 'new'");
  with_state(R"({"shape":[3,7],"blocksize":4,"quant_type":"fp4"})",
             named + " has a value for key 'quant_type'");
  with_state(R"({"shape":[3,7],"blocksize":4,"nested_dtype":"float16"})",
             named + " has a value for key 'nested_dtype'");
  with_state(R"({"shape":[3,7],"blocksize":4,"nested_offset":0.5})", named + " says only one of");
  with_state(R"({"shape":[3,7],"blocksize":4})", "tensor 'w.absmax' is U8 [6], F32 [6] was expected");
  with_state(R"({"shape":[3,7],"blocksize":8,)" + nested + "}",
             "tensor 'w.absmax' is U8 [6], U8 [3] was expected");
  with_state(R"({"shape":[3,9],"blocksize":4,)" + nested + "}",
             "tensor 'w' has 11 bytes, not the two codes a byte of [3, 9]");
  with_state(R"({"shape":[4294967296,4294967296],"blocksize":4,)" + nested + "}", "tensor 'w' has 11 bytes");
  with_state(R"({"shape":[3,7],"blocksize":4,"nested_blocksize":2,"nested_offset":0})",
             "tensor 'w.nested_absmax' is F32 [2], F32 [3]");
  with_state(std::string(70'000, ' '), named + " has 70000 bytes");

  TinyQuantized bad = good;
  tensor_of(bad, "w.quant_map") = {"w.quant_map", "F32", "[15]", std::string(60, 'x')};
  check_refused(bad.tensors, bad.config, Code::format,
                "tensor 'w.quant_map' is F32 [15], 16 F32 values were expected");
  bad = good;
  tensor_of(bad, "w.quant_map").data[4] ^= 1;
  check_refused(bad.tensors, bad.config, Code::unsupported,
                "tensor 'w.quant_map' gives code 1 the level -0.696193");
  bad = good;
  tensor_of(bad, state_name).name = "w.quant_state.bitsandbytes__int3";
  check_refused(bad.tensors, bad.config, Code::unsupported, "tensor 'w' is quantized as 'int3'");
}

TEST_CASE("scales that fit no rule name both tensors") {
  const auto pair = [](const char* kind, const std::string& name, const char* dtype, const char* shape,
                       std::size_t bytes, const std::string& said, Code code = Code::format) {
    TinyQuantized bad = of_kind(kind);
    tensor_of(bad, name) = {name, dtype, shape, std::string(bytes, '\x40')};
    check_refused(bad.tensors, bad.config, code, said);
  };
  pair("fp8 block", "w_scale_inv", "F32", "[2,2]", 16,
       "tensor 'w' is F8_E4M3 [5, 6] beside 'w_scale_inv' F32 [2, 2], one scale a tensor or row");
  pair("fp8 block", "w_scale_inv", "F32", "[2,3]", 24, "one for each block of 2 x 4");
  pair("fp8 block", "w_scale_inv", "I32", "[3,2]", 24, "F32, BF16, F16 or F8_E8M0 scales was expected");
  pair("fp8 row", "w_scale", "F32", "[3]", 12, "quantization_config says no block size");
  pair("LLM.int8", "m.SCB", "F32", "[4]", 16, "LLM.int8 needs [out, in] beside F32 [out]");
  pair("LLM.int8", "m.weight_format", "U8", "[]", 1, "tensor 'm.weight_format' says", Code::unsupported);
  pair("nvfp4 modelopt 1", "w_scale", "F8_E4M3", "[2,3]", 6,
       "NVFP4 needs U8 [..., n / 2] beside F8_E4M3 [..., n / 16]");
  pair("nvfp4 modelopt 1", "w_scale", "F16", "[2,2]", 8, "NVFP4 needs");
  pair("nvfp4 modelopt 1", "w", "U8", "[2,15]", 30, "rows of NVFP4 are a multiple of 8 bytes");
  pair("nvfp4 modelopt 2", "w_scale_2", "F32", "[3]", 12, "has 3 values, 1 or 2 was expected");
  pair("nvfp4 modelopt 1", "w_scale_2", "F16", "[1]", 2, "is F16 [1], 1 F32 value was expected");
  TinyQuantized zero = of_kind("nvfp4 compressed-tensors 1");
  tensor_of(zero, "w_global_scale").data = std::string(4, '\0');
  check_refused(zero.tensors, zero.config, Code::format,
                "tensor 'w_global_scale' holds 0, which nothing can be divided by");
  TinyQuantized points = of_kind("int8 rows");
  points.tensors.push_back({"w_zero_point", "I8", "[4,1]", "1234"});
  check_refused(points.tensors, points.config, Code::unsupported, "tensor 'w' is int8 with zero points");
}

TEST_CASE("what quantization_config must say") {
  const auto refused = [](const std::string& config, Code code, const std::string& said) {
    FaultyFileSystem files;
    files.add("m/config.json", "{\"quantization_config\":" + config + "}");
    files.add("m/model.safetensors", safetensors_of(std::vector<TinyTensor>{{"x", "F16", "[1]", "12"}}));
    const Status status = open_checkpoint("m", files).status();
    CHECK_MESSAGE(status.code() == code, status.message());
    CHECK_MESSAGE(status.message().find("m/config.json: quantization_config" + said) == 0, status.message());
  };
  refused("{}", Code::unsupported, " names no quant_method");
  refused("[]", Code::unsupported, " names no quant_method");
  refused(R"({"quant_method":7})", Code::unsupported, " names no quant_method");
  for (const char* method : {"gptq", "awq", "aqlm", "hqq", ""})
    refused(concat(R"({"quant_method":")", method, "\"}"), Code::unsupported,
            concat(".quant_method is '", method, "', of these are read: mxfp4"));
  refused(R"({"quant_method":"compressed-tensors","format":"pack-quantized"})", Code::unsupported,
          ".format is 'pack-quantized'");
  refused(R"({"quant_method":"compressed-tensors","config_groups":{"a":{"format":"marlin-24"}}})",
          Code::unsupported, ".format is 'marlin-24'");
  refused(R"({"quant_method":"modelopt","quant_algo":"W4A8_AWQ"})", Code::unsupported,
          ".quant_algo is 'W4A8_AWQ'");
  for (const char* block : {"[128]", "[0,128]", "[128,-1]", "128", "[1.5,2]", "[\"a\",1]"})
    refused(concat(R"({"quant_method":"fp8","weight_block_size":)", block, "}"), Code::format,
            ": a block size must be");
  for (const char* size : {"0", "-32", "\"32\"", "1.5", "null", "4294967296"})
    refused(concat(R"({"quant_method":"compressed-tensors","config_groups":{"a":{"weights":)",
                   R"({"strategy":"group","group_size":)", size, "}}}}"),
            Code::format, ": the group_size of strategy \"group\" must be");
}

TEST_CASE("tensors tell what they are without a configuration that says so") {
  // ModelOpt describes itself in a file of its own, and people take the configuration out by hand.
  for (TinyQuantized& tiny : test::TinyQuantizer(5).all()) {
    if (tiny.kind == "fp8 block" || tiny.kind == "int8 groups") continue;  // sizes are said nowhere else
    CAPTURE(tiny.kind);
    tiny.config = "null";
    FaultyFileSystem files;
    test::add_tiny_quantized(files, tiny);
    const auto checkpoint = open_checkpoint("m", files);
    REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
    check_values<float>(*checkpoint, tiny);
  }
}

TEST_CASE("one scale for a stack of matrices") {
  FaultyFileSystem files;
  files.add("m/config.json", "{}");
  const float scale = 0.5f;
  files.add("m/model.safetensors", safetensors_of(std::vector<TinyTensor>{
                                       {"w", "F8_E4M3", "[2,2,3]", std::string(12, '\x38')},
                                       {"w_scale", "F32", "[]", test::bytes_of(std::span(&scale, 1))}}));
  const auto checkpoint = open_checkpoint("m", files);
  REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
  std::vector<float> values(12);
  REQUIRE(read_values(*checkpoint, *checkpoint->find("w"), 0, std::span(values)).ok());
  CHECK(values == std::vector<float>(12, 0.5f));
}

TEST_CASE("what is no weight format has no values") {
  FaultyFileSystem files;
  files.add("m/config.json", "{}");
  files.add("m/model.safetensors",
            safetensors_of(std::vector<TinyTensor>{{"steps", "I64", "[1]", "12345678"}}));
  const auto checkpoint = open_checkpoint("m", files);
  REQUIRE(checkpoint.ok());
  double value = 0;
  const Status status = read_values(*checkpoint, checkpoint->tensors[0], 0, std::span(&value, 1));
  CHECK(status.code() == Code::unsupported);
  CHECK(status.message() == "m: tensor steps is stored as I64, which is no weight format here");
}
