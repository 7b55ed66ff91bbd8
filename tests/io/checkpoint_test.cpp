// Checkpoints: what each kind of path opens, what the pairs become, and what is refused with which sentence.
#include "io/temporary.hpp"
#include "io/tiny.hpp"
#include "support/data.hpp"
#include <nibble/io/checkpoint.hpp>

#include <algorithm>

#include <doctest/doctest.h>

using namespace nib;
using test::FaultyFileSystem;
using test::safetensors_of;
using test::TinyTensor;

namespace {

std::string plane_text(const Checkpoint& checkpoint, const Plane& plane) {
  std::string text(plane.bytes, '\0');
  const Status status = read_plane(checkpoint, plane, 0, std::as_writable_bytes(std::span(text)));
  REQUIRE_MESSAGE(status.ok(), status.message());
  return text;
}

// A directory "m" of one file with these tensors.
FaultyFileSystem single(const std::vector<TinyTensor>& tensors, const std::string& config = "{}") {
  FaultyFileSystem files;
  files.add("m/config.json", config);
  files.add("m/model.safetensors", safetensors_of(tensors));
  return files;
}

void check_refused(const FaultyFileSystem& files, const std::string& path, Code code,
                   const std::string& said) {
  const Status status = open_checkpoint(path, files).status();
  CHECK_MESSAGE(status.code() == code, status.message());
  CHECK_MESSAGE(status.message().find(said) != std::string::npos, status.message());
}

}  // namespace

TEST_CASE("a sharded directory: the index decides, blocks and scales meet across shards") {
  FaultyFileSystem files;
  test::add_tiny_sharded(files);
  for (const char* path : {"m", "m/model.safetensors.index.json", "m/model-00001-of-00001.safetensors"}) {
    const auto checkpoint = open_checkpoint(path, files);
    REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
    CHECK(checkpoint->path == path);
    CHECK(checkpoint->directory == "m");
    CHECK(checkpoint->files.size() == 2);
    CHECK(checkpoint->config.find("model_type")->as_string() == "gpt_oss");
    REQUIRE(checkpoint->tensors.size() == 3);  // sorted, and without "unmapped"
    CHECK(checkpoint->find("unmapped") == nullptr);
    CHECK(checkpoint->find("mlp.up_blocks") == nullptr);
    CHECK(checkpoint->find("") == nullptr);
    CHECK(checkpoint->find("zzz") == nullptr);

    const CheckpointTensor* head = checkpoint->find("lm_head.weight");
    REQUIRE(head == &checkpoint->tensors[0]);
    CHECK(head->format == Format::bf16);
    CHECK(head->shape == std::vector<std::uint64_t>{2, 5});
    CHECK(head->scales.bytes == 0);
    CHECK(plane_text(*checkpoint, head->codes) == test::random_bytes(20, 1));

    const CheckpointTensor* up = checkpoint->find("mlp.up");
    REQUIRE(up != nullptr);
    CHECK(up->format == Format::mxfp4);
    CHECK(up->shape == std::vector<std::uint64_t>{2, 3, 64});
    CHECK(up->codes.file != up->scales.file);
    CHECK(plane_text(*checkpoint, up->codes) == test::random_bytes(192, 2));
    CHECK(plane_text(*checkpoint, up->scales) == test::random_bytes(12, 3));

    const CheckpointTensor* steps = checkpoint->find("steps");
    REQUIRE(steps != nullptr);
    CHECK(steps->format == Format::none);
    CHECK(steps->dtype == DType::i64);
    CHECK(steps->shape.empty());
  }
}

