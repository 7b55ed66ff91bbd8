// Room io: the header of a GGUF file (versions 2 and 3): its metadata and its tensors, checked before
// anything believes it.
//
// Layout of the file, little-endian: "GGUF" | u32 version | u64 tensors | u64 pairs | the pairs: key, kind,
// value | the tensors: name, dimensions, type, offset | padding | data, each tensor at a multiple of the
// alignment. Dimensions are stored fastest first; here they are row-major like everywhere else.
//
// Limits: pairs and tensor descriptions 512 MiB together, 65,536 pairs, 1,000,000 tensors, key 65,535 bytes,
// tensor name 1024 bytes, rank 4. An array of arrays is refused, as other readers do.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/io/file.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

// What a metadata value is; the numbers are those of the file.
enum class GgufKind : std::uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};
constexpr std::uint32_t kGgufKinds = 13;

// "u32", "string", ...; static storage.
const char* gguf_kind_name(GgufKind kind);

// How a tensor's elements are stored; the numbers are those of the file.
enum class GgufType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q8_1 = 9,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  q8_k = 15,
  iq2_xxs = 16,
  iq2_xs = 17,
  iq3_xxs = 18,
  iq1_s = 19,
  iq4_nl = 20,
  iq3_s = 21,
  iq2_s = 22,
  iq4_xs = 23,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  iq1_m = 29,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39,
  nvfp4 = 40,
  q1_0 = 41,
  q2_0 = 42,
};

struct GgufTypeInfo {
  GgufType type;
  const char* name;     // as other programs print it: "Q4_K"
  std::uint32_t block;  // elements of a row that are stored together; a row is a whole number of blocks
  std::uint32_t bytes;  // of one block
};

inline constexpr GgufTypeInfo kGgufTypes[] = {
    {GgufType::f32, "F32", 1, 4},
    {GgufType::f16, "F16", 1, 2},
    {GgufType::q4_0, "Q4_0", 32, 18},
    {GgufType::q4_1, "Q4_1", 32, 20},
    {GgufType::q5_0, "Q5_0", 32, 22},
    {GgufType::q5_1, "Q5_1", 32, 24},
    {GgufType::q8_0, "Q8_0", 32, 34},
    {GgufType::q8_1, "Q8_1", 32, 36},
    {GgufType::q2_k, "Q2_K", 256, 84},
    {GgufType::q3_k, "Q3_K", 256, 110},
    {GgufType::q4_k, "Q4_K", 256, 144},
    {GgufType::q5_k, "Q5_K", 256, 176},
    {GgufType::q6_k, "Q6_K", 256, 210},
    {GgufType::q8_k, "Q8_K", 256, 292},
    {GgufType::iq2_xxs, "IQ2_XXS", 256, 66},
    {GgufType::iq2_xs, "IQ2_XS", 256, 74},
    {GgufType::iq3_xxs, "IQ3_XXS", 256, 98},
    {GgufType::iq1_s, "IQ1_S", 256, 50},
    {GgufType::iq4_nl, "IQ4_NL", 32, 18},
    {GgufType::iq3_s, "IQ3_S", 256, 110},
    {GgufType::iq2_s, "IQ2_S", 256, 82},
    {GgufType::iq4_xs, "IQ4_XS", 256, 136},
    {GgufType::i8, "I8", 1, 1},
    {GgufType::i16, "I16", 1, 2},
    {GgufType::i32, "I32", 1, 4},
    {GgufType::i64, "I64", 1, 8},
    {GgufType::f64, "F64", 1, 8},
    {GgufType::iq1_m, "IQ1_M", 256, 56},
    {GgufType::bf16, "BF16", 1, 2},
    {GgufType::tq1_0, "TQ1_0", 256, 54},
    {GgufType::tq2_0, "TQ2_0", 256, 66},
    {GgufType::mxfp4, "MXFP4", 32, 17},
    {GgufType::nvfp4, "NVFP4", 64, 36},
    {GgufType::q1_0, "Q1_0", 128, 18},
    {GgufType::q2_0, "Q2_0", 64, 18},
};

// Null pointer for a number that names no type here (retired ones, private ones of forks).
const GgufTypeInfo* find_gguf_type(std::uint32_t number);
constexpr const GgufTypeInfo& gguf_type_info(GgufType type) {
  for (const GgufTypeInfo& info : kGgufTypes)
    if (info.type == type) return info;
  return kGgufTypes[0];  // every value of the enumeration is in the table
}

// Bytes of a tensor of that row-major shape; nothing when its rows are no whole number of blocks or 64 bits
// do not hold the count.
std::optional<std::uint64_t> gguf_tensor_bytes(GgufType type, const std::vector<std::uint64_t>& shape);

