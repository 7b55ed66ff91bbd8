// How many kernels a layer takes. Between two of them a device waits for the slowest of its blocks, so that a
// token's time grows with their number: it is written down here.
#include "device_rig.hpp"
#include "support/data.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include <cuda/device_queue.hpp>
#include <doctest/doctest.h>

namespace nib::test {
namespace {

// The library, but for ops that write down how many kernels each of them asked for, and with which arguments.
// One at a time.
class LaunchRecorder {
 public:
  LaunchRecorder() {
    clear();
    library_.ops = {record<QkvArgs, &DeviceOps::qkv>,         record<AttentionArgs, &DeviceOps::attention>,
                    record<ProjectArgs, &DeviceOps::project>, record<RouteArgs, &DeviceOps::route>,
                    record<ExpertsArgs, &DeviceOps::experts>, record<HeadArgs, &DeviceOps::head>,
                    record<DigestArgs, &DeviceOps::digest>};
  }
  const DeviceLibrary& library() const { return library_; }
  // Of each call in turn, the op by its first letter: "q3 a1 p1 ..".
  static const std::string& launches() { return launches_; }
  // Their bytes.
  static const std::vector<std::string>& arguments() { return arguments_; }
  static void clear() {
    launches_.clear();
    arguments_.clear();
  }

 private:
  template <class Args, DeviceOp<Args> DeviceOps::*op>
  static std::int32_t record(DeviceQueue* queue, const OpContext* context, const Args* args,
                             DeviceMessage* message) {
    const std::int64_t before = queue->emulator->launches();
    const std::int32_t code = (nibble_device_library.ops.*op)(queue, context, args, message);
    launches_ += letter(args);
    launches_ += std::to_string(queue->emulator->launches() - before) + " ";
    arguments_.push_back(bytes_of(*args));
    return code;
  }
  template <class Args>
  static std::string bytes_of(Args args) {
#if __has_builtin(__builtin_clear_padding)
    __builtin_clear_padding(&args);
#endif
    return {reinterpret_cast<const char*>(&args), sizeof args};
  }
  static char letter(const QkvArgs*) { return 'q'; }
  static char letter(const AttentionArgs*) { return 'a'; }
  static char letter(const ProjectArgs*) { return 'p'; }
  static char letter(const RouteArgs*) { return 'r'; }
  static char letter(const ExpertsArgs*) { return 'e'; }
  static char letter(const HeadArgs*) { return 'h'; }
  static char letter(const DigestArgs*) { return 'd'; }

  DeviceLibrary library_ = nibble_device_library;
  static inline std::string launches_;
  static inline std::vector<std::string> arguments_;
};

// Of a pass of so many tokens of a session.
std::string launches_of(const std::string& path, std::size_t tokens, int device,
                        KvFormat format = KvFormat::automatic, std::uint32_t slots = 0) {
  const LaunchRecorder recorder;
  ModelRig rig(path, {.numerics = Numerics::bf16,
                      .kv_format = format,
                      .placement = all_there,
                      .library = &recorder.library(),
                      .device = device,
                      .expert_slots = slots});
  auto cache = rig.cache();
  rig.feed(*cache, std::vector<std::uint32_t>(tokens, 17));
  return LaunchRecorder::launches();
}

std::string times(int count, const std::string& text) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

// q: product, which places heads; of the first layer the norm. a: attention, joined by the block that comes
// last. p: product, which leaves what the norm wants, and the router, in one where the latter is in bf16. r:
// of dense layers nothing. e: gates and ups, down, the sum of experts and what the norm wants. h: product,
// and the norm where not all rows want logits.
TEST_CASE("kernels of a layer of gpt-oss") {
  for (const int device : {0, 1}) {
    const std::string few = "q2 a1 p1 e2 " + times(5, "q1 a1 p1 e2 ") + "h1 ";
    CHECK(launches_of(kTalesFolder, 1, device) == few);
    CHECK(launches_of(kTalesFolder, 8, device) == few);
    CHECK(launches_of(kTalesFolder, 9, device) == "q3 a1 p5 e4 " + times(5, "q2 a1 p5 e4 ") + "h1 ");
  }
}

// Places of experts, copies of what is needed first, and the products of each round. What later rounds of a
// prompt need is copied by the products before them: of 16 experts in 4 slots, two rounds of those that find
// room, and six of two slots each. Of a few rows it has a kernel of its own in each round, of four slots.
TEST_CASE("kernels of a layer of gpt-oss whose experts take turns in slots") {
  for (const int device : {0, 1}) {
    const auto launches = [&](std::size_t tokens) {
      return launches_of(kTalesFolder, tokens, device, KvFormat::automatic, 4);
    };
    CHECK(launches(1) == "q2 a1 p1 e4 " + times(5, "q1 a1 p1 e4 ") + "h1 ");
    CHECK(launches(8) == "q2 a1 p1 e13 " + times(5, "q1 a1 p1 e13 ") + "h1 ");
    CHECK(launches(9) == "q3 a1 p5 e20 " + times(5, "q2 a1 p5 e20 ") + "h1 ");
  }
}

// Of dense layers nothing is routed.
TEST_CASE("kernels of a layer of Llama") {
  NIB_REQUIRE_DATA(data);
  const std::string path = data + "/models/llama-3";
  const std::string few = "q2 a1 p1 r0 e2 " + times(1, "q1 a1 p1 r0 e2 ") + "h1 ";
  CHECK(launches_of(path, 1, 0) == few);
  CHECK(launches_of(path, 1, 0, KvFormat::int8) ==
        "q3 a1 p1 r0 e2 q2 a1 p1 r0 e2 h1 ");  // scales want whole heads
  CHECK(launches_of(path, 9, 0) == "q3 a1 p2 r0 e4 q2 a1 p2 r0 e4 h1 ");
}

#if __has_builtin(__builtin_clear_padding)  // else equal arguments may differ in what nobody reads
// Or no list of kernels would come again (cuda/launch_list.hpp).
TEST_CASE("what a token asks of the device the next one asks with the same arguments") {
  for (auto* placement : {all_there, experts_here, zigzag}) {
    const LaunchRecorder recorder;
    ModelRig rig(kTalesFolder,
                 {.numerics = Numerics::bf16, .placement = placement, .library = &recorder.library()});
    auto cache = rig.cache();
    std::vector<std::string> before;
    for (const std::uint32_t token : {433u, 2u}) {
      LaunchRecorder::clear();
      rig.feed(*cache, {&token, 1});
      if (!before.empty()) CHECK(LaunchRecorder::arguments() == before);
      before = LaunchRecorder::arguments();
      REQUIRE_FALSE(before.empty());
    }
  }
}
#endif

}  // namespace
}  // namespace nib::test
