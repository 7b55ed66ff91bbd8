#include "text.hpp"
#include "whole_file.hpp"
#include <nibble/base/bits.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/formats/block_format.hpp>
#include <nibble/io/gguf_writer.hpp>
#include <nibble/io/safetensors.hpp>

#include <algorithm>
#include <bit>
#include <cstring>

namespace nib::inline v0 {
namespace {

constexpr std::size_t kMostNameBytes = 63;

template <std::unsigned_integral T>
void put(std::string& out, T value) {
  std::byte bytes[sizeof(T)];
  store_little_endian(value, bytes);
  out.append(reinterpret_cast<const char*>(bytes), sizeof bytes);
}

void put_text(std::string& out, std::string_view text) {
  put(out, std::uint64_t{text.size()});
  out += text;
}

// A header in memory that claims to be the beginning of a file of `size` bytes, for the reader to check.
class HeaderAsFile final : public File {
 public:
  HeaderAsFile(const std::string& header, std::uint64_t size)
      : File("GGUF header"), header_(header), size_(size) {}
  std::uint64_t size() const override { return size_; }
  Status read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    std::fill(out.begin(), out.end(), std::byte{0});
    if (offset < header_.size())
      std::memcpy(out.data(), header_.data() + offset,
                  std::min<std::size_t>(out.size(), header_.size() - offset));
    return {};
  }

 private:
  const std::string& header_;
  std::uint64_t size_;
};

struct Draft {
  std::string bytes;
  std::uint64_t alignment = 32;
  std::vector<std::uint64_t> tensor_bytes;
};

// The alignment comes out of the pairs by reading them: what the reader will make of them is what counts.
Result<std::uint64_t> read_alignment(const GgufPairs& pairs) {
  std::string header = "GGUF";
  put(header, std::uint32_t{3});
  put(header, std::uint64_t{0});
  put(header, pairs.count());
  header += pairs.bytes();
  NIB_ASSIGN(const GgufHeader read, read_gguf_header(HeaderAsFile(header, header.size())));
  return read.alignment;
}

Result<Draft> draft_header(const GgufPairs& pairs, std::span<const GgufTensorSpec> tensors) {
  Draft draft;
  NIB_ASSIGN(draft.alignment, read_alignment(pairs));
  std::string& out = draft.bytes = "GGUF";
  put(out, std::uint32_t{3});
  put(out, std::uint64_t{tensors.size()});
  put(out, pairs.count());
  out += pairs.bytes();
  std::uint64_t end = 0;
  for (const GgufTensorSpec& tensor : tensors) {
    const auto bytes = gguf_tensor_bytes(tensor.type, tensor.shape);
    const auto next = bytes ? checked_add(end, *bytes) : std::nullopt;
    if (!next || *next > std::uint64_t{1} << 62)
      return Status(Code::argument,
                    concat("tensor ", quoted(tensor.name), ": ", gguf_type_info(tensor.type).name, " ",
                           shape_text(tensor.shape), " is no whole number of blocks of ",
                           gguf_type_info(tensor.type).block, " a row, below 2^62 bytes"));
    if (tensor.name.size() > kMostNameBytes)
      return Status(Code::argument,
                    concat("tensor ", quoted(tensor.name), ": the name has ", tensor.name.size(),
                           " bytes, GGUF readers take at most ", kMostNameBytes));
    put_text(out, tensor.name);
    put(out, static_cast<std::uint32_t>(tensor.shape.size()));
    for (std::size_t i = tensor.shape.size(); i > 0; --i) put(out, tensor.shape[i - 1]);
    put(out, static_cast<std::uint32_t>(tensor.type));
    put(out, end);
    draft.tensor_bytes.push_back(*bytes);
    end = round_up(*next, draft.alignment);
  }
  out.resize(round_up<std::uint64_t>(out.size(), draft.alignment), '\0');
  NIB_TRY(read_gguf_header(HeaderAsFile(out, out.size() + end)).status());
  return draft;
}

// What the reader refuses is the caller's mistake here, not a file's.
Result<Draft> make_header(const GgufPairs& pairs, std::span<const GgufTensorSpec> tensors) {
  Result<Draft> draft = draft_header(pairs, tensors);
  const Code code = draft.status().code();
  if (code == Code::format || code == Code::unsupported)
    return Status(Code::argument, draft.status().message());
  return draft;
}

}  // namespace

void GgufPairs::begin(std::string_view key, GgufKind kind) {
  ++count_;
  put_text(bytes_, key);
  put(bytes_, static_cast<std::uint32_t>(kind));
}

