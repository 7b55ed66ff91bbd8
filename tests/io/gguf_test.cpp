// GGUF headers: what files written here byte by byte mean, what is refused with which sentence, and that what
// the writer writes reads as what was asked for.
#include "io/temporary.hpp"
#include "io/tiny.hpp"
#include "io/tiny_gguf.hpp"
#include "support/data.hpp"
#include <nibble/io/gguf.hpp>
#include <nibble/io/gguf_writer.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include <doctest/doctest.h>

using namespace nib;
using test::FaultyFileSystem;
using test::gguf_array;
using test::gguf_pair;
using test::gguf_string;
using test::gguf_text;
using test::gguf_u32;
using test::le;
using test::TinyGguf;

namespace {

Result<GgufHeader> read(const std::string& content) {
  FaultyFileSystem files;
  files.add("f.gguf", content);
  return read_gguf_header(**files.open("f.gguf"));
}

void check_refused(const std::string& content, Code code, const std::string& said) {
  const Status status = read(content).status();
  CHECK_MESSAGE(status.code() == code, status.message());
  CHECK_MESSAGE(status.message().find(said) != std::string::npos, status.message());
  CHECK_MESSAGE(status.message().find("f.gguf: ") == 0, status.message());
}

TinyGguf sample() {
  TinyGguf gguf;
  gguf.pairs = {gguf_text("general.architecture", "llama"),
                gguf_u32("llama.block_count", 2),
                gguf_pair("a.u8", 0, le(200, 1)),
                gguf_pair("a.i8", 1, le(0x80, 1)),
                gguf_pair("a.u16", 2, le(65535, 2)),
                gguf_pair("a.i16", 3, le(0xffff, 2)),
                gguf_pair("a.i32", 5, le(0xffffffff, 4)),
                gguf_pair("a.f32", 6, le(std::bit_cast<std::uint32_t>(0.1f), 4)),
                gguf_pair("a.bool", 7, le(1, 1)),
                gguf_pair("a.u64", 10, le(~std::uint64_t{0}, 8)),
                gguf_pair("a.i64", 11, le(~std::uint64_t{0}, 8)),
                gguf_pair("a.f64", 12, le(std::bit_cast<std::uint64_t>(0.1), 8)),
                gguf_array("t.tokens", 8, 3, gguf_string("<s>") + gguf_string("") + gguf_string("\xc4\xa0")),
                gguf_array("t.types", 5, 3, le(3, 4) + le(0xffffffff, 4) + le(1, 4)),
                gguf_array("t.scores", 6, 2, le(0x3f800000, 4) + le(0xbf800000, 4)),
                gguf_array("t.flags", 7, 2, le(1, 1) + le(0, 1)),
                gguf_array("t.empty", 8, 0, "")};
  gguf.tensors = {{"w", {64, 3}, 8, test::random_bytes(3 * 2 * 34, 1)},  // Q8_0
                  {"norm", {5}, 0, test::random_bytes(20, 2)},           // F32
                  {"none", {0, 7}, 1, ""},
                  {"experts", {32, 2, 4}, 39, test::random_bytes(8 * 17, 3)}};  // MXFP4
  return gguf;
}

}  // namespace

