// Tokens drawn from logits that stay on a device: those that would be drawn from the same logits here, to the
// bit of their probability, and what is fetched for it.
#include "device_rig.hpp"
#include "support/random_logits.hpp"
#include <nibble/base/float_scope.hpp>
#include <nibble/model/device_digests.hpp>
#include <nibble/runtime/sampler.hpp>

#include <cstring>
#include <memory>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

Placement head_there(const ModelConfig&) {
  Placement placement;
  placement.head = Place::device;
  return placement;
}

// The library, but for downloads, which are counted. One at a time.
class CountingLibrary {
 public:
  CountingLibrary() {
    library_.download = download;
    calls_ = 0;
    bytes_ = 0;
  }
  const DeviceLibrary& library() const { return library_; }
  // Since it was asked before.
  static int calls() { return std::exchange(calls_, 0); }
  static std::size_t bytes() { return std::exchange(bytes_, 0); }

 private:
  static std::int32_t download(DeviceQueue* queue, void* to, const void* from, std::size_t bytes,
                               DeviceMessage* message) {
    ++calls_;
    bytes_ += bytes;
    return device_library().download(queue, to, from, bytes, message);
  }
  DeviceLibrary library_ = device_library();
  static inline int calls_;
  static inline std::size_t bytes_;
};

// Rows of logits, here and on a device, with digests.
class RowsThere {
 public:
  RowsThere(const DeviceLibrary& library, int index, std::int64_t vocabulary, std::int64_t rows)
      : vocabulary_(vocabulary), device_(Device::open(library, index).take()), memory_(device_->allocator()) {
    std::size_t bytes = 0;
    const auto take = [&](auto visit) {
      visit(logits_, rows * row_stride(vocabulary));
      digests_.carve(vocabulary, rows, visit);
    };
    take([&](auto*& pointer, std::int64_t count) {
      bytes += round_up(static_cast<std::size_t>(count) * sizeof *pointer, std::size_t{256});
    });
    buffer_ = Buffer::make(bytes, memory_, Purpose::activations, "rows").take();
    std::byte* next = buffer_.data();
    take([&](auto*& pointer, std::int64_t count) {
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(next);
      next += round_up(static_cast<std::size_t>(count) * sizeof *pointer, std::size_t{256});
    });
  }
  void digest(const std::vector<std::vector<float>>& rows, std::span<const DrawnRow> drawn) {
    for (std::size_t r = 0; r < rows.size(); ++r)
      REQUIRE(device_->upload(row(r), rows[r].data(), rows[r].size() * sizeof(float)).ok());
    REQUIRE(digests_.expect(*device_, drawn).ok());
    REQUIRE(digests_.digest(*device_, logits_).ok());
    REQUIRE(digests_.fetch(*device_).ok());
  }
  PlacedLogits placed(std::size_t r, std::span<float> here) const {
    return {here, device_.get(), row(r), digests_.of(r)};
  }

 private:
  float* row(std::size_t r) const { return logits_ + static_cast<std::int64_t>(r) * row_stride(vocabulary_); }

  std::int64_t vocabulary_;
  std::unique_ptr<Device> device_;
  Memory memory_;
  Buffer buffer_;
  float* logits_ = nullptr;
  DeviceDigests digests_;
};

template <class T, std::size_t count>
T one_of(const T (&choices)[count], Random& random) {
  return choices[random.below(static_cast<int>(count))];
}

SamplerOptions random_options(Random& random) {
  return {.temperature = one_of({0.0f, 0.1f, 0.7f, 1.0f, 1.0f, 1.5f, 5.0f, 1e-37f}, random),
          .greedy = random.chance(15),
          .top_k = one_of({0u, 0u, 1u, 5u, 40u, 300u, 5000u}, random),
          .top_p = one_of({1.0f, 1.0f, 0.01f, 0.5f, 0.9f, 0.95f, 0.999f}, random),
          .min_p = one_of({0.0f, 0.0f, 0.05f, 0.5f, 1.0f}, random),
          .repetition_penalty = one_of({1.0f, 1.0f, 1.1f, 1.7f, 0.5f, 1e6f, 1e-6f}, random),
          .seed = random.bits()};
}

