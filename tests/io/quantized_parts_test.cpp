// Quantized weights that are written: each layout opens again as the same tensor with the same planes, and
// what no published layout holds is refused.
#include "io/temporary.hpp"
#include "io/written.hpp"
#include "support/data.hpp"
#include <nibble/io/checkpoint.hpp>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include <doctest/doctest.h>

using namespace nib;

namespace {

std::string plane_text(const Checkpoint& checkpoint, const Plane& plane) {
  std::string text(plane.bytes, '\0');
  REQUIRE(read_plane(checkpoint, plane, 0, std::as_writable_bytes(std::span(text))).ok());
  return text;
}

QuantizedLayout layout_of(Format format, std::vector<std::uint64_t> shape, ScaleSharing sharing = {}) {
  QuantizedLayout layout;
  layout.format = format;
  layout.shape = std::move(shape);
  layout.sharing = sharing;
  return layout;
}

void check_refused(const std::string& name, const QuantizedLayout& layout, Code code,
                   const std::string& said) {
  const Status status = quantized_parts(name, layout).status();
  CHECK_MESSAGE(status.code() == code, status.message());
  CHECK_MESSAGE(status.message().find(said) != std::string::npos, status.message());
}

}  // namespace

TEST_CASE("every layout that is written opens as what it was") {
  std::mt19937 random(11);
  for (const QuantizedLayout& layout : test::layouts_to_write()) {
    CAPTURE(std::string(format_name(layout.format)));
    const test::TemporaryDirectory directory;
    const auto written = test::write_weight(directory.path(), layout, random);
    REQUIRE_MESSAGE(written.ok(), written.status().message());
    const auto checkpoint = open_checkpoint(directory.path());
    REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
    REQUIRE(checkpoint->tensors.size() == 1);
    const CheckpointTensor& tensor = checkpoint->tensors[0];
    CHECK(tensor.name == "m.weight");
    CHECK(tensor.format == layout.format);
    CHECK(tensor.shape == layout.shape);
    CHECK(plane_text(*checkpoint, tensor.codes) == written->bytes.at(Part::codes));
    if (written->bytes.contains(Part::scales))
      CHECK(plane_text(*checkpoint, tensor.scales) == written->bytes.at(Part::scales));
    if (format_info(layout.format).scales == Scales::shared) CHECK(tensor.scaling.sharing == layout.sharing);
    if (layout.nested) {
      CHECK(plane_text(*checkpoint, tensor.scaling.nested_scales) == written->bytes.at(Part::nested_scales));
      // The signed dynamic map: symmetric but for its ends.
      REQUIRE(tensor.scaling.nested_map.size() == 256);
      CHECK(tensor.scaling.nested_map[127] == 0);
      CHECK(tensor.scaling.nested_map[255] == 1);
      for (std::size_t i = 1; i < 128; ++i)
        CHECK(tensor.scaling.nested_map[127 - i] == -tensor.scaling.nested_map[127 + i]);
      CHECK(tensor.scaling.nested_offset == 0.1f);
      CHECK(tensor.scaling.nested_group == 256);
    }
    if (layout.format == Format::nvfp4) {
      float divisor = 0;
      std::memcpy(&divisor, written->bytes.at(Part::tensor_scale).data(), 4);
      CHECK(tensor.scaling.factors == std::vector<double>{1.0 / divisor});
    }
    std::uint64_t values = 1;
    for (const std::uint64_t size : layout.shape) values *= size;
    std::vector<float> out(values);
    CHECK(read_values(*checkpoint, tensor, 0, std::span(out)).ok());
    // Wide elements first: each tensor lies where its elements may be pointed at.
    const auto file = disk_file_system().open(directory.path("model.safetensors"));
    const auto header = read_safetensors_header(**file);
    REQUIRE(header.ok());
    for (const TensorEntry& entry : header->tensors)
      CHECK(entry.offset * 8 % dtype_info(entry.dtype).bits == 0);
  }
}

TEST_CASE("the description of bitsandbytes has one length, and keeps every offset") {
  QuantizedLayout layout = layout_of(Format::nf4, {4, 64}, ScaleSharing::per_run(64));
  layout.nested = true;
  const std::size_t length = bitsandbytes_state(layout, 0).size();
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    float offset = 0;
    const auto bits = static_cast<std::uint32_t>(random());
    std::memcpy(&offset, &bits, 4);
    if (!(offset - offset == 0)) continue;  // infinities and NaN are no offsets
    const std::string state = bitsandbytes_state(layout, offset);
    CHECK(state.size() == length);
    const auto json = parse_json(state, "state");
    REQUIRE_MESSAGE(json.ok(), state);
    CHECK(static_cast<float>(json->find("nested_offset")->as_double()) == offset);
  }
}

