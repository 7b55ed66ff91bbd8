// What the benches of kernels share: the machine that they run on, measured in the same run.
#pragma once

#include <nibble/runtime/measure.hpp>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include <benchmark/benchmark.h>

namespace nib::bench {

struct Machine {
  std::shared_ptr<Runtime> runtime;
  double read;  // bytes per second, all threads together
};

// Says what it measured, or why it could not, and ends the program then.
inline Machine measured_machine() {
  const auto fail = [](const Status& status) {
    std::fprintf(stderr, "%s\n", status.message().c_str());
    std::exit(1);
  };
  auto runtime = Runtime::create();
  if (!runtime.ok()) fail(runtime.status());
  const auto read = measure_read_bandwidth(**runtime, 0.5);
  if (!read.ok()) fail(read.status());
  std::printf("%d threads read %.1f GB/s\n", (*runtime)->pool().threads(), *read * 1e-9);
  return {std::move(runtime).take(), *read};
}

// A counter of what one iteration does, shown by the second.
inline benchmark::Counter by_the_second(double amount) {
  return benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace nib::bench
