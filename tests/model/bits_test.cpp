// Same prompt, same bits: whatever the batch, the threads, the chunks, the instruction set and the host's
// rounding mode.
#include "support/data.hpp"
#include "support/model_rig.hpp"

#include <cfenv>
#include <cstring>
#include <random>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

// Each stored form has its own code in attention and where keys are appended.
constexpr KvFormat kStoredKv[] = {KvFormat::automatic, KvFormat::int8, KvFormat::fp8};

// The 300-token prompt and its model: windows of 24 on two layers of three.
struct Prompt {
  std::string folder;
  std::vector<std::uint32_t> ids;
  explicit Prompt(const std::string& data)
      : folder(data + "/models/gpt-oss-b"), ids(Golden::load(folder).input_ids) {}
};

std::vector<float> run(const Prompt& prompt, const RigOptions& options) {
  ModelRig rig(prompt.folder, options);
  auto cache = rig.cache();
  return rig.feed(*cache, prompt.ids);
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

TEST_CASE("slow: same bits for every chunk, thread count and backend") {
  NIB_REQUIRE_DATA(data);
  const Prompt prompt(data);
  for (const Numerics numerics : {Numerics::bf16, Numerics::f32, Numerics::int8}) {
    CAPTURE(std::string(numerics_name(numerics)));
    const auto expected = run(prompt, {.numerics = numerics, .threads = 1, .rows = 300});
    for (const Backend* backend : present_backends()) {
      CAPTURE(std::string(backend->name));
      for (const int threads : {1, 2, 3, 8})
        for (const std::int64_t rows : {1, 7, 64, 300}) {
          if (backend == cpu_backends().back() && threads * rows % 7 != 0)
            continue;  // scalar is slow: a sample
          CAPTURE(threads);
          CAPTURE(rows);
          CHECK(same_bits(
              run(prompt, {.backend = backend, .numerics = numerics, .threads = threads, .rows = rows}),
              expected));
        }
    }
  }
}

// Three chunks of keys and values, on one head of them: more threads than heads share the chunks of the layer
// without a window, for one more meeting.
TEST_CASE("same bits where threads share the chunks of a head") {
  NIB_REQUIRE_DATA(data);
  const Prompt prompt(data);
  std::vector<std::uint32_t> ids;
  for (int i = 0; i < 2; ++i) ids.insert(ids.end(), prompt.ids.begin(), prompt.ids.end());
  ids.resize(520);
  for (const Backend* backend : present_backends()) {
    if (backend == cpu_backends().back()) continue;  // scalar is slow
    CAPTURE(std::string(backend->name));
    for (const Numerics numerics : {Numerics::bf16, Numerics::f32}) {
      const auto last_rows = [&](int threads) {
        ModelRig rig(prompt.folder,
                     {.backend = backend, .numerics = numerics, .threads = threads, .rows = 8});
        auto cache = rig.cache();
        rig.feed(*cache, std::span(ids).first(504));
        std::vector<float> logits;
        std::uint64_t phases[2] = {};
        for (std::size_t at = 504; at < 520; ++at) {
          const std::uint64_t before = rig.pool().phases();
          const auto row = rig.feed(*cache, std::span(ids).subspan(at, 1));
          phases[at >= 512] += rig.pool().phases() - before;
          logits.insert(logits.end(), row.begin(), row.end());
        }
        CHECK(phases[1] == phases[0] + (threads > 2 ? 8 : 0));
        return logits;
      };
      const auto expected = last_rows(1);
      for (const int threads : {2, 3, 8}) {
        CAPTURE(threads);
        CHECK(same_bits(last_rows(threads), expected));
      }
    }
  }
}

TEST_CASE("same bits alone and beside three other sessions in one batch") {
  NIB_REQUIRE_DATA(data);
  const Prompt prompt(data);
  std::mt19937 random(20);
  const auto check = [&](const RigOptions& options) {
    CAPTURE(std::string(options.backend->name));
    CAPTURE(std::string(kv_format_name(options.kv_format)));
    const auto expected = run(prompt, options);
    ModelRig rig(prompt.folder, options);
    std::vector<std::unique_ptr<KvCache>> caches;
    for (int i = 0; i < 4; ++i) caches.push_back(rig.cache());
    std::vector<float> logits;
    // Each pass takes rows of ours and, shuffled around them, rows of strangers.
    for (std::size_t at = 0; at < prompt.ids.size();) {
      std::vector<BatchRow> batch;
      std::vector<std::size_t> order = {0, 1, 2, 3}, counts(4);
      std::shuffle(order.begin(), order.end(), random);
      for (const std::size_t s : order) {
        counts[s] = 1 + random() % 9;
        if (s == 0) counts[s] = std::min(counts[s], prompt.ids.size() - at);
        KvCache& cache = *caches[s];
        REQUIRE(cache.extend(static_cast<std::int64_t>(counts[s])).ok());
        for (std::size_t i = 0; i < counts[s]; ++i)
          batch.push_back({&cache, s == 0 ? prompt.ids[at + i] : static_cast<std::uint32_t>(random() % 256),
                           cache.length() + static_cast<std::int64_t>(i), s == 0});
      }
      rig.forward(batch, logits);
      for (std::size_t s = 0; s < 4; ++s) caches[s]->advance(static_cast<std::int64_t>(counts[s]));
      at += counts[0];
    }
    CHECK(same_bits(logits, expected));
  };
  for (const Backend* backend : present_backends())
    for (const KvFormat kv_format : kStoredKv)
      check({.backend = backend, .numerics = Numerics::bf16, .kv_format = kv_format, .rows = 64});
}

TEST_CASE("same bits after a rewind, also across a window, and replay") {
  NIB_REQUIRE_DATA(data);
  const Prompt prompt(data);
  for (const KvFormat kv_format : kStoredKv)
    for (const std::int64_t target : {299, 290, 250, 130, 64, 63, 1, 0}) {
      CAPTURE(target);
      CAPTURE(std::string(kv_format_name(kv_format)));
      const RigOptions options{.backend = present_backends().front(),
                               .numerics = Numerics::bf16,
                               .kv_format = kv_format,
                               .rows = 64};
      const auto expected = run(prompt, options);
      ModelRig rig(prompt.folder, options);
      const std::size_t vocabulary = rig.config.vocabulary;
      auto cache = rig.cache();
      // Appends of 100 make checkpoints at 100, 200, 300; then something else is written over the tail.
      for (std::size_t at = 0; at < 300; at += 100) rig.feed(*cache, std::span(prompt.ids).subspan(at, 100));
      std::int64_t length = cache->rewind(target);
      CHECK(length <= target);
      rig.feed(*cache, std::vector<std::uint32_t>(20, 5));
      length = cache->rewind(std::min<std::int64_t>(length, target));
      const auto replayed = rig.feed(*cache, std::span(prompt.ids).subspan(static_cast<std::size_t>(length)));
      CHECK(same_bits(replayed, std::span(expected).subspan(static_cast<std::size_t>(length) * vocabulary)));
    }
}

TEST_CASE("same bits under a hostile rounding mode of the host") {
  NIB_REQUIRE_DATA(data);
  const Prompt prompt(data);
  for (const Backend* backend : present_backends()) {
    const RigOptions options{.backend = backend, .numerics = Numerics::bf16, .rows = 300};
    const auto expected = run(prompt, options);
    std::fesetround(FE_UPWARD);
    const auto hostile = run(prompt, options);
    const int after = std::fegetround();
    std::fesetround(FE_TONEAREST);
    CHECK(after == FE_UPWARD);  // the host's mode comes back
    CHECK(same_bits(hostile, expected));
  }
}

// A graph with one mistake must miss the goldens: otherwise they prove nothing.
double golden_error(const std::string& folder, const RigOptions& options) {
  const Golden golden = Golden::load(folder);
  ModelRig rig(folder, options);
  auto cache = rig.cache();
  const auto logits = rig.feed(*cache, golden.input_ids);
  double most = 0;
  for (std::size_t i = 0; i < logits.size(); ++i)
    most = std::max(most, std::abs(static_cast<double>(logits[i]) - golden.logits[i]));
  return most;
}

TEST_CASE("mistakes in the graph are seen by the goldens") {
  NIB_REQUIRE_DATA(data);
  const Backend* fastest = present_backends().front();
  for (const char* name : {"gpt-oss-a", "gpt-oss-b", "gpt-oss-bf16"}) {
    CAPTURE(name);
    const std::string folder = data + "/models/" + name;
    const auto error = [&](void (*config)(ModelConfig&), void (*weights)(Weights&)) {
      return golden_error(folder, {.backend = fastest, .mutate_config = config, .mutate_weights = weights});
    };
    constexpr double kTolerance = 1e-3;
    CHECK(error(nullptr, nullptr) < kTolerance);
    CHECK(error(nullptr, [](Weights& w) {
            for (LayerWeights& layer : w.layers) layer.sinks = nullptr;
          }) > kTolerance);
    CHECK(error(
              [](ModelConfig& c) {
                for (auto& window : c.windows) window += window ? 1 : 0;
              },
              nullptr) > kTolerance);
    CHECK(error(
              [](ModelConfig& c) {
                for (auto& window : c.windows) window -= window ? 1 : 0;
              },
              nullptr) > kTolerance);
    CHECK(error([](ModelConfig& c) { c.rope.truncate = true; }, nullptr) > kTolerance);
    CHECK(error([](ModelConfig& c) { c.rope.attention = 1; }, nullptr) > kTolerance);
    CHECK(error([](ModelConfig& c) { c.gate.alpha = 1; }, nullptr) > kTolerance);
    // Gate and up exchanged: the strips of each expert's tiles swap places, and so do their biases.
    CHECK(error(nullptr, [](Weights& w) {
            for (LayerWeights& layer : w.layers) {
              for (PackedWeight& expert : layer.gate_up)
                for (std::int64_t strip = 0; strip < expert.strips(); strip += 2)
                  for (std::int64_t tile = 0; tile * kTileK < expert.k; ++tile) {
                    const std::size_t bytes =
                        tile_bytes(expert.format, std::min(kTileK, expert.k - tile * kTileK));
                    auto* bytes_of = const_cast<std::byte*>(expert.data);
                    auto *gate = bytes_of + expert.tile_offset(strip, tile),
                         *up = bytes_of + expert.tile_offset(strip + 1, tile);
                    for (std::size_t line = 0; line < bytes / 64; ++line)
                      std::swap_ranges(gate + line * expert.line_stride(strip),
                                       gate + line * expert.line_stride(strip) + 64,
                                       up + line * expert.line_stride(strip));
                  }
              auto* bias = const_cast<float*>(layer.gate_up_bias);
              const auto pairs =
                  static_cast<std::int64_t>(layer.gate_up.size()) * layer.gate_up[0].strips() / 2;
              for (std::int64_t i = 0; i < pairs; ++i)
                std::swap_ranges(bias + i * 32, bias + i * 32 + 16, bias + i * 32 + 16);
            }
          }) > kTolerance);
  }
}

}  // namespace
}  // namespace nib::test
