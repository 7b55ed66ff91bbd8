// Digests of logits: against sums and sorts in double of all of them, and the processor's bits.
#include "device_rig.hpp"
#include "support/random_logits.hpp"
#include <nibble/base/float_scope.hpp>
#include <nibble/base/machine.hpp>
#include <nibble/kernels/device_logits.hpp>

#include <limits>
#include <set>

#include <cuda/logits.hpp>

namespace nib::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct LogitRig {
  LogitRig(std::int64_t rows_, std::int64_t vocabulary_, Random& random)
      : rows(rows_),
        layout{vocabulary_},
        logits(rows * row_stride(vocabulary_), kNoNumber),
        weighings(rows),
        seen(rows * seen_words(vocabulary_), 0xffff'ffffu),
        maxima(rows * layout.blocks(), kNoNumber),
        digests(rows * layout.bytes(), std::byte{0xee}) {
    for (std::int64_t r = 0; r < rows; ++r) {
      kinds.push_back(static_cast<LogitKind>(random.below(kLogitKinds)));
      for (std::int64_t id = 0; id < vocabulary_; ++id) row(r)[id] = random_logit(kinds.back(), random, id);
      const float temperature = 0.3f + 2 * std::fabs(random.normal());
      weighings[r] = {.below = (random.chance(50) ? -40.0 : -3.5) * static_cast<double>(temperature),
                      .inverse_temperature = 1 / temperature,
                      .penalty = random.chance(50) ? 1.0f : 0.5f + std::fabs(random.normal()),
                      .wants_likely = random.chance(70),
                      .reserved = 0};
      std::uint32_t* const words = seen.data() + r * seen_words(vocabulary_);
      if (weighings[r].penalty == 1) continue;  // then they mean nothing
      std::fill_n(words, seen_words(vocabulary_), 0u);
      for (int i = 0; i < 50; ++i) {
        const auto id = static_cast<std::uint32_t>(random.bits() % static_cast<std::uint64_t>(vocabulary_));
        words[id / 32] |= 1u << id % 32;
      }
    }
  }
  float* row(std::int64_t r) const { return logits.data() + r * row_stride(layout.vocabulary); }
  Status run(const TestQueue& queue) {
    return queue.run(cuda::digest_logits, DigestArgs{.logits = logits.data(),
                                                     .rows = rows,
                                                     .vocabulary = layout.vocabulary,
                                                     .weighings = weighings.data(),
                                                     .seen = seen.data(),
                                                     .maxima = maxima.data(),
                                                     .digests = digests.data()});
  }
  LogitDigest head(std::int64_t r) const {
    LogitDigest out;
    std::memcpy(&out, digests.data() + r * layout.bytes(), sizeof out);
    return out;
  }
  const float* sums(std::int64_t r) const {
    return reinterpret_cast<const float*>(digests.data() + r * layout.bytes() + layout.sums_offset());
  }
  const LikelyLogit* list(std::int64_t r) const {
    return reinterpret_cast<const LikelyLogit*>(digests.data() + r * layout.bytes() + layout.likely_offset());
  }
  // As the sampler sees them: penalized, without subnormals, minus infinity for what is not finite.
  std::vector<float> finite(std::int64_t r) const {
    const auto no_subnormal = [](float x) { return std::fabs(x) < 0x1p-126f ? 0.0f : x; };
    std::vector<float> out;
    for (std::int64_t id = 0; id < layout.vocabulary; ++id) {
      float x = no_subnormal(row(r)[id]);
      const float penalty = weighings[r].penalty;
      if (penalty != 1 && (seen[r * seen_words(layout.vocabulary) + id / 32] >> id % 32 & 1))
        x = no_subnormal(x > 0 ? x / penalty : x * penalty);
      out.push_back(std::isfinite(x) ? x : -kInfinity);
    }
    return out;
  }

  std::int64_t rows;
  DigestLayout layout;
  std::vector<LogitKind> kinds;
  DeviceBuffer<float> logits;
  DeviceBuffer<LogitWeighing> weighings;
  DeviceBuffer<std::uint32_t> seen;
  DeviceBuffer<float> maxima;
  DeviceBuffer<std::byte> digests;
};

// How far a sum of weights may be off: two units of each exponential; the roundings of its argument, which is
// at most 88 in magnitude, twice; sixteen additions and four. What is less than f32's least normal is lost.
double bound_of_sum(double sum) {
  return sum * (0x1p-22 + 88 * 0x1p-23 + 20 * 0x1p-24) * 1.01 + kLogitBlock * 0x1p-125;
}

void check_sums(const LogitRig& rig, std::int64_t r, const std::vector<float>& finite, float least) {
  const LogitDigest head = rig.head(r);
  const LogitWeighing& weighing = rig.weighings[r];
  for (std::int64_t b = 0; b < rig.layout.blocks(); ++b) {
    double sum = 0;
    for (std::int64_t id = b * kLogitBlock; id < std::min((b + 1) * kLogitBlock, rig.layout.vocabulary);
         ++id) {
      const double x = finite[static_cast<std::size_t>(id)];
      if (x >= least) sum += std::exp((x - head.largest) * static_cast<double>(weighing.inverse_temperature));
    }
    CHECK(std::fabs(rig.sums(r)[b] - sum) <= bound_of_sum(sum));
  }
  const FloatScope scope;
  for (const Backend* backend : cpu_backends()) {
    if (!backend->present(this_machine().features)) continue;
    std::vector<float> maxima(static_cast<std::size_t>(rig.layout.blocks())), sums(maxima.size()),
        weights(finite.size());
    backend->logits.maxima(finite.data(), rig.layout.vocabulary, maxima.data());
    backend->logits.weights(finite.data(), rig.layout.vocabulary,
                            {head.largest, weighing.inverse_temperature, least}, weights.data(), sums.data());
    CHECK(std::equal(maxima.begin(), maxima.end(), rig.maxima.data() + r * rig.layout.blocks()));
    CHECK(same_bits(sums.data(), rig.sums(r), rig.layout.blocks()));
  }
}

// All from some logit on, none twice, and as many as were promised.
void check_list(const LogitRig& rig, std::int64_t r, const std::vector<float>& finite, float least) {
  const LogitDigest head = rig.head(r);
  const auto listed = std::count_if(finite.begin(), finite.end(), [&](float x) { return x >= head.least; });
  const auto heavy = std::count_if(finite.begin(), finite.end(), [&](float x) { return x >= least; });
  CHECK(head.least >= least);
  CHECK(head.likely == listed);
  const std::int64_t blocks = rig.layout.blocks();
  CHECK(head.likely >=
        (rig.layout.vocabulary <= kMostLikely
             ? heavy
             : std::min<std::int64_t>(heavy, std::min<std::int64_t>(256, blocks - blocks / 8))));
  if (head.likely > kMostLikely) return;
  std::set<std::uint32_t> ids;
  for (const LikelyLogit* each = rig.list(r); each < rig.list(r) + head.likely; ++each) {
    REQUIRE(each->id < finite.size());
    CHECK(finite[each->id] == each->logit);
    CHECK(each->logit >= head.least);
    ids.insert(each->id);
  }
  CHECK(static_cast<std::int32_t>(ids.size()) == head.likely);
}

void check_row(const LogitRig& rig, std::int64_t r) {
  CAPTURE(r);
  CAPTURE(static_cast<int>(rig.kinds[static_cast<std::size_t>(r)]));
  const std::vector<float> finite = rig.finite(r);
  const LogitDigest head = rig.head(r);
  const auto best = std::max_element(finite.begin(), finite.end());
  REQUIRE(head.largest == *best);
  if (*best == -kInfinity) return;
  CHECK(head.best == best - finite.begin());
  const double exact = static_cast<double>(*best) + rig.weighings[r].below;
  const auto least = static_cast<float>(std::max(exact, -double{std::numeric_limits<float>::max()}));
  check_sums(rig, r, finite, least);
  if (rig.weighings[r].wants_likely) check_list(rig, r, finite, least);
}

TEST_CASE("logits: digests of any logits") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  for (const std::int64_t vocabulary : {1, 31, 255, 256, 257, 1000, 1024, 1025, 2000, 5000, 30001})
    for (int time = 0; time < (vocabulary < 5000 ? 4 : 1); ++time) {
      CAPTURE(vocabulary);
      LogitRig rig(1 + random.below(4), vocabulary, random);
      const Status status = rig.run({&device, 3, random.chance(50)});
      REQUIRE_MESSAGE(status.ok(), status.message());
      for (std::int64_t r = 0; r < rig.rows; ++r) check_row(rig, r);
    }
}

