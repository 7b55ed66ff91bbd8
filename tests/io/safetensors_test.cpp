// The header reader against headers that are wrong in one way each, and the writer against the reader.
#include "io/temporary.hpp"
#include "io/tiny.hpp"
#include "support/data.hpp"
#include <nibble/io/safetensors.hpp>
#include <nibble/io/safetensors_writer.hpp>

#include <algorithm>
#include <csignal>
#include <set>
#include <tuple>

#include <doctest/doctest.h>
#include <sys/resource.h>

using namespace nib;
using test::FaultyFileSystem;
using test::safetensors_of;

namespace {

Result<SafetensorsHeader> header_of(const std::string& content) {
  FaultyFileSystem files;
  files.add("f", content);
  return read_safetensors_header(**files.open("f"));
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

}  // namespace

TEST_CASE("entries come in the order of their data, with offsets in the file") {
  const std::string json =
      R"( {"b":{"data_offsets":[6,14],"shape":[2,1],"dtype":"F32"},"a":{"dtype":"BF16","shape":[3],)"
      R"("data_offsets":[0,6]},"__metadata__":{"format":"pt","x":"y"},"one":{"dtype":"U8","shape":[],)"
      R"("data_offsets":[14,15]},"none":{"dtype":"F64","shape":[7,0],"data_offsets":[14,14]}}  )";
  const auto header = header_of(safetensors_of(json, std::string(15, 'x')));
  REQUIRE_MESSAGE(header.ok(), header.status().message());
  CHECK(header->metadata == decltype(header->metadata){{"format", "pt"}, {"x", "y"}});
  REQUIRE(header->tensors.size() == 4);
  const auto& [a, b, none, one] =
      std::tie(header->tensors[0], header->tensors[1], header->tensors[2], header->tensors[3]);
  const std::uint64_t data = 8 + json.size();
  CHECK(a.name == "a");
  CHECK(a.dtype == DType::bf16);
  CHECK(a.offset == data);
  CHECK(a.bytes == 6);
  CHECK(b.name == "b");
  CHECK(b.shape == std::vector<std::uint64_t>{2, 1});
  CHECK(b.offset == data + 6);
  CHECK(none.name == "none");
  CHECK(none.bytes == 0);
  CHECK(one.shape.empty());
  CHECK(one.offset == data + 14);
  CHECK(one.bytes == 1);
}

TEST_CASE("every dtype has its width") {
  // From the format's documentation, written here a second time.
  const std::pair<const char*, int> kBits[] = {
      {"BOOL", 8},    {"U8", 8},      {"I8", 8},          {"F8_E4M3", 8},    {"F8_E5M2", 8}, {"F8_E8M0", 8},
      {"I16", 16},    {"U16", 16},    {"F16", 16},        {"BF16", 16},      {"I32", 32},    {"U32", 32},
      {"F32", 32},    {"C64", 64},    {"I64", 64},        {"U64", 64},       {"F64", 64},    {"F4", 4},
      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}};
  CHECK(std::size(kBits) == std::size(kDTypes));
  for (const auto& [name, bits] : kBits) {
    const auto data = static_cast<std::size_t>(bits) * 8 / 8;
    const std::string json =
        concat(R"({"t":{"dtype":")", name, R"(","shape":[4,2],"data_offsets":[0,)", data, "]}}");
    const auto header = header_of(safetensors_of(json, std::string(data, 'x')));
    REQUIRE_MESSAGE(header.ok(), header.status().message());
    CHECK(dtype_name(header->tensors[0].dtype) == std::string(name));
    CHECK(dtype_info(header->tensors[0].dtype).dtype == header->tensors[0].dtype);
  }
  CHECK(tensor_bytes(DType::f4, {3}) == std::nullopt);
  CHECK(tensor_bytes(DType::f6_e2m3, {4}) == 3);
  CHECK(tensor_bytes(DType::f32, {std::uint64_t{1} << 62}) == std::nullopt);
  CHECK(tensor_bytes(DType::u8, {std::uint64_t{1} << 40, std::uint64_t{1} << 40, 0}) == std::nullopt);
  CHECK(tensor_bytes(DType::u8, {}) == 1);
}

