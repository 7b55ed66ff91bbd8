// Why a computer has no device to use, as a sentence.
#include <cuda/driver.hpp>
#include <doctest/doctest.h>

namespace nib::test {
namespace {

TEST_CASE("a driver that is missing, too old, or sees nothing") {
  using cuda::why_no_device;
  CHECK(why_no_device(0, 13000) == "there is no NVIDIA driver");
  CHECK(why_no_device(12080, 13000) == "the NVIDIA driver knows CUDA up to 12.8, this library needs 13.0");
  CHECK(why_no_device(9020, 13020) == "the NVIDIA driver knows CUDA up to 9.2, this library needs 13.0");
  CHECK(why_no_device(13000, 13020) == "the NVIDIA driver sees no device");
  CHECK(why_no_device(14010, 13000) == "the NVIDIA driver sees no device");
}

}  // namespace
}  // namespace nib::test
