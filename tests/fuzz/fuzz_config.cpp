// config.json and generation_config.json: whatever they say, an answer.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <nibble/model/config.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto json = nib::parse_json(text, "config.json", {.max_bytes = 1 << 16});
  if (!json.ok()) return 0;
  static_cast<void>(nib::parse_stop_ids(*json, "config.json"));
  const auto config = nib::parse_config(*json, "config.json");
  if (config.ok() && (config->heads % config->kv_heads != 0 || config->windows.size() != config->layers)) __builtin_trap();
  return 0;
}
