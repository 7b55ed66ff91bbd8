// Sized structs, both ways: programs and libraries of different ages.
#include "support.hpp"

#include <cstddef>
#include <cstring>

using namespace nib::test;

namespace {

// The options of a release to come: one more field.
struct NewerOptions {
  nib_runtime_options known;
  std::uint64_t added;
};

nib_status create(const nib_runtime_options* options, Error* error = nullptr) {
  nib_runtime* out = garbage<nib_runtime>();
  const nib_status status = nib_runtime_create(options, &out, error);
  const RuntimeHandle runtime(out);
  CHECK((status == NIB_OK) == (out != nullptr));
  return status;
}

}  // namespace

TEST_CASE("a shorter struct counts as padded with zeros") {
  // Beyond `reserved` lies a callback that must not be read: the program that wrote this struct has no such
  // field.
  nib_runtime_options options = NIB_RUNTIME_OPTIONS_INIT;
  options.threads = 1;
  options.allocate = [](void*, std::size_t, std::size_t) -> void* { return nullptr; };
  CHECK(create(&options) == NIB_E_ARGUMENT);  // allocate without release
  options.struct_size = offsetof(nib_runtime_options, run_threads);
  CHECK(create(&options) == NIB_OK);
}

TEST_CASE("a longer struct is taken when its unknown tail is zero, else it is a newer version's wish") {
  NewerOptions options{NIB_RUNTIME_OPTIONS_INIT, 0};
  options.known.struct_size = sizeof options;
  options.known.threads = 1;
  CHECK(create(&options.known) == NIB_OK);
  for (int byte = 0; byte < 8; ++byte) {
    options.added = std::uint64_t{1} << (8 * byte);
    Error error;
    CHECK(create(&options.known, &error) == NIB_E_VERSION);
    CHECK(error.says("nib_runtime_options"));
  }
}

TEST_CASE("a size that no release can have is refused") {
  nib_runtime_options options = NIB_RUNTIME_OPTIONS_INIT;
  for (const std::uint32_t size : {0u, 4u, 7u, 12u, 71u, 0xccccccccu, 0xffffffffu}) {
    CAPTURE(size);
    options.struct_size = size;
    Error error;
    CHECK(create(&options, &error) == NIB_E_ARGUMENT);
    CHECK(error.says("nib_runtime_options"));
  }
}

TEST_CASE("unknown flags and reserved fields are refused") {
  nib_runtime_options options = NIB_RUNTIME_OPTIONS_INIT;
  options.flags = 0x80000000u;
  CHECK(create(&options) == NIB_E_VERSION);
  options.flags = 0;
  options.reserved = 1;
  CHECK(create(&options) == NIB_E_VERSION);
}

TEST_CASE("an output struct is filled as far as it fits, and zeroed beyond what the library knows") {
  const RuntimeHandle runtime = make_runtime(1);
  nib_backend_info whole = NIB_BACKEND_INFO_INIT;
  REQUIRE(nib_runtime_get_backend(runtime.get(), 0, &whole) == NIB_OK);
  CHECK(std::strlen(whole.name) == whole.name_size);
  CHECK(whole.struct_size == sizeof whole);

  nib_backend_info older;
  std::memset(&older, 0x5a, sizeof older);
  older.struct_size = offsetof(nib_backend_info, name_size);
  REQUIRE(nib_runtime_get_backend(runtime.get(), 0, &older) == NIB_OK);
  CHECK(older.struct_size == offsetof(nib_backend_info, name_size));
  CHECK(older.flags == whole.flags);
  CHECK(older.name == whole.name);
  nib_backend_info untouched;
  std::memset(&untouched, 0x5a, sizeof untouched);
  CHECK(std::memcmp(&older.name_size, &untouched.name_size, sizeof older - older.struct_size) == 0);

  struct {
    nib_backend_info known;
    unsigned char added[16];
    unsigned char beyond[8];
  } newer;
  std::memset(&newer, 0x5a, sizeof newer);
  newer.known.struct_size = sizeof newer.known + sizeof newer.added;
  REQUIRE(nib_runtime_get_backend(runtime.get(), 0, &newer.known) == NIB_OK);
  CHECK(newer.known.struct_size == sizeof newer.known + sizeof newer.added);
  CHECK(newer.known.missing_size == whole.missing_size);
  for (const unsigned char byte : newer.added) CHECK(byte == 0);
  for (const unsigned char byte : newer.beyond) CHECK(byte == 0x5a);

  nib_backend_info none;
  std::memset(&none, 0, sizeof none);
  CHECK(nib_runtime_get_backend(runtime.get(), 0, &none) == NIB_E_ARGUMENT);
  CHECK(none.name == nullptr);
}
