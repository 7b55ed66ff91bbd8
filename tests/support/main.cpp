// The main of every test program, and one line at its start that says which test data it has.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "support/data.hpp"

int main(int argc, char** argv) {
  if (nib::test::data_root().empty())
    std::printf("NIBBLE_TEST_DATA is not set: tests that need it are skipped and say so.\n");
  return doctest::Context(argc, argv).run();
}
