// What quantize_checkpoint writes: opened again, and held against the definition of the format, the recorded
// logits of another implementation, and the files of another converter.
#include "model/config_writer.hpp"
#include "model/quantize_rig.hpp"
#include "support/goldens.hpp"

#include <cfenv>
#include <filesystem>
#include <set>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

std::uint32_t fresh_seed() { return std::random_device{}(); }

bool is_matrix(const std::string& name) {
  return name.find("_proj.weight") != name.npos;  // of a llama: attention and feed-forward
}

bool is_plain_target(const std::string& format) {
  return format == "bf16" || format == "f16" || format == "f32";
}

TEST_CASE(
    "a directory: every matrix is what the format makes of it, and everything else as it was, from both "
    "containers") {
  const std::uint32_t seed = fresh_seed();
  CAPTURE(seed);
  const TemporaryDirectory folder;
  const LlamaShape shape;
  const Tensors tensors = random_llama(shape, seed);
  std::filesystem::create_directory(folder.path("in"));
  write_llama(folder.path("in"), shape, tensors);
  REQUIRE(quantize(folder.path("in"), folder.path("whole.gguf"), "f32").ok());
  for (const TargetFormat& target : target_formats())
    for (const char* from : {"in", "whole.gguf"}) {
      const std::string format = target.name, out = folder.path(concat(from, "-", format));
      CAPTURE(from);
      CAPTURE(format);
      if (target.safetensors == Format::none) {
        CHECK(quantize(folder.path(from), out, format).status().code() == Code::unsupported);
        continue;
      }
      QuantizeOptions options;
      if (format == "mxfp4") {  // of a llama only when somebody insists
        CHECK(quantize(folder.path(from), out, format).status().code() == Code::unsupported);
        options.only = [](std::string_view name) {  // the names of either
          return name.ends_with("_proj.weight") ||
                 (name.starts_with("blk.") && !name.ends_with("_norm.weight"));
        };
      }
      const auto report = quantize(folder.path(from), out, format, options);
      REQUIRE_MESSAGE(report.ok(), report.status().message());
      const Checkpoint written = open(out);
      CHECK(written.tensors.size() == tensors.size());
      const bool plain = is_plain_target(format);
      for (const auto& entry : tensors) {
        const std::string& name = entry.first;
        const Tensor& tensor = entry.second;
        CAPTURE(name);
        const CheckpointTensor* found = written.find(name);
        REQUIRE(found);
        CHECK(found->shape == tensor.shape);
        const bool meant = plain || is_matrix(name);
        CHECK(found->format == (meant ? target.safetensors : Format::f32));
        CHECK(values_of(written, name) == (meant ? by_definition(format, tensor) : tensor.values));
      }
      // A file without a tokenizer says so.
      CHECK(report->notes.size() == (std::string_view(from) == "in" ? 0 : 1));
      // f32 is what it was already: nothing had to be quantized, but the rows of q and k lie otherwise.
      CHECK(report->quantized == (format == "f32" ? 0 : plain ? tensors.size() : 7 * shape.layers));
      // The model's own loader takes it too.
      const ModelRig rig(out, {});
    }
}

// Row 2 i + s of a head of GGUF's llama is row s * d / 2 + i of Hugging Face's.
Tensor in_pairs(const Tensor& tensor, std::int64_t head_dim) {
  Tensor out = tensor;
  const std::int64_t k = tensor.columns(), rows = static_cast<std::int64_t>(tensor.values.size()) / k;
  for (std::int64_t head = 0; head < rows / head_dim; ++head)
    for (std::int64_t i = 0; i < head_dim / 2; ++i)
      for (const std::int64_t s : {0, 1})
        std::copy_n(tensor.values.data() + (head * head_dim + s * head_dim / 2 + i) * k, k,
                    out.values.data() + (head * head_dim + 2 * i + s) * k);
  return out;
}

