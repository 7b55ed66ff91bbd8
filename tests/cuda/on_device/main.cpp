// The main of test_cuda_on_device: says what the device is, and fails where there is none.
#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>

#include <cuda/machine.hpp>
#include <doctest/doctest.h>

int main(int argc, char** argv) {
  const nib::Result<nib::DeviceFacts> device = nib::cuda::describe_device(0);
  if (!device.ok()) {
    std::fprintf(stderr, "These tests need a CUDA device: %s.\n", device.status().message().c_str());
    return 1;
  }
  std::printf("Device 0: %s, compute capability %d.%d, %d multiprocessors.\n", device.value().name,
              device.value().major, device.value().minor, device.value().processors);
  return doctest::Context(argc, argv).run();
}
