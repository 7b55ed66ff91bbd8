// Experts that take turns in slots: the bits of a device that holds all of them, whatever the number of
// slots; and who is copied, against a cache written down in plain words.
#include "experts_rig.hpp"

#include <set>

#include <cuda/expert_slots.hpp>

namespace nib::test {
namespace {

// Slots of a layer, with nothing in them, and their table.
struct Slots {
  Slots(const ExpertLayer& layer, int count_)
      : count(count_),
        gate_up(count_ * bytes_of(layer.gate_up), std::byte{0xff}),
        down(count_ * bytes_of(layer.down), std::byte{0xff}),
        table(static_cast<std::int64_t>(slot_table_bytes(layer.experts, count_)), std::byte{0}),
        experts(layer.experts) {}
  static std::int64_t bytes_of(const DeviceMatrices& of) {
    return static_cast<std::int64_t>(device_bytes(of.shape()));
  }
  ExpertSlots as_argument() const { return {count, gate_up.data(), down.data(), table.data()}; }
  cuda::SlotTable read() const { return {table.data(), experts, count}; }
  std::int64_t copied() const { return read().head->copied; }
  std::vector<std::int32_t> holds() const { return {read().holds, read().holds + count}; }

  int count;
  DeviceBuffer<std::byte> gate_up, down, table;
  int experts;
};

// Least recently used out first; of several the one in the lowest slot, and in increasing id come those that
// take their places.
struct PlainCache {
  struct Slot {
    int expert = -1, used = 0;
  };
  explicit PlainCache(int count) : slots(static_cast<std::size_t>(count)) {}

  // At most as many experts as there are slots.
  void call(const std::set<int>& chosen) {
    ++now;
    std::set<int> missing = chosen;
    for (Slot& slot : slots)
      if (chosen.contains(slot.expert)) {
        slot.used = now;
        missing.erase(slot.expert);
      }
    for (const int expert : missing) {
      Slot* oldest = nullptr;
      for (Slot& slot : slots)
        if (!chosen.contains(slot.expert) && (!oldest || slot.used < oldest->used)) oldest = &slot;
      *oldest = {expert, now};
      ++copied;
    }
  }
  std::vector<std::int32_t> holds() const {
    std::vector<std::int32_t> out;
    for (const Slot& slot : slots) out.push_back(slot.expert + 1);
    return out;
  }

