#include "text.hpp"
#include <nibble/base/bits.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/formats/block_format.hpp>
#include <nibble/io/gguf.hpp>
#include <nibble/io/safetensors.hpp>

#include <algorithm>
#include <bit>
#include <unordered_set>

namespace nib::inline v0 {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = std::uint64_t{512} << 20;
constexpr std::uint64_t kMaxPairs = 65'536;
constexpr std::uint64_t kMaxTensors = 1'000'000;
constexpr std::uint64_t kMaxKeyBytes = 65'535;
constexpr std::uint64_t kMaxNameBytes = 1024;
constexpr std::uint32_t kMaxRank = 4;

constexpr const char* kKindNames[kGgufKinds] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                "bool", "string", "array", "u64", "i64", "f64"};
// Bytes of one value; 0 for strings and arrays, which say so themselves.
constexpr std::uint64_t kKindBytes[kGgufKinds] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

std::string_view text_at(const std::byte* at, std::uint64_t bytes) {
  return {reinterpret_cast<const char*>(at), static_cast<std::size_t>(bytes)};
}

}  // namespace

const char* gguf_kind_name(GgufKind kind) { return kKindNames[static_cast<std::uint32_t>(kind)]; }

const GgufTypeInfo* find_gguf_type(std::uint32_t number) {
  for (const GgufTypeInfo& info : kGgufTypes)
    if (static_cast<std::uint32_t>(info.type) == number) return &info;
  return nullptr;
}

std::optional<std::uint64_t> gguf_tensor_bytes(GgufType type, const std::vector<std::uint64_t>& shape) {
  const GgufTypeInfo& info = gguf_type_info(type);
  const std::uint64_t row = shape.empty() ? 1 : shape.back();
  if (row % info.block != 0) return std::nullopt;
  std::optional<std::uint64_t> bytes = checked_mul(row / info.block, info.bytes);
  for (std::size_t i = 0; bytes && i + 1 < shape.size(); ++i) bytes = checked_mul(*bytes, shape[i]);
  return bytes;
}

// --- values

std::string_view GgufStrings::Iterator::operator*() const {
  return text_at(at_ + 8, load_little_endian<std::uint64_t>(at_));
}
GgufStrings::Iterator& GgufStrings::Iterator::operator++() {
  at_ += 8 + load_little_endian<std::uint64_t>(at_);
  return *this;
}

GgufStrings GgufValue::strings() const {
  return is_array() && element_ == GgufKind::string ? GgufStrings(bytes_, count_) : GgufStrings();
}

std::optional<bool> GgufValue::bool_at(std::uint64_t i) const {
  if (element_ != GgufKind::boolean || i >= count_) return std::nullopt;
  return bytes_[i] != std::byte{0};
}

std::optional<std::int64_t> GgufValue::integer_at(std::uint64_t i) const {
  if (i >= count_) return std::nullopt;
  const std::byte* at = bytes_.data() + i * kKindBytes[static_cast<std::uint32_t>(element_)];
  switch (element_) {
    case GgufKind::u8:
      return load_little_endian<std::uint8_t>(at);
    case GgufKind::i8:
      return static_cast<std::int8_t>(load_little_endian<std::uint8_t>(at));
    case GgufKind::u16:
      return load_little_endian<std::uint16_t>(at);
    case GgufKind::i16:
      return static_cast<std::int16_t>(load_little_endian<std::uint16_t>(at));
    case GgufKind::u32:
      return load_little_endian<std::uint32_t>(at);
    case GgufKind::i32:
      return static_cast<std::int32_t>(load_little_endian<std::uint32_t>(at));
    case GgufKind::u64:
      if (const auto value = load_little_endian<std::uint64_t>(at); value >> 63 == 0)
        return static_cast<std::int64_t>(value);
      return std::nullopt;
    case GgufKind::i64:
      return static_cast<std::int64_t>(load_little_endian<std::uint64_t>(at));
    default:
      return std::nullopt;
  }
}

std::optional<double> GgufValue::number_at(std::uint64_t i) const {
  if (i >= count_) return std::nullopt;
  if (element_ == GgufKind::f32)
    return std::bit_cast<float>(load_little_endian<std::uint32_t>(bytes_.data() + 4 * i));
  if (element_ == GgufKind::f64)
    return std::bit_cast<double>(load_little_endian<std::uint64_t>(bytes_.data() + 8 * i));
  if (element_ == GgufKind::u64)
    return static_cast<double>(load_little_endian<std::uint64_t>(bytes_.data() + 8 * i));
  const auto whole = integer_at(i);
  return whole ? std::optional(static_cast<double>(*whole)) : std::nullopt;
}

