// Blocks that ggml wrote, and what ggml reads from them: every file of the folder `quant`.
#include "support/data.hpp"
#include <nibble/formats/ggml_types.hpp>
#include <nibble/formats/reference.hpp>

#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

namespace {

struct Listed {
  std::uint32_t number = 0, group = 0, bytes = 0;
};

// types.tsv: name, number in GGUF, values and bytes of a block, ...
std::map<std::string, Listed> listed_types(const std::string& folder) {
  std::map<std::string, Listed> types;
  std::istringstream lines(nib::test::read_text(folder + "/types.tsv"));
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line)) {
    std::istringstream cells(line);
    std::string name;
    Listed of;
    cells >> name >> of.number >> of.group >> of.bytes;
    REQUIRE(cells.good());
    types[name] = of;
  }
  return types;
}

std::vector<float> floats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / 4);
  std::memcpy(values.data(), bytes.data(), values.size() * 4);
  return values;
}

// Of the same sign and at most so many representable numbers apart.
std::uint32_t steps_apart(float a, float b) {
  const auto x = std::bit_cast<std::int32_t>(a), y = std::bit_cast<std::int32_t>(b);
  return static_cast<std::uint32_t>(x > y ? x - y : y - x);
}

struct Outcome {
  int decoded = 0, refused = 0, written = 0;
};

void check_type(const std::string& folder, const std::string& name, const Listed& listed, Outcome& outcome) {
  CAPTURE(name);
  const nib::GgmlType* type = nib::find_ggml_type(listed.number);
  if (!type || type->format == nib::Format::none) {  // refused: no reader gets a Format for it
    if (type) CHECK(type->name == name);
    ++outcome.refused;
    return;
  }
  CHECK(type->name == name);
  CHECK(nib::ggml_type_of(type->format) == type);
  const nib::FormatInfo& info = nib::format_info(type->format);
  CHECK(info.group == listed.group);
  CHECK(info.code_bytes == listed.bytes);

  const std::string stored = nib::test::read_text(folder + "/" + name + ".q.bin");
  const std::vector<float> expected = floats(nib::test::read_text(folder + "/" + name + ".f32.bin"));
  REQUIRE(stored.size() == expected.size() / info.group * info.code_bytes);
  std::vector<float> values(expected.size());
  std::vector<double> exact(expected.size());
  const nib::EncodedMatrix matrix{type->format, 1, static_cast<std::int64_t>(expected.size()),
                                  reinterpret_cast<const std::byte*>(stored.data()), nullptr};
  nib::decode_row(matrix, 0, values.data());
  nib::decode_row(matrix, 0, exact.data());
  std::uint32_t different = 0, far = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    different += std::bit_cast<std::uint32_t>(values[i]) != std::bit_cast<std::uint32_t>(expected[i]) &&
                 values[i] != expected[i];
    far += steps_apart(static_cast<float>(exact[i]), expected[i]) > 1;
  }
  CHECK(different == 0);
  CHECK(far == 0);
  ++outcome.decoded;
}

}  // namespace

TEST_CASE("vectors: blocks of ggml decode to what ggml decodes, unknown ones have no format") {
  NIB_REQUIRE_DATA(root);
  const std::string folder = root + "/quant";
  const std::map<std::string, Listed> types = listed_types(folder);
  Outcome outcome;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    std::string name = file.path().filename().string();
    if (!name.ends_with(".q.bin")) continue;
    name.resize(name.size() - 6);
    REQUIRE_MESSAGE(types.count(name) == 1, name << " is not listed in types.tsv");
    check_type(folder, name, types.at(name), outcome);
  }
  CHECK(outcome.decoded >= 16);
  MESSAGE(outcome.decoded << " types decoded, " << outcome.refused << " refused");
}

TEST_CASE("vectors: what we encode as ggml's simple blocks are ggml's bytes") {
  NIB_REQUIRE_DATA(root);
  const std::string folder = root + "/quant";
  const std::vector<float> input = floats(nib::test::read_text(folder + "/input.f32.bin"));
  int compared = 0;
  for (const nib::GgmlType& type : nib::kGgmlTypes) {
    const std::string path = folder + "/" + type.name + ".q.bin";
    if (!std::filesystem::exists(path)) continue;
    CAPTURE(std::string(type.name));
    const std::string expected = nib::test::read_text(path);
    [[maybe_unused]] const bool known = nib::visit_format(type.format, [&](auto format) {
      using F = decltype(format);
      // Ours rounds the codes of MXFP4 and the scales of NVFP4 to even, and keeps the sign of zero.
      if constexpr (nib::BlockFormat<F> && !std::is_same_v<F, nib::GgufMxfp4> &&
                    !std::is_same_v<F, nib::GgufNvfp4>) {
        std::string ours(expected.size(), '\0');
        for (std::size_t i = 0; i * F::group < input.size(); ++i)
          F::encode_group(input.data() + i * F::group,
                          reinterpret_cast<std::byte*>(ours.data()) + i * F::code_bytes, nullptr);
        CHECK(ours == expected);
        ++compared;
      }
    });
  }
  CHECK(compared >= 7);
}
