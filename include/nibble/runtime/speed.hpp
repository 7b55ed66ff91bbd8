// Room runtime: measure_speed: how fast a model computes prompts and decodes on this machine.
//
// Tokens are random ones, the same in every run; nothing is sampled but the likeliest token. Before a clock
// starts, the sessions hold their context and one pass has been made, so that neither filling a context nor
// first touches of memory are in the time. Clocks around ops add some microseconds to a pass; where a device
// computes they would add more, and its ops are timed in a round before the others.
#pragma once

#include <nibble/base/cancel.hpp>
#include <nibble/base/status.hpp>
#include <nibble/runtime/session.hpp>

#include <cstdint>
#include <memory>
#include <vector>

namespace nib::inline v0 {

struct SpeedOptions {
  std::vector<std::uint32_t> contexts{0};  // tokens that a session holds before; each is measured
  std::vector<std::uint32_t> batches{1};   // sessions that decode together; each is measured
  std::uint32_t prompt = 512;              // tokens of a prefill; 0: none is measured
  std::uint32_t decode = 128;              // tokens that each session decodes; 0: none is measured
  std::uint32_t rounds = 3;                // of every measurement
  ProgressSink progress{};                 // stage prefill, name "benchmark"; done and total count tokens
  const Cancel* cancel = nullptr;

  // What a plan must have for it: positions of each session, and sessions.
  std::uint32_t positions() const;
  std::uint32_t sessions() const;
};

struct Speed {
  enum class Kind : std::uint8_t { prefill, decode };
  Kind kind = Kind::prefill;
  std::uint32_t context = 0, sessions = 1;
  std::uint32_t tokens = 0;     // of each session
  std::vector<double> seconds;  // of each round
  OpTimes ops;                  // of the round that took least; where a device computes, of one apart

  // Tokens of all sessions together, in the round that nothing disturbed.
  double tokens_per_second() const;
};

// For each context in ascending order: the prefill of one session, then the decoding of each batch. The model
// must have been opened with a plan for sessions() sessions of positions() positions. Errors: argument
// (nothing to measure, no rounds, an empty batch), stopped, and those of Session::create, append and
// batch_step.
Result<std::vector<Speed>> measure_speed(const std::shared_ptr<Model>& model, const SpeedOptions& options);

}  // namespace nib::inline v0
