// The initializers, seen from C++ and from C.
#include <nibble/version.hpp>

#include <cstring>

#include <doctest/doctest.h>
#include <nibble.h>

extern "C" int wrong_initializers_in_c(void);

TEST_CASE("an initializer sets the size and zeroes the rest, to the last byte") {
#define STRUCT(type, INIT)                              \
  {                                                     \
    type made = INIT;                                   \
    type zero;                                          \
    std::memset(&zero, 0, sizeof zero);                 \
    zero.struct_size = sizeof zero;                     \
    CAPTURE(#type);                                     \
    CHECK(std::memcmp(&made, &zero, sizeof made) == 0); \
  }
#include "structs.inc"
#undef STRUCT
  CHECK(wrong_initializers_in_c() == 0);
}

TEST_CASE("versions of header, library and project are one") {
  CHECK(nib_version() == NIB_VERSION);
  CHECK(nib_abi_version() == NIB_ABI_VERSION);
  CHECK(NIB_VERSION == NIBBLE_VERSION_MAJOR * 1000000 + NIBBLE_VERSION_MINOR * 1000 + NIBBLE_VERSION_PATCH);
}