TEST_CASE("planes are read in pieces and not past their end") {
  FaultyFileSystem files;
  test::add_tiny_sharded(files);
  const auto checkpoint = open_checkpoint("m", files);
  REQUIRE(checkpoint.ok());
  const Plane& plane = checkpoint->find("mlp.up")->codes;
  std::string part(10, '\0');
  const auto out = std::as_writable_bytes(std::span(part));
  CHECK(read_plane(*checkpoint, plane, 182, out).ok());
  CHECK(part == test::random_bytes(192, 2).substr(182));
  CHECK(read_plane(*checkpoint, plane, 183, out).code() == Code::argument);
  CHECK(read_plane(*checkpoint, plane, ~std::uint64_t{0}, out).code() == Code::argument);
  files.fail_at = files.reads();
  const Status failed = read_plane(*checkpoint, plane, 0, out);
  CHECK(failed.code() == Code::io);
  CHECK(failed.message().find("m/model-00000-of-00001.safetensors") == 0);
}

TEST_CASE("one file, several files without an index, and one file of several") {
  FaultyFileSystem files;
  files.add("m/config.json", "{}");
  files.add("m/b.safetensors",
            safetensors_of(std::vector<TinyTensor>{{"w.blocks", "U8", "[1,16]", test::random_bytes(16, 1)},
                                                   {"x", "F16", "[1]", "12"}}));
  files.add("m/a.safetensors", safetensors_of(std::vector<TinyTensor>{{"w.scales", "U8", "[1]", "s"},
                                                                      {"y", "F32", "[1]", "1234"}}));
  const auto all = open_checkpoint("m", files);
  REQUIRE_MESSAGE(all.ok(), all.status().message());
  REQUIRE(all->tensors.size() == 3);
  CHECK(all->find("w")->format == Format::mxfp4);
  CHECK(all->find("w")->shape == std::vector<std::uint64_t>{32});
  CHECK(all->find("x")->format == Format::f16);
  CHECK(all->find("y")->format == Format::f32);
  // Named alone, a file is alone.
  check_refused(files, "m/b.safetensors", Code::format,
                "m/b.safetensors: tensor 'w.blocks' is half of an MXFP4");
  check_refused(files, "m/a.safetensors", Code::format, "'w.blocks' is missing");
  // The same name in two files, and nobody says which counts.
  files.add("m/c.safetensors", safetensors_of(std::vector<TinyTensor>{{"x", "F16", "[1]", "12"}}));
  check_refused(files, "m", Code::format, "m/c.safetensors: tensor 'x' is also in m/b.safetensors");
  // A name that only resembles a shard's is alone too; a shard's means the directory.
  files.remove("m/c.safetensors");
  for (const char* name : {"m/x-0001-of-00002.safetensors", "m/x-0000a-of-00002.safetensors"}) {
    files.add(name, safetensors_of(std::vector<TinyTensor>{{"u", "F16", "[1]", "12"}}));
    CHECK(open_checkpoint(name, files)->tensors.size() == 1);
    files.remove(name);
  }
  files.add("m/x--00001-of-00002.safetensors",
            safetensors_of(std::vector<TinyTensor>{{"u", "F16", "[1]", "12"}}));
  CHECK(open_checkpoint("m/x--00001-of-00002.safetensors", files)->tensors.size() == 4);
  files.add("m/c.safetensors", safetensors_of(std::vector<TinyTensor>{{"c", "F16", "[1]", "12"}}));
  // model.safetensors counts before the rest.
  files.add("m/model.safetensors", safetensors_of(std::vector<TinyTensor>{{"z", "F16", "[1]", "12"}}));
  CHECK(open_checkpoint("m", files)->tensors.size() == 1);
  CHECK(open_checkpoint("m/c.safetensors", files)->find("c") != nullptr);
}