std::optional<bool> GgufValue::as_bool() const { return is_array() ? std::nullopt : bool_at(0); }
std::optional<std::int64_t> GgufValue::as_integer() const {
  return is_array() ? std::nullopt : integer_at(0);
}
std::optional<std::uint64_t> GgufValue::as_unsigned() const {
  if (kind_ == GgufKind::u64) return load_little_endian<std::uint64_t>(bytes_.data());
  const auto value = as_integer();
  return value && *value >= 0 ? std::optional(static_cast<std::uint64_t>(*value)) : std::nullopt;
}
std::optional<double> GgufValue::as_number() const { return is_array() ? std::nullopt : number_at(0); }
std::optional<std::string_view> GgufValue::as_string() const {
  if (kind_ != GgufKind::string) return std::nullopt;
  return text_at(bytes_.data(), bytes_.size());
}

std::string_view GgufMetadata::key(std::size_t i) const {
  return text_at(bytes_.data() + pairs_[i].key, pairs_[i].key_bytes);
}
GgufValue GgufMetadata::value(std::size_t i) const {
  const Pair& pair = pairs_[i];
  return {pair.kind, pair.element, pair.count, std::span(bytes_).subspan(pair.value, pair.value_bytes)};
}
std::optional<GgufValue> GgufMetadata::find(std::string_view of) const {
  const auto at =
      std::lower_bound(pairs_.begin(), pairs_.end(), of, [this](const Pair& pair, std::string_view k) {
        return text_at(bytes_.data() + pair.key, pair.key_bytes) < k;
      });
  const auto i = static_cast<std::size_t>(at - pairs_.begin());
  return i < pairs_.size() && key(i) == of ? std::optional(value(i)) : std::nullopt;
}

// --- reading

// Walks the file from its beginning. What has been walked over is in memory, read in pieces: nothing is
// allocated that the file does not have.
class GgufParser {
 public:
  explicit GgufParser(const File& file) : file_(file) {}

  Result<GgufHeader> parse() {
    NIB_TRY(read_counts());
    for (std::uint64_t i = 0; i < pair_count_; ++i) NIB_TRY(read_pair());
    NIB_TRY(sort_pairs());
    NIB_TRY(read_alignment());
    const std::uint64_t pairs_end = at_;
    for (std::uint64_t i = 0; i < tensor_count_; ++i) NIB_TRY(read_tensor());
    NIB_TRY(place_tensors());
    bytes() =
        std::vector<std::byte>(bytes().begin(), bytes().begin() + static_cast<std::ptrdiff_t>(pairs_end));
    return std::move(header_);
  }

 private:
  std::vector<std::byte>& bytes() { return header_.metadata.bytes_; }

  template <class... Parts>
  Status wrong_at(std::uint64_t place, const Parts&... parts) const {
    return {Code::format, concat(file_.name(), ": byte ", place, ": ", parts...)};
  }
  template <class... Parts>
  Status unsupported_at(std::uint64_t place, const Parts&... parts) const {
    return {Code::unsupported, concat(file_.name(), ": byte ", place, ": ", parts...)};
  }

  // Makes sure that the next `count` bytes are in memory. `what` they are goes into the message.
  Status need(std::uint64_t count, std::string_view what) {
    if (count > file_.size() - at_)
      return wrong_at(at_, what, " needs ", count, " bytes, the file ends after ", file_.size() - at_);
    if (count > kMaxHeaderBytes - at_)
      return wrong_at(at_, what, ": metadata and tensor descriptions exceed ", kMaxHeaderBytes, " bytes");
    const std::uint64_t have = bytes().size();
    if (at_ + count <= have) return {};
    const std::uint64_t ahead = std::clamp<std::uint64_t>(have, 64 << 10, 4 << 20);
    const std::uint64_t end = std::min(file_.size(), std::max(at_ + count, have + ahead));
    bytes().resize(end);
    return file_.read_at(have, std::span(bytes()).subspan(have));
  }

  template <class T>
  T take() {
    const T value = load_little_endian<T>(bytes().data() + at_);
    at_ += sizeof(T);
    return value;
  }