TEST_CASE("each wrong header is refused with a sentence about what is wrong") {
  struct Wrong {
    const char* json;  // one tensor of 4 bytes and what is wrong with it
    const char* said;
    Code code = Code::format;
  };
  const Wrong kWrong[] = {
      {R"([])", "must be an object of tensors"},
      {R"(7)", "must be an object of tensors"},
      {R"("x")", "must be an object of tensors"},
      {R"({"t":7})", "tensor 't' is described by a number"},
      {R"({"t":null})", "tensor 't' is described by null"},
      {R"({"t":{}})", "tensor 't' has no dtype"},
      {R"({"t":{"dtype":"F32","data_offsets":[0,4]}})", "tensor 't' has no shape"},
      {R"({"t":{"dtype":"F32","shape":[1]}})", "tensor 't' has no two data_offsets"},
      {R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "has no two data_offsets"},
      {R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})", "more than two data_offsets"},
      {R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "before its beginning"},
      {R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", "a negative number in data_offsets"},
      {R"({"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "a negative number in shape"},
      {R"({"t":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})",
       "tensor 't' has a number that is no whole"},
      {R"({"t":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}})", "no whole number"},
      {R"({"t":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", "has a number as shape"},
      {R"({"t":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}})", "has a string as shape"},
      {R"({"t":{"dtype":"F32","shape":{},"data_offsets":[0,4]}})", "has an object as shape"},
      {R"({"t":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}})", "has a boolean as shape"},
      {R"({"t":{"dtype":32,"shape":[1],"data_offsets":[0,4]}})", "has a number as dtype, a string"},
      {R"({"t":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}})", "has an array as dtype"},
      {R"({"t":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", "has dtype 'F31'", Code::unsupported},
      {R"({"t":{"dtype":"f32","shape":[1],"data_offsets":[0,4]}})", "has dtype 'f32'", Code::unsupported},
      {R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"stride":[1]}})", "the unknown key 'stride'"},
      {R"({"t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "has dtype twice"},
      {R"({"t":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}})", "has shape twice"},
      {R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})",
       "tensor 't' has 4 bytes, F32 [2] needs 8"},
      {R"({"t":{"dtype":"F4","shape":[9],"data_offsets":[0,4]}})", "has 4 bytes, F4 [9] needs another"},
      {R"({"t":{"dtype":"U8","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}})",
       "needs another number"},
      {R"({"t":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}})",
       "tensor 't' is described twice"},
      {R"({"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})", "4 bytes follow the last tensor"},
      {R"({})", "4 bytes follow the last tensor"},
      {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}})",
       "begins at byte 1 of the data, byte 0 was expected"},
      {R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"u":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
       "tensor 'u' begins at byte 2 of the data, byte 3 was expected"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"u":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
       "begins at byte 0 of the data, byte 4 was expected"},
      {R"({"t":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})", "the file is cut off"},
      {R"({"t":{"dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]}})",
       "tensor 't' has 9223372036854775807 bytes, U8 [9223372036854775807] needs another number"},
      {R"({"t":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})",
       "has more than 16 dimensions"},
      {R"({"__metadata__":[]})", "__metadata__ holds an array"},
      {R"({"__metadata__":{"a":1}})", "__metadata__ holds a number"},
      {R"({"__metadata__":{"a":{}}})", "__metadata__ holds an object"},
      {R"({"__metadata__":{},"__metadata__":{}})", "'__metadata__' is described twice"},
      {R"({"a\u001b[31m":0})", "tensor 'a?[31m'"},
      {R"({"t":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", "nested deeper than 3 levels"},
      {R"({"t":)", "f: header: byte 5:"},
      {"{\"\xff\":1}", "UTF-8"},
      {R"({} x)", "f: header: byte"},
  };
  for (const Wrong& wrong : kWrong) {
    const Status status = header_of(safetensors_of(wrong.json, "wxyz")).status();
    CHECK_MESSAGE(status.code() == wrong.code, wrong.json);
    CHECK_MESSAGE(status.message().starts_with("f: "), status.message());
    CHECK_MESSAGE(status.message().find(wrong.said) != std::string::npos, status.message());
  }
}

TEST_CASE("names have a length, and a message never carries all of a long one") {
  const auto with_name = [](std::size_t length) {
    std::string name(1, 'x');
    while (name.size() < length) name += "é";
    return header_of(
        safetensors_of("{\"" + name + R"(":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})", "x"));
  };
  CHECK(with_name(1023).ok());
  const Status status = with_name(1025).status();
  CHECK(status.code() == Code::format);
  CHECK(status.message().size() < 250);
  CHECK(status.message().find("é...'") != std::string::npos);
}

