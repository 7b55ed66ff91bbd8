// Attention: near softmax in double; the same bits for a row whatever is beside it, however its positions are
// dealt; what a row does not see may be anything.
#include "attention_rig.hpp"

#include <set>

namespace nib::test {
namespace {

static_assert(cuda::partial_bytes(64) * 8 * 256 ==
              attention_scratch_bytes({1, 1, 2880, 64, 8, 64, 1, 1, 1, 1}));

TEST_CASE("pages of a device: each number has bytes of its own, and all of a block's are taken") {
  for (const int bytes : {1, 2, 4})
    for (const int dim : {16, 48, 256}) {
      std::set<std::int64_t> keys, values;
      for (int slot = 0; slot < kPagePositions; ++slot)
        for (int d = 0; d < dim; ++d) {
          keys.insert(cuda::key_place(bytes, slot, d));
          values.insert(cuda::value_place(bytes, slot, d));
        }
      const std::int64_t size = std::int64_t{kPagePositions} * dim * bytes;
      for (const auto& places : {keys, values}) {
        CHECK(static_cast<std::int64_t>(places.size()) * bytes == size);
        CHECK(*places.begin() == 0);
        CHECK(*places.rbegin() == size - bytes);
      }
    }
  // By the drawing: bf16 has two tiles in a unit, int8 four.
  CHECK(cuda::key_place(2, 9, 16 + 10) == (4 + 0) * 512 + (1 * 4 + 1) * 16 + 8 + 2 * 2);
  CHECK(cuda::value_place(1, 16 + 3, 8 + 5) == 0 * 512 + (5 * 4 + 1) * 16 + 3 * 4 + 1);
  CHECK(cuda::key_place(4, 63, 15) == 7 * 512 + 31 * 16 + 12);
}

std::vector<std::vector<std::int64_t>> random_positions(std::mt19937_64& random, std::int64_t most) {
  const std::int64_t borders[] = {0,   1,   15,  16,  62,  63,  64,  65,  127,
                                  254, 255, 256, 257, 300, 511, 512, 513, 700};
  std::vector<std::vector<std::int64_t>> sessions(1 + random() % 2);
  for (auto& session : sessions) {
    std::int64_t at =
        random() % 3 ? borders[random() % std::size(borders)] : static_cast<std::int64_t>(random() % 700);
    if (at > most) at %= most + 1;
    for (std::size_t i = 0, count = 1 + random() % 2; i < count; ++i) session.push_back(at++);
  }
  return sessions;
}

TEST_CASE("attention: near softmax in double: every head width, group, window and format") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  DeviceUnderTest device(seed);
  struct Shape {
    int heads, kv_heads, dim;
  };
  constexpr Shape kShapes[] = {{8, 1, 64}, {3, 1, 24}, {5, 1, 16}, {2, 2, 80},  {2, 1, 256},
                               {4, 1, 40}, {6, 3, 32}, {1, 1, 2},  {2, 1, 128}, {20, 1, 16}};
  for (const Shape& shape : kShapes)
    for (const KvFormat format : kKvFormatsKept)
      for (const std::int64_t window : {0, 1, 63, 128, 200})
        for (const bool tensor_cores : {true, false}) {
          CAPTURE(shape.heads);
          CAPTURE(shape.dim);
          CAPTURE(std::string(kv_format_name(format)));
          CAPTURE(window);
          CAPTURE(tensor_cores);
          const bool sinks = random() % 2 == 0;
          AttentionBatch batch({shape.heads, shape.kv_heads, shape.dim, format, window, sinks},
                               random_positions(random, shape.dim > 100 ? 300 : 700), random);
          const int processors = 1 + static_cast<int>(random() % 3);
          batch.check(batch.attend({tensor_cores, processors}, device, 0, batch.rows.size()));
        }
}

// A prompt, and rows of other sessions before and behind it, one of which sees six splits.
AttentionBatch mixed_batch(const AttentionCase& what, std::mt19937_64& random) {
  std::vector<std::int64_t> prompt;
  for (std::int64_t p = 238; p < 262; ++p) prompt.push_back(p);
  return {what, {{515}, prompt, {70}, {1337}}, random};
}

TEST_CASE("attention: the same bits for every cut of a batch, number of blocks and scratch") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  DeviceUnderTest device(seed);
  for (const bool tensor_cores : {true, false})
    for (const AttentionCase& what : {AttentionCase{8, 1, 32, KvFormat::bf16, 0, true},
                                      AttentionCase{3, 1, 24, KvFormat::int8, 63, false},
                                      AttentionCase{2, 2, 16, KvFormat::fp8, 200, true},
                                      AttentionCase{40, 1, 16, KvFormat::bf16, 24, true},
                                      AttentionCase{1, 1, 16, KvFormat::f32, 0, false}}) {
      CAPTURE(tensor_cores);
      CAPTURE(what.heads);
      CAPTURE(std::string(kv_format_name(what.format)));
      AttentionBatch batch = mixed_batch(what, random);
      const std::size_t rows = batch.rows.size();
      const std::vector<std::uint16_t> at_once = batch.attend({tensor_cores}, device, 0, rows);
      batch.check(at_once);
      for (const AttentionWay& way :
           {AttentionWay{tensor_cores, 1}, AttentionWay{tensor_cores, 7}, AttentionWay{tensor_cores, 2, 0},
            AttentionWay{tensor_cores, 1, 5000}}) {
        std::vector<std::uint16_t> together;
        for (std::size_t first = 0; first < rows;) {
          const std::size_t end = std::min(rows, first + 1 + random() % 16);
          const auto part = batch.attend(way, device, first, end);
          together.insert(together.end(), part.begin(), part.end());
          first = end;
        }
        REQUIRE(together == at_once);
      }
    }
}

