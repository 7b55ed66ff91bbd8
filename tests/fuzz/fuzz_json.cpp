// Any text is JSON or refused; what is JSON is written as JSON, and reads back as the same tree.
#include <nibble/base/json.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto tree =
      nib::parse_json(text, "input", {.max_bytes = 1 << 20, .max_depth = 100, .max_values = 100'000});
  if (!tree.ok()) {
    if (tree.status().code() != nib::Code::format || !tree.status().message().starts_with("input: "))
      std::abort();
    return 0;
  }
  const std::string written = nib::write_json(*tree);
  const nib::Json copy = *tree;
  const auto again = nib::parse_json(written, "written", {.max_depth = 100});
  if (!again.ok() || nib::write_json(*again, true) != nib::write_json(copy, true)) std::abort();
  return 0;
}