TEST_CASE("the length before the header is not believed") {
  CHECK(header_of("").status().code() == Code::format);
  CHECK(header_of("1234567").status().message() ==
        "f: 7 bytes are too few for a safetensors file, which begins with 8");
  CHECK(header_of(std::string(8, '\0')).status().code() == Code::format);
  CHECK(header_of(std::string(8, '\xff')).status().message().find("at most 100000000") != std::string::npos);
  CHECK(header_of(std::string("\x03\0\0\0\0\0\0\0{}", 10)).status().message() ==
        "f: announces a header of 3 bytes, but only 2 follow");
  CHECK(header_of(std::string("\x02\0\0\0\0\0\0\0{}", 10)).ok());
  CHECK(header_of("GGUF\x03\0\0\0").status().code() == Code::format);
}

TEST_CASE("failing reads come through as they are") {
  FaultyFileSystem files;
  files.add("f", safetensors_of(test::tiny_shard_0()));
  for (files.fail_at = 0;; ++files.fail_at) {
    const std::uint64_t before = files.reads();
    files.fail_at += before;
    const auto header = read_safetensors_header(**files.open("f"));
    files.fail_at -= before;
    if (header.ok()) break;
    CHECK(header.status().code() == Code::io);
  }
  CHECK(files.fail_at == 2);
  files.fail_at = FaultyFileSystem::kNever;
  files.cut_open_files_to = 20;
  CHECK(read_safetensors_header(**files.open("f")).status().code() == Code::io);
}

TEST_CASE("what the writer writes, byte for byte") {
  const std::vector<TensorSpec> specs = {{"a", DType::bf16, {2, 3}}, {"b\n", DType::f4, {2}}};
  const auto header = safetensors_header(specs, {{"format", "pt"}});
  REQUIRE(header.ok());
  const std::string json =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
      R"("b\n":{"dtype":"F4","shape":[2],"data_offsets":[12,13]}})";
  CHECK(header->substr(8, json.size()) == json);
  CHECK(header->size() % 8 == 0);
  CHECK(header->size() < 8 + json.size() + 8);
  CHECK(header->find_first_not_of(' ', 8 + json.size()) == std::string::npos);
  CHECK(static_cast<unsigned char>((*header)[0]) == header->size() - 8);
}

TEST_CASE("written files read back: random tensors in random pieces") {
  const test::TemporaryDirectory directory;
  std::mt19937 random(99);
  for (int round = 0; round < 50; ++round) {
    std::vector<TensorSpec> specs;
    std::string data;
    for (auto n = random() % 12; n > 0; --n) {
      TensorSpec spec{concat("tensor \"", n, "\" é"), kDTypes[random() % std::size(kDTypes)].dtype, {}};
      for (auto rank = random() % 4; rank > 0; --rank) spec.shape.push_back(random() % 5);
      spec.shape.push_back(8);  // so that every width is whole bytes
      data += test::random_bytes(*tensor_bytes(spec.dtype, spec.shape), random());
      specs.push_back(spec);
    }
    const std::string path = directory.path(concat("f", round));
    auto writer = SafetensorsWriter::create(path, specs, {{"round", concat(round)}});
    REQUIRE_MESSAGE(writer.ok(), writer.status().message());
    for (std::size_t at = 0; at < data.size();) {
      const std::size_t piece = std::min<std::size_t>(data.size() - at, 1 + random() % 300);
      CHECK(writer->append(bytes_of(data).subspan(at, piece)).ok());
      at += piece;
    }
    CHECK_FALSE(disk_file_system().exists(path));
    const Status finished = writer->finish();
    REQUIRE_MESSAGE(finished.ok(), finished.message());
    const auto file = disk_file_system().open(path);
    REQUIRE(file.ok());
    const auto header = read_safetensors_header(**file);
    REQUIRE_MESSAGE(header.ok(), header.status().message());
    REQUIRE(header->tensors.size() == specs.size());
    std::set<std::string> names;
    std::string back;
    for (const TensorEntry& entry : header->tensors) {
      const auto spec =
          std::find_if(specs.begin(), specs.end(), [&](const auto& s) { return s.name == entry.name; });
      REQUIRE(spec != specs.end());
      CHECK(entry.dtype == spec->dtype);
      CHECK(entry.shape == spec->shape);
      names.insert(entry.name);
      std::string part(entry.bytes, '\0');
      CHECK((*file)->read_at(entry.offset, std::as_writable_bytes(std::span(part))).ok());
      back += part;
    }
    CHECK(names.size() == specs.size());
    CHECK(back == data);
  }
}