TEST_CASE("attention: a row does not know of positions that it does not see") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  DeviceUnderTest device(seed);
  for (const bool tensor_cores : {true, false})
    for (const std::int64_t window : {0, 20})
      for (const KvFormat format : kKvFormatsKept) {
        AttentionBatch batch(
            AttentionCase{4, 1, 16, format, window, true},
            {{120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137}},
            random);
        const std::int64_t bad = 129;  // what this position left is no number
        const std::int64_t out_stride = cuda::bf16_stride(batch.width());
        const auto clean = batch.attend({tensor_cores}, device, 0, batch.rows.size());
        batch.sessions[0].poison(bad);
        const auto few = batch.attend({tensor_cores}, device, 4, 16);
        const auto all = batch.attend({tensor_cores}, device, 0, batch.rows.size());
        for (std::size_t r = 0; r < batch.rows.size(); ++r) {
          CAPTURE(r);
          CAPTURE(tensor_cores);
          const auto of = [&](const std::vector<std::uint16_t>& rows, std::size_t i) {
            const auto at = rows.begin() + static_cast<std::int64_t>(i) * out_stride;
            return std::vector<std::uint16_t>(at, at + batch.width());
          };
          const auto is_nan = [](std::uint16_t bits) { return (bits & 0x7fff) > 0x7f80; };
          const auto row = of(all, r);
          if (batch.rows[r].position < bad) {
            CHECK(row == of(clean, r));
          } else {
            CHECK(std::all_of(row.begin(), row.end(), is_nan));
          }
          if (r >= 4 && r < 16) CHECK(of(few, r - 4) == row);
        }
      }
}

TEST_CASE("attention: shapes that it does not take, and no rows") {
  DeviceUnderTest device(1);
  const TestQueue queue{&device, 1, true};
  const auto code = [&](int heads, int kv_heads, int dim) {
    AttentionArgs args{};
    args.rows = 1;
    args.heads = heads;
    args.kv = {KvFormat::bf16, kv_heads, dim};
    return queue.run(cuda::attention, {}, args).code();
  };
  CHECK(code(8, 1, 258) == Code::unsupported);
  CHECK(code(8, 1, 63) == Code::unsupported);
  CHECK(code(8, 3, 64) == Code::unsupported);
  CHECK(code(65, 1, 64) == Code::unsupported);
  CHECK(queue.run(cuda::attention, {}, {}).ok());
}

}  // namespace
}  // namespace nib::test