std::string gguf_name(const std::string& name) {
  static const std::map<std::string, std::string> kEnds = {
      {"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"},
      {"self_attn.q_proj", "attn_q"},   {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"},
      {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  if (name == "model.embed_tokens.weight") return "token_embd.weight";
  if (name == "lm_head.weight") return "output.weight";
  if (name == "model.norm.weight") return "output_norm.weight";
  const std::string rest = name.substr(std::string("model.layers.").size());
  const std::size_t dot = rest.find('.'), end = rest.rfind('.');
  return concat("blk.", rest.substr(0, dot), ".", kEnds.at(rest.substr(dot + 1, end - dot - 1)), ".weight");
}

TEST_CASE(
    "a GGUF file: names, the order of rows and every value, from a directory and from another GGUF file") {
  const std::uint32_t seed = fresh_seed();
  CAPTURE(seed);
  const TemporaryDirectory folder;
  const LlamaShape shape;
  const Tensors tensors = random_llama(shape, seed);
  std::filesystem::create_directory(folder.path("in"));
  write_llama(folder.path("in"), shape, tensors);
  REQUIRE(quantize(folder.path("in"), folder.path("whole.gguf"), "f32").ok());
  for (const TargetFormat& target : target_formats()) {
    const std::string format = target.name;
    CAPTURE(format);
    for (const char* from : {"in", "whole.gguf"}) {
      CAPTURE(from);
      const std::string out = folder.path(concat(from, "-", format, ".gguf"));
      const auto report = quantize(folder.path(from), out, format);
      if (target.gguf == Format::none) {
        CHECK(report.status().code() == Code::unsupported);
        continue;
      }
      REQUIRE_MESSAGE(report.ok(), report.status().message());
      const Checkpoint written = open(out);
      CHECK(written.tensors.size() == tensors.size());
      for (const auto& entry : tensors) {
        const std::string& name = entry.first;
        const Tensor& tensor = entry.second;
        CAPTURE(name);
        const bool rotated = name.find("q_proj") != name.npos || name.find("k_proj") != name.npos;
        const Tensor expected =
            rotated ? in_pairs(tensor, static_cast<std::int64_t>(shape.head_dim)) : tensor;
        const CheckpointTensor* found = written.find(gguf_name(name));
        REQUIRE(found);
        const bool meant = is_matrix(name) || (is_plain_target(format) && tensor.shape.size() > 1);
        CHECK(found->format == (meant ? target.gguf : Format::f32));
        CHECK(values_of(written, gguf_name(name)) ==
              (meant ? by_definition(format, expected) : expected.values));
      }
      const ModelRig rig(out, {});
      CHECK(rig.config.heads == shape.heads);
      CHECK(rig.config.vocabulary == shape.vocabulary);
      CHECK(rig.config.max_context == 512);
    }
  }
}

TEST_CASE("the bytes do not depend on the number of threads, nor on the shards") {
  const TemporaryDirectory folder;
  const LlamaShape shape;
  std::filesystem::create_directory(folder.path("in"));
  write_llama(folder.path("in"), shape, random_llama(shape, fresh_seed()));
  for (const char* format : {"nf4-double", "nvfp4", "fp8", "int8"}) {
    CAPTURE(format);
    const std::string one = folder.path(concat(format, "-1")), three = folder.path(concat(format, "-3"));
    REQUIRE(quantize(folder.path("in"), one, format, {}, 1).ok());
    REQUIRE(quantize(folder.path("in"), three, format, {}, 3).ok());
    CHECK(read_text(one + "/model.safetensors") == read_text(three + "/model.safetensors"));
    QuantizeOptions options;
    options.most_shard_bytes = 20'000;
    const std::string cut = folder.path(concat(format, "-cut"));
    REQUIRE(quantize(folder.path("in"), cut, format, options).ok());
    const Checkpoint whole = open(one), sharded = open(cut);
    CHECK(sharded.files.size() > 3);
    REQUIRE(sharded.tensors.size() == whole.tensors.size());
    for (const CheckpointTensor& tensor : whole.tensors)
      CHECK(values_of(sharded, tensor.name) == values_of(whole, tensor.name));
  }
}

TEST_CASE(
    "a matrix of several blocks: the bytes of the definition, and one noise, for any number of threads and "
    "rounding") {
  const std::uint32_t seed = fresh_seed();
  CAPTURE(seed);
  const TemporaryDirectory folder;
  LlamaShape shape;
  shape.layers = 1;
  shape.hidden = 96;   // runs of 64 go from row to row
  shape.width = 3008;  // more rows than a block of one thread has; the last tile is cut short
  const Tensors tensors = random_llama(shape, seed);
  std::filesystem::create_directory(folder.path("in"));
  write_llama(folder.path("in"), shape, tensors);
  for (const char* format : {"nf4", "nf4-double", "nvfp4", "fp8", "fp8-tensor", "llm-int8"}) {
    CAPTURE(format);
    const std::string one = folder.path(concat(format, "-1")), three = folder.path(concat(format, "-3"));
    const auto alone = quantize(folder.path("in"), one, format, {}, 1);
    std::fesetround(FE_UPWARD);  // the host's affair
    const auto together = quantize(folder.path("in"), three, format, {}, 3);
    std::fesetround(FE_TONEAREST);
    REQUIRE(alone.ok());
    REQUIRE(together.ok());
    CHECK(alone->signal == together->signal);
    CHECK(alone->noise == together->noise);
    CHECK(read_text(one + "/model.safetensors") == read_text(three + "/model.safetensors"));
    const Checkpoint written = open(one);
    for (const char* name : {"model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"})
      CHECK(values_of(written, name) == by_definition(format, tensors.at(name)));
  }
}

TEST_CASE("--only, scale rules, and what cannot have the format") {
  const TemporaryDirectory folder;
  LlamaShape shape;
  shape.width = 80;  // no whole number of groups of 32 in a row of down_proj
  const Tensors tensors = random_llama(shape, fresh_seed());
  std::filesystem::create_directory(folder.path("in"));
  write_llama(folder.path("in"), shape, tensors);

  const auto kept = quantize(folder.path("in"), folder.path("kept.gguf"), "q8_0");
  REQUIRE_MESSAGE(kept.ok(), kept.status().message());
  REQUIRE(kept->notes.size() >= 1);
  CHECK(kept->notes.back().find("model.layers.0.mlp.down_proj.weight and 1 more") != std::string::npos);
  CHECK(open(folder.path("kept.gguf")).find("blk.1.ffn_down.weight")->format == Format::f32);

  QuantizeOptions options;
  options.only = [](std::string_view name) {
    return name.find(".0.mlp.up") != name.npos || name == "lm_head.weight";
  };
  const auto some = quantize(folder.path("in"), folder.path("some"), "nf4", options);
  REQUIRE_MESSAGE(some.ok(), some.status().message());
  std::set<std::string> found;
  for (const CheckpointTensor& tensor : open(folder.path("some")).tensors)
    if (tensor.format == Format::nf4) found.insert(tensor.name);
  CHECK(found == std::set<std::string>{"lm_head.weight", "model.layers.0.mlp.up_proj.weight"});
  CHECK(some->quantized == 2);

  options.only = [](std::string_view name) { return name.ends_with("norm.weight"); };
  CHECK(quantize(folder.path("in"), folder.path("none"), "nf4", options).status().code() == Code::argument);
  CHECK_FALSE(std::filesystem::exists(folder.path("none")));

  options = {};
  double error[3] = {};
  int at = 0;
  for (const ScaleRule rule : {ScaleRule::floor, ScaleRule::round_up, ScaleRule::least_error}) {
    options.scale_rule = rule;
    const auto report =
        quantize(folder.path("in"), folder.path(concat("rule-", at, ".gguf")), "mxfp4", options);
    REQUIRE_MESSAGE(report.ok(), report.status().message());
    error[at++] = report->noise / report->signal;
  }
  CHECK(error[2] < error[0]);
  CHECK(error[2] < error[1]);
  const Tensor& up = tensors.at("model.layers.1.mlp.up_proj.weight");
  CHECK(values_of(open(folder.path("rule-2.gguf")), "blk.1.ffn_up.weight") ==
        by_groups<Mxfp4With<LeastErrorScale>>(up.values));
  options.scale_rule = ScaleRule::round_up;
  CHECK(quantize(folder.path("in"), folder.path("q.gguf"), "q4_0", options).status().code() ==
        Code::argument);
  options.scale_rule = ScaleRule::floor;
  CHECK(quantize(folder.path("in"), folder.path("nv"), "nvfp4", options).status().code() == Code::argument);
}

TEST_CASE("signal and noise are those of the quantized values") {
  const TemporaryDirectory folder;
  const LlamaShape shape;
  const Tensors tensors = random_llama(shape, fresh_seed());
  std::filesystem::create_directory(folder.path("in"));
  write_llama(folder.path("in"), shape, tensors);
  for (const char* format : {"nvfp4", "nf4-double", "fp8", "llm-int8"}) {
    CAPTURE(format);
    const auto report = quantize(folder.path("in"), folder.path(format), format);
    REQUIRE(report.ok());
    double signal = 0, noise = 0;
    std::uint64_t weights = 0;
    for (const auto& [name, tensor] : tensors) {
      if (!is_matrix(name)) continue;
      const std::vector<float> back = by_definition(format, tensor);
      for (std::size_t i = 0; i < back.size(); ++i) {
        const double value = tensor.values[i], error = static_cast<double>(back[i]) - value;
        signal += value * value;
        noise += error * error;
      }
      weights += back.size();
    }
    CHECK(report->weights == weights);
    CHECK(report->signal == doctest::Approx(signal).epsilon(1e-6));  // squares are f32
    CHECK(report->noise == doctest::Approx(noise).epsilon(1e-6));
    CHECK(report->bytes_after < report->bytes_before);
  }
}

void check_same_tensors(const Checkpoint& found, const Checkpoint& expected) {
  CHECK(found.tensors.size() == expected.tensors.size());
  for (const CheckpointTensor& tensor : expected.tensors) {
    CAPTURE(tensor.name);
    const CheckpointTensor* own = found.find(tensor.name);
    REQUIRE(own);
    CHECK(own->shape == tensor.shape);
    CHECK(values_of(found, tensor.name) == values_of(expected, tensor.name));
  }
}

void check_same_config(const Checkpoint& found, const Checkpoint& expected) {
  const auto a = read_config(found), b = read_config(expected);
  REQUIRE_MESSAGE(a.ok(), a.status().message());
  REQUIRE_MESSAGE(b.ok(), b.status().message());
  CHECK(first_difference(*a, *b) == "");
  CHECK(a->architecture == b->architecture);
  CHECK(a->qkv_bias == b->qkv_bias);
  CHECK(a->output_bias == b->output_bias);
  CHECK(a->expert_bias == b->expert_bias);
  CHECK(a->tied_embeddings == b->tied_embeddings);
}

TEST_CASE("the story model: MXFP4 goes over bit for bit, and back from bf16") {
  const std::string tales = NIBBLE_TALES;
  const TemporaryDirectory folder;
  const Checkpoint before = open(tales);
  REQUIRE(quantize(tales, folder.path("a.gguf"), "mxfp4").ok());
  REQUIRE(quantize(tales, folder.path("plain"), "bf16").ok());
  REQUIRE(quantize(folder.path("plain"), folder.path("again"), "mxfp4").ok());
  // Through files whose experts lie as in MXFP4 and are none.
  REQUIRE(quantize(folder.path("plain"), folder.path("plain.gguf"), "bf16").ok());
  REQUIRE(quantize(folder.path("plain.gguf"), folder.path("out"), "mxfp4").ok());
  REQUIRE(quantize(folder.path("plain.gguf"), folder.path("turned"), "bf16").ok());
  check_same_tensors(open(folder.path("out")), before);
  check_same_tensors(open(folder.path("turned")), open(folder.path("plain")));
  const Checkpoint gguf = open(folder.path("a.gguf")), plain = open(folder.path("plain")),
                   again = open(folder.path("again"));
  for (int layer = 0; layer < 6; ++layer) {
    const std::string experts = concat("model.layers.", layer, ".mlp.experts.");
    const std::vector<float> both = values_of(before, experts + "gate_up_proj"),
                             down = values_of(before, experts + "down_proj");
    const std::vector<float> gate = values_of(gguf, concat("blk.", layer, ".ffn_gate_exps.weight")),
                             up = values_of(gguf, concat("blk.", layer, ".ffn_up_exps.weight"));
    bool same = both.size() == gate.size() + up.size();
    for (std::size_t i = 0; same && i < both.size(); ++i) {  // rows of 256 alternate
      const std::size_t row = i / 256, at = row / 2 * 256 + i % 256;
      same = both[i] == (row % 2 == 0 ? gate[at] : up[at]);
    }
    CHECK(same);
    CHECK(values_of(gguf, concat("blk.", layer, ".ffn_down_exps.weight")) == down);
    // In a plain format experts lie the other way round: [expert, in, out].
    CHECK(plain.find(experts + "gate_up_proj")->shape == std::vector<std::uint64_t>{16, 256, 512});
    const std::vector<float> turned = values_of(plain, experts + "gate_up_proj");
    same = turned.size() == both.size();
    for (std::size_t i = 0; same && i < both.size(); ++i) {
      const std::size_t expert = i / (512 * 256), row = i / 256 % 512, column = i % 256;
      same = both[i] == turned[expert * 512 * 256 + column * 512 + row];
    }
    CHECK(same);
    CHECK(again.find(experts + "gate_up_proj")->format == Format::mxfp4);
    CHECK(values_of(again, experts + "gate_up_proj") == both);
    CHECK(values_of(again, experts + "down_proj") == down);
  }
  CHECK(plain.config.find("quantization_config") == nullptr);
  REQUIRE(again.config.find("quantization_config") != nullptr);
  CHECK(again.tokenizer_path.has_value());
  CHECK(again.chat_template == before.chat_template);
  CHECK(gguf.chat_template == before.chat_template);
}

// A format that loses nothing must leave the model as good as it was, through every name, order and
// transposition.
TEST_CASE("recorded logits hold after a conversion that loses nothing") {
  NIB_REQUIRE_DATA(data);
  int converted = 0;
  for (const GoldenCase& c : golden_cases(data)) {
    if (c.name.find("/original") != c.name.npos) continue;  // a checkpoint without a model_type
    CAPTURE(c.name);
    const Golden golden = c.golden();
    const TemporaryDirectory folder;
    for (const char* out : {"f32.gguf", "f32", "back", "again.gguf"}) {
      CAPTURE(out);
      const std::string from = std::string_view(out) == "back"         ? folder.path("f32.gguf")
                               : std::string_view(out) == "again.gguf" ? folder.path("back")
                                                                       : c.path;
      const auto report = quantize(from, folder.path(out), "f32");
      REQUIRE_MESSAGE(report.ok(), report.status().message());
      ModelRig rig(folder.path(out), {.numerics = Numerics::f32});
      auto cache = rig.cache();
      const std::vector<float> logits = rig.feed(*cache, golden.input_ids);
      REQUIRE(logits.size() == golden.logits.size());
      CHECK(largest_difference(logits, golden.logits) < c.tolerances.f32);
      ++converted;
    }
    // Out of a GGUF file and out of what that was made of comes the same directory.
    const Checkpoint direct = open(folder.path("f32")), back = open(folder.path("back"));
    check_same_tensors(back, direct);
    check_same_config(back, direct);
  }
  CHECK(converted > 0);
}

// The data folder has directories beside the GGUF files that another converter made of them.
TEST_CASE("a GGUF file of another converter becomes the directory that it was made from") {
  NIB_REQUIRE_DATA(data);
  int exact = 0;
  for (const GoldenCase& c : golden_cases(data)) {
    if (!c.path.ends_with(".gguf")) continue;
    CAPTURE(c.name);
    const std::string model = std::filesystem::path(c.path).parent_path().parent_path().string();
    const TemporaryDirectory folder;
    const Checkpoint original = open(model);
    const bool experts = original.config.find("quantization_config") != nullptr;
    const std::string format = experts ? "mxfp4" : c.path.ends_with("-f16.gguf") ? "f16" : "bf16";
    const auto report = quantize(c.path, folder.path("out"), format);
    REQUIRE_MESSAGE(report.ok(), report.status().message());
    const Checkpoint written = open(folder.path("out"));
    check_same_config(written, original);
    for (const char* key : {"eos_token_id", "bos_token_id", "pad_token_id"})
      if (const Json* id = original.config.find(key); id && !id->is_null() && original.tokenizer_path) {
        // What is not in the file's keys cannot come back.
        const std::string name = std::string(key) == "pad_token_id"   ? "padding_token_id"
                                 : std::string(key) == "bos_token_id" ? "bos_token_id"
                                                                      : "eos_token_id";
        if (!open(c.path).gguf->find("tokenizer.ggml." + name)) continue;
        REQUIRE(written.config.find(key));
        CHECK(write_json(*written.config.find(key)) == write_json(*id));
      }
    REQUIRE(written.tokenizer_path.has_value());
    CHECK(written.tensors.size() == original.tensors.size());
    const bool lossy = c.path.find("q8_0") != c.path.npos;
    if (!lossy) check_same_tensors(written, original);
    for (const CheckpointTensor& tensor : written.tensors) {
      CAPTURE(tensor.name);
      const CheckpointTensor* found = original.find(tensor.name);
      REQUIRE(found);
      CHECK(found->shape == tensor.shape);
      if (tensor.format != Format::mxfp4) continue;
      CHECK(found->format == Format::mxfp4);  // of both files: this is not quantized anew
      CHECK(values_of(written, tensor.name) == values_of(original, tensor.name));
      ++exact;
    }
  }
  CHECK(exact > 0);
}

// The data folder has GGUF files of another converter beside the directories they were made from.
TEST_CASE("GGUF files are those of another converter, tensor for tensor and key for key") {
  NIB_REQUIRE_DATA(data);
  int files = 0;
  for (const GoldenCase& c : golden_cases(data)) {
    if (!c.path.ends_with(".gguf")) continue;
    const std::string model = std::filesystem::path(c.path).parent_path().parent_path().string();
    const bool quantized = c.path.find("q8_0") != c.path.npos;
    const std::string format = quantized ? "q8_0" : c.path.find("bf16") != c.path.npos ? "bf16" : "f16";
    CAPTURE(c.name);
    const TemporaryDirectory folder;
    const auto report = quantize(model, folder.path("ours.gguf"), format);
    REQUIRE_MESSAGE(report.ok(), report.status().message());
    const Checkpoint ours = open(folder.path("ours.gguf")), theirs = open(c.path);
    std::set<std::string> names, expected;
    for (const CheckpointTensor& tensor : ours.tensors) names.insert(tensor.name);
    for (const CheckpointTensor& tensor : theirs.tensors) {
      CAPTURE(tensor.name);
      expected.insert(tensor.name);
      const CheckpointTensor* own = ours.find(tensor.name);
      REQUIRE(own);
      CHECK(own->shape == tensor.shape);
      if (own->format != tensor.format) continue;  // what stays unquantized is each converter's choice
      const std::vector<float> a = values_of(ours, tensor.name), b = values_of(theirs, tensor.name);
      // The divisors of frequencies are computed, by each in its own precision.
      CHECK(worst_ratio(a, b) <= (tensor.name == "rope_freqs.weight" ? 1e-6 : 0.0));
    }
    CHECK(names == expected);
    for (std::size_t i = 0; i < theirs.gguf->size(); ++i) {
      const std::string key(theirs.gguf->key(i));
      CAPTURE(key);
      const GgufValue value = theirs.gguf->value(i);
      const auto own = ours.gguf->find(key);
      if (key.starts_with("general.")) continue;  // what the file says of itself
      REQUIRE(own);
      if (const auto number = value.as_number()) {
        CHECK(own->as_number() == number);
      } else if (const auto text = value.as_string()) {
        // "gpt-2" does not say that GPT-NeoX normalizes its texts; "olmo" is the same pattern, and does.
        const bool pattern = key == "tokenizer.ggml.pre" && *text == "gpt-2";
        CHECK((own->as_string() == text || (pattern && own->as_string() == "olmo")));
      } else if (value.is_array()) {
        REQUIRE(own->count() == value.count());
        for (std::uint64_t j = 0; j < value.count(); ++j) CHECK(own->integer_at(j) == value.integer_at(j));
        const GgufStrings mine = own->strings(), other = value.strings();
        CHECK(std::equal(mine.begin(), mine.end(), other.begin(), other.end()));
      }
    }
    ++files;
  }
  CHECK(files > 0);
}

}  // namespace
}  // namespace nib::test