std::vector<Token> random_history(Random& random, std::int64_t vocabulary) {
  std::vector<Token> history(static_cast<std::size_t>(random.below(200)));
  for (Token& id : history) id = random.bits() % static_cast<Token>(vocabulary);
  return history;
}

// What is drawn of one row at some positions, both ways.
void check_draws(const RowsThere& there, std::size_t r, std::vector<float> logits,
                 const SamplerOptions& options, std::span<const Token> history, Random& random) {
  std::vector<float> weights(logits.size()), fetched(logits.size());
  SamplerScratch scratch{.weights = weights};
  for (int i = 0; i < 3; ++i) {
    const std::uint64_t position = random.bits();
    const auto here = sample(*present_backends().front(), logits, options, position, history, scratch);
    PlacedLogits placed = there.placed(r, fetched);
    const auto device = sample(*present_backends().front(), placed, options, position, history, scratch);
    REQUIRE(device.status().code() == here.status().code());
    if (!here.ok()) continue;
    CHECK(device->id == here->id);
    CHECK(device->log_probability == here->log_probability);
    if (!placed.device) CHECK(std::memcmp(fetched.data(), logits.data(), logits.size() * 4) == 0);
  }
}

void check_random_rows(const DeviceLibrary& library, int index, std::int64_t vocabulary, Random& random) {
  const auto rows = static_cast<std::size_t>(1 + random.below(3));
  RowsThere there(library, index, vocabulary, static_cast<std::int64_t>(rows));
  std::vector<std::vector<float>> logits(rows, std::vector<float>(static_cast<std::size_t>(vocabulary)));
  std::vector<SamplerOptions> options;
  std::vector<std::vector<Token>> histories;
  std::vector<std::vector<std::uint32_t>> seen(
      rows, std::vector<std::uint32_t>(static_cast<std::size_t>(seen_words(vocabulary))));
  std::vector<DrawnRow> drawn;
  for (std::size_t r = 0; r < rows; ++r) {
    const auto kind = static_cast<LogitKind>(random.below(kLogitKinds));
    for (std::int64_t id = 0; id < vocabulary; ++id)
      logits[r][static_cast<std::size_t>(id)] = random_logit(kind, random, id);
    options.push_back(random_options(random));
    histories.push_back(random_history(random, vocabulary));
    mark_seen(histories[r], seen[r]);
    drawn.push_back({weighing_of(options[r]), seen[r]});
  }
  if (random.chance(50)) {  // the emulator's numbers do not depend on it
    const FloatScope scope;
    there.digest(logits, drawn);
  } else {
    there.digest(logits, drawn);
  }
  for (std::size_t r = 0; r < rows; ++r) {
    CAPTURE(r);
    CAPTURE(options[r].temperature);
    CAPTURE(options[r].top_k);
    CAPTURE(options[r].top_p);
    CAPTURE(options[r].min_p);
    CAPTURE(options[r].repetition_penalty);
    check_draws(there, r, logits[r], options[r], histories[r], random);
  }
}

TEST_CASE("sampling: what is drawn of logits on a device is what is drawn of them here") {
  NIB_RANDOM(random);
  for (const int index : devices())
    for (const std::int64_t vocabulary : {1, 2, 255, 256, 257, 1000, 1025, 5000, 40000})
      for (int time = 0; time < (vocabulary < 2000 ? 40 : vocabulary < 10000 ? 20 : 8); ++time) {
        CAPTURE(vocabulary);
        check_random_rows(device_library(), index, vocabulary, random);
      }
}