TEST_CASE("what the index must not say") {
  const auto with_index = [](const std::string& text) {
    FaultyFileSystem files;
    test::add_tiny_sharded(files);
    files.add("m/model.safetensors.index.json", text);
    return files;
  };
  const std::string index = "m/model.safetensors.index.json: ";
  for (const char* name : {"../x.safetensors", "/etc/passwd", "a/b", "a\\\\b", "", ".", "..", "a\\u0000b"})
    check_refused(with_index(std::string(R"({"weight_map":{"t":")") + name + "\"}}"), "m", Code::format,
                  index + "weight_map maps tensor 't' to '");
  check_refused(with_index(R"({"weight_map":{"t":7}})"), "m", Code::format,
                index + "weight_map maps tensor 't' to no");
  check_refused(with_index(R"({"weight_map":{}})"), "m", Code::format, index + "weight_map is empty");
  check_refused(with_index(R"({"weight_map":[]})"), "m", Code::format, index + "has no weight_map");
  check_refused(with_index(R"([])"), "m", Code::format, index + "has no weight_map");
  check_refused(with_index(R"({"weight_map":)"), "m", Code::format, index + "byte ");
  check_refused(
      with_index(R"({"weight_map":{"steps":"absent.safetensors"}})"), "m", Code::not_found,
      "m/absent.safetensors: no such file, but m/model.safetensors.index.json maps tensor 'steps' to it");
  check_refused(with_index(R"({"weight_map":{"steps":"model-00000-of-00001.safetensors"}})"), "m",
                Code::format,
                "m/model-00000-of-00001.safetensors: has no tensor 'steps', but " +
                    index.substr(0, index.size() - 2) + " maps it");
  const std::string shard = R"("model-00001-of-00001.safetensors")";
  check_refused(with_index(R"({"weight_map":{"steps":)" + shard + R"(,"steps":)" + shard + "}}"), "m",
                Code::format, index + "weight_map maps tensor 'steps' twice");
}

TEST_CASE("a tensor in both shards comes from the one the index names") {
  FaultyFileSystem files;
  files.add("m/config.json", "{}");
  files.add("m/a.safetensors", safetensors_of(std::vector<TinyTensor>{{"t", "U8", "[1]", "a"}}));
  files.add("m/b.safetensors",
            safetensors_of(std::vector<TinyTensor>{{"t", "U8", "[1]", "b"}, {"u", "U8", "[1]", "u"}}));
  files.add("m/model.safetensors.index.json", R"({"weight_map":{"u":"b.safetensors","t":"b.safetensors"}})");
  auto checkpoint = open_checkpoint("m", files);
  REQUIRE(checkpoint.ok());
  CHECK(checkpoint->files.size() == 1);
  files.add("m/model.safetensors.index.json", R"({"weight_map":{"u":"b.safetensors","t":"a.safetensors"}})");
  checkpoint = open_checkpoint("m", files);
  REQUIRE(checkpoint.ok());
  CHECK(plane_text(*checkpoint, checkpoint->find("t")->codes) == "a");
}

TEST_CASE("blocks and scales that do not fit each other name both") {
  const auto pair = [](const char* blocks_dtype, const char* blocks_shape, std::size_t blocks_bytes,
                       const char* scales_dtype, const char* scales_shape, std::size_t scales_bytes) {
    return single({{"w_blocks", blocks_dtype, blocks_shape, std::string(blocks_bytes, 'b')},
                   {"w_scales", scales_dtype, scales_shape, std::string(scales_bytes, 's')}});
  };
  const std::string blocks = "m/model.safetensors: tensor 'w_blocks' is ";
  check_refused(
      pair("U8", "[2,3,16]", 96, "U8", "[2,2]", 4), "m", Code::format,
      blocks + "U8 [2, 3, 16] beside 'w_scales' U8 [2, 2], MXFP4 needs [..., G, 16] beside [..., G]");
  check_refused(pair("U8", "[2,3,8]", 48, "U8", "[2,3]", 6), "m", Code::format,
                blocks + "U8 [2, 3, 8] beside");
  check_refused(pair("U8", "[2,16]", 32, "U8", "[2,1]", 2), "m", Code::format, "MXFP4 needs");
  check_refused(pair("U8", "[16]", 16, "U8", "[]", 1), "m", Code::format, "MXFP4 needs");
  check_refused(pair("I8", "[1,16]", 16, "U8", "[1]", 1), "m", Code::format,
                "MXFP4 blocks and scales are U8");
  check_refused(pair("U8", "[1,16]", 16, "F16", "[1]", 2), "m", Code::format,
                "MXFP4 blocks and scales are U8");
  check_refused(pair("U8", "[0,16]", 0, "U8", "[576460752303423488,0]", 0), "m", Code::format, "MXFP4 needs");
  check_refused(pair("U8", "[0,1152921504606846976,16]", 0, "U8", "[0,1152921504606846976]", 0), "m",
                Code::format, "tensor 'w_blocks'");
  check_refused(single({{"w_blocks", "U8", "[1,16]", std::string(16, 'b')}}), "m", Code::format,
                "the other half 'w_scales' is missing");
  check_refused(single({{"w_scales", "U8", "[1]", "s"}}), "m", Code::format,
                "the other half 'w_blocks' is missing");
  check_refused(single({{"w_blocks", "U8", "[1,16]", std::string(16, 'b')}, {"w.scales", "U8", "[1]", "s"}}),
                "m", Code::format, "is missing");
  check_refused(single({{"w", "U8", "[1]", "w"},
                        {"w_blocks", "U8", "[1,16]", std::string(16, 'b')},
                        {"w_scales", "U8", "[1]", "s"}}),
                "m", Code::format, "m: tensor 'w' is stored twice");
}