  Status read_counts() {
    if (file_.size() < 4) return wrong_at(0, file_.size(), " bytes are too few for a GGUF file");
    NIB_TRY(need(4, "the file's magic"));
    if (text_at(bytes().data(), 4) != "GGUF")
      return wrong_at(0, quoted(text_at(bytes().data(), 4)), " begins the file, 'GGUF' was expected");
    at_ = 4;
    NIB_TRY(need(20, "the file's version and counts"));
    header_.version = take<std::uint32_t>();
    if ((header_.version & 0xffff) == 0)
      return unsupported_at(4, "the file is big-endian; only little-endian GGUF is read");
    if (header_.version != 2 && header_.version != 3)
      return unsupported_at(4, "GGUF version ", header_.version, "; versions 2 and 3 are read");
    tensor_count_ = take<std::uint64_t>();
    pair_count_ = take<std::uint64_t>();
    if (tensor_count_ > kMaxTensors)
      return wrong_at(8, tensor_count_, " tensors are announced, at most ", kMaxTensors, " are read");
    if (pair_count_ > kMaxPairs)
      return wrong_at(16, pair_count_, " metadata pairs are announced, at most ", kMaxPairs, " are read");
    return {};
  }

  // Leaves at_ behind the string; its bytes are the `length` before that.
  Status read_string(std::uint64_t most, const std::string& what, std::uint64_t& length) {
    const std::uint64_t begin = at_;
    NIB_TRY(need(8, what));
    length = take<std::uint64_t>();
    if (length > most) return wrong_at(begin, what, " has ", length, " bytes, at most ", most, " are read");
    NIB_TRY(need(length, what));
    at_ += length;
    return {};
  }

  Status read_kind(const std::string& what, GgufKind& kind) {
    const std::uint64_t begin = at_;
    NIB_TRY(need(4, what));
    const auto number = take<std::uint32_t>();
    if (number >= kGgufKinds) return wrong_at(begin, what, " has the unknown value type ", number);
    kind = static_cast<GgufKind>(number);
    return {};
  }

  Status read_pair() {
    GgufMetadata::Pair pair{};
    const std::uint64_t begin = at_;
    NIB_TRY(read_string(kMaxKeyBytes, "a metadata key", pair.key_bytes));
    pair.key = at_ - pair.key_bytes;
    if (pair.key_bytes == 0) return wrong_at(begin, "a metadata key is empty");
    const std::string what = concat("key ", quoted(text_at(bytes().data() + pair.key, pair.key_bytes)));
    NIB_TRY(read_kind(what, pair.kind));
    pair.element = pair.kind;
    pair.count = 1;
    if (pair.kind == GgufKind::array) {
      const std::uint64_t kind_at = at_;
      NIB_TRY(read_kind(what, pair.element));
      if (pair.element == GgufKind::array)
        return unsupported_at(kind_at, what, " is an array of arrays, which is not read");
      NIB_TRY(need(8, what));
      pair.count = take<std::uint64_t>();
    }
    pair.value = at_;
    if (pair.element == GgufKind::string) {
      // A single string is its bytes; in an array each keeps its length in front.
      if (pair.kind == GgufKind::string) {
        NIB_TRY(read_string(kMaxHeaderBytes, what, pair.value_bytes));
        pair.value = at_ - pair.value_bytes;
      } else {
        NIB_TRY(read_strings(what, pair));
      }
    } else {
      NIB_TRY(read_numbers(what, pair));
    }
    header_.metadata.pairs_.push_back(pair);
    return {};
  }

  Status read_strings(const std::string& what, GgufMetadata::Pair& pair) {
    if (pair.count > (file_.size() - at_) / 8)
      return wrong_at(at_ - 8, what, " announces ", pair.count, " strings, more than the file has room for");
    for (std::uint64_t i = 0, length; i < pair.count; ++i)
      NIB_TRY(read_string(kMaxHeaderBytes, what, length));
    pair.value_bytes = at_ - pair.value;
    return {};
  }

  Status read_numbers(const std::string& what, GgufMetadata::Pair& pair) {
    const auto total = checked_mul(pair.count, kKindBytes[static_cast<std::uint32_t>(pair.element)]);
    if (!total)
      return wrong_at(at_ - 8, what, " announces ", pair.count, " elements, more than any file has");
    NIB_TRY(need(*total, what));
    pair.value_bytes = *total;
    if (pair.element == GgufKind::boolean)
      for (std::uint64_t i = 0; i < pair.count; ++i)
        if (const auto byte = std::to_integer<unsigned>(bytes()[at_ + i]); byte > 1)
          return wrong_at(at_ + i, what, " has byte ", byte, " for a bool, 0 or 1 was expected");
    at_ += *total;
    return {};
  }

  Status sort_pairs() {
    const std::byte* base = bytes().data();
    const auto key = [base](const GgufMetadata::Pair& pair) {
      return text_at(base + pair.key, pair.key_bytes);
    };
    auto& pairs = header_.metadata.pairs_;
    std::sort(pairs.begin(), pairs.end(), [key](const auto& a, const auto& b) {
      const int order = key(a).compare(key(b));
      return order != 0 ? order < 0 : a.key < b.key;
    });
    for (std::size_t i = 1; i < pairs.size(); ++i)
      if (key(pairs[i]) == key(pairs[i - 1]))
        return wrong_at(pairs[i].key, "key ", quoted(key(pairs[i])), " occurs twice");
    return {};
  }