TEST_CASE("metadata of every kind, and tensors with row-major shapes") {
  for (const std::uint32_t version : {2u, 3u}) {
    TinyGguf gguf = sample();
    gguf.version = version;
    const std::string file = gguf.file();
    const auto header = read(file);
    REQUIRE_MESSAGE(header.ok(), header.status().message());
    CHECK(header->version == version);
    CHECK(header->alignment == 32);
    const GgufMetadata& pairs = header->metadata;
    REQUIRE(pairs.size() == gguf.pairs.size());
    for (std::size_t i = 1; i < pairs.size(); ++i) CHECK(pairs.key(i - 1) < pairs.key(i));
    const auto value = [&](std::string_view key) {
      const auto found = pairs.find(key);
      REQUIRE(found.has_value());
      return *found;
    };
    CHECK_FALSE(pairs.find("a").has_value());
    CHECK_FALSE(pairs.find("zzz").has_value());
    CHECK(value("general.architecture").as_string() == "llama");
    CHECK(value("llama.block_count").as_unsigned() == 2);
    CHECK(value("llama.block_count").as_number() == 2.0);
    CHECK_FALSE(value("llama.block_count").as_string().has_value());
    CHECK_FALSE(value("llama.block_count").as_bool().has_value());
    CHECK(value("a.u8").as_integer() == 200);
    CHECK(value("a.i8").as_integer() == -128);
    CHECK_FALSE(value("a.i8").as_unsigned().has_value());
    CHECK(value("a.u16").as_unsigned() == 65535);
    CHECK(value("a.i16").as_integer() == -1);
    CHECK(value("a.i32").as_integer() == -1);
    CHECK(value("a.u64").as_unsigned() == std::numeric_limits<std::uint64_t>::max());
    CHECK_FALSE(value("a.u64").as_integer().has_value());
    CHECK(value("a.u64").as_number() == 18446744073709551616.0);
    CHECK(value("a.i64").as_integer() == -1);
    CHECK(value("a.f32").as_number() == static_cast<double>(0.1f));
    CHECK_FALSE(value("a.f32").as_integer().has_value());
    CHECK(value("a.f64").as_number() == 0.1);
    CHECK(value("a.bool").as_bool() == true);
    CHECK_FALSE(value("a.bool").as_integer().has_value());

    const GgufStrings tokens = value("t.tokens").strings();
    CHECK(tokens.size() == 3);
    CHECK(std::vector<std::string_view>(tokens.begin(), tokens.end()) ==
          std::vector<std::string_view>{"<s>", "", "\xc4\xa0"});
    CHECK(value("t.tokens").element_kind() == GgufKind::string);
    CHECK_FALSE(value("t.tokens").as_string().has_value());
    CHECK(value("t.types").count() == 3);
    CHECK(value("t.types").integer_at(1) == -1);
    CHECK_FALSE(value("t.types").integer_at(3).has_value());
    CHECK_FALSE(value("t.types").as_integer().has_value());
    CHECK(value("t.types").strings().size() == 0);
    CHECK(value("t.scores").number_at(1) == -1.0);
    CHECK(value("t.flags").bool_at(0) == true);
    CHECK(value("t.flags").bool_at(1) == false);
    const GgufStrings none = value("t.empty").strings();
    CHECK(none.begin() == none.end());

    REQUIRE(header->tensors.size() == 4);
    const GgufTensor& w = header->tensors[0];
    CHECK(w.type == GgufType::q8_0);
    CHECK(w.shape == std::vector<std::uint64_t>{3, 64});
    CHECK(header->tensors[3].shape == std::vector<std::uint64_t>{4, 2, 32});
    for (std::size_t i = 0; i < 4; ++i) {
      const GgufTensor& tensor = header->tensors[i];
      CHECK(tensor.name == gguf.tensors[i].name);
      CHECK(tensor.bytes == gguf.tensors[i].data.size());
      CHECK(file.substr(tensor.offset, tensor.bytes) == gguf.tensors[i].data);
    }
  }
}

TEST_CASE("alignment is what general.alignment says") {
  TinyGguf gguf = sample();
  gguf.alignment = 128;
  gguf.pairs.push_back(gguf_u32("general.alignment", 128));
  const std::string file = gguf.file();
  const auto header = read(file);
  REQUIRE_MESSAGE(header.ok(), header.status().message());
  CHECK(header->alignment == 128);
  CHECK(header->data_offset % 128 == 0);
  CHECK(file.substr(header->tensors[1].offset, 20) == gguf.tensors[1].data);
  gguf.pairs.back() = gguf_u32("general.alignment", 96);
  check_refused(gguf.file(), Code::format, "key 'general.alignment' is 96");
  gguf.pairs.back() = gguf_u32("general.alignment", 0);
  check_refused(gguf.file(), Code::format, "key 'general.alignment' is 0");
  gguf.pairs.back() = gguf_pair("general.alignment", 10, le(32, 8));
  check_refused(gguf.file(), Code::format, "key 'general.alignment' is u64");
}

