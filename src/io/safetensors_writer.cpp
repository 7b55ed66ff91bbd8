#include "safetensors_header.hpp"
#include "text.hpp"
#include "whole_file.hpp"
#include <nibble/base/bits.hpp>
#include <nibble/base/json.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/io/safetensors_writer.hpp>

#include <algorithm>
#include <limits>
#include <map>

namespace nib::inline v0 {
namespace {

Result<std::uint64_t> data_bytes(std::span<const TensorSpec> tensors) {
  std::uint64_t total = 0;
  for (const TensorSpec& tensor : tensors) {
    const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
    const auto sum = bytes ? checked_add(total, *bytes) : std::nullopt;
    if (!sum || *sum > std::uint64_t{std::numeric_limits<std::int64_t>::max()})
      return Status(Code::argument,
                    concat("tensor ", quoted(tensor.name), ": ", dtype_name(tensor.dtype), " ",
                           shape_text(tensor.shape), " is no whole number of bytes below 2^63"));
    total = *sum;
  }
  return total;
}

Json json_of(std::uint64_t value) { return Json::of(static_cast<std::int64_t>(value)); }

Result<std::string> make_header(std::span<const TensorSpec> tensors, const SafetensorsMetadata& metadata,
                                std::uint64_t alignment = 8) {
  NIB_ASSIGN(const std::uint64_t total, data_bytes(tensors));
  std::vector<Json::Member> members;
  if (!metadata.empty()) {
    std::vector<Json::Member> strings;
    for (const auto& [key, value] : metadata) strings.emplace_back(key, Json::of(value));
    members.emplace_back("__metadata__", Json::object(std::move(strings)));
  }
  std::uint64_t begin = 0;
  for (const TensorSpec& tensor : tensors) {
    const std::uint64_t end = begin + *tensor_bytes(tensor.dtype, tensor.shape);
    std::vector<Json> shape;
    for (const std::uint64_t size : tensor.shape) shape.push_back(json_of(size));
    members.emplace_back(tensor.name,
                         Json::object({{"dtype", Json::of(std::string(dtype_name(tensor.dtype)))},
                                       {"shape", Json::array(std::move(shape))},
                                       {"data_offsets", Json::array({json_of(begin), json_of(end)})}}));
    begin = end;
  }
  std::string json = write_json(Json::object(std::move(members)));
  const std::uint64_t length = round_up<std::uint64_t>(8 + json.size(), alignment) - 8;
  json.resize(length, ' ');
  // What the reader would refuse (a name twice, reserved, too long or no UTF-8, too many dimensions) is not
  // written.
  const Status read = parse_safetensors_header(json, "safetensors header", 8 + length + total).status();
  if (!read.ok()) return Status(read.code() == Code::format ? Code::argument : read.code(), read.message());
  std::string header;
  for (int i = 0; i < 8; ++i) header += static_cast<char>(length >> (8 * i) & 0xff);
  return header + json;
}

}  // namespace

Result<std::string> safetensors_header(std::span<const TensorSpec> tensors,
                                       const SafetensorsMetadata& metadata) {
  return within_memory("safetensors header", [&] { return make_header(tensors, metadata); });
}

void order_by_width(std::vector<TensorSpec>& tensors) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorSpec& a, const TensorSpec& b) {
    return dtype_info(a.dtype).bits > dtype_info(b.dtype).bits;
  });
}

struct SafetensorsWriter::Output {
  struct Place {
    std::uint64_t offset, bytes;  // in the file
  };
  WholeFile file;
  std::uint64_t left;  // bytes of data still to come
  std::map<std::string, Place, std::less<>> places;
};

SafetensorsWriter::SafetensorsWriter(std::unique_ptr<Output> output) : output_(std::move(output)) {}
SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter& SafetensorsWriter::operator=(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter::~SafetensorsWriter() = default;

Result<SafetensorsWriter> SafetensorsWriter::create(const std::string& path,
                                                    std::span<const TensorSpec> tensors,
                                                    const SafetensorsMetadata& metadata, Overwrite overwrite,
                                                    std::uint64_t alignment) {
  return within_memory(path, [&]() -> Result<SafetensorsWriter> {
    NIB_ASSIGN(const std::string header, make_header(tensors, metadata, alignment));
    NIB_ASSIGN(WholeFile file, WholeFile::create(path, overwrite));
    NIB_TRY(file.write(std::as_bytes(std::span(header))));
    auto output = std::make_unique<Output>(Output{std::move(file), data_bytes(tensors).take(), {}});
    std::uint64_t offset = header.size();
    for (const TensorSpec& tensor : tensors) {
      const std::uint64_t bytes = *tensor_bytes(tensor.dtype, tensor.shape);
      output->places[tensor.name] = {offset, bytes};
      offset += bytes;
    }
    return SafetensorsWriter(std::move(output));
  });
}

Status SafetensorsWriter::append(std::span<const std::byte> bytes) {
  if (bytes.size() > output_->left)
    return {Code::argument, concat(output_->file.path(), ": ", bytes.size(),
                                   " more bytes were given, the header has room for ", output_->left)};
  output_->left -= bytes.size();
  return output_->file.write(bytes);
}

Status SafetensorsWriter::write(std::string_view name, std::uint64_t offset_in_tensor,
                                std::span<const std::byte> bytes) {
  const auto found = output_->places.find(name);
  if (found == output_->places.end())
    return {Code::argument, concat(output_->file.path(), ": the header has no tensor ", quoted(name))};
  const Output::Place& place = found->second;
  if (offset_in_tensor > place.bytes || bytes.size() > place.bytes - offset_in_tensor ||
      bytes.size() > output_->left)
    return {Code::argument, concat(output_->file.path(), ": tensor ", quoted(name), " has ", place.bytes,
                                   " bytes, ", bytes.size(), " at byte ", offset_in_tensor, " do not fit")};
  output_->left -= bytes.size();
  return output_->file.write_at(place.offset + offset_in_tensor, bytes);
}

Status SafetensorsWriter::finish() {
  if (output_->left != 0)
    return {Code::state, concat(output_->file.path(), ": ", output_->left,
                                " bytes that the header describes are missing")};
  return output_->file.publish();
}

}  // namespace nib::inline v0
