#include <doctest/doctest.h>
#include <nibble/io/checkpoint.hpp>
#include "support/faulty_files.hpp"
using namespace nib;
TEST_CASE("smoke") {
  NIB_REQUIRE_DATA(root);
  for (const char* d : {"gpt-oss-a", "gpt-oss-a/original", "gpt-oss-b", "gpt-oss-bf16", "tales","mixtral","gpt-oss-a/golden.safetensors"}) {
    auto c = open_checkpoint(root + "/models/" + d);
    if (!c.ok()) FAIL_CHECK(c.status().message());
    else CHECK(!c->tensors.empty());
  }
}