TEST_CASE("logits: a row's digest does not depend on the rows beside it, nor on what was there") {
  NIB_RANDOM(random);
  DeviceUnderTest first(random.bits()), second(random.bits());
  LogitRig rig(3, 3000, random), alone(1, 3000, random);
  std::copy_n(rig.row(2), 3000, alone.row(0));
  alone.weighings[0] = rig.weighings[2];
  std::copy_n(rig.seen.data() + 2 * seen_words(3000), seen_words(3000), alone.seen.data());
  for (int time = 0; time < 2; ++time) {
    REQUIRE(rig.run({&first, 2, true}).ok());
    REQUIRE(alone.run({&second, 5, false}).ok());
    const LogitDigest a = rig.head(2), b = alone.head(0);
    CHECK(same_bits(&a.largest, &b.largest, 1));
    if (a.largest == -kInfinity) continue;  // the rest means nothing
    CHECK(std::memcmp(&a, &b, sizeof a) == 0);
    CHECK(same_bits(rig.sums(2), alone.sums(0), rig.layout.blocks()));
  }
}

TEST_CASE("logits: digests of a whole vocabulary") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  LogitRig rig(2, 201088, random);
  REQUIRE(rig.run({&device, 132, true}).ok());
  for (std::int64_t r = 0; r < rig.rows; ++r) check_row(rig, r);
}

TEST_CASE("logits: numbers that it does not take") {
  NIB_RANDOM(random);
  DeviceUnderTest device(1);
  LogitRig rig(1, 10, random);
  const auto code = [&](std::int64_t rows, std::int64_t vocabulary) {
    rig.rows = rows;
    rig.layout.vocabulary = vocabulary;
    return rig.run({&device, 1, true}).code();
  };
  CHECK(code(0, 10) == Code::ok);
  CHECK(code(-1, 10) == Code::argument);
  CHECK(code(1, 0) == Code::argument);
  CHECK(code(1, std::int64_t{1} << 31) == Code::argument);
}

}  // namespace
}  // namespace nib::test