// The strings of an array, one after the other, as views into the metadata: nothing is copied. Bytes, not
// necessarily UTF-8.
class GgufStrings {
 public:
  class Iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = std::string_view;
    using difference_type = std::ptrdiff_t;
    using pointer = const std::string_view*;
    using reference = std::string_view;

    Iterator() = default;
    explicit Iterator(const std::byte* at) : at_(at) {}
    std::string_view operator*() const;
    Iterator& operator++();
    Iterator operator++(int) {
      const Iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const Iterator&, const Iterator&) = default;

   private:
    const std::byte* at_ = nullptr;  // of the length that precedes the string
  };

  GgufStrings() = default;
  GgufStrings(std::span<const std::byte> bytes, std::uint64_t count) : bytes_(bytes), count_(count) {}
  Iterator begin() const { return Iterator(bytes_.data()); }
  Iterator end() const { return Iterator(bytes_.data() + bytes_.size()); }
  std::uint64_t size() const { return count_; }

 private:
  std::span<const std::byte> bytes_;
  std::uint64_t count_ = 0;
};

// One metadata value: a view, cheap to copy, valid as long as the GgufMetadata it came from. Each as_
// function answers nothing when the value is of another kind or does not fit.
class GgufValue {
 public:
  GgufValue(GgufKind kind, GgufKind element, std::uint64_t count, std::span<const std::byte> bytes)
      : kind_(kind), element_(element), count_(count), bytes_(bytes) {}

  GgufKind kind() const { return kind_; }
  bool is_array() const { return kind_ == GgufKind::array; }
  GgufKind element_kind() const { return element_; }           // of an array; of anything else its own kind
  std::uint64_t count() const { return count_; }               // of an array; of anything else 1
  std::span<const std::byte> bytes() const { return bytes_; }  // the elements as the file has them

  std::optional<bool> as_bool() const;
  std::optional<std::int64_t> as_integer() const;    // any whole-number kind
  std::optional<std::uint64_t> as_unsigned() const;  // any whole-number kind, not negative
  std::optional<double> as_number() const;           // any number kind; exact but for whole numbers past 2^53
  std::optional<std::string_view> as_string() const;

  // The strings of an array of strings; of anything else none.
  GgufStrings strings() const;

  // Element i < count() of an array of that kind (or the value itself for i = 0); nothing as above.
  std::optional<bool> bool_at(std::uint64_t i) const;
  std::optional<std::int64_t> integer_at(std::uint64_t i) const;
  std::optional<double> number_at(std::uint64_t i) const;

 private:
  GgufKind kind_, element_;
  std::uint64_t count_;
  std::span<const std::byte> bytes_;
};

// The pairs of a file, sorted by key. Owns one copy of their bytes; values are views of it. Movable, not
// copied by accident; immutable, any number of threads.
class GgufMetadata {
 public:
  GgufMetadata() = default;
  GgufMetadata(GgufMetadata&&) noexcept = default;
  GgufMetadata& operator=(GgufMetadata&&) noexcept = default;
  GgufMetadata(const GgufMetadata&) = delete;
  GgufMetadata& operator=(const GgufMetadata&) = delete;

  std::size_t size() const { return pairs_.size(); }
  std::string_view key(std::size_t i) const;
  GgufValue value(std::size_t i) const;
  // Nothing when there is no such key.
  std::optional<GgufValue> find(std::string_view key) const;

 private:
  friend class GgufParser;
  struct Pair {
    std::uint64_t key, key_bytes;      // places in bytes_
    std::uint64_t value, value_bytes;  // the elements alone
    std::uint64_t count;
    GgufKind kind, element;
  };
  std::vector<std::byte> bytes_;  // the file from its first byte to the last pair's last
  std::vector<Pair> pairs_;
};

struct GgufTensor {
  std::string name;  // any bytes: never a path
  GgufType type = GgufType::f32;
  std::vector<std::uint64_t> shape;  // row-major; the last is the length of a row
  std::uint64_t offset = 0;          // of the first byte, from the beginning of the file
  std::uint64_t bytes = 0;
};

struct GgufHeader {
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;  // of every tensor's offset, measured from data_offset
  std::uint64_t data_offset = 0;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  // in the order in which the file describes them
};

// Reads and checks the header: keys and tensor names are unique, every tensor's bytes are what its type and
// shape need, aligned, inside the file, and no two tensors share a byte. Errors: format; unsupported (version
// 1, another byte order, a tensor type without a name here, an array of arrays); memory; those of read_at.
// Each names the file, the byte at which it was found and the key or tensor. Any thread.
Result<GgufHeader> read_gguf_header(const File& file);

}  // namespace nib::inline v0
