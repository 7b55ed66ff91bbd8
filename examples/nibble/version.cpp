#include "version.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/runtime/runtime.hpp>
#include <nibble/version.hpp>

#include <string_view>

namespace nib::program {

std::string version_number() {
  constexpr std::string_view kCommit = NIBBLE_COMMIT;
  std::string number = concat(NIBBLE_VERSION_MAJOR, ".", NIBBLE_VERSION_MINOR, ".", NIBBLE_VERSION_PATCH);
  if (!kCommit.empty()) number += concat(" (", kCommit, ")");
  return number;
}

std::string version_text() {
  std::string text = concat("nibble ", version_number(), "\ncompiler ", NIBBLE_COMPILER, "\nbackends");
  const auto runtime = Runtime::create({.threads = 1});
  if (!runtime.ok()) return text;
  const char* separator = " ";
  for (const BackendInfo& backend : runtime.value()->backends()) {
    text += concat(separator, backend.name);
    if (!backend.present) text += concat(" (not here: ", backend.missing, ")");
    separator = ", ";
  }
  return text;
}

}  // namespace nib::program