  Status read_alignment() {
    const auto value = header_.metadata.find("general.alignment");
    if (!value) return {};
    const auto number = value->kind() == GgufKind::u32 ? value->as_unsigned() : std::nullopt;
    if (!number || !std::has_single_bit(*number))
      return wrong_at(at_, "key 'general.alignment' is ",
                      number ? concat(*number) : std::string(gguf_kind_name(value->kind())),
                      ", a u32 power of two was expected");
    header_.alignment = *number;
    return {};
  }

  Status read_tensor() {
    GgufTensor& tensor = header_.tensors.emplace_back();
    const std::uint64_t begin = at_;
    std::uint64_t length = 0;
    NIB_TRY(read_string(kMaxNameBytes, "a tensor's name", length));
    tensor.name = text_at(bytes().data() + at_ - length, length);
    if (length == 0) return wrong_at(begin, "a tensor has no name");
    if (!names_.emplace(tensor.name).second)
      return wrong_at(begin, "tensor ", quoted(tensor.name), " is described twice");
    const std::string what = concat("tensor ", quoted(tensor.name));
    NIB_TRY(need(4, what));
    const auto rank = take<std::uint32_t>();
    if (rank > kMaxRank)
      return wrong_at(at_ - 4, what, " has ", rank, " dimensions, at most ", kMaxRank, " are read");
    NIB_TRY(need(std::uint64_t{rank} * 8 + 12, what));
    tensor.shape.resize(rank);
    for (std::uint32_t i = rank; i > 0; --i) tensor.shape[i - 1] = take<std::uint64_t>();
    const auto number = take<std::uint32_t>();
    const GgufTypeInfo* info = find_gguf_type(number);
    if (!info)
      return unsupported_at(at_ - 4, what, " has element type ", number, ", which is not known here");
    tensor.type = info->type;
    tensor.offset = take<std::uint64_t>();
    const auto bytes = gguf_tensor_bytes(tensor.type, tensor.shape);
    if (!bytes)
      return wrong_at(begin, what, " is ", info->name, " ", shape_text(tensor.shape),
                      tensor.shape.empty() || tensor.shape.back() % info->block == 0
                          ? std::string(", more bytes than 64 bits count")
                          : concat(", its rows are no multiple of ", info->block));
    tensor.bytes = *bytes;
    if (tensor.offset % header_.alignment != 0)
      return wrong_at(at_ - 8, what, " begins at byte ", tensor.offset, " of the data, a multiple of ",
                      header_.alignment, " was expected");
    return {};
  }

  // Turns offsets into places in the file; refuses those outside of it and bytes promised twice.
  Status place_tensors() {
    const std::uint64_t size = file_.size();
    header_.data_offset = round_up(at_, header_.alignment);
    std::vector<const GgufTensor*> order;
    for (GgufTensor& tensor : header_.tensors) {
      const auto begin = checked_add(header_.data_offset, tensor.offset);
      const auto end = begin ? checked_add(*begin, tensor.bytes) : std::nullopt;
      if (!end || (tensor.bytes != 0 && *end > size))
        return {Code::format,
                concat(file_.name(), ": tensor ", quoted(tensor.name), " needs ", tensor.bytes,
                       " bytes from byte ", tensor.offset, " of the data on, the data has ",
                       size > header_.data_offset ? size - header_.data_offset : 0, ": the file is cut off")};
      tensor.offset = tensor.bytes == 0 ? std::min(*begin, size) : *begin;
      if (tensor.bytes != 0) order.push_back(&tensor);
    }
    std::sort(order.begin(), order.end(),
              [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
    for (std::size_t i = 1; i < order.size(); ++i) {
      const GgufTensor &before = *order[i - 1], &tensor = *order[i];
      if (tensor.offset < before.offset + before.bytes)
        return wrong_at(tensor.offset, "tensor ", quoted(tensor.name), " begins inside tensor ",
                        quoted(before.name));
    }
    return {};
  }

  const File& file_;
  std::uint64_t at_ = 0, pair_count_ = 0, tensor_count_ = 0;
  std::unordered_set<std::string> names_;
  GgufHeader header_;
};

Result<GgufHeader> read_gguf_header(const File& file) {
  return within_memory(file.name(), [&] { return GgufParser(file).parse(); });
}

}  // namespace nib::inline v0
