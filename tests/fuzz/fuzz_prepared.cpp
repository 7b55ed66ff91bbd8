// The description of a prepared model, in a file whose header is as it should be: whatever it says, a
// checkpoint of which nothing lies outside the file, and weights that load, or an error.
#include "io/tiny.hpp"
#include <nibble/io/prepared.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/model/weights.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

namespace {

// A llama of one layer, hidden size 16, whose matrices are records of 4096 bytes.
constexpr const char* kConfig =
    R"({"model_type":"llama","hidden_size":16,"intermediate_size":16,"num_attention_heads":1,
"num_key_value_heads":1,"head_dim":16,"num_hidden_layers":1,"vocab_size":4,"max_position_embeddings":64,
"rms_norm_eps":1e-5,"tie_word_embeddings":true})";

std::string file_with(const std::string& description) {
  std::vector<nib::test::TinyTensor> tensors;
  for (const char* name : {"model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.o_proj.weight",
                           "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.down_proj.weight",
                           "model.embed_tokens.weight"})
    tensors.push_back({nib::prepared_name(name), "U8", "[1,4096]", std::string(4096, '\1')});
  tensors.push_back({"model.embed_tokens.weight", "BF16", "[4,16]", std::string(128, '\2')});
  for (const char* name : {"model.norm.weight", "model.layers.0.input_layernorm.weight",
                           "model.layers.0.post_attention_layernorm.weight"})
    tensors.push_back({name, "F32", "[16]", std::string(64, '\3')});
  tensors.push_back(
      {nib::kPreparedDescription, "U8", nib::concat("[", description.size(), "]"), description});
  std::string file = nib::test::safetensors_of(tensors);
  const std::string from = R"("format":"pt")", to = R"("nibble.layout":"1")";
  file.replace(file.find(from), from.size(), to);
  const std::size_t length = (static_cast<std::size_t>(static_cast<unsigned char>(file[0])) |
                              static_cast<std::size_t>(static_cast<unsigned char>(file[1])) << 8) +
                             to.size() - from.size();
  file[0] = static_cast<char>(length & 0xff);
  file[1] = static_cast<char>(length >> 8);
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  nib::test::FaultyFileSystem files;
  files.add("m/config.json", kConfig);
  files.add("m/model.safetensors", file_with(std::string(reinterpret_cast<const char*>(data), size)));
  const auto checkpoint = nib::open_checkpoint("m", files);
  if (!checkpoint.ok()) {
    if (checkpoint.status().code() == nib::Code::internal || checkpoint.status().message().empty())
      std::abort();
    return 0;
  }
  if (!checkpoint->prepared) std::abort();
  for (const nib::CheckpointTensor& tensor : checkpoint->tensors) {
    if (tensor.codes.file == nib::Plane::kNowhere) continue;
    std::string bytes(tensor.codes.bytes, '\0');
    if (!nib::read_plane(*checkpoint, tensor.codes, 0, std::as_writable_bytes(std::span(bytes))).ok())
      std::abort();
  }
  const auto config = nib::read_config(*checkpoint);
  if (!config.ok()) std::abort();
  const auto layout = nib::WeightLayout::make(*checkpoint, *config);
  if (!layout.ok()) return 0;
  nib::Memory memory;
  const auto pool = nib::Pool::start(1).take();
  const nib::Backend& scalar = *nib::cpu_backends().back();
  const auto weights = layout->load(*checkpoint, *config, scalar, nib::Numerics::f32, memory, *pool);
  if (!weights.ok() && weights.status().code() == nib::Code::internal) std::abort();
  return 0;
}
