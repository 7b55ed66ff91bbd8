// Who writes a page of weights first, and who multiplies what stands there: the same thread, up to the cuts.
#include "layer_rig.hpp"
#include "support/watched_pages.hpp"
#include <nibble/kernels/pack.hpp>

namespace nib::test {
namespace {

// Counts pages that were brought in by the part which multiplies them, and by another.
struct Meetings {
  const WatchedPages* pages;
  std::int64_t same = 0, other = 0;
  const MatmulKernel* kernel;
} meetings;

void recorded(const MatmulCall& call) {
  const PackedWeight& w = *call.weight;
  const auto begin = static_cast<std::size_t>(w.data - meetings.pages->data());
  const std::int64_t group = call.strip_begin / kGroupStrips;
  const std::size_t group_bytes = kGroupStrips * w.strip_bytes();
  const std::size_t from = begin + static_cast<std::size_t>(group) * group_bytes;
  const std::size_t to = std::min(from + group_bytes, begin + w.bytes());
  for (std::size_t page = from / WatchedPages::kPage; page <= (to - 1) / WatchedPages::kPage; ++page)
    ++(meetings.pages->first[page] == meetings.pages->now ? meetings.same : meetings.other);
  meetings.kernel->run(call);
}

// Some matrices of one shape, packed where their threads have put the pages, with a kernel that watches.
class Placed {
 public:
  Placed(WatchedPages& pages, std::size_t offset, std::int64_t count, std::int64_t rows, std::int64_t k,
         Random& random) {
    const Packed packed(random_weights(Format::mxfp4, rows, k, random));
    const std::size_t each = packed.shape.bytes();
    std::byte* at = pages.data() + offset;
    place_weights(packed.shape, count, at, *pages.pool);
    // But for the last page, of which it may be less than one.
    const std::size_t end = offset + static_cast<std::size_t>(count) * each - WatchedPages::kPage;
    for (std::size_t byte = offset; byte < end; byte += 64)
      REQUIRE(pages.first[byte / WatchedPages::kPage] >= 0);
    PackedWeight matrix = packed.for_ops(*present_backends().front(), Numerics::bf16);
    meetings = {&pages, 0, 0, matrix.kernel};
    kernel_ = *matrix.kernel;
    kernel_.run = recorded;
    matrix.kernel = &kernel_;
    for (; count-- > 0; at += each) {
      std::memcpy(at, packed.bytes.data(), each);
      matrix.data = at;
      matrices.push_back(matrix);
    }
  }
  Placed(const Placed&) = delete;
  Placed& operator=(const Placed&) = delete;
  std::size_t bytes() const { return matrices.size() * matrices[0].bytes(); }
  std::vector<PackedWeight> matrices;

 private:
  MatmulKernel kernel_{};
};

// A cut of a matrix lies inside a group of strips, or moves by so little that it meets two of them.
void check_meetings(std::int64_t matrices, int threads, const PackedWeight& shape, int groups_at_cut) {
  const auto pages = static_cast<std::int64_t>(kGroupStrips * shape.strip_bytes() / WatchedPages::kPage + 2);
  CAPTURE(threads);
  CAPTURE(meetings.same);
  CAPTURE(meetings.other);
  CHECK(meetings.other <= matrices * threads * groups_at_cut * pages);
  CHECK(meetings.same > 2 * meetings.other);
}

TEST_CASE("first touch: a dense matrix lies where its threads multiply it") {
  if (!WatchedPages::possible()) return;
  NIB_RANDOM(random);
  for (const int threads : {2, 3, 5}) {
    WatchedPages pages(std::size_t{4} << 20, threads);
    const Placed placed(pages, 192, 1, 4000, 1024, random);
    Rows in(1, 1024), x(1, 4000);
    in.fill([&] { return random.normal(); });
    const Scratch scratch(1, 4000, threads);
    const Rows bias = random_bias(4000, random);
    present_backends().front()->ops.project(
        scratch.context(*pages.pool, Numerics::bf16),
        {.in = in.data(), .rows = 1, .weight = placed.matrices.data(), .bias = bias.data(), .x = x.data()});
    check_meetings(1, threads, placed.matrices[0], 1);
  }
}

TEST_CASE("first touch: experts lie where their threads multiply them, whichever are chosen") {
  if (!WatchedPages::possible()) return;
  NIB_RANDOM(random);
  constexpr int kExperts = 5;
  constexpr std::int64_t kHidden = 1024, kWidth = 1984;
  for (const int threads : {2, 3, 5})
    for (const std::vector<std::int32_t>& chosen :
         {std::vector<std::int32_t>{4}, {0, 1}, {1, 3, 4}, {0, 1, 2, 3, 4}}) {
      const auto count = static_cast<int>(chosen.size());
      WatchedPages pages(std::size_t{20} << 20, threads);
      const Placed gate_up(pages, 192, kExperts, 2 * kWidth, kHidden, random);
      const Placed down(pages, 192 + round_up(192 + gate_up.bytes(), WatchedPages::kPage), kExperts, kHidden,
                        kWidth, random);
      Rows normed(1, kHidden), x(1, kHidden);
      normed.fill([&] { return random.normal(); });
      x.fill([] { return 0.0f; });
      std::vector<std::int32_t> row(chosen.size()), first, entry, ids = chosen;
      std::vector<float> weight(chosen.size(), 1.0f), chosen_weight = weight;
      for (std::int32_t e = 0; e <= kExperts; ++e)
        first.push_back(static_cast<std::int32_t>(
            std::count_if(chosen.begin(), chosen.end(), [&](std::int32_t id) { return id < e; })));
      for (int i = 0; i < count; ++i) entry.push_back(i);
      const Rows outputs(count, kHidden);
      const Scratch scratch(count, kWidth, threads);
      present_backends().front()->ops.experts(scratch.context(*pages.pool, Numerics::bf16),
                                              {.normed = normed.data(),
                                               .rows = 1,
                                               .experts = kExperts,
                                               .experts_per_token = count,
                                               .routing = {row.data(), weight.data(), first.data(),
                                                           entry.data(), ids.data(), chosen_weight.data()},
                                               .gate_up = gate_up.matrices.data(),
                                               .gate_up_bias = nullptr,
                                               .down = down.matrices.data(),
                                               .down_bias = nullptr,
                                               .width = kWidth,
                                               .gate = {1.702f, 7.0f},
                                               .outputs = outputs.data(),
                                               .x = x.data()});
      check_meetings(2 * count, threads, down.matrices[0], 2);
    }
}

}  // namespace
}  // namespace nib::test
