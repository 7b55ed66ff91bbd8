// Attention dealt by chunks gives the bits of attention dealt by heads, for every number of threads and every
// room for what is kept; and it is dealt by chunks where that helps, and nowhere else.
#include "attention_rig.hpp"

namespace nib::test {
namespace {

// Everything that a pass sees, on `threads` threads, with room to keep so many chunks. A byte more would be
// seen by the sanitizer.
struct Dealt {
  Rows out;
  std::uint64_t phases = 0;  // one: by heads; two for each round: by chunks

  Dealt(const Batch& batch, const Backend& backend, Numerics numerics, int threads, std::int64_t chunks)
      : out(batch.qkv.rows, std::int64_t{batch.shape.heads} * batch.shape.head_dim) {
    std::memset(out.data(), 0xff, out.bytes.size());
    const std::int64_t slots = chunks ? chunks + 2 : 0;  // and what is carried between rounds
    const std::int64_t tile =
        ceil_div(slots * kept_chunk_floats(batch.shape.heads, batch.layout), std::int64_t{threads});
    const Bytes tiles(static_cast<std::size_t>(threads * tile) * sizeof(float), 0xff);
    const OpContext context{&team(threads), numerics, nullptr, nullptr, tiles.floats(), tile};
    const std::uint64_t before = context.pool->phases();
    batch.attend(backend, context, 0, batch.positions.size(), out);
    phases = context.pool->phases() - before;
  }
  bool same(const Dealt& other) const {
    return same_bits({out.data(), out.bytes.size() / 4}, {other.out.data(), other.out.bytes.size() / 4});
  }
};

constexpr std::int64_t kPlenty = 10000;

// Rows that decode, one of them far into its context, perhaps beside some rows of a prompt.
std::vector<std::int64_t> mixed_rows(Random& random) {
  std::vector<std::int64_t> positions = {1100 + random.below(900)};
  for (int i = random.below(3); i > 0; --i) positions.push_back(random.below(random.chance(60) ? 2000 : 70));
  const std::int64_t prompt = random.chance(40) ? random.below(1100) : 0;
  for (std::int64_t i = 0; prompt && i < 4; ++i) positions.push_back(prompt + i);
  return positions;
}

TEST_CASE("attention: dealt by chunks the bits of one thread, for any threads, room and rows") {
  NIB_RANDOM(random);
  constexpr HeadsShape kShapes[] = {{8, 1, 64}, {3, 1, 24}, {6, 2, 40}, {2, 1, 80},
                                    {4, 4, 16}, {1, 1, 2},  {35, 1, 48}};
  int by_chunks = 0, in_rounds = 0;
  for (const KvFormat format : kKvStored)
    for (const Numerics numerics : {Numerics::bf16, Numerics::f32})
      for (int draw = 0; draw < 3; ++draw) {
        const HeadsShape shape = kShapes[random.below(7)];
        const std::int64_t window = random.chance(60) ? 0 : 1 + random.below(1500);
        const Batch batch(shape, format, window, mixed_rows(random), random.chance(50), random);
        CAPTURE(std::string(kv_format_name(format)));
        CAPTURE(std::string(numerics_name(numerics)));
        CAPTURE(shape.heads);
        CAPTURE(shape.kv_heads);
        CAPTURE(shape.head_dim);
        CAPTURE(window);
        CAPTURE(batch.positions);
        const Dealt expected(batch, *backends_of_kernels().back(), numerics, 1, 0);
        REQUIRE(expected.phases == 1);
        for (const Backend* backend : backends_of_kernels())
          for (const int threads : {2, 3, 5, 16, 61}) {
            const std::int64_t room = random.chance(50) ? kPlenty : 1 + random.below(12);
            CAPTURE(std::string(backend->name));
            CAPTURE(threads);
            CAPTURE(room);
            const Dealt dealt(batch, *backend, numerics, threads, room);
            REQUIRE(dealt.same(expected));
            by_chunks += dealt.phases > 1;
            in_rounds += dealt.phases > 2;
          }
      }
  CHECK(by_chunks > 0);
  CHECK(in_rounds > 0);
}

TEST_CASE(
    "attention: chunks are dealt where heads would leave threads idle, in as many rounds as they need") {
  NIB_RANDOM(random);
  const Backend& backend = *backends_of_kernels().front();
  const auto phases = [&](HeadsShape shape, std::vector<std::int64_t> positions, int threads,
                          std::int64_t room = kPlenty, std::int64_t window = 0) {
    const Batch batch(shape, KvFormat::bf16, window, std::move(positions), true, random);
    return Dealt(batch, backend, Numerics::bf16, threads, room).phases;
  };
  constexpr HeadsShape kOne = {2, 1, 16}, kTwo = {4, 2, 16}, kEight = {8, 8, 2};
  constexpr std::int64_t kTen = 10 * 256 - 1, kTwenty = 20 * 256 - 1;  // the last positions of so many chunks
  CHECK(phases(kOne, {kTen}, 1) == 1);
  CHECK(phases(kOne, {kTen}, 2) == 2);
  CHECK(phases(kOne, {kTen}, 61) == 2);
  CHECK(phases(kTwo, {kTen}, 4) == 2);
  CHECK(phases(kEight, {kTen}, 6) == 2);  // two heads on some, one on others
  CHECK(phases(kTwo, {kTen}, 2) == 1);    // even as it is
  CHECK(phases(kEight, {kTen}, 4) == 1);
  CHECK(phases(kOne, {300}, 8) == 1);  // two chunks: not worth another meeting
  CHECK(phases(kOne, {kTen}, 8, kPlenty, 128) == 1);
  CHECK(phases(kTwo, {kTen, 10, 20, 30}, 4) == 2);  // one context among short ones
  CHECK(phases(kTwo, {kTen, kTen, kTen, kTen}, 4) == 1);
  CHECK(phases(kOne, {kTwenty}, 4, 0) == 1);  // no room
  CHECK(phases(kOne, {kTwenty}, 4, 20) == 2);
  CHECK(phases(kOne, {kTwenty}, 4, 19) == 4);
  CHECK(phases(kOne, {kTwenty}, 4, 5) == 8);
  CHECK(phases(kOne, {kTwenty}, 4, 1) == 1);  // more meetings than it saves
}

}  // namespace
}  // namespace nib::test
