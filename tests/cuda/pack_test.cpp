// The bytes that a device holds of a matrix: every weight comes back from the places where lanes look for it.
#include "device_rig.hpp"

#include <cuda/bf16_tiles.hpp>
#include <cuda/mxfp4_tiles.hpp>

namespace nib::test {
namespace {

using cuda::ScaleExtent;

// The row of the processor's order that is row `row` of a device's tiles.
std::int64_t source_row(DeviceRows order, std::int64_t row) {
  if (order.order == DeviceRows::consecutive) return row;
  if (order.order == DeviceRows::heads) {  // dimensions d .. d + 7 of a head, and their partners
    const std::int64_t dim = order.head_dim, head = row / dim, d = row % dim / 16 * 8 + row % 8;
    return head * dim + d + (row % 16 >= 8 ? dim / 2 : 0);
  }
  const std::int64_t unit = row / 16 * 8 + row % 8;
  const bool is_up = row % 16 >= 8;
  return unit / 16 * 32 + (is_up ? 16 : 0) + unit % 16;
}

float header_of(const PackedWeight& weight) {
  float factor = 0;
  std::memcpy(&factor, weight.data, sizeof factor);
  return factor;
}

// As the comments at the top of the headers of tiles tell it: loads and selects by lane, independently of the
// functions of offsets. Of 16 rows x 64 inputs in `bytes`, after `line` bytes for each `blocks` of them.
struct Geometry {
  std::int64_t line, bytes, blocks;
  std::int64_t slice_at(const PackedWeight& weight, std::int64_t row, std::int64_t i) const {
    const std::int64_t in_row = (weight.k + 63) / 64, slices = (in_row + blocks - 1) / blocks;
    return row / 16 * (slices * line + in_row * bytes) + i / (64 * blocks) * (line + blocks * bytes);
  }
};

// Four bits: word 2 half + below of a lane; its codes 2 j and 2 j + 1 are nibbles j and j + 4.
double q4_0_by_lanes(const PackedWeight& weight, std::int64_t row, std::int64_t i) {
  const std::byte* const slice = weight.data + 128 + Geometry{256, 512, 4}.slice_at(weight, row, i);
  const std::int64_t group = row % 8, below = row % 16 / 8, lane = group * 4 + i % 32 / 8, half = i % 64 / 32;
  std::uint32_t word = 0;
  std::memcpy(&word, slice + 256 + i % 256 / 64 * 512 + lane * 16 + half * 8 + below * 4, 4);
  f16 scale;
  std::memcpy(&scale, slice + group * 32 + below * 16 + i % 256 / 32 * 2, 2);
  const std::int64_t nibble = i % 8 / 2 + i % 2 * 4;
  return (static_cast<double>(word >> 4 * nibble & 15) - 8) * double{to_float(scale)};
}

// Eight bits: load `half`, words 2 below and 2 below + 1 with four codes each; 2 j and 2 j + 1 are bytes j
// and j + 2, of floats 1 - j and 3 - j.
double bytes_by_lanes(const PackedWeight& weight, std::int64_t row, std::int64_t i) {
  const bool q8_0 = weight.format == Format::q8_0;
  const std::int64_t line = q8_0 ? 128 : 64;
  const std::byte* const slice = weight.data + 128 + Geometry{line, 1024, 2}.slice_at(weight, row, i);
  const std::int64_t group = row % 8, below = row % 16 / 8, lane = group * 4 + i % 32 / 8, half = i % 64 / 32;
  const bool is_float = weight.format == Format::fp8_e4m3 || weight.format == Format::fp8_e5m2;
  const std::int64_t j = i % 4 / 2, byte = (is_float ? 1 - j : j) + i % 2 * 2;
  const std::byte code =
      slice[line + i % 128 / 64 * 1024 + half * 512 + lane * 16 + below * 8 + i % 8 / 4 * 4 + byte];
  float scale = 0;
  if (q8_0) {
    f16 stored;
    std::memcpy(&stored, slice + group * 16 + below * 8 + i % 128 / 32 * 2, 2);
    scale = to_float(stored);
  } else {
    std::memcpy(&scale, slice + group * 8 + below * 4, 4);
  }
  const auto bits = std::to_integer<std::uint8_t>(code);
  double number = static_cast<std::int8_t>(bits);
  if (weight.format == Format::fp8_e4m3) number = double{E4M3::decode(bits)};
  if (weight.format == Format::fp8_e5m2) number = double{E5M2::decode(bits)};
  // LLM.int8: and divided by 127, which is the matrix's factor.
  return weight.format == Format::llm_int8 ? double{static_cast<float>(number * scale) * header_of(weight)}
                                           : double{static_cast<float>(number * scale)};
}

double weight_by_lanes(const PackedWeight& weight, std::int64_t row, std::int64_t i) {
  if (weight.format == Format::q4_0) return q4_0_by_lanes(weight, row, i);
  if (weight.format != Format::mxfp4 && weight.format != Format::bf16) return bytes_by_lanes(weight, row, i);
  const std::int64_t tile = row / 16, group = row % 8, in_group = i % 32 / 8, half = i % 64 / 32;
  const bool below = row % 16 >= 8;
  const std::byte* const tiles = weight.data + 128;
  std::uint32_t words[4];
  if (weight.format == Format::bf16) {
    const std::int64_t product = half * 2 + i % 8 / 4;
    const std::byte* const at = tiles + (tile * ((weight.k + 63) / 64) + i / 64) * 2048 + product * 512;
    std::memcpy(words, at + (group * 4 + in_group) * 16, 16);
    const std::uint32_t pair = words[i % 4 / 2 * 2 + below];
    return to_float(bf16{static_cast<std::uint16_t>(i % 2 ? pair >> 16 : pair)});
  }
  const std::int64_t blocks = (weight.k + 63) / 64, slices = (blocks + 3) / 4;
  const std::byte* const at = tiles + tile * (slices * 128 + blocks * 512) + i / 256 * 2176;
  std::memcpy(words, at + 128 + i % 256 / 64 * 512 + (group * 4 + in_group) * 16, 16);
  std::uint8_t scales[16];
  std::memcpy(scales, at + group * 16, 16);
  const cuda::CodePairs pairs = cuda::untwiddle(words[half * 2 + below]);
  const std::uint32_t scale = scales[(below ? 8 : 0) + i % 256 / 64 * 2 + half];
  const std::uint32_t two = cuda::multiply_bf16x2(pairs.at[i % 8 / 2], cuda::scale_pair(scale));
  const auto bits = static_cast<std::uint16_t>(i % 2 ? two >> 16 : two);
  return double{to_float(bf16{bits})} * header_of(weight);
}

TEST_CASE("pack: every weight comes back, in every order of rows, and beyond them are zeros") {
  NIB_RANDOM(random);
  for (const Format format : {Format::mxfp4, Format::gguf_mxfp4, Format::bf16, Format::q4_0, Format::q8_0,
                              Format::int8, Format::llm_int8, Format::fp8_e4m3, Format::fp8_e5m2})
    for (const DeviceRows order : {DeviceRows(DeviceRows::consecutive), DeviceRows(DeviceRows::gate_up),
                                   DeviceRows(DeviceRows::heads, 16), DeviceRows(DeviceRows::heads, 80)})
      for (const std::int64_t k :
           {std::int64_t{32}, std::int64_t{2880}, std::int64_t{32} * (1 + random.below(20))}) {
        const std::int64_t rows = order.order == DeviceRows::gate_up ? 32 * (1 + random.below(3))
                                  : order.order == DeviceRows::heads ? order.head_dim * (1 + random.below(3))
                                                                     : 1 + random.below(70);
        CAPTURE(format_name(format));
        CAPTURE(static_cast<int>(order.order));
        CAPTURE(rows);
        CAPTURE(k);
        const bool shared = format_info(format).scales == nib::Scales::shared;
        const std::int64_t run = shared && k > 128 && random.chance(50) ? 128 : 0;
        CAPTURE(run);
        const bool is_mxfp4 = format == Format::mxfp4;
        const DeviceMatrices w(format, 1, rows, k, random, order, run,
                               is_mxfp4 ? Scales::narrow : Scales::usual);
        REQUIRE(w.shape().rows == rows);
        const std::vector<float> wanted = w.encoded[0].decoded();
        for (std::int64_t row = 0; row < (rows + 15) / 16 * 16; ++row)
          for (std::int64_t i = 0; i < (k + 63) / 64 * 64; ++i) {
            const std::int64_t from = source_row(order, row);
            const double weight = from < rows && i < k ? wanted[static_cast<std::size_t>(from * k + i)] : 0;
            if (weight_by_lanes(w.shape(), row, i) != weight)
              FAIL_CHECK("row ", row, ", input ", i, ": ", weight_by_lanes(w.shape(), row, i), ", wanted ",
                         weight);
          }
      }
}

TEST_CASE("pack: other formats keep the processor's bytes, behind a factor of one") {
  NIB_RANDOM(random);
  for (const Format format : stored_formats(true)) {
    const std::int64_t k = 256 * (1 + random.below(3)), rows = 1 + random.below(80);
    const std::int64_t run = format_info(format).scales == nib::Scales::shared ? random_run(k, random) : 0;
    const DeviceMatrices w(format, 1, rows, k, random, DeviceRows::consecutive, run);
    const std::size_t bytes = device_bytes(w.shape());
    CHECK(bytes % 128 == 0);
    if (device_form(w.shape()) != DeviceForm::tiles) continue;
    CAPTURE(format_name(format));
    const Packed packed(w.encoded[0]);
    CHECK(header_of(w.shape()) == 1);
    CHECK(std::memcmp(w.shape().data + 128, packed.bytes.data(), packed.bytes.size()) == 0);
    const std::byte* const end = w.shape().data + bytes;
    CHECK(std::all_of(w.shape().data + 128 + packed.bytes.size(), end,
                      [](std::byte b) { return b == std::byte{}; }));
  }
}

TEST_CASE("pack: what is refused") {
  NIB_RANDOM(random);
  const auto pack = [&](const Encoded& encoded, DeviceRows order, int index, int count) {
    const Packed packed(encoded);
    std::vector<std::byte> out(device_bytes(packed.shape) + 1);
    return cuda::pack(packed.shape, order, out.data(), index, count);
  };
  Encoded w = random_weights(Format::mxfp4, 16, 64, random);
  CHECK(pack(w, DeviceRows::consecutive, 1, 1).code() == Code::argument);
  CHECK(pack(w, DeviceRows::consecutive, -1, 2).code() == Code::argument);
  for (const int dim : {0, 24, 48}) CHECK(pack(w, {DeviceRows::heads, dim}, 0, 1).code() == Code::argument);
  CHECK(pack(w, DeviceRows::gate_up, 0, 1).message() ==
        "rows of gates and ups: expected a multiple of 32, found 16");
  w.codes[0] = w.codes[16] = std::byte{0x11};
  w.scales[0] = std::byte{1};
  w.scales[1] = std::byte{130};
  for (const int part : {0, 1}) CHECK(pack(w, DeviceRows::consecutive, part, 2).code() == Code::unsupported);
  const Encoded records = random_weights(Format::q2_k, 16, 256, random);
  CHECK(device_bytes(Packed(records).shape) == 0);
  CHECK(pack(records, DeviceRows::consecutive, 0, 1).message() ==
        "the device has no kernel for q2_K of 16 x 256");
}

TEST_CASE("pack: rows of zeros have any scale, and those past the last have none") {
  NIB_RANDOM(random);
  // Scales that leave no room: a row of zeros, or one that is not there, would be out of reach with its own.
  Encoded w = random_weights(Format::mxfp4, 20, 64, random);
  for (std::byte& scale : w.scales) scale = std::byte{254};
  for (std::size_t i = 0; i < 32; ++i) w.codes[i] = std::byte{0x88};
  const Packed packed(w);
  std::vector<std::byte> out(device_bytes(packed.shape));
  REQUIRE(cuda::pack(packed.shape, DeviceRows::consecutive, out.data(), 0, 1).ok());
  float factor = 0;
  std::memcpy(&factor, out.data(), sizeof factor);
  CHECK(factor == 0x1p126f);
}

TEST_CASE("scales: what fits, what is lowered, what is refused") {
  const auto extent_of = [](std::initializer_list<int> of_values, std::initializer_list<int> of_zeros) {
    ScaleExtent extent;
    for (const int scale : of_values) extent.see(scale, false);
    for (const int scale : of_zeros) extent.see(scale, true);
    return extent.lowered_by();
  };
  CHECK(extent_of({}, {}).value() == 0);
  CHECK(extent_of({0, 128}, {}).value() == 0);
  CHECK(extent_of({120, 130}, {}).value() == 2);
  CHECK(extent_of({126, 254}, {}).value() == 126);
  CHECK(extent_of({120}, {0, 254}).value() == 0);
  CHECK(extent_of({1, 130}, {}).status().code() == Code::unsupported);
  CHECK(extent_of({1, 130}, {}).status().message() ==
        "scales from 2^-126 to 2^3: expected the largest at most 2^128 times the smallest");
  CHECK(extent_of({120}, {255}).status().message() == "a scale is NaN");
  CHECK(extent_of({255}, {}).status().code() == Code::unsupported);
}

}  // namespace
}  // namespace nib::test
