// Any bytes are a GGUF file whose tensors can be read and whose header can be written again, or refused.
#include "support/faulty_files.hpp"
#include <nibble/io/checkpoint.hpp>
#include <nibble/io/gguf_writer.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

namespace {

void require(bool what) {
  if (!what) std::abort();
}

// Written again, the header says the same of every pair and tensor.
void write_again(const nib::GgufHeader& header) {
  nib::GgufPairs pairs;
  for (std::size_t i = 0; i < header.metadata.size(); ++i)
    pairs.add(header.metadata.key(i), header.metadata.value(i));
  std::vector<nib::GgufTensorSpec> specs;
  std::uint64_t bytes = 0;
  for (const nib::GgufTensor& tensor : header.tensors) {
    if (tensor.name.size() > 63) return;  // read, but not written
    specs.push_back({tensor.name, tensor.type, tensor.shape});
    bytes += tensor.bytes + header.alignment;
  }
  const auto text = nib::gguf_header(pairs, specs);
  require(text.ok());
  if (bytes > 1 << 20) return;  // alignments may be huge
  nib::test::FaultyFileSystem files;
  files.add("again", *text + std::string(bytes, '\0'));
  const auto again = nib::read_gguf_header(**files.open("again"));
  require(again.ok());
  require(again->metadata.size() == header.metadata.size() && again->tensors.size() == header.tensors.size());
  for (std::size_t i = 0; i < header.metadata.size(); ++i) {
    const auto a = header.metadata.value(i).bytes(), b = again->metadata.value(i).bytes();
    require(header.metadata.key(i) == again->metadata.key(i) &&
            std::equal(a.begin(), a.end(), b.begin(), b.end()));
  }
  for (std::size_t i = 0; i < header.tensors.size(); ++i)
    require(header.tensors[i].shape == again->tensors[i].shape &&
            header.tensors[i].bytes == again->tensors[i].bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  nib::test::FaultyFileSystem files;
  files.add("input.gguf", std::string(reinterpret_cast<const char*>(data), size));
  const auto header = nib::read_gguf_header(**files.open("input.gguf"));
  if (!header.ok()) {
    require(header.status().message().starts_with("input.gguf: "));
    return 0;
  }
  for (std::size_t i = 0; i < header->metadata.size(); ++i) {
    const nib::GgufValue value = header->metadata.value(i);
    std::size_t strings = 0, text = 0;
    for (const std::string_view string : value.strings()) {
      ++strings;
      text += string.size();
    }
    require(strings == value.strings().size() && text <= size);
    for (std::uint64_t k = 0; k < value.count() && k < 100; ++k) (void)value.number_at(k);
    require(header->metadata.find(header->metadata.key(i)).has_value());
  }
  write_again(*header);
  const auto checkpoint = nib::open_checkpoint("input.gguf", files, {.config = false});
  if (!checkpoint.ok()) return 0;
  for (const nib::CheckpointTensor& tensor : checkpoint->tensors) {
    if (tensor.format == nib::Format::none) continue;
    std::uint64_t values = 1;
    for (const std::uint64_t n : tensor.shape) values *= n;
    std::vector<float> out(values);
    require(nib::read_values(*checkpoint, tensor, 0, std::span<float>(out)).ok());
  }
  return 0;
}
