// Room io: the header of a safetensors file, checked before anything believes it.
//
// Layout of the file: 8 bytes N (little-endian) | N bytes of JSON | tensor data to the end, row-major,
// little-endian. The JSON maps each tensor's name to its dtype, shape and the [begin, end) of its bytes in
// the data.
//
// Limits: header 100,000,000 bytes, 1,000,000 tensors, name 1024 bytes, rank 16.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/io/file.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::inline v0 {

// Element types of the format, under the names it uses in lower case.
enum class DType : std::uint8_t {
  boolean,
  u8,
  i8,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  i64,
  u64,
  f64,
  f4,
  f6_e2m3,
  f6_e3m2,
};

struct DTypeInfo {
  DType dtype;
  const char* name;    // in the file: "BF16"
  std::uint32_t bits;  // of one element
};

inline constexpr DTypeInfo kDTypes[] = {
    {DType::boolean, "BOOL", 8},
    {DType::u8, "U8", 8},
    {DType::i8, "I8", 8},
    {DType::f8_e4m3, "F8_E4M3", 8},
    {DType::f8_e5m2, "F8_E5M2", 8},
    {DType::f8_e8m0, "F8_E8M0", 8},
    {DType::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    {DType::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    {DType::i16, "I16", 16},
    {DType::u16, "U16", 16},
    {DType::f16, "F16", 16},
    {DType::bf16, "BF16", 16},
    {DType::i32, "I32", 32},
    {DType::u32, "U32", 32},
    {DType::f32, "F32", 32},
    {DType::c64, "C64", 64},
    {DType::i64, "I64", 64},
    {DType::u64, "U64", 64},
    {DType::f64, "F64", 64},
    {DType::f4, "F4", 4},
    {DType::f6_e2m3, "F6_E2M3", 6},
    {DType::f6_e3m2, "F6_E3M2", 6},
};

constexpr const DTypeInfo& dtype_info(DType dtype) { return kDTypes[static_cast<int>(dtype)]; }
constexpr const char* dtype_name(DType dtype) { return dtype_info(dtype).name; }
std::optional<DType> find_dtype(std::string_view name);

// Bytes of a dense tensor; nothing when 64 bits do not hold the count or the last byte would be half used.
std::optional<std::uint64_t> tensor_bytes(DType dtype, const std::vector<std::uint64_t>& shape);

// "[32, 5760, 90, 16]"
std::string shape_text(const std::vector<std::uint64_t>& shape);

struct TensorEntry {
  std::string name;  // any UTF-8: never a path
  DType dtype = DType::u8;
  std::vector<std::uint64_t> shape;  // row-major; empty for a single value
  std::uint64_t offset = 0;          // of the first byte, from the beginning of the file; any alignment
  std::uint64_t bytes = 0;
};

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;                           // in the order of their data
  std::vector<std::pair<std::string, std::string>> metadata;  // "__metadata__"
};

// Reads and checks the header: names are unique, every tensor's bytes are what its dtype and shape need, and
// the tensors lie one after the other from the end of the header to the end of the file, with no gap, overlap
// or rest. After ok, every range is inside the file. Errors: format, unsupported (a dtype without a name
// here), memory, those of read_at; each names the file and the tensor. Any thread.
Result<SafetensorsHeader> read_safetensors_header(const File& file);

}  // namespace nib::inline v0