TEST_CASE("a model saved after dequantize=True is refused with what happened") {
  const auto files = single({{"mlp.down_proj_blocks", "BF16", "[2,3]", std::string(12, 'x')}});
  const Status status = open_checkpoint("m", files).status();
  CHECK(status.code() == Code::unsupported);
  for (const char* said :
       {"m/model.safetensors", "'mlp.down_proj_blocks'", "BF16", "dequantize=True", "original"})
    CHECK_MESSAGE(status.message().find(said) != std::string::npos, status.message());
}

TEST_CASE("float scales of other formats are tensors like any other") {
  const auto checkpoint =
      open_checkpoint("m", single({{"q.scales", "F16", "[1]", "12"}, {"q.qweight", "I32", "[1]", "1234"}}));
  REQUIRE(checkpoint.ok());
  CHECK(checkpoint->find("q.scales")->format == Format::f16);
  CHECK(checkpoint->find("q.qweight")->dtype == DType::i32);
}

TEST_CASE("configuration: needed unless told otherwise, an object, and of a known quantization") {
  FaultyFileSystem files;
  test::add_tiny_sharded(files);
  files.remove("m/config.json");
  check_refused(files, "m", Code::not_found, "m/config.json: no such file");
  CHECK(open_checkpoint("m", files, {.config = false})->config.is_null());
  files.add("m/config.json", "[]");
  check_refused(files, "m", Code::format, "m/config.json: must hold one JSON object");
  files.add("m/config.json", "{\"a\":}");
  check_refused(files, "m", Code::format, "m/config.json: byte 6: ");
  files.add("m/config.json", std::string((16 << 20) + 1, ' '));
  check_refused(files, "m", Code::format, "m/config.json: has 16777217 bytes");
  files.add("m/config.json", R"({"quantization_config":{"quant_method":"gptq"}})");
  check_refused(files, "m", Code::unsupported, "m/config.json: quantization_config.quant_method is 'gptq'");
  files.add("m/config.json", R"({"quantization_config":{"load_in_4bit":true}})");
  check_refused(files, "m", Code::unsupported, "names no quant_method");
  files.add("m/config.json", R"({"quantization_config":null})");
  CHECK(open_checkpoint("m", files).ok());
}

