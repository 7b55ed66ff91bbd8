// What measure_speed measures, and what it refuses; how fast anything is, no test asks.
#include "support/tales.hpp"
#include <nibble/runtime/speed.hpp>

#include <algorithm>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

std::shared_ptr<Model> opened_for(const SpeedOptions& options) {
  auto runtime = make_runtime();
  auto plan = make_plan(*runtime, kTales, {}, {.context = options.positions()}, options.sessions());
  REQUIRE_MESSAGE(plan.ok(), plan.status().message());
  auto model = Model::open(runtime, *plan);
  REQUIRE_MESSAGE(model.ok(), model.status().message());
  return model.take();
}

TEST_CASE("speed: every context is measured with its prefill and every batch, contexts in ascending order") {
  const SpeedOptions options{.contexts = {20, 0}, .batches = {1, 3}, .prompt = 9, .decode = 5, .rounds = 2};
  CHECK(options.positions() == 20 + 9);
  CHECK(options.sessions() == 3);
  const auto model = opened_for(options);
  // Twice: the sessions of the first time have left nothing behind.
  for (int time = 0; time < 2; ++time) {
    const auto measured = measure_speed(model, options);
    REQUIRE_MESSAGE(measured.ok(), measured.status().message());
    REQUIRE(measured->size() == 6);
    for (std::size_t i = 0; i < measured->size(); ++i) {
      const Speed& speed = (*measured)[i];
      CHECK(speed.kind == (i % 3 == 0 ? Speed::Kind::prefill : Speed::Kind::decode));
      CHECK(speed.context == (i < 3 ? 0 : 20));
      CHECK(speed.sessions == (i % 3 == 2 ? 3 : 1));
      CHECK(speed.tokens == (i % 3 == 0 ? 9 : 5));
      REQUIRE(speed.seconds.size() == 2);
      for (const double seconds : speed.seconds) CHECK(seconds > 0);
      // One pass for a prompt, and one for each token that is decoded, for all sessions together.
      const std::uint64_t passes = i % 3 == 0 ? 1 : 5, layers = model->info().layers;
      double ops = 0;
      for (std::size_t op = 0; op < kOpNames.size(); ++op) {
        const OpTimes::Entry& entry = speed.ops.of[op];
        const bool once =
            op == static_cast<std::size_t>(Op::embed) || op == static_cast<std::size_t>(Op::head);
        if (op == static_cast<std::size_t>(Op::sample)) {  // is a device's
          CHECK(entry.calls == 0);
          continue;
        }
        CHECK(entry.calls == passes * (once ? 1 : layers));
        CHECK(entry.seconds > 0);
        ops += entry.seconds;
      }
      CHECK(ops < *std::min_element(speed.seconds.begin(), speed.seconds.end()));
    }
  }
  const Speed speed{Speed::Kind::decode, 0, 3, 10, {0.5, 0.25, 2}, {}};
  CHECK(speed.tokens_per_second() == 120);
}

TEST_CASE("speed: progress counts every token, and stops between measurements") {
  struct Heard {
    std::uint64_t done = 0, total = 0;
    int calls = 0, stop_at = 0;
  } heard;
  SpeedOptions options{.contexts = {0, 4}, .batches = {2}, .prompt = 3, .decode = 4, .rounds = 2};
  options.progress = {[](void* user, const Progress& progress) {
                        auto& all = *static_cast<Heard*>(user);
                        CHECK(progress.done > all.done);
                        all.done = progress.done;
                        all.total = progress.total;
                        return int{++all.calls == all.stop_at};
                      },
                      &heard};
  const auto model = opened_for(options);
  REQUIRE(measure_speed(model, options).ok());
  CHECK(heard.calls == 8);
  CHECK(heard.done == 2 * 2 * (3 + 2 * 4));
  CHECK(heard.done == heard.total);
  heard = {.stop_at = 3};
  CHECK(measure_speed(model, options).status().code() == Code::stopped);
  CHECK(heard.calls == 3);
  Cancel cancel;
  cancel.trigger();
  options.cancel = &cancel;
  CHECK(measure_speed(model, options).status().code() == Code::stopped);
}

TEST_CASE("speed: nothing to measure is refused, and so is a plan without the room") {
  const SpeedOptions good{.prompt = 4, .decode = 4, .rounds = 1};
  const auto model = opened_for(good);
  REQUIRE(measure_speed(model, good).ok());
  for (const SpeedOptions& bad :
       {SpeedOptions{.contexts = {}}, SpeedOptions{.batches = {0}}, SpeedOptions{.rounds = 0},
        SpeedOptions{.prompt = 0, .decode = 0}, SpeedOptions{.batches = {}, .prompt = 0}})
    CHECK(measure_speed(model, bad).status().code() == Code::argument);
  CHECK_FALSE(measure_speed(model, {.batches = {2}, .prompt = 4, .decode = 4}).ok());
  CHECK_FALSE(measure_speed(model, {.contexts = {100}, .prompt = 4, .decode = 4}).ok());
  CHECK(SpeedOptions{.contexts = {UINT32_MAX}}.positions() == UINT32_MAX);
}

}  // namespace
}  // namespace nib::test
