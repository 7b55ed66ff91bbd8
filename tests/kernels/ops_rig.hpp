// What the tests of whole ops share: teams of 1, 2, 3 and 8 threads, an op's scratch, and numbers in double
// that know how far an f32 computation of them may be off.
#pragma once
#include "rig.hpp"
#include <nibble/base/float_scope.hpp>
#include <nibble/base/pool.hpp>

#include <cfenv>
#include <map>

namespace nib::test {

inline Pool& team(int threads) {
  static std::map<int, std::unique_ptr<Pool>> teams;
  auto& pool = teams[threads];
  if (!pool) pool = Pool::start(threads).take();
  return *pool;
}

// Scratch of an op that packs at most `rows` rows of at most `width` inputs; no byte more.
struct Scratch {
  Scratch(std::int64_t rows, std::int64_t width, int threads)
      : activations(packed(rows, width), 0x5a),
        expert_inputs(packed(rows, width), 0x5a),
        tiles(static_cast<std::size_t>(threads * rows * 64) * 4, 0x5a),
        tile_floats(rows * 64) {}
  static std::size_t packed(std::int64_t rows, std::int64_t width) {
    return static_cast<std::size_t>(rows) * most_activation_bytes(round_up(width, kOctet));
  }
  OpContext context(Pool& pool, Numerics numerics) const {
    return {&pool, numerics, activations.data(), expert_inputs.data(), tiles.floats(), tile_floats};
  }
  Bytes activations, expert_inputs, tiles;
  std::int64_t tile_floats;
};

// The host's floating-point environment as an op may find it.
enum class Host { usual, upward, flushing };
constexpr const char* host_name(Host host) {
  return host == Host::usual ? "usual" : host == Host::upward ? "rounds upward" : "flushes, rounds down";
}
class HostEnvironment {
 public:
  explicit HostEnvironment(Host host) {
    std::fegetenv(&before_);
    if (host == Host::upward) std::fesetround(FE_UPWARD);
    if (host == Host::flushing) {
      std::fesetround(FE_DOWNWARD);
#if defined(__x86_64__)
      _mm_setcsr(_mm_getcsr() | 0x8040u);
#endif
    }
  }
  ~HostEnvironment() { std::fesetenv(&before_); }
  HostEnvironment(const HostEnvironment&) = delete;
  HostEnvironment& operator=(const HostEnvironment&) = delete;

 private:
  std::fenv_t before_;
};

// One way to run an op; all give the same bits. The first of the list is the plainest.
struct Way {
  const Backend* backend;
  int threads;
  Host host;
};
inline std::vector<Way> ways() {
  std::vector<Way> all;
  const std::vector<const Backend*> backends = backends_of_kernels();
  for (auto backend = backends.rbegin(); backend != backends.rend(); ++backend) {
    if (!all.empty() && share_ops(**backend, *all.back().backend)) {  // it is the kernels that differ
      all.push_back({*backend, 3, Host::usual});
      continue;
    }
    for (const int threads : {1, 2, 3, 8}) all.push_back({*backend, threads, Host::usual});
    all.push_back({*backend, 2, Host::upward});
    all.push_back({*backend, 1, Host::flushing});
  }
  return all;
}

// A number and a bound of its error.
struct Approx {
  double value = 0, error = 0;
  bool holds(float got) const { return std::abs(static_cast<double>(got) - value) <= error; }
};
inline constexpr double kUnit = 0x1p-24;  // of one f32 rounding

// W x over `k` inputs that are themselves off by at most error.
inline Approx dot_approx(const double* w, const Approx* x, std::int64_t k) {
  Approx sum;
  double magnitude = 0;
  for (std::int64_t i = 0; i < k; ++i) {
    sum.value += w[i] * x[i].value;
    sum.error += std::abs(w[i]) * x[i].error;
    magnitude += std::abs(w[i] * x[i].value);
  }
  sum.error +=
      static_cast<double>(k + 8) * kUnit * (magnitude + sum.error) + static_cast<double>(k) * 0x1p-125;
  return sum;
}
inline Approx rounded_bf16(Approx x) { return {x.value, x.error + 0x1p-8 * std::abs(x.value) + 0x1p-59}; }

// A matrix in double.
struct Exact {
  explicit Exact(const Encoded& w) : k(w.k), values(static_cast<std::size_t>(w.rows * w.k)) {
    for (std::int64_t r = 0; r < w.rows; ++r) decode_row(w.view(), r, values.data() + r * k);
  }
  const double* row(std::int64_t r) const { return values.data() + r * k; }
  std::int64_t k;
  std::vector<double> values;
};

// A vector of floats padded to whole strips.
inline Rows random_bias(std::int64_t width, Random& random) {
  Rows bias(1, width);
  bias.fill([&] { return random.normal() * 0.1f; });
  return bias;
}

}  // namespace nib::test