TEST_CASE("a vocabulary alone: no configuration, no weights") {
  FaultyFileSystem files;
  files.add("v/tokenizer.json", "not read here");
  files.add("v/generation_config.json", R"({"eos_token_id":[1,2]})");
  const auto checkpoint = open_checkpoint("v", files, {.config = false, .weights = false});
  REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
  CHECK(checkpoint->tokenizer_path == "v/tokenizer.json");
  CHECK(checkpoint->generation_config->find("eos_token_id")->items().size() == 2);
  CHECK(checkpoint->tensors.empty());
  CHECK_FALSE(checkpoint->tokenizer_config.has_value());
  check_refused(files, "v", Code::not_found, "v: holds no weights");
  files.add("v/generation_config.json", "7");
  CHECK(open_checkpoint("v", files, {.config = false, .weights = false}).status().message() ==
        "v/generation_config.json: must hold one JSON object");
}

TEST_CASE("the chat template: its own file, else the tokenizer's configuration") {
  FaultyFileSystem files;
  files.add("v/tokenizer_config.json", R"({"chat_template":"from config"})");
  const CheckpointNeeds nothing = {.config = false, .weights = false};
  CHECK(open_checkpoint("v", files, nothing)->chat_template == "from config");
  files.add("v/chat_template.jinja", "from\nfile");
  CHECK(open_checkpoint("v", files, nothing)->chat_template == "from\nfile");
  files.remove("v/chat_template.jinja");
  files.add("v/tokenizer_config.json",
            R"({"chat_template":[{"name":"tools","template":"t"},7,{"name":"default","template":"d"}]})");
  CHECK(open_checkpoint("v", files, nothing)->chat_template == "d");
  for (const char* none :
       {R"({"chat_template":[{"name":"tools","template":"t"}]})", R"({"chat_template":null})",
        R"({"chat_template":[{"name":"default","template":7}]})", "{}"}) {
    files.add("v/tokenizer_config.json", none);
    CHECK_FALSE(open_checkpoint("v", files, nothing)->chat_template.has_value());
  }
}

TEST_CASE("chat_template.json counts before the tokenizer's configuration and after chat_template.jinja") {
  FaultyFileSystem files;
  files.add("v/tokenizer_config.json", R"({"chat_template":"from config"})");
  files.add("v/chat_template.json", R"({"chat_template":"from json"})");
  const CheckpointNeeds nothing = {.config = false, .weights = false};
  CHECK(open_checkpoint("v", files, nothing)->chat_template == "from json");
  files.add("v/chat_template.jinja", "from jinja");
  CHECK(open_checkpoint("v", files, nothing)->chat_template == "from jinja");
  files.remove("v/chat_template.jinja");
  files.add("v/chat_template.json", "{}");
  CHECK(open_checkpoint("v", files, nothing)->chat_template == "from config");
  files.add("v/chat_template.json", "[");
  CHECK(open_checkpoint("v", files, nothing).status().message().find("v/chat_template.json: byte") == 0);
}

TEST_CASE("a directory called original borrows the tokenizer of the one above") {
  FaultyFileSystem files;
  test::add_tiny_sharded(files);
  for (const std::string& path : files.paths()) files.add("m/original" + path.substr(1), files.content(path));
  files.add("m/tokenizer.json", "t");
  files.add("m/chat_template.jinja", "above");
  files.add("m/generation_config.json", R"({"eos_token_id":7})");
  for (const char* path : {"m/original", "m/original/model-00001-of-00001.safetensors"}) {
    const auto checkpoint = open_checkpoint(path, files);
    REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
    CHECK(checkpoint->tokenizer_path == "m/tokenizer.json");
    CHECK(checkpoint->chat_template == "above");
    CHECK(checkpoint->generation_config->find("eos_token_id")->as_integer() == 7);
    CHECK(checkpoint->files.size() == 2);
  }
  files.add("m/original/tokenizer.json", "its own");
  CHECK(open_checkpoint("m/original", files)->tokenizer_path == "m/original/tokenizer.json");
  files.add("m/other/config.json", "{}");
  CHECK_FALSE(open_checkpoint("m/other", files, {.weights = false})->tokenizer_path.has_value());
}

