// nib_error: what it says, how it is cut, and what happens when it is not initialized.
#include "support.hpp"

#include <cstddef>
#include <random>
#include <string>

using namespace nib::test;

namespace {

// Well-formed UTF-8, by its definition: decode each character and see that its shortest form is what stood
// there.
bool is_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const std::size_t size = lead < 0x80       ? 1
                             : lead >> 5 == 6  ? 2
                             : lead >> 4 == 14 ? 3
                             : lead >> 3 == 30 ? 4
                                               : 0;
    if (size == 0 || at + size > text.size()) return false;
    std::uint32_t point = size == 1 ? lead : lead & (0x7fu >> size);
    for (std::size_t i = 1; i < size; ++i) {
      const auto next = static_cast<unsigned char>(text[at + i]);
      if (next >> 6 != 2) return false;
      point = point << 6 | (next & 0x3f);
    }
    const std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (point < least[size] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return false;
    at += size;
  }
  return true;
}

nib_status open_missing(nib_runtime* runtime, const std::string& path, nib_error* error) {
  nib_model* out = garbage<nib_model>();
  const nib_status status = nib_model_open(runtime, path.data(), path.size(), nullptr, &out, error);
  CHECK(out == nullptr);
  return status;
}

}  // namespace

TEST_CASE("a message names the file, and success leaves an empty one") {
  const RuntimeHandle runtime = make_runtime(1);
  Error error;
  CHECK(open_missing(runtime.get(), "/nowhere/at/all", &error) == NIB_E_NOT_FOUND);
  CHECK(error.status == NIB_E_NOT_FOUND);
  CHECK(error.says("/nowhere/at/all"));
  nib_runtime* out = nullptr;
  CHECK(nib_runtime_create(nullptr, &out, &error) == NIB_OK);
  CHECK(error.status == NIB_OK);
  CHECK(error.text().empty());
  nib_runtime_free(out);
}

TEST_CASE("a message is cut at a character, whatever its length and the room for it") {
  const RuntimeHandle runtime = make_runtime(1);
  const char* const characters[] = {"a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x90\x95"};
  for (const char* character : characters)
    for (std::size_t lead = 0; lead < 4; ++lead) {
      std::string path(lead, 'x');
      while (path.size() < 700) path += character;
      Error error;
      CHECK(open_missing(runtime.get(), path, &error) < 0);
      CHECK(is_utf8(error.text()));
      CHECK(error.text().size() < sizeof error.message);
      CHECK(error.text().size() >= sizeof error.message - 4);
    }

  // A nib_error of another release: smaller. Nothing beyond its end is touched.
  Error small;
  std::memset(small.message, 0x5a, sizeof small.message);
  small.struct_size = offsetof(nib_error, message) + 16;
  CHECK(open_missing(runtime.get(),
                     "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac",
                     &small) == NIB_E_NOT_FOUND);
  CHECK(std::string_view(small.message) == "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac");
  CHECK(small.message[16] == 0x5a);
}

TEST_CASE("a message is UTF-8 even when the path is not") {
  const RuntimeHandle runtime = make_runtime(1);
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 300; ++round) {
    // Bytes that make every kind of broken sequence likely: leads, continuations, a few letters.
    std::string path;
    for (int i = 0; i < 40; ++i) {
      const unsigned kind = random() % 4;
      path += static_cast<char>(kind == 0   ? 'a' + random() % 26
                                : kind == 1 ? 0x80 + random() % 64
                                            : 0xc0 + random() % 64);
    }
    Error error;
    CHECK(open_missing(runtime.get(), path, &error) < 0);
    CHECK_MESSAGE(is_utf8(error.text()), error.text());
  }
}

TEST_CASE("a nib_error without its size is refused at once, not at the first failure") {
  nib_error error;
  std::memset(&error, 0, sizeof error);
  nib_runtime* out = garbage<nib_runtime>();
  CHECK(nib_runtime_create(nullptr, &out, &error) == NIB_E_ARGUMENT);
  CHECK(out == nullptr);
  CHECK(error.message[0] == 0);
}

TEST_CASE("statuses have names, versions are those of the header") {
  CHECK(std::string_view(nib_status_name(NIB_OK)) == "NIB_OK");
  CHECK(std::string_view(nib_status_name(NIB_END)) == "NIB_END");
  CHECK(std::string_view(nib_status_name(NIB_E_SMALL_BUFFER)) == "NIB_E_SMALL_BUFFER");
  CHECK(std::string_view(nib_status_name(12345)) == "NIB_E_INTERNAL");
}
