// Where the large test data lies (real vocabularies, checkpoints with recorded logits), and how a test says
// that it was skipped because nobody told.
#pragma once

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include <doctest/doctest.h>

namespace nib::test {

// The folder named by NIBBLE_TEST_DATA, or empty.
inline std::string data_root() {
  const char* value = std::getenv("NIBBLE_TEST_DATA");
  return value ? value : "";
}

inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), "cannot open " << path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace nib::test

// First line of a test that needs the data folder: declares `std::string name` or leaves the test, saying so.
#define NIB_REQUIRE_DATA(name)                       \
  const std::string name = ::nib::test::data_root(); \
  if (name.empty()) {                                \
    MESSAGE("skipped: NIBBLE_TEST_DATA is not set"); \
    return;                                          \
  }
