// Attention over paged keys and values: against softmax in double within a derived bound, bit for bit between
// all backends, thread counts, batch cuts and host environments; what a row may not see is poison.
#include "attention_rig.hpp"

namespace nib::test {
namespace {

void check(const Batch& batch, Numerics numerics) {
  CAPTURE(std::string(numerics_name(numerics)));
  CAPTURE(std::string(kv_format_name(batch.layout.format)));
  CAPTURE(batch.shape.head_dim);
  CAPTURE(batch.shape.heads);
  CAPTURE(batch.window);
  const std::int64_t width = std::int64_t{batch.shape.heads} * batch.shape.head_dim;
  const std::size_t rows = batch.positions.size();
  const Rows expected(batch.qkv.rows, width);
  bool first = true;
  for (const Way& way : ways()) {
    CAPTURE(std::string(way.backend->name));
    CAPTURE(way.threads);
    CAPTURE(std::string(host_name(way.host)));
    if (first) {
      first = false;
      batch.attend(way, numerics, 0, rows, expected);
      for (std::size_t r = 0; r < rows; ++r) {
        CAPTURE(batch.positions[r]);
        for (int h = 0; h < batch.shape.heads; ++h) {
          const auto wanted = batch.expect(r, h, numerics);
          for (int d = 0; d < batch.shape.head_dim; ++d) {
            const float got = expected.row(static_cast<std::int64_t>(r))[h * batch.shape.head_dim + d];
            const Approx& want = wanted[static_cast<std::size_t>(d)];
            if (!want.holds(got)) {
              CAPTURE(h);
              CAPTURE(d);
              CAPTURE(want.value);
              CAPTURE(want.error);
              REQUIRE(want.holds(got));
            }
          }
        }
      }
      continue;
    }
    const Rows out(batch.qkv.rows, width);
    if (way.threads == 3) {  // row by row
      for (std::size_t r = 0; r < rows; ++r) batch.attend(way, numerics, r, r + 1, out);
    } else {
      batch.attend(way, numerics, 0, rows, out);
    }
    REQUIRE(same_bits({out.data(), out.bytes.size() / 4}, {expected.data(), expected.bytes.size() / 4}));
  }
}

// Borders of pages (64), of chunks (256) and of vectors (16), and somewhere between.
std::vector<std::int64_t> some_positions(std::size_t count, std::int64_t most, Random& random) {
  std::vector<std::int64_t> borders = {0,   1,   15,  16,  17,  62,  63,  64,  65,  127,
                                       128, 254, 255, 256, 257, 300, 511, 512, 513, 640};
  std::erase_if(borders, [&](std::int64_t p) { return p > most; });
  std::vector<std::int64_t> positions;
  for (std::size_t i = 0; i < count; ++i)
    positions.push_back(
        random.chance(60) ? borders[static_cast<std::size_t>(random.below(static_cast<int>(borders.size())))]
                          : random.below(static_cast<int>(most) + 1));
  return positions;
}

TEST_CASE("attention: every head width and group, windows, sinks, formats, across pages and chunks") {
  NIB_RANDOM(random);
  constexpr HeadsShape kShapes[] = {{8, 1, 64}, {3, 1, 24}, {5, 1, 16}, {4, 4, 80}, {2, 1, 256},
                                    {7, 1, 40}, {6, 2, 32}, {1, 1, 2},  {35, 1, 48}};
  for (const HeadsShape& shape : kShapes)
    for (const std::int64_t window :
         {std::int64_t{0}, std::int64_t{1}, std::int64_t{24}, std::int64_t{128}, std::int64_t{300}}) {
      const bool sinks = random.chance(50);
      for (const KvFormat format : kKvStored)
        for (const Numerics numerics : {Numerics::bf16, Numerics::f32})
          check({shape, format, window, some_positions(3, shape.head_dim > 64 ? 300 : 640, random), sinks,
                 random},
                numerics);
    }
}

TEST_CASE("attention: every position around the borders of a chunk, with and without a window") {
  NIB_RANDOM(random);
  for (const std::int64_t window : {0, 17, 256})
    for (const Numerics numerics : {Numerics::bf16, Numerics::f32}) {
      std::vector<std::int64_t> positions;
      for (std::int64_t p = 252; p < 276; ++p) positions.push_back(p);
      for (std::int64_t p = 0; p < 20; ++p) positions.push_back(p);
      check({{2, 1, 16}, resolve(KvFormat::automatic, numerics), window, positions, true, random}, numerics);
    }
}

TEST_CASE("attention: a sink far above and far below all scores, and scores far apart") {
  NIB_RANDOM(random);
  for (const float sink : {60.0f, -60.0f, -1e30f})
    for (const Numerics numerics : {Numerics::bf16, Numerics::f32}) {
      Batch batch({4, 2, 16}, resolve(KvFormat::automatic, numerics), 0, {0, 40, 300}, true, random);
      for (float& s : batch.sinks) s = sink;
      check(batch, numerics);
      batch.scale = 12.0f;  // probabilities of all sizes down to zero
      check(batch, numerics);
    }
}

// One key has next to no weight beside a sink, or beside a key without a value. Where its values are such
// that they come to lie beside the least normal number, rounding decides what is flushed.
TEST_CASE("attention: what rounding makes the least normal number is kept, what lies below is flushed") {
  NIB_RANDOM(random);
  constexpr int kDim = 16;
  int kept = 0;
  for (int i = 0; i < 40; ++i) {
    const bool sink = random.chance(50);
    CAPTURE(sink);
    const float distance = 84 + std::abs(random.spread(-10, -1));
    Batch batch({1, 1, kDim}, KvFormat::f32, 0, {sink ? 0 : 1}, sink, random);
    batch.scale = 1;
    if (sink) batch.sinks[0] = distance;
    std::fill_n(batch.qkv.row(0), kDim, 0.0f);
    batch.qkv.row(0)[0] = 1;
    float key[kDim] = {sink ? 0.0f : -distance}, value[kDim], other_key[kDim] = {}, nothing[kDim] = {};
    const auto output = [&](const Way& way) {
      batch.pages[0].write(0, 0, key, value, random);
      if (!sink) batch.pages[0].write(1, 0, other_key, nothing, random);
      const Rows out(1, kDim);
      batch.attend(way, Numerics::f32, 0, 1, out);
      return std::vector<float>(out.row(0), out.row(0) + kDim);
    };
    std::fill_n(value, kDim, 1.0f);
    const float weight = output(ways().front())[0];
    REQUIRE(weight > 0x1p-124f);
    REQUIRE(weight < 0x1p-120f);
    const auto nearest = static_cast<float>(0x1p-126 / static_cast<double>(weight));
    std::vector<float> wanted;
    for (float& v : value) {
      v = std::nextafter(nearest, static_cast<float>(random.below(3)) * nearest);  // below, itself, above
      wanted.push_back(fma_canonical(v, weight, -0.0f));
      kept += wanted.back() > 0 && static_cast<double>(v) * static_cast<double>(weight) < 0x1p-126;
    }
    for (const Way& way : ways()) {
      CAPTURE(std::string(way.backend->name));
      REQUIRE(same_bits(output(way), wanted));
    }
  }
  CHECK(kept > 0);
}

}  // namespace
}  // namespace nib::test