TEST_CASE("what is refused, by name") {
  const TinyGguf good = sample();
  const auto with_pair = [&](const std::string& pair) {
    TinyGguf gguf = good;
    gguf.pairs.push_back(pair);
    return gguf.file();
  };
  const auto with_tensor = [&](const test::TinyGgufTensor& tensor) {
    TinyGguf gguf = good;
    gguf.tensors.push_back(tensor);
    return gguf.file();
  };
  const std::string file = good.file();
  check_refused("", Code::format, "0 bytes are too few");
  check_refused("GGML" + file.substr(4), Code::format, "'GGML' begins the file, 'GGUF' was expected");
  check_refused("GGUF" + le(1, 4) + file.substr(8), Code::unsupported, "GGUF version 1");
  check_refused("GGUF" + le(4, 4) + file.substr(8), Code::unsupported, "GGUF version 4");
  check_refused("GGUF" + le(0x03000000, 4) + file.substr(8), Code::unsupported, "big-endian");
  check_refused(file.substr(0, 8) + le(1'000'001, 8) + file.substr(16), Code::format, "1000001 tensors");
  check_refused(file.substr(0, 16) + le(~std::uint64_t{0}, 8) + file.substr(24), Code::format,
                "pairs are announced");

  check_refused(with_pair(gguf_u32("llama.block_count", 3)), Code::format,
                "key 'llama.block_count' occurs twice");
  check_refused(with_pair(gguf_u32("", 3)), Code::format, "a metadata key is empty");
  check_refused(with_pair(gguf_pair("k", 13, le(0, 8))), Code::format,
                "key 'k' has the unknown value type 13");
  check_refused(with_pair(gguf_pair("k", 7, le(2, 1))), Code::format, "key 'k' has byte 2 for a bool");
  check_refused(with_pair(gguf_array("k", 7, 2, le(0x201, 2))), Code::format,
                "key 'k' has byte 2 for a bool");
  check_refused(with_pair(gguf_array("k", 9, 1, gguf_array("", 4, 0, ""))), Code::unsupported,
                "key 'k' is an array of arrays");
  check_refused(with_pair(gguf_array("k", 8, std::uint64_t{1} << 61, "")), Code::format, "key 'k' announces");
  check_refused(with_pair(gguf_array("k", 10, std::uint64_t{1} << 61, "")), Code::format,
                "key 'k' announces");
  check_refused(with_pair(gguf_array("k", 4, std::uint64_t{1} << 40, "")), Code::format,
                "key 'k' needs 4398046511104 bytes");
  check_refused(with_pair(gguf_pair("k", 8, le(1 << 20, 8))), Code::format, "key 'k' needs 1048576 bytes");
  check_refused(with_pair(gguf_pair("k", 8, le(~std::uint64_t{0}, 8))), Code::format,
                "key 'k' has 18446744073709551615 bytes");
  check_refused(with_pair(le(65'536, 8) + std::string(70'000, 'x')), Code::format,
                "a metadata key has 65536 bytes");

  check_refused(with_tensor({"w", {1}, 0, "1234"}), Code::format, "tensor 'w' is described twice");
  check_refused(with_tensor({"", {1}, 0, "1234"}), Code::format, "a tensor has no name");
  check_refused(with_tensor({std::string(1025, 'n'), {1}, 0, "1234"}), Code::format,
                "a tensor's name has 1025 bytes");
  check_refused(with_tensor({"x", {1, 1, 1, 1, 1}, 0, "1234"}), Code::format, "tensor 'x' has 5 dimensions");
  check_refused(with_tensor({"x", {33}, 8, ""}), Code::format,
                "tensor 'x' is Q8_0 [33], its rows are no multiple of 32");
  check_refused(with_tensor({"x", {1ull << 40, 1ull << 40}, 0, ""}), Code::format,
                "more bytes than 64 bits count");
  check_refused(with_tensor({"x", {1ull << 40}, 0, ""}), Code::format,
                "tensor 'x' needs 4398046511104 bytes");
  for (const std::uint32_t type : {4u, 5u, 31u, 36u, 43u, 137u, ~0u})
    check_refused(with_tensor({"x", {32}, type, ""}), Code::unsupported,
                  concat("tensor 'x' has element type ", type));

  // A description without its own bytes: two tensors claim the same ones.
  TinyGguf twice = good;
  twice.tensors = {{"a", {8}, 0, ""}, {"b", {8}, 0, std::string(32, 'b')}};
  check_refused(twice.file(), Code::format, "begins inside tensor");
  std::string odd = good.header();
  odd[odd.size() - 8] = 1;  // the last tensor's offset
  check_refused(odd + std::string(4096, '\0'), Code::format, "tensor 'experts' begins at byte");
}