TEST_CASE("sampling: of a whole vocabulary, and what is fetched") {
  NIB_RANDOM(random);
  const CountingLibrary counting;
  constexpr std::int64_t kVocabulary = 201088;
  constexpr std::size_t kBlockBytes = kLogitBlock * sizeof(float);
  struct Case {
    SamplerOptions options;
    int calls;
    std::size_t bytes;
  };
  RowsThere there(counting.library(), 0, kVocabulary, 1);
  std::vector<std::vector<float>> logits(1, std::vector<float>(kVocabulary));
  for (float& logit : logits[0]) logit = 2 * random.normal();
  for (int i = 0; i < 60; ++i) logits[0][random.bits() % kVocabulary] = 12 + 2 * random.normal();
  const std::vector<Token> history = random_history(random, kVocabulary);
  std::vector<std::uint32_t> seen(static_cast<std::size_t>(seen_words(kVocabulary)));
  mark_seen(history, seen);
  for (const Case& c : {Case{{.greedy = true}, 0, 0},
                        {{.greedy = true, .repetition_penalty = 1.3f}, 0, 0},
                        {{.temperature = 0.8f, .top_k = 40, .top_p = 0.95f}, 0, 0},
                        {{.temperature = 0.7f, .top_p = 0.9f, .min_p = 0.05f}, 0, 0},
                        {{.top_k = 200, .repetition_penalty = 1.1f}, 0, 0},
                        {{.temperature = 1.0f}, 1, kBlockBytes},
                        {{.min_p = 0.1f, .repetition_penalty = 1.1f}, 1, kBlockBytes},
                        {{.temperature = 5.0f, .top_p = 0.95f}, 1, kVocabulary * sizeof(float)},
                        {{.top_k = 20000}, 1, kVocabulary * sizeof(float)}}) {
    CAPTURE(c.options.top_k);
    CAPTURE(c.options.top_p);
    CAPTURE(c.options.temperature);
    counting.calls(), counting.bytes();
    const DrawnRow drawn{weighing_of(c.options), seen};
    there.digest(logits, {&drawn, 1});
    CHECK(counting.calls() == 1);
    const std::size_t head = static_cast<std::size_t>(DigestLayout{kVocabulary}.likely_offset());
    CHECK(counting.bytes() == (drawn.weighing.wants_likely ? head + 8192 : head));
    std::vector<float> weights(kVocabulary), fetched(kVocabulary);
    SamplerScratch scratch{.weights = weights};
    PlacedLogits placed = there.placed(0, fetched);
    REQUIRE(sample(*present_backends().front(), placed, c.options, 7, history, scratch).ok());
    CHECK(counting.calls() == c.calls);
    CHECK(counting.bytes() <= c.bytes);
    check_draws(there, 0, logits[0], c.options, history, random);
  }
}

TEST_CASE("sampling: a pass whose logits stay on the device waits once") {
  const CountingLibrary counting;
  for (const int index : devices()) {
    ModelRig rig(kTalesFolder, {.numerics = Numerics::bf16,
                                .rows = 4,
                                .placement = head_there,
                                .library = &counting.library(),
                                .device = index});
    auto first = rig.cache(), second = rig.cache();
    REQUIRE(first->extend(2).ok());
    REQUIRE(second->extend(1).ok());
    const std::vector<BatchRow> batch = {
        {first.get(), 17, 0, false}, {first.get(), 18, 1, true}, {second.get(), 9, 0, true}};
    std::vector<float> logits;
    rig.forward(batch, logits);
    const SamplerOptions options[] = {{.temperature = 0.8f, .top_p = 0.9f, .seed = 3}, {.greedy = true}};
    const DrawnRow drawn[] = {{weighing_of(options[0])}, {weighing_of(options[1])}};
    counting.calls(), counting.bytes();
    REQUIRE(rig.attempt(batch, drawn).ok());
    CHECK(counting.calls() == 1);
    const std::size_t vocabulary = rig.config.vocabulary;
    for (std::size_t r = 0; r < 2; ++r) {
      std::vector<float> weights(vocabulary), fetched(vocabulary);
      SamplerScratch scratch{.weights = weights};
      const std::span<float> row = std::span(logits).subspan(r * vocabulary, vocabulary);
      PlacedLogits placed{fetched, &rig.device(),
                          rig.workspace().on_device->logits +
                              static_cast<std::int64_t>(r) * row_stride(rig.config.vocabulary),
                          rig.workspace().on_device->digests.of(r)};
      const auto here = sample(*present_backends().front(), row, options[r], 5, {}, scratch),
                 there = sample(*present_backends().front(), placed, options[r], 5, {}, scratch);
      REQUIRE(here.ok());
      REQUIRE(there.ok());
      CHECK(there->id == here->id);
      CHECK(there->log_probability == here->log_probability);
    }
  }
}

}  // namespace
}  // namespace nib::test
