// How one head's key and value become bytes: codes as the definitions have them, and nothing lost that is no
// number.
#include "../../src/kernels/bodies/stored_kv.hpp"

#include "kv_places.hpp"
#include "rig.hpp"
#include <nibble/base/float_scope.hpp>

#include <limits>

namespace nib::test {
namespace {

TEST_CASE("E4M3 codes of keys: those of the definition, ties and subnormals too") {
  NIB_RANDOM(random);
  const FloatScope scope;
  const auto check = [](float x) {
    CAPTURE(x);
    REQUIRE(std::to_integer<int>(cpu::E4M3Codes::encode(x)) == E4M3::encode(x));
  };
  for (int code = 0; code < 0x7e; ++code) {  // every value, the tie above it, and both neighbours of that
    const float low = E4M3::decode(static_cast<std::uint8_t>(code));
    const float tie = (low + E4M3::decode(static_cast<std::uint8_t>(code + 1))) / 2;
    for (const float x : {low, std::nextafter(tie, 0.0f), tie, std::nextafter(tie, 500.0f)}) {
      check(x);
      check(-x);
    }
  }
  for (int i = 0; i < 200'000; ++i) check(random.spread(-12, 7));
}

TEST_CASE("a head with something that is no number keeps a scale that is none") {
  NIB_RANDOM(random);
  const FloatScope scope;
  for (const KvFormat format : {KvFormat::int8, KvFormat::fp8})
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
      for (const int at : {0, 7, 31}) {  // also followed by numbers
        CAPTURE(at);
        const KvLayout layout{format, 1, 32};
        const Bytes page(layout.layer_bytes());
        float key[32], value[32];
        for (float& x : key) x = random.normal();
        for (float& x : value) x = random.normal();
        key[at] = bad;
        cpu::append_key_value<void>(layout, page.data(), 5, key, value);
        const KvPlaces places(layout, 0);
        CHECK_FALSE(std::isfinite(KvPlaces::read<float>(page.data() + places.scale(false, 0, 5))));
        CHECK(std::isfinite(KvPlaces::read<float>(page.data() + places.scale(true, 0, 5))));
      }
}

}  // namespace
}  // namespace nib::test