TEST_CASE("every cut of a header is noticed, with its byte") {
  const TinyGguf gguf = sample();
  const std::string whole = gguf.file();
  const std::size_t header = gguf.header().size();
  for (std::size_t cut = 0; cut < whole.size(); ++cut) {
    const auto result = read(whole.substr(0, cut));
    if (result.ok()) {  // only padding behind the last tensor may be missing
      CHECK(cut >= result->tensors.back().offset + result->tensors.back().bytes);
    } else {
      CHECK_MESSAGE(result.status().code() == Code::format, result.status().message());
      if (cut < header) CHECK(result.status().message().find("f.gguf: byte ") == 0);
    }
  }
}

TEST_CASE("what the writer writes is what was asked for") {
  std::mt19937 random(7);
  const test::TemporaryDirectory directory;
  const auto like = read(sample().file());
  REQUIRE(like.ok());
  for (const std::uint32_t alignment : {8u, 32u, 4096u}) {
    const std::string path = directory.path(concat("a", alignment, ".gguf"));
    const std::string_view words[] = {"one", "", "drei"};
    const std::int32_t numbers[] = {-1, 2};
    const std::uint32_t naturals[] = {1, 4'000'000'000};
    const float reals[] = {0.5f, std::numeric_limits<float>::infinity()};
    GgufPairs pairs;
    pairs.add("general.architecture", "gpt-oss");
    pairs.add("general.alignment", alignment);
    pairs.add("b", true);
    pairs.add("i", std::int32_t{-5});
    pairs.add("u", std::uint64_t{1} << 63);
    pairs.add("f", 0.25f);
    pairs.add("words", words);
    pairs.add("numbers", numbers);
    pairs.add("naturals", naturals);
    pairs.add("reals", reals);
    for (std::size_t i = 0; i < like->metadata.size(); ++i)
      pairs.add(concat("copy.", like->metadata.key(i)), like->metadata.value(i));
    std::vector<GgufTensorSpec> specs = {{"w", GgufType::q4_k, {3, 2, 512}},
                                         {"nothing", GgufType::f32, {0, 4}},
                                         {"b", GgufType::f32, {7}},
                                         {"scalar", GgufType::i8, {}},
                                         {"h", GgufType::bf16, {3, 1, 1, 5}}};
    std::string data;
    for (const GgufTensorSpec& spec : specs)
      data += test::random_bytes(*gguf_tensor_bytes(spec.type, spec.shape), random());
    auto writer = GgufWriter::create(path, pairs, specs);
    REQUIRE_MESSAGE(writer.ok(), writer.status().message());
    const auto bytes = std::as_bytes(std::span(data));
    for (std::size_t at = 0; at < data.size();) {  // in pieces that know nothing of tensors
      CHECK(writer->finish().code() == Code::state);
      const std::size_t some = std::min<std::size_t>(random() % 700, data.size() - at);
      REQUIRE(writer->append(bytes.subspan(at, some)).ok());
      at += some;
    }
    CHECK(writer->append(bytes.first(1)).code() == Code::argument);
    CHECK_FALSE(disk_file_system().exists(path));
    REQUIRE(writer->finish().ok());

    const auto file = disk_file_system().open(path);
    REQUIRE(file.ok());
    const auto header = read_gguf_header(**file);
    REQUIRE_MESSAGE(header.ok(), header.status().message());
    CHECK(header->alignment == alignment);
    CHECK((*file)->size() % alignment == 0);
    CHECK(header->metadata.find("u")->as_unsigned() == std::uint64_t{1} << 63);
    CHECK(header->metadata.find("i")->as_integer() == -5);
    CHECK(header->metadata.find("numbers")->integer_at(0) == -1);
    CHECK(header->metadata.find("naturals")->integer_at(1) == 4'000'000'000);
    CHECK(header->metadata.find("reals")->number_at(1) == std::numeric_limits<double>::infinity());
    const GgufStrings strings = header->metadata.find("words")->strings();
    CHECK(std::equal(strings.begin(), strings.end(), std::begin(words), std::end(words)));
    for (std::size_t i = 0; i < like->metadata.size(); ++i) {
      const GgufValue a = like->metadata.value(i);
      const auto b = header->metadata.find(concat("copy.", like->metadata.key(i)));
      REQUIRE(b.has_value());
      CHECK(b->kind() == a.kind());
      CHECK(b->element_kind() == a.element_kind());
      CHECK(b->count() == a.count());
      CHECK(std::equal(a.bytes().begin(), a.bytes().end(), b->bytes().begin(), b->bytes().end()));
    }
    std::string stored;
    for (std::size_t i = 0; i < specs.size(); ++i) {
      const GgufTensor& tensor = header->tensors[i];
      CHECK(tensor.name == specs[i].name);
      CHECK(tensor.type == specs[i].type);
      CHECK(tensor.shape == specs[i].shape);
      std::string part(tensor.bytes, '\0');
      REQUIRE((*file)->read_at(tensor.offset, std::as_writable_bytes(std::span(part))).ok());
      stored += part;
    }
    CHECK(stored == data);
  }
}

TEST_CASE("the writer refuses what the reader would, and leaves nothing behind") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.path("f.gguf");
  const auto refused = [&](const GgufPairs& pairs, const std::vector<GgufTensorSpec>& specs,
                           const std::string& said) {
    const Status status = GgufWriter::create(path, pairs, specs).status();
    CHECK(status.code() == Code::argument);
    CHECK_MESSAGE(status.message().find(said) != std::string::npos, status.message());
    CHECK(disk_file_system().list_directory(directory.path())->empty());
  };
  GgufPairs twice;
  twice.add("k", true);
  twice.add("k", false);
  refused(twice, {}, "key 'k' occurs twice");
  GgufPairs unaligned;
  unaligned.add("general.alignment", std::uint32_t{33});
  refused(unaligned, {}, "'general.alignment' is 33");
  refused({}, {{"w", GgufType::q4_k, {1, 128}}}, "tensor 'w': Q4_K [1, 128] is no whole number of blocks");
  refused({}, {{"w", GgufType::f32, {1ull << 60, 8}}}, "tensor 'w'");
  refused({}, {{"w", GgufType::f32, {1}}, {"w", GgufType::f32, {1}}}, "tensor 'w' is described twice");
  refused({}, {{std::string(64, 'w'), GgufType::f32, {1}}}, "the name has 64 bytes");
  refused({}, {{"w", GgufType::f32, {1, 1, 1, 1, 1}}}, "tensor 'w' has 5 dimensions");

  const std::vector<GgufTensorSpec> one = {{"w", GgufType::i8, {4}}};
  {
    auto writer = GgufWriter::create(path, {}, one);
    REQUIRE(writer.ok());
    REQUIRE(writer->append(std::as_bytes(std::span("1234").first(4))).ok());
    directory.write("f.gguf", "somebody else was faster");
    CHECK(writer->finish().code() == Code::argument);
  }
  CHECK(disk_file_system().list_directory(directory.path())->size() == 1);
  CHECK(GgufWriter::create(path, {}, one).status().code() == Code::argument);
  auto writer = GgufWriter::create(path, {}, one, Overwrite::yes);
  REQUIRE(writer.ok());
  REQUIRE(writer->append(std::as_bytes(std::span("1234").first(4))).ok());
  REQUIRE(writer->finish().ok());
  CHECK(read_gguf_header(**disk_file_system().open(path)).ok());
  CHECK(disk_file_system().list_directory(directory.path())->size() == 1);
}

TEST_CASE("block sizes are those that recorded tensors have") {
  NIB_REQUIRE_DATA(root);
  std::istringstream table(test::read_text(root + "/quant/types.tsv"));
  std::string line;
  std::getline(table, line);
  int seen = 0;
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    std::string name;
    std::uint32_t id = 0, block = 0, bytes = 0;
    fields >> name >> id >> block >> bytes;
    const GgufTypeInfo* info = find_gguf_type(id);
    REQUIRE_MESSAGE(info != nullptr, line);
    std::string upper = name;
    std::transform(upper.begin(), upper.end(), upper.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? c - 32 : c; });
    CHECK(upper == info->name);
    CHECK(info->block == block);
    CHECK(info->bytes == bytes);
    ++seen;
  }
  CHECK(seen > 20);
}
