// What checkpoint_peer.py asks of the library:
//
//   checkpoint_tool values PATH     a line "name<TAB>format<TAB>type<TAB>2x3" for every tensor and, unless
//   the
//                                   format is "none", its values as raw doubles
//   checkpoint_tool copy IN OUT     a GGUF file written anew, tensor by tensor
//   checkpoint_tool write DIR SEED  directories DIR/0, DIR/1, ...: random weights, one in every layout
#include "io/written.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/io/gguf_writer.hpp>

#include <cstdio>
#include <filesystem>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using namespace nib;

namespace {

Status values(const std::string& path) {
  NIB_ASSIGN(const Checkpoint checkpoint, open_checkpoint(path, disk_file_system(), {.config = false}));
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    std::string shape;
    std::uint64_t count = 1;
    for (const std::uint64_t size : tensor.shape) {
      shape += concat(shape.empty() ? "" : "x", size);
      count *= size;
    }
    std::printf("%s\t%s\t%s\t%s\n", tensor.name.c_str(), format_name(tensor.format),
                std::string(tensor.type_name).c_str(), shape.c_str());
    if (tensor.format == Format::none) continue;
    std::vector<double> out(count);
    NIB_TRY(read_values(checkpoint, tensor, 0, out));
    std::fwrite(out.data(), sizeof(double), out.size(), stdout);
  }
  return {};
}

Status copy(const std::string& from, const std::string& to) {
  NIB_ASSIGN(const std::unique_ptr<File> file, disk_file_system().open(from));
  NIB_ASSIGN(const GgufHeader header, read_gguf_header(*file));
  GgufPairs pairs;
  for (std::size_t i = 0; i < header.metadata.size(); ++i)
    pairs.add(header.metadata.key(i), header.metadata.value(i));
  std::vector<GgufTensorSpec> specs;
  for (const GgufTensor& tensor : header.tensors) specs.push_back({tensor.name, tensor.type, tensor.shape});
  NIB_ASSIGN(GgufWriter writer, GgufWriter::create(to, pairs, specs));
  for (const GgufTensor& tensor : header.tensors) {
    std::vector<std::byte> bytes(tensor.bytes);
    NIB_TRY(file->read_at(tensor.offset, bytes));
    NIB_TRY(writer.append(bytes));
  }
  return writer.finish();
}

Status write(const std::string& directory, unsigned seed) {
  std::mt19937 random(seed);
  int number = 0;
  for (const QuantizedLayout& layout : test::layouts_to_write()) {
    const std::string to = concat(directory, "/", number++);
    std::filesystem::create_directory(to);
    NIB_TRY(test::write_weight(to, layout, random).status());
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  Status status(Code::argument, "usage: checkpoint_tool values PATH | copy IN OUT | write DIR SEED");
  if (words.size() == 2 && words[0] == "values") status = values(words[1]);
  if (words.size() == 3 && words[0] == "copy") status = copy(words[1], words[2]);
  if (words.size() == 3 && words[0] == "write")
    status = write(words[1], static_cast<unsigned>(std::stoul(words[2])));
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
