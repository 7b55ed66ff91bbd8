#include "safetensors_header.hpp"
#include "text.hpp"
#include <nibble/base/bits.hpp>
#include <nibble/base/json.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/io/safetensors.hpp>

#include <algorithm>
#include <unordered_set>

namespace nib::inline v0 {
namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::size_t kMaxTensors = 1'000'000;
constexpr std::size_t kMaxNameBytes = 1024;
constexpr std::size_t kMaxRank = 16;
constexpr std::string_view kMetadataKey = "__metadata__";

// What the JSON says, tensor by tensor: offsets are still relative to the data, and nothing is compared yet.
class HeaderHandler final : public JsonHandler {
 public:
  explicit HeaderHandler(const std::string& file) : file_(file) {}

  SafetensorsHeader take() { return std::move(header_); }

  Status on_null() override { return unexpected("null"); }
  Status on_bool(bool) override { return unexpected("a boolean"); }
  Status on_number(double) override { return unexpected("a number that is no whole number below 2^63"); }

  Status on_integer(std::int64_t value) override {
    if (place_ != Place::shape && place_ != Place::offsets) return unexpected("a number");
    if (value < 0) return wrong("has a negative number in ", field_name());
    const auto number = static_cast<std::uint64_t>(value);
    if (place_ == Place::offsets) {
      if (offsets_ == 2) return wrong("has more than two data_offsets");
      (offsets_++ == 0 ? entry().offset : end_) = number;
    } else {
      if (entry().shape.size() == kMaxRank) return wrong("has more than ", kMaxRank, " dimensions");
      entry().shape.push_back(number);
    }
    return {};
  }

  Status on_string(std::string_view value) override {
    if (place_ == Place::metadata) {
      header_.metadata.back().second = value;
      return {};
    }
    if (place_ != Place::dtype) return unexpected("a string");
    const auto dtype = find_dtype(value);
    if (!dtype)
      return {Code::unsupported, concat(file_, ": tensor ", quoted(entry().name), " has dtype ",
                                        quoted(value), ", which is not known here")};
    entry().dtype = *dtype;
    place_ = Place::tensor;
    return {};
  }

  Status on_key(std::string_view key) override {
    switch (place_) {
      case Place::top:
        return begin_entry(key);
      case Place::metadata:
        header_.metadata.emplace_back(key, "");
        return {};
      case Place::tensor:
        return begin_field(key);
      default:
        return unexpected("a key");
    }
  }

  Status on_object_begin() override {
    switch (place_) {
      case Place::outside:
        place_ = Place::top;
        return {};
      case Place::metadata_begin:
        place_ = Place::metadata;
        return {};
      case Place::tensor_begin:
        place_ = Place::tensor;
        return {};
      default:
        return unexpected("an object");
    }
  }

  Status on_object_end() override {
    if (place_ == Place::tensor) NIB_TRY(finish_entry());
    place_ = place_ == Place::top ? Place::outside : Place::top;
    return {};
  }

  Status on_array_begin() override {
    if (place_ == Place::shape_begin)
      place_ = Place::shape;
    else if (place_ == Place::offsets_begin)
      place_ = Place::offsets;
    else
      return unexpected("an array");
    return {};
  }

  Status on_array_end() override {
    place_ = Place::tensor;
    return {};
  }

 private:
  // Where in the document the next event belongs. The "begin" places wait for the value of a key just read.
  enum class Place : std::uint8_t {
    outside,
    top,
    metadata_begin,
    metadata,
    tensor_begin,
    tensor,
    dtype,
    shape_begin,
    shape,
    offsets_begin,
    offsets,
  };

  TensorEntry& entry() { return header_.tensors.back(); }

  bool in_tensor() const { return place_ >= Place::tensor_begin; }

  const char* field_name() const {
    switch (place_) {
      case Place::dtype:
        return "dtype";
      case Place::shape_begin:
      case Place::shape:
        return "shape";
      default:
        return "data_offsets";
    }
  }

  template <class... Parts>
  Status wrong(const Parts&... parts) {
    return {Code::format, concat(file_, ": tensor ", quoted(entry().name), " ", parts...)};
  }

  Status unexpected(const char* found) {
    if (place_ == Place::metadata || place_ == Place::metadata_begin)
      return {Code::format,
              concat(file_, ": __metadata__ holds ", found, ", it must map strings to strings")};
    if (!in_tensor())
      return {Code::format, concat(file_, ": the header holds ", found, ", it must be an object of tensors")};
    if (place_ == Place::tensor_begin) return wrong("is described by ", found, ", an object was expected");
    return wrong("has ", found, " as ", field_name(), ", ",
                 place_ == Place::dtype ? "a string" : "an array of whole numbers", " was expected");
  }

  Status begin_entry(std::string_view key) {
    if (key.size() > kMaxNameBytes)
      return {Code::format, concat(file_, ": the name of tensor ", quoted(key), " has ", key.size(),
                                   " bytes, at most ", kMaxNameBytes, " are read")};
    if (!names_.emplace(key).second)
      return {Code::format, concat(file_, ": tensor ", quoted(key), " is described twice")};
    if (key == kMetadataKey) {
      place_ = Place::metadata_begin;
      return {};
    }
    if (header_.tensors.size() == kMaxTensors)
      return {Code::format, concat(file_, ": more than ", kMaxTensors, " tensors")};
    header_.tensors.emplace_back();
    entry().name = key;
    has_dtype_ = has_shape_ = has_offsets_ = false;
    offsets_ = 0;
    place_ = Place::tensor_begin;
    return {};
  }