TEST_CASE("the maps that are written are those of published checkpoints") {
  NIB_REQUIRE_DATA(root);
  const auto checkpoint = open_checkpoint(root + "/models/llama-bnb-nf4-double");
  REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
  QuantizedLayout layout = layout_of(Format::nf4, {4, 64}, ScaleSharing::per_run(64));
  layout.nested = true;
  const auto parts = quantized_parts("w", layout);
  REQUIRE(parts.ok());
  int compared = 0;
  for (const CheckpointTensor& tensor : checkpoint->tensors) {
    if (tensor.scaling.nested_map.empty()) continue;
    const auto map = std::find_if(parts->begin(), parts->end(), [](const StoredPart& part) {
      return part.spec.name == "w.nested_quant_map";
    });
    REQUIRE(map->bytes.size() == 1024);
    CHECK(std::memcmp(map->bytes.data(), tensor.scaling.nested_map.data(), 1024) == 0);
    ++compared;
  }
  CHECK(compared > 0);
}

TEST_CASE("what no layout holds is refused by name") {
  check_refused("w", layout_of(Format::q4_k, {1, 256}), Code::unsupported,
                "no published safetensors layout holds q4_K");
  check_refused("w", layout_of(Format::none, {1}), Code::unsupported, "holds none");
  check_refused("w", layout_of(Format::mxfp8_e4m3, {1, 32}), Code::unsupported, "holds mxfp8_e4m3");
  check_refused("w", layout_of(Format::mxfp4, {2, 33}), Code::argument,
                "tensor 'w': rows of [2, 33] are no whole number of groups of 32 (mxfp4)");
  check_refused("w", layout_of(Format::nvfp4, {}), Code::argument, "no whole number of groups of 16");
  check_refused("w", layout_of(Format::nf4, {2, 32}), Code::unsupported, "nf4 without runs");
  check_refused("w", layout_of(Format::int8, {2, 32}, ScaleSharing::per_group(16)), Code::unsupported,
                "int8 with scales shared in this way");
  check_refused("w", layout_of(Format::int8, {2, 2, 32}, ScaleSharing::per_row()), Code::unsupported,
                "of shape [2, 2, 32]");
  check_refused("w", layout_of(Format::llm_int8, {2, 3}, ScaleSharing::per_row()), Code::argument,
                "ends in .weight");
  check_refused("w.weight", layout_of(Format::llm_int8, {2, 3}), Code::unsupported, "a scale a row");
  CHECK(quantization_config(layout_of(Format::q8_0, {2, 32}), {}).status().code() == Code::unsupported);
  CHECK(quantization_config(layout_of(Format::int8, {2, 32}, ScaleSharing::per_group(16)), {})
            .status()
            .code() == Code::unsupported);
  CHECK(quantization_config(layout_of(Format::bf16, {2, 32}), {})->is_null());
}

TEST_CASE("a file that is written here and there is whole or missing") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.path("f.safetensors");
  const std::vector<TensorSpec> specs = {{"a", DType::u8, {4}}, {"b", DType::f32, {1}}};
  auto writer = SafetensorsWriter::create(path, specs);
  REQUIRE(writer.ok());
  const auto bytes = std::as_bytes(std::span("12345678").first(8));
  CHECK(writer->write("c", 0, bytes.first(1)).message() == path + ": the header has no tensor 'c'");
  CHECK(writer->write("a", 2, bytes.first(3)).code() == Code::argument);
  CHECK(writer->write("a", ~std::uint64_t{0}, bytes.first(1)).code() == Code::argument);
  REQUIRE(writer->write("b", 0, bytes.subspan(4)).ok());
  CHECK(writer->finish().code() == Code::state);
  REQUIRE(writer->write("a", 1, bytes.subspan(1, 3)).ok());
  REQUIRE(writer->write("a", 0, bytes.first(1)).ok());
  CHECK(writer->write("a", 0, bytes.first(1)).code() == Code::argument);  // nothing is left to write
  CHECK_FALSE(disk_file_system().exists(path));
  REQUIRE(writer->finish().ok());
  const auto file = disk_file_system().open(path);
  const auto text = read_all(**file, 1000);
  CHECK(text->substr(text->size() - 8) == "12345678");
}