  std::vector<Slot> slots;
  int now = 0, copied = 0;
};

std::set<int> experts_of(const Choice& choice) {
  std::set<int> out;
  for (const std::vector<int>& ids : choice.of_row) out.insert(ids.begin(), ids.end());
  return out;
}

bool same(const ExpertsResult& a, const ExpertsResult& b) {
  return a.hidden == b.hidden && a.x.size() == b.x.size() &&
         same_bits(a.x.data(), b.x.data(), static_cast<std::int64_t>(a.x.size()));
}

constexpr Format kM = Format::mxfp4, kB = Format::bf16, kT = Format::q5_0;

TEST_CASE("slots: the bits of a device that holds all experts, for every number of them") {
  NIB_RANDOM(random);
  struct Way {
    ExpertLayer::Formats formats;
    bool tensor_cores;
  };
  for (const Way way : {Way{{kM, kM}, true}, {{kM, kM}, false}, {{kB, kM}, true}, {{kB, kT}, false}}) {
    const int count = 2 + random.below(9), chosen = 1 + random.below(std::min(count, 4));
    const std::int64_t width = 32 * (1 + random.below(9)), units = 32 * (1 + random.below(9));
    CAPTURE(format_name(way.formats.gate_up));
    CAPTURE(way.tensor_cores);
    CAPTURE(count);
    CAPTURE(chosen);
    CAPTURE(width);
    CAPTURE(units);
    const ExpertLayer layer(way.formats, Activation::clamped_swiglu, count, width, units, true, random);
    const DeviceInputs x(40, width, random, 0);
    DeviceUnderTest device(random.seed);
    for (const int of : {chosen, 1 + random.below(count), count}) {
      CAPTURE(of);
      const Slots slots(layer, of);
      for (const std::int64_t rows : {1, 1, 3, 8, 1, 9 + random.below(20), 2}) {
        CAPTURE(rows);
        const Choice choice(rows, count, chosen, random);
        const TestQueue queue{&device, 1 + random.below(7), way.tensor_cores};
        const ExpertsResult expected = run_experts(layer, choice, x, 0, queue);
        CHECK(same(run_experts(layer, choice, x, 0, queue, slots.as_argument()), expected));
      }
    }
  }
}

TEST_CASE("slots: who is copied and who goes, as in a plain cache") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  const int count = 70;  // more than a warp
  const ExpertLayer layer({kM, kM}, Activation::swiglu, count, 32, 32, false, random);
  const DeviceInputs x(8, 32, random, 0);
  const Slots slots(layer, 12);
  PlainCache plain(12);
  for (int call = 0; call < 40; ++call) {
    CAPTURE(call);
    // Few that come often, and some that do not.
    Choice choice(1 + random.below(3), random.chance(70) ? 14 : count, 4, random);
    choice.experts = count;
    choice.make_lists();
    run_experts(layer, choice, x, 0, {&device, 2, true}, slots.as_argument());
    plain.call(experts_of(choice));
    REQUIRE(slots.holds() == plain.holds());
    REQUIRE(slots.copied() == plain.copied);
  }
}

TEST_CASE("slots: of more experts than slots each is copied once, and the last round stays") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  const int count = 40;
  const ExpertLayer layer({kM, kM}, Activation::swiglu, count, 32, 32, false, random);
  const DeviceInputs x(30, 32, random, 0);
  for (const int of : {1, 4, 7, 21, 39}) {
    CAPTURE(of);
    const Slots slots(layer, of);
    std::set<int> before;
    for (int call = 0; call < 12; ++call) {
      CAPTURE(call);
      // Few rows leave slots of all ages to many.
      const Choice choice(random.chance(60) ? 1 + random.below(3) : 1 + random.below(30), count, 4, random);
      const std::set<int> chosen = experts_of(choice);
      const std::int64_t copied = slots.copied();
      run_experts(layer, choice, x, 0, {&device, 2, true}, slots.as_argument());
      std::int64_t missing = 0;
      for (const int expert : chosen) missing += !before.contains(expert);
      CHECK(slots.copied() - copied == missing);
      const cuda::SlotTable table = slots.read();
      std::set<std::pair<int, int>> taken;
      int last_round = 0;
      for (const int expert : chosen) {
        const int round = cuda::round_of_place(table.place[expert]);
        CHECK(taken.insert({round, cuda::matrix_of_place(table.place[expert])}).second);
        last_round = std::max(last_round, round);
      }
      const bool in_halves = choice.rows() > 8 && of > 1 && 4 * choice.rows() > of;
      const auto rounds = in_halves ? cuda::SlotRounds::halves(of) : cuda::SlotRounds::whole(of);
      const int found = static_cast<int>(chosen.size());
      if (found > of)
        CHECK(last_round + 1 == rounds.first + (found - of + rounds.each - 1) / rounds.each);
      else
        CHECK(last_round < rounds.first);
      int copies = 0;
      for (int round = 0; round <= last_round; ++round) {
        const auto [begin, end] = cuda::copies_of(*table.head, rounds, round);
        CHECK(begin == copies);
        for (; copies < end; ++copies) {
          const int slot = cuda::slot_of_copy(table.copies[copies]);
          CHECK(table.place[cuda::expert_of_copy(table.copies[copies])] == cuda::expert_place(round, slot));
          if (in_halves && slot < of / 2 * 2) CHECK(slot / (of / 2) == round % 2);
        }
      }
      CHECK(copies == missing);
      before.clear();
      for (const std::int32_t held : slots.holds())
        if (held > 0) CHECK(before.insert(held - 1).second);
      for (const int expert : chosen)
        if (cuda::round_of_place(table.place[expert]) == last_round) CHECK(before.contains(expert));
    }
  }
}

TEST_CASE("slots: what is in a slot is not read from the host again") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  const ExpertLayer layer({kB, kB}, Activation::swiglu, 6, 64, 64, false, random);
  const DeviceInputs x(1, 64, random, 0);
  const Slots slots(layer, 3);
  const TestQueue queue{&device, 3, true};
  const auto choice_of = [&](std::vector<int> ids) {
    Choice choice(1, 6, 2, random);
    choice.of_row = {std::move(ids)};
    choice.make_lists();
    return choice;
  };
  const Choice first = choice_of({1, 4});
  const ExpertsResult expected = run_experts(layer, first, x, 0, queue, slots.as_argument());
  CHECK(slots.copied() == 2);
  std::fill_n(layer.gate_up.bytes.data(), layer.gate_up.bytes.size, std::byte{0xff});
  CHECK(same(run_experts(layer, first, x, 0, queue, slots.as_argument()), expected));
  CHECK(slots.copied() == 2);
  run_experts(layer, choice_of({0, 2}), x, 0, queue, slots.as_argument());  // 0 to where nobody was, 2 for 1
  CHECK(slots.copied() == 4);
  run_experts(layer, choice_of({0, 4}), x, 0, queue, slots.as_argument());
  CHECK(slots.copied() == 4);
  CHECK_FALSE(same(run_experts(layer, first, x, 0, queue, slots.as_argument()), expected));
  CHECK(slots.copied() == 5);
}

TEST_CASE("slots: as many as there are experts, or fewer") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  const ExpertLayer layer({kM, kM}, Activation::swiglu, 3, 32, 32, false, random);
  Choice choice(2, 3, 2, random);
  const DeviceScratch scratch(64);
  for (const int count : {-1, 4}) {
    ExpertsArgs args = arguments_of(layer, choice);
    args.slots.count = count;
    CHECK(TestQueue{&device, 2, true}.run(cuda::experts, scratch.context(), args).code() == Code::argument);
  }
}

}  // namespace
}  // namespace nib::test
