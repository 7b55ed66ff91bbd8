// What drawing a token asks of logits, and who answers where they are: on the host, or on a device that has
// told of them in a digest. Private to the room.
#pragma once

#include <nibble/runtime/sampler.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace nib::inline v0 {

// By logit, the lower id first on ties.
inline bool likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

class LogitView {
 public:
  LogitScale scale{};
  Candidate best{};               // the largest, the lowest id on ties
  std::span<const float> sums{};  // of the weights of each block

  // The `count` likeliest of those that weigh anything, in any order. False: it does not know.
  virtual bool find_likeliest(std::size_t count, std::vector<Candidate>& out) = 0;
  // All of at least `least`, in any order; or as many of the likeliest of these as it knows.
  enum class Found : std::uint8_t { all, likeliest };
  virtual Found find_from(float least, std::vector<Candidate>& out) = 0;
  struct Block {
    std::span<const float> logits, weights;
  };
  // Errors: device.
  virtual Result<Block> block(std::size_t index) = 0;

 protected:
  ~LogitView() = default;
};

// All of them, after the penalty. Borrowed, and so is what it works with.
class HostLogits final : public LogitView {
 public:
  // Errors: internal (none is finite).
  static Result<HostLogits> make(const Backend& backend, std::span<const float> logits,
                                 const LogitWeighing& weighing, SamplerScratch& scratch);

  bool find_likeliest(std::size_t count, std::vector<Candidate>& out) override;
  Found find_from(float least, std::vector<Candidate>& out) override;
  Result<Block> block(std::size_t index) override;

 private:
  HostLogits(std::span<const float> logits, SamplerScratch& scratch) : logits_(logits), scratch_(scratch) {}

  std::span<const float> logits_;
  SamplerScratch& scratch_;
};

// A digest, and the history for the penalty of what it does not have. The same numbers, to the bit.
class DigestedLogits final : public LogitView {
 public:
  // Errors: internal (none is finite).
  static Result<DigestedLogits> make(const Backend& backend, const PlacedLogits& logits,
                                     const LogitWeighing& weighing, std::span<const Token> history,
                                     SamplerScratch& scratch);

  bool find_likeliest(std::size_t count, std::vector<Candidate>& out) override;
  Found find_from(float least, std::vector<Candidate>& out) override;
  Result<Block> block(std::size_t index) override;

 private:
  DigestedLogits(const Backend& backend, const PlacedLogits& logits, std::span<const Token> history,
                 SamplerScratch& scratch)
      : backend_(backend), logits_(logits), history_(history), scratch_(scratch) {}
  // Those of its list from `least` on, and what they weigh.
  void take_from(float least, std::vector<Candidate>& out);

  const Backend& backend_;
  const PlacedLogits& logits_;
  std::span<const Token> history_;
  SamplerScratch& scratch_;
  float penalty_ = 1;
  float listed_from_ = 0;                // everything from here on is in the list,
  std::span<const LikelyLogit> list_{};  // or it is empty
};

// As the repetition penalty has it.
inline float penalized(float logit, float penalty) { return logit > 0 ? logit / penalty : logit * penalty; }

}  // namespace nib::inline v0
