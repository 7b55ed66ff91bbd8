#include "positional_read.hpp"
#include "safetensors_header.hpp"
#include "text.hpp"
#include <nibble/base/bits.hpp>
#include <nibble/base/json.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/io/safetensors_writer.hpp>

#include <algorithm>
#include <cstdio>
#include <limits>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace nib::inline v0 {
namespace {

Status cannot_write(const std::string& path, int error) {
  return {Code::io, concat(path, ": cannot write: ", system_message(error))};
}

Status already_exists(const std::string& path) {
  return {Code::argument, concat(path, ": exists already, and overwriting was not asked for")};
}

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

Result<std::string> make_header(std::span<const TensorSpec> tensors, const SafetensorsMetadata& metadata) {
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
  const std::uint64_t length = round_up<std::uint64_t>(json.size(), 8);
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

// The temporary file: "PATH.partial-N", which no reader of checkpoints takes for one of its files.
struct SafetensorsWriter::Output {
  std::string path, partial;
  int descriptor = -1;
  bool overwrite = false;
  bool broken = false;     // a write failed, and nobody knows how much of it is in the file
  std::uint64_t left = 0;  // bytes of data still to come

  ~Output() {
    if (descriptor >= 0) ::close(descriptor);
    if (!partial.empty()) ::unlink(partial.c_str());
  }

  bool exists() const {
    struct stat info;
    return ::lstat(path.c_str(), &info) == 0;
  }

  Status create() {
    if (path.find('\0') != path.npos) return cannot_write(path, ENOENT);  // would name another file
    if (!overwrite && exists()) return already_exists(path);
    for (int i = 0; i < 100; ++i) {  // others may be writing the same file, or may have died doing so
      std::string candidate = concat(path, ".partial-", i);
      descriptor = ::open(candidate.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (descriptor >= 0) {
        partial = std::move(candidate);
        return {};
      }
      if (errno != EEXIST) return cannot_write(path, errno);
    }
    return {Code::io, concat(path, ": the temporary names ", path, ".partial-0 to -99 are all taken")};
  }

  Status write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t wrote = ::write(descriptor, bytes.data(), std::min(bytes.size(), std::size_t{1} << 30));
      if (wrote < 0 && errno != EINTR) return cannot_write(path, errno);
      if (wrote > 0) bytes = bytes.subspan(static_cast<std::size_t>(wrote));
    }
    return {};
  }

  Status publish() {
    if (::fsync(descriptor) != 0) return cannot_write(path, errno);
    const int closed = ::close(std::exchange(descriptor, -1));
    if (closed != 0) return cannot_write(path, errno);
    if (!overwrite) {
      // Unlike rename, a second name is refused where somebody else has written the file meanwhile. The
      // destructor drops the first one.
      if (::link(partial.c_str(), path.c_str()) == 0) return {};
      if (errno == EEXIST || exists()) return already_exists(path);
      // Some file systems have no second names; there the look before the renaming must do.
    }
    if (::rename(partial.c_str(), path.c_str()) != 0) return cannot_write(path, errno);
    partial.clear();
    return {};
  }
};

SafetensorsWriter::SafetensorsWriter(std::unique_ptr<Output> output) : output_(std::move(output)) {}
SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter& SafetensorsWriter::operator=(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter::~SafetensorsWriter() = default;

Result<SafetensorsWriter> SafetensorsWriter::create(const std::string& path,
                                                    std::span<const TensorSpec> tensors,
                                                    const SafetensorsMetadata& metadata,
                                                    Overwrite overwrite) {
  return within_memory(path, [&]() -> Result<SafetensorsWriter> {
    NIB_ASSIGN(const std::string header, make_header(tensors, metadata));
    auto output = std::make_unique<Output>();
    output->path = path;
    output->overwrite = overwrite == Overwrite::yes;
    output->left = data_bytes(tensors).take();
    NIB_TRY(output->create());
    NIB_TRY(output->write(std::as_bytes(std::span(header))));
    return SafetensorsWriter(std::move(output));
  });
}

Status SafetensorsWriter::append(std::span<const std::byte> bytes) {
  if (bytes.size() > output_->left)
    return {Code::argument, concat(output_->path, ": ", bytes.size(),
                                   " more bytes were given, the header has room for ", output_->left)};
  const Status written = output_->write(bytes);
  output_->broken |= !written.ok();
  output_->left -= bytes.size();
  return written;
}

Status SafetensorsWriter::finish() {
  if (output_->broken) return {Code::state, concat(output_->path, ": an earlier write failed")};
  if (output_->left != 0)
    return {Code::state,
            concat(output_->path, ": ", output_->left, " bytes that the header describes are missing")};
  return output_->publish();
}

}  // namespace nib::inline v0