  Status begin_field(std::string_view key) {
    bool* seen = nullptr;
    if (key == "dtype") {
      seen = &has_dtype_;
      place_ = Place::dtype;
    } else if (key == "shape") {
      seen = &has_shape_;
      place_ = Place::shape_begin;
    } else if (key == "data_offsets") {
      seen = &has_offsets_;
      place_ = Place::offsets_begin;
    } else {
      return wrong("has the unknown key ", quoted(key));
    }
    if (std::exchange(*seen, true)) return wrong("has ", key, " twice");
    return {};
  }

  Status finish_entry() {
    if (!has_dtype_) return wrong("has no dtype");
    if (!has_shape_) return wrong("has no shape");
    if (!has_offsets_ || offsets_ != 2) return wrong("has no two data_offsets");
    const std::uint64_t begin = entry().offset;
    if (end_ < begin) return wrong("ends at byte ", end_, " of the data, before its beginning ", begin);
    entry().bytes = end_ - begin;
    const auto bytes = tensor_bytes(entry().dtype, entry().shape);
    if (!bytes || *bytes != entry().bytes)
      return wrong("has ", entry().bytes, " bytes, ", dtype_name(entry().dtype), " ",
                   shape_text(entry().shape), " needs ",
                   bytes ? concat(*bytes) : std::string("another number"));
    return {};
  }

  const std::string& file_;
  SafetensorsHeader header_;
  std::unordered_set<std::string> names_;
  Place place_ = Place::outside;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  int offsets_ = 0;
  std::uint64_t end_ = 0;
};

// Puts the tensors into the order of their data and checks that they fill it without gap, overlap or rest:
// what keeps one byte from being promised to many tensors, and a cut file from looking whole.
Status place_tensors(const std::string& file, std::uint64_t data_begin, std::uint64_t file_size,
                     std::vector<TensorEntry>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  std::uint64_t expected = 0;
  for (TensorEntry& tensor : tensors) {
    if (tensor.offset != expected)
      return {Code::format, concat(file, ": tensor ", quoted(tensor.name), " begins at byte ", tensor.offset,
                                   " of the data, byte ", expected,
                                   " was expected: tensors must not overlap "
                                   "or leave gaps")};
    expected += tensor.bytes;
    tensor.offset += data_begin;
  }
  const std::uint64_t found = file_size - data_begin;
  if (found == expected) return {};
  if (found < expected && !tensors.empty())
    return {Code::format,
            concat(file, ": the file is cut off: it has ", file_size, " bytes, its header describes ",
                   data_begin, " + ", expected, "; the last tensor is ", quoted(tensors.back().name))};
  return {Code::format, concat(file, ": ", found - expected, " bytes follow the last tensor")};
}

}  // namespace

std::optional<DType> find_dtype(std::string_view name) {
  for (const DTypeInfo& info : kDTypes)
    if (name == info.name) return info.dtype;
  return std::nullopt;
}

std::optional<std::uint64_t> tensor_bytes(DType dtype, const std::vector<std::uint64_t>& shape) {
  std::optional<std::uint64_t> bits = 1;
  for (const std::uint64_t size : shape) {
    bits = checked_mul(*bits, size);
    if (!bits) return std::nullopt;
  }
  bits = checked_mul(*bits, dtype_info(dtype).bits);
  if (!bits || *bits % 8 != 0) return std::nullopt;
  return *bits / 8;
}

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  std::string text = "[";
  for (const std::uint64_t size : shape) text += concat(text.size() > 1 ? ", " : "", size);
  return text + "]";
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, const std::string& name,
                                                   std::uint64_t file_size) {
  const JsonLimits limits = {.max_bytes = kMaxHeaderBytes, .max_depth = 3, .max_values = 40'000'000};
  HeaderHandler handler(name);
  NIB_TRY(parse_json(json, name + ": header", limits, handler));
  SafetensorsHeader header = handler.take();
  NIB_TRY(place_tensors(name, kLengthBytes + json.size(), file_size, header.tensors));
  return header;
}

Result<SafetensorsHeader> read_safetensors_header(const File& file) {
  const std::string& name = file.name();
  if (file.size() < kLengthBytes)
    return Status(Code::format, concat(name, ": ", file.size(),
                                       " bytes are too few for a safetensors file, which begins with 8"));
  std::uint8_t raw[kLengthBytes];
  NIB_TRY(file.read_at(0, std::as_writable_bytes(std::span(raw))));
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) length |= std::uint64_t{raw[i]} << (8 * i);
  if (length > kMaxHeaderBytes)
    return Status(Code::format, concat(name, ": announces a header of ", length, " bytes, at most ",
                                       kMaxHeaderBytes, " are read: is this a safetensors file?"));
  if (length > file.size() - kLengthBytes)
    return Status(Code::format, concat(name, ": announces a header of ", length, " bytes, but only ",
                                       file.size() - kLengthBytes, " follow"));
  return within_memory(name, [&]() -> Result<SafetensorsHeader> {
    std::string text(length, '\0');
    NIB_TRY(file.read_at(kLengthBytes, std::as_writable_bytes(std::span(text))));
    return parse_safetensors_header(text, name, file.size());
  });
}

}  // namespace nib::inline v0
