// Kernels of a model with slots for experts that are refused, one at a time, as a device that lacks memory
// refuses them: what ran before them stays, and what comes behind them never runs.
#include "device_rig.hpp"
#include "support/random.hpp"

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <cuda/device_queue.hpp>
#include <doctest/doctest.h>

namespace nib::test {
namespace {

// The emulated library, but for its queue, which is in reach, and for memory that cannot be cleared while a
// test says so. One at a time.
class ReachableQueue {
 public:
  ReachableQueue() {
    library_.open = open;
    library_.clear = clear;
    refuses_to_clear = false;
  }
  static inline bool refuses_to_clear;
  const DeviceLibrary& library() const { return library_; }
  static simt::Emulator& emulator() { return *queue_->emulator; }

 private:
  static std::int32_t open(std::int32_t index, DeviceQueue** out, DeviceMessage* message) {
    const std::int32_t code = nibble_device_library.open(index, out, message);
    queue_ = *out;
    return code;
  }
  static std::int32_t clear(DeviceQueue* queue, void* to, std::size_t bytes, DeviceMessage* message) {
    return refuses_to_clear ? static_cast<std::int32_t>(Code::device)
                            : nibble_device_library.clear(queue, to, bytes, message);
  }
  DeviceLibrary library_ = nibble_device_library;
  static inline DeviceQueue* queue_;
};

// Two layers of tales, of whose 16 experts a token chooses two.
RigOptions options_of(const DeviceLibrary& library, std::uint32_t slots) {
  return {.backend = present_backends().front(),
          .numerics = Numerics::bf16,
          .rows = 16,
          .placement = all_there,
          .library = &library,
          .expert_slots = slots,
          .mutate_config = [](ModelConfig& config) { config.layers = 2; }};
}

std::vector<std::uint32_t> some_tokens(std::size_t count, std::size_t first) {
  std::vector<std::uint32_t> out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(static_cast<std::uint32_t>(first + 97 * i));
  return out;
}

// Of a prompt's last token, as bytes.
struct LastLogits {
  std::vector<float> row;
  bool operator==(const LastLogits& other) const {
    return row.size() == other.row.size() &&
           std::memcmp(row.data(), other.row.data(), row.size() * sizeof(float)) == 0;
  }
};

// A pass of a new session's first tokens, which may be unable to clear what it leaves.
Status attempt(ModelRig& rig, std::span<const std::uint32_t> tokens, bool refuses_to_clear = false) {
  auto cache = rig.cache();
  REQUIRE(cache->extend(static_cast<std::int64_t>(tokens.size())).ok());
  std::vector<BatchRow> batch;
  for (const std::uint32_t token : tokens) {
    const auto position = static_cast<std::int64_t>(batch.size());
    batch.push_back({cache.get(), token, position, batch.size() + 1 == tokens.size()});
  }
  ReachableQueue::refuses_to_clear = refuses_to_clear;
  const Status done = rig.attempt(batch);
  ReachableQueue::refuses_to_clear = false;
  return done;
}
LastLogits logits_of(ModelRig& rig, std::span<const std::uint32_t> tokens) {
  const Status done = attempt(rig, tokens);
  REQUIRE_MESSAGE(done.ok(), done.message());
  return {{rig.workspace().logits, rig.workspace().logits + rig.config.vocabulary}};
}

// A model with slots, and what one without says.
class Refusals {
 public:
  // Every `step`-th kernel of a pass of so many rows is refused, from a drawn one on. Two prompts take turns,
  // so that slots hold the experts of the other one.
  void walk(std::size_t rows, std::int64_t step) {
    NIB_RANDOM(random);
    CAPTURE(rows);
    const std::vector<std::uint32_t> prompts[] = {some_tokens(rows, 433), some_tokens(rows, 1200)};
    const LastLogits expected[] = {logits_of(all_, prompts[0]), logits_of(all_, prompts[1])};
    REQUIRE(logits_of(some_, prompts[1]) == expected[1]);
    const std::int64_t before = emulator_.launches();
    REQUIRE(logits_of(some_, prompts[0]) == expected[0]);
    const std::int64_t launches = emulator_.launches() - before;
    int turn = 1;
    for (std::int64_t at = random.below(static_cast<int>(step)); at < launches; at += step, turn = 1 - turn) {
      CAPTURE(at);
      // What a pass leaves may have to be cleared before the next one.
      const bool refuses_to_clear = random.chance(50);
      CAPTURE(refuses_to_clear);
      emulator_.refuse_after(at);
      const Status refused = attempt(some_, prompts[turn], refuses_to_clear);
      CHECK(refused.code() == Code::device);
      CHECK(refused.message() == "launching a kernel: refused");
      if (refuses_to_clear) CHECK(attempt(some_, prompts[turn], true).code() == Code::device);
      CHECK(logits_of(some_, prompts[turn]) == expected[turn]);
    }
  }

 private:
  ReachableQueue queue_;
  ModelRig all_{kTalesFolder, options_of(queue_.library(), 0)},
      some_{kTalesFolder, options_of(queue_.library(), 4)};
  simt::Emulator& emulator_ = queue_.emulator();  // of the rig that was opened last
};

// One round of experts; rounds of all slots, in which experts are counted from one kernel to another; and
// rounds of halves.
TEST_CASE("slots: some kernel of a pass is refused: the next pass has the bits of one without slots") {
  Refusals refusals;
  refusals.walk(1, 5);
  refusals.walk(5, 5);
  refusals.walk(9, 30);
}
TEST_CASE("slow: slots: every other kernel of a pass is refused: the next one has those bits, too") {
  Refusals refusals;
  refusals.walk(1, 2);
  refusals.walk(5, 2);
}

}  // namespace
}  // namespace nib::test