void GgufPairs::add_bool(std::string_view key, bool value) {
  begin(key, GgufKind::boolean);
  put(bytes_, std::uint8_t{value});
}
void GgufPairs::add(std::string_view key, std::uint32_t value) {
  begin(key, GgufKind::u32);
  put(bytes_, value);
}
void GgufPairs::add(std::string_view key, std::int32_t value) {
  begin(key, GgufKind::i32);
  put(bytes_, static_cast<std::uint32_t>(value));
}
void GgufPairs::add(std::string_view key, std::uint64_t value) {
  begin(key, GgufKind::u64);
  put(bytes_, value);
}
void GgufPairs::add(std::string_view key, float value) {
  begin(key, GgufKind::f32);
  put(bytes_, std::bit_cast<std::uint32_t>(value));
}
void GgufPairs::add(std::string_view key, std::string_view value) {
  begin(key, GgufKind::string);
  put_text(bytes_, value);
}
void GgufPairs::add(std::string_view key, std::span<const std::string_view> values) {
  begin_array(key, GgufKind::string, values.size());
  for (const std::string_view value : values) put_text(bytes_, value);
}
void GgufPairs::add(std::string_view key, std::span<const std::int32_t> values) {
  begin_array(key, GgufKind::i32, values.size());
  for (const std::int32_t value : values) put(bytes_, static_cast<std::uint32_t>(value));
}
void GgufPairs::add(std::string_view key, std::span<const std::uint32_t> values) {
  begin_array(key, GgufKind::u32, values.size());
  for (const std::uint32_t value : values) put(bytes_, value);
}
void GgufPairs::add(std::string_view key, std::span<const float> values) {
  begin_array(key, GgufKind::f32, values.size());
  for (const float value : values) put(bytes_, std::bit_cast<std::uint32_t>(value));
}
void GgufPairs::add(std::string_view key, const GgufValue& value) {
  if (value.is_array())
    begin_array(key, value.element_kind(), value.count());
  else
    begin(key, value.kind());
  if (value.kind() == GgufKind::string) put(bytes_, std::uint64_t{value.bytes().size()});
  bytes_.append(reinterpret_cast<const char*>(value.bytes().data()), value.bytes().size());
}

void GgufPairs::begin_array(std::string_view key, GgufKind element, std::uint64_t count) {
  begin(key, GgufKind::array);
  put(bytes_, static_cast<std::uint32_t>(element));
  put(bytes_, count);
}

Result<std::string> gguf_header(const GgufPairs& pairs, std::span<const GgufTensorSpec> tensors) {
  return within_memory("GGUF header", [&]() -> Result<std::string> {
    NIB_ASSIGN(Draft draft, make_header(pairs, tensors));
    return std::move(draft.bytes);
  });
}

struct GgufWriter::Output {
  WholeFile file;
  std::uint64_t alignment;
  std::vector<std::uint64_t> tensor_bytes;
  std::size_t tensor = 0;    // the one being written
  std::uint64_t inside = 0;  // bytes of it that were written
  std::uint64_t left = 0;    // bytes of all tensors still to come

  // Past every tensor that is complete, with its padding written.
  Status step() {
    while (tensor < tensor_bytes.size() && inside == tensor_bytes[tensor]) {
      constexpr std::byte kZeros[4096] = {};
      std::uint64_t padding = round_up(inside, alignment) - inside;
      for (; padding > 0; padding -= std::min<std::uint64_t>(padding, sizeof kZeros))
        NIB_TRY(file.write(std::span(kZeros).first(std::min<std::uint64_t>(padding, sizeof kZeros))));
      ++tensor;
      inside = 0;
    }
    return {};
  }
};

GgufWriter::GgufWriter(std::unique_ptr<Output> output) : output_(std::move(output)) {}
GgufWriter::GgufWriter(GgufWriter&&) noexcept = default;
GgufWriter& GgufWriter::operator=(GgufWriter&&) noexcept = default;
GgufWriter::~GgufWriter() = default;

Result<GgufWriter> GgufWriter::create(const std::string& path, const GgufPairs& pairs,
                                      std::span<const GgufTensorSpec> tensors, Overwrite overwrite) {
  return within_memory(path, [&]() -> Result<GgufWriter> {
    NIB_ASSIGN(Draft draft, make_header(pairs, tensors));
    NIB_ASSIGN(WholeFile file, WholeFile::create(path, overwrite));
    NIB_TRY(file.write(std::as_bytes(std::span(draft.bytes))));
    auto output =
        std::make_unique<Output>(Output{std::move(file), draft.alignment, std::move(draft.tensor_bytes)});
    for (const std::uint64_t bytes : output->tensor_bytes) output->left += bytes;
    NIB_TRY(output->step());
    return GgufWriter(std::move(output));
  });
}

Status GgufWriter::append(std::span<const std::byte> bytes) {
  Output& out = *output_;
  if (bytes.size() > out.left)
    return {Code::argument, concat(out.file.path(), ": ", bytes.size(),
                                   " more bytes were given, the header has room for ", out.left)};
  while (!bytes.empty()) {
    const std::uint64_t some =
        std::min<std::uint64_t>(bytes.size(), out.tensor_bytes[out.tensor] - out.inside);
    NIB_TRY(out.file.write(bytes.first(some)));
    out.inside += some;
    out.left -= some;
    bytes = bytes.subspan(some);
    NIB_TRY(out.step());
  }
  return {};
}

Status GgufWriter::finish() {
  if (output_->left != 0)
    return {Code::state, concat(output_->file.path(), ": ", output_->left,
                                " bytes that the header describes are missing")};
  return output_->file.publish();
}

}  // namespace nib::inline v0
