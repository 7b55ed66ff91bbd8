// Room capi: nib_error, names and versions.
#include "guard.hpp"
#include <nibble/version.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <nibble.h>

constexpr int kHeaderVersion = NIB_VERSION;
static_assert(kHeaderVersion ==
                  NIBBLE_VERSION_MAJOR * 1000000 + NIBBLE_VERSION_MINOR * 1000 + NIBBLE_VERSION_PATCH,
              "nibble.h and nibble/version.hpp state different versions");

// nib_status is nib::Code in another coat.
#define NIB_SAME_CODE(c_name, code) static_assert(c_name == static_cast<nib_status>(nib::Code::code))
NIB_SAME_CODE(NIB_OK, ok);
NIB_SAME_CODE(NIB_STOPPED, stopped);
NIB_SAME_CODE(NIB_END, end);
NIB_SAME_CODE(NIB_E_ARGUMENT, argument);
NIB_SAME_CODE(NIB_E_STATE, state);
NIB_SAME_CODE(NIB_E_VERSION, version);
NIB_SAME_CODE(NIB_E_BUSY, busy);
NIB_SAME_CODE(NIB_E_NOT_FOUND, not_found);
NIB_SAME_CODE(NIB_E_IO, io);
NIB_SAME_CODE(NIB_E_FORMAT, format);
NIB_SAME_CODE(NIB_E_UNSUPPORTED, unsupported);
NIB_SAME_CODE(NIB_E_MEMORY, memory);
NIB_SAME_CODE(NIB_E_BUDGET, budget);
NIB_SAME_CODE(NIB_E_DEVICE_MEMORY, device_memory);
NIB_SAME_CODE(NIB_E_DEVICE, device);
NIB_SAME_CODE(NIB_E_CONTEXT_FULL, context_full);
NIB_SAME_CODE(NIB_E_SMALL_BUFFER, small_buffer);
NIB_SAME_CODE(NIB_E_INTERNAL, internal);
#undef NIB_SAME_CODE

#define NIB_TEXT_2(x) #x
#define NIB_TEXT(x) NIB_TEXT_2(x)
#define NIB_VERSION_TEXT \
  NIB_TEXT(NIB_VERSION_MAJOR) "." NIB_TEXT(NIB_VERSION_MINOR) "." NIB_TEXT(NIB_VERSION_PATCH)
#if defined(__clang__)
#define NIB_COMPILER "clang " __clang_version__
#else
#define NIB_COMPILER "gcc " __VERSION__
#endif
#if defined(__x86_64__)
#define NIB_BACKENDS "x86-64: avx512 avx-vnni avx2 scalar"
#elif defined(__aarch64__)
#define NIB_BACKENDS "aarch64: neon scalar"
#endif

namespace nib::capi {
namespace {

// Bytes of the UTF-8 character at the start of `text`; 0 when there is none (cut off, overlong, surrogate,
// NUL).
std::size_t character_size(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return lead != 0;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const std::size_t size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (text.size() < size) return 0;
  for (std::size_t i = 1; i < size; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  const unsigned second = byte(1);
  const bool overlong = (lead == 0xe0 && second < 0xa0) || (lead == 0xf0 && second < 0x90);
  const bool beyond = (lead == 0xed && second > 0x9f) || (lead == 0xf4 && second > 0x8f);
  return overlong || beyond ? 0 : size;
}

// Paths and tensor names may hold any bytes: those that are not UTF-8 become '?', so that every binding can
// decode the message.
void write_message(char* out, std::size_t capacity, std::string_view text) noexcept {
  std::size_t at = 0;
  while (!text.empty()) {
    const std::size_t size = character_size(text);
    if (at + std::max<std::size_t>(size, 1) >= capacity) break;
    if (size == 0) {
      out[at++] = '?';
      text.remove_prefix(1);
    } else {
      std::memcpy(out + at, text.data(), size);
      at += size;
      text.remove_prefix(size);
    }
  }
  out[at] = '\0';
}

}  // namespace

bool usable(const nib_error* error) noexcept {
  return !error ||
         (error->struct_size > offsetof(nib_error, message) && error->struct_size % alignof(nib_error) == 0);
}

nib_status report(nib_error* error, Code code, std::string_view message) noexcept {
  if (error) {
    error->status = static_cast<nib_status>(code);
    const std::size_t capacity = error->struct_size - offsetof(nib_error, message);
    write_message(error->message, std::min(capacity, sizeof error->message), message);
  }
  return static_cast<nib_status>(code);
}

}  // namespace nib::capi

extern "C" {

uint32_t nib_version(void) { return NIB_VERSION; }
uint32_t nib_abi_version(void) { return NIB_ABI_VERSION; }
const char* nib_build_info(void) {
  return "nibble " NIB_VERSION_TEXT ", " NIB_COMPILER
         ", formats f32 f16 bf16 mxfp4 mxfp6_e2m3 mxfp6_e3m2 mxfp8_e4m3 mxfp8_e5m2 mxint8 nvfp4"
         " fp8_e4m3 fp8_e5m2 int8 llm_int8 nf4 bnb_fp4 q4_0 q4_1 q5_0 q5_1 q8_0 q2_K q3_K"
         " q4_K q5_K q6_K iq4_nl iq4_xs gguf_mxfp4 gguf_nvfp4, " NIB_BACKENDS;
}
const char* nib_status_name(nib_status status) { return nib::code_name(static_cast<nib::Code>(status)); }

}  // extern "C"
