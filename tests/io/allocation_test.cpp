// Every allocation of an opening fails in its turn: the answer is Code::memory, never an exception, never a
// leak that the next opening would notice.
#include "io/temporary.hpp"
#include "io/tiny.hpp"
#include "io/tiny_gguf.hpp"
#include "io/tiny_quantized.hpp"
#include <nibble/io/checkpoint.hpp>
#include <nibble/io/gguf_writer.hpp>
#include <nibble/io/safetensors_writer.hpp>

#include <cstdlib>
#include <new>

#include <doctest/doctest.h>

using namespace nib;

namespace {

constexpr long kNever = -1;
thread_local long allocations_left = kNever;  // then they fail
thread_local bool only_once = false;          // or just one of them does
thread_local bool one_failed = false;

void* allocate(std::size_t bytes) {
  if (allocations_left == 0) {
    one_failed = true;
    if (only_once) allocations_left = kNever;
    throw std::bad_alloc();
  }
  if (allocations_left > 0) --allocations_left;
  if (void* pointer = std::malloc(bytes ? bytes : 1)) return pointer;
  throw std::bad_alloc();
}

// Runs work() with the n-th allocation failing, for n = 0, 1, ... until it succeeds; returns how many failed.
template <class Work>
int fail_each_allocation(bool once, Work work) {
  for (int n = 0;; ++n) {
    Code code = Code::internal;
    allocations_left = n;
    only_once = once;
    one_failed = false;
    try {
      code = work();
    } catch (...) {
      allocations_left = kNever;
      FAIL("an exception came out at allocation " << n);
    }
    allocations_left = kNever;
    if (!one_failed) {
      CHECK(code == Code::ok);
      return n;
    }
    CHECK_MESSAGE(code == Code::memory, "allocation " << n << ": " << std::string(code_name(code)));
  }
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return allocate(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* pointer, const std::nothrow_t&) noexcept { std::free(pointer); }
void operator delete(void* pointer) noexcept { std::free(pointer); }
void operator delete[](void* pointer) noexcept { std::free(pointer); }
void operator delete(void* pointer, std::size_t) noexcept { std::free(pointer); }
void operator delete[](void* pointer, std::size_t) noexcept { std::free(pointer); }

TEST_CASE("opening a checkpoint survives every failing allocation") {
  const test::TemporaryDirectory directory;
  test::FaultyFileSystem files;
  test::add_tiny_sharded(files);
  for (const std::string& path : files.paths()) directory.write(name_of(path), files.content(path));
  const std::string path = directory.path();
  for (const bool once : {false, true}) {
    CHECK(fail_each_allocation(once, [&] { return open_checkpoint(path).status().code(); }) > 100);
    CHECK(open_checkpoint(path).ok());
  }
}

TEST_CASE("opening quantized checkpoints and GGUF files survives every failing allocation") {
  for (const test::TinyQuantized& tiny : test::TinyQuantizer(1).all()) {
    CAPTURE(tiny.kind);
    const test::TemporaryDirectory directory;
    test::FaultyFileSystem files;
    test::add_tiny_quantized(files, tiny);
    for (const std::string& path : files.paths()) directory.write(name_of(path), files.content(path));
    const std::string path = directory.path();
    CHECK(fail_each_allocation(false, [&] { return open_checkpoint(path).status().code(); }) > 50);
    const auto checkpoint = open_checkpoint(path);
    REQUIRE(checkpoint.ok());
    std::vector<float> values(tiny.values.size());
    const CheckpointTensor& tensor = *checkpoint->find(tiny.name);
    CHECK(fail_each_allocation(false, [&] {
            return read_values(*checkpoint, tensor, 0, std::span<float>(values)).code();
          }) > 0);
  }
  const test::TemporaryDirectory directory;
  test::TinyGguf gguf;
  gguf.pairs = {test::gguf_text("general.architecture", "llama"), test::gguf_u32("a key of some length", 1)};
  gguf.tensors = {{"blk.0.attn_q.weight", {64, 2}, 40, test::random_bytes(72, 2)},
                  {"blk.0.attn_q.scale", {1}, 0, std::string(4, '?')}};
  const std::string path = directory.write("model.gguf", gguf.file()), copy = directory.path("copy.gguf");
  for (const bool once : {false, true}) {
    CHECK(fail_each_allocation(once, [&] { return open_checkpoint(path).status().code(); }) > 10);
    const std::vector<GgufTensorSpec> specs = {{"a tensor with a long name", GgufType::q8_0, {2, 32}}};
    GgufPairs pairs;
    pairs.add("general.architecture", "llama");
    CHECK(fail_each_allocation(once, [&] {
            return GgufWriter::create(copy, pairs, specs, Overwrite::yes).status().code();
          }) > 10);
    CHECK(disk_file_system().list_directory(directory.path())->size() == 1);
  }
}

TEST_CASE("reading JSON and writing safetensors survive every failing allocation") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.path("f.safetensors");
  const std::vector<TensorSpec> specs = {{"a tensor with a long name", DType::u8, {4}},
                                         {"b", DType::f32, {1, 2}}};
  const SafetensorsMetadata metadata = {{"key", "value"}};
  for (const bool once : {false, true}) {
    CHECK(fail_each_allocation(
              once, [] { return parse_json(test::kTinyIndex, "index.json").status().code(); }) > 10);
    CHECK(fail_each_allocation(once, [&] {
            return SafetensorsWriter::create(path, specs, metadata, Overwrite::yes).status().code();
          }) > 10);
    CHECK(disk_file_system().list_directory(directory.path())->empty());
  }
}