TEST_CASE("only a whole file appears, and only where none was") {
  const test::TemporaryDirectory directory;
  const std::vector<TensorSpec> specs = {{"t", DType::u8, {4}}};
  const std::string path = directory.path("model.safetensors");
  const auto write = [&](const std::string& data, Overwrite overwrite) {
    auto writer = SafetensorsWriter::create(path, specs, {}, overwrite);
    NIB_TRY(writer.status());
    NIB_TRY(writer->append(bytes_of(data)));
    return writer->finish();
  };
  CHECK(write("abc", Overwrite::no).code() == Code::state);
  CHECK(write("abcde", Overwrite::no).code() == Code::argument);
  CHECK(disk_file_system().list_directory(directory.path())->empty());
  CHECK(write("abcd", Overwrite::no).ok());
  CHECK(write("ABCD", Overwrite::no).code() == Code::argument);
  CHECK(test::read_text(path).ends_with("abcd"));
  CHECK(write("AB", Overwrite::yes).code() == Code::state);
  CHECK(test::read_text(path).ends_with("abcd"));
  CHECK(write("ABCD", Overwrite::yes).ok());
  CHECK(test::read_text(path).ends_with("ABCD"));

  // Somebody else writes the file while we do.
  const std::string other = directory.path("other.safetensors");
  auto slow = SafetensorsWriter::create(other, specs);
  REQUIRE(slow.ok());
  CHECK(slow->append(bytes_of("slow")).ok());
  directory.write("other.safetensors", "fast");
  CHECK(slow->finish().code() == Code::argument);
  CHECK(test::read_text(other) == "fast");
  *slow = SafetensorsWriter::create(other, specs, {}, Overwrite::yes).take();  // drops what it had
  CHECK(disk_file_system().list_directory(directory.path())->size() == 3);
  CHECK(SafetensorsWriter::create(directory.path("zero") + std::string("\0", 1), specs).status().code() ==
        Code::io);
  CHECK(SafetensorsWriter::create(directory.path("no/such/place"), specs).status().code() == Code::io);
}

TEST_CASE("a full disk is an error, and nothing stays behind") {
  const test::TemporaryDirectory directory;
  const std::vector<TensorSpec> specs = {{"t", DType::u8, {100'000}}};
  rlimit old{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &old) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{50'000, old.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  Status status, finished;
  {
    auto writer = SafetensorsWriter::create(directory.path("f"), specs);
    status = writer.ok() ? writer->append(bytes_of(std::string(100'000, 'x'))) : writer.status();
    finished = writer.ok() ? writer->finish() : writer.status();
  }
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK(status.code() == Code::io);
  CHECK(status.message() == directory.path("f") + ": cannot write: File too large");
  CHECK(finished.code() == Code::state);
  CHECK(disk_file_system().list_directory(directory.path())->empty());
}

TEST_CASE("what cannot be described is refused before a file exists") {
  const auto code = [](const TensorSpec& spec) {
    const std::vector<TensorSpec> specs = {{"t", DType::u8, {1}}, spec};
    return safetensors_header(specs).status().code();
  };
  CHECK(code({"u", DType::u8, {1}}) == Code::ok);
  CHECK(code({"t", DType::u8, {1}}) == Code::argument);
  CHECK(code({"__metadata__", DType::u8, {1}}) == Code::argument);
  CHECK(code({"u\xff", DType::u8, {1}}) == Code::argument);
  CHECK(code({std::string(1025, 'u'), DType::u8, {1}}) == Code::argument);
  CHECK(code({"u", DType::u8, std::vector<std::uint64_t>(17, 1)}) == Code::argument);
  CHECK(code({"u", DType::f4, {1}}) == Code::argument);
  CHECK(code({"u", DType::u8, {std::uint64_t{1} << 63}}) == Code::argument);
  CHECK(code({"u", DType::u8, {std::uint64_t{1} << 40, std::uint64_t{1} << 40}}) == Code::argument);
}