TEST_CASE("what is no checkpoint says what it is") {
  FaultyFileSystem files;
  for (const char* name :
       {"x/model.onnx", "x/pytorch_model.bin", "x/notes.txt", "b/pytorch_model.bin", "e/readme"})
    files.add(name, "x");
  check_refused(files, "nowhere", Code::not_found, "nowhere: no such file or directory");
  check_refused(files, "x/model.onnx", Code::unsupported, "x/model.onnx: is an ONNX file");
  check_refused(files, "x/pytorch_model.bin", Code::unsupported, "is a PyTorch pickle file");
  check_refused(files, "x/notes.txt", Code::unsupported, "give the directory of the model");
  check_refused(files, "x", Code::unsupported, "x/model.onnx: is an ONNX file");
  check_refused(files, "b", Code::unsupported, "b/pytorch_model.bin: is a PyTorch");
  check_refused(files, "e", Code::not_found, "e: holds no weights");
}

TEST_CASE("a checkpoint of the disk") {
  const test::TemporaryDirectory directory;
  directory.write("config.json", test::kTinyConfig);
  directory.write("model.safetensors", safetensors_of(test::tiny_shard_0()));
  check_refused({}, "m", Code::not_found, "m:");
  const Status halved = open_checkpoint(directory.path()).status();
  CHECK(halved.message().find("'mlp.up_scales' is missing") != std::string::npos);
  directory.write("model.safetensors", safetensors_of(test::tiny_shard_1()));
  CHECK(open_checkpoint(directory.path()).status().message().find("'mlp.up_blocks'") != std::string::npos);
  auto whole = test::tiny_shard_0();
  for (const TinyTensor& tensor : test::tiny_shard_1()) whole.push_back(tensor);
  directory.write("model.safetensors", safetensors_of(whole));
  const auto checkpoint = open_checkpoint(directory.path() + "/");
  REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
  CHECK(checkpoint->tensors.size() == 4);
  CHECK(plane_text(*checkpoint, checkpoint->find("mlp.up")->scales) == test::random_bytes(12, 3));
}

TEST_CASE("published layouts: both hold the same experts") {
  NIB_REQUIRE_DATA(root);
  const auto hf = open_checkpoint(root + "/models/gpt-oss-a");
  const auto original = open_checkpoint(root + "/models/gpt-oss-a/original");
  REQUIRE_MESSAGE(hf.ok(), hf.status().message());
  REQUIRE_MESSAGE(original.ok(), original.status().message());
  CHECK(hf->files.size() == 3);
  CHECK(hf->tensors.size() == 4 * 17 + 3);
  CHECK(original->tensors.size() == 4 * 13 + 3);
  CHECK(hf->tokenizer_path == root + "/models/gpt-oss-a/tokenizer.json");
  int across = 0;
  for (int layer = 0; layer < 4; ++layer) {
    const std::pair<std::string, std::string> kNames[] = {
        {concat("model.layers.", layer, ".mlp.experts.gate_up_proj"),
         concat("block.", layer, ".mlp.mlp1_weight")},
        {concat("model.layers.", layer, ".mlp.experts.down_proj"),
         concat("block.", layer, ".mlp.mlp2_weight")}};
    for (const auto& [hf_name, original_name] : kNames) {
      const CheckpointTensor* a = hf->find(hf_name);
      const CheckpointTensor* b = original->find(original_name);
      REQUIRE(a != nullptr);
      REQUIRE(b != nullptr);
      CHECK(a->format == Format::mxfp4);
      CHECK(a->shape == b->shape);
      CHECK(plane_text(*hf, a->codes) == plane_text(*original, b->codes));
      CHECK(plane_text(*hf, a->scales) == plane_text(*original, b->scales));
      across += a->codes.file != a->scales.file;
    }
  }
  CHECK(across > 0);  // this checkpoint has a pair in two shards
  CHECK(hf->find("model.layers.0.mlp.experts.gate_up_proj")->shape == std::vector<std::uint64_t>{8, 192, 64});
  CHECK(hf->find("model.layers.0.mlp.experts.down_proj")->shape == std::vector<std::uint64_t>{8, 64, 96});
}
