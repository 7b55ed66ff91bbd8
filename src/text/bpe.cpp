#include "bpe.hpp"

#include <nibble/base/memory.hpp>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <numeric>

namespace nib::inline v0 {
namespace {

constexpr std::uint32_t kNoMerge = ~std::uint32_t{0};
constexpr std::uint32_t kNobody = ~std::uint32_t{0};
// Up to here, looking at every pair again after each merge costs less than keeping a queue.
constexpr std::size_t kShort = 40;

}  // namespace

void Bpe::encode(std::span<const Token> word, Scratch& scratch, std::vector<Token>& out) const {
  if (word.size() <= kShort)
    encode_short(word, out);
  else
    encode_long(word, scratch, out);
}

void Bpe::encode_short(std::span<const Token> word, std::vector<Token>& out) const {
  std::array<Token, kShort> tokens;
  std::array<Merge, kShort> merges;  // merges[i]: of tokens i and i + 1
  std::size_t count = word.size();
  std::copy(word.begin(), word.end(), tokens.begin());
  const auto ask = [&](std::size_t i) {
    const Merge* merge = i + 1 < count ? merges_.find(tokens[i], tokens[i + 1]) : nullptr;
    merges[i] = merge ? *merge : Merge{kNoMerge, 0};
  };
  for (std::size_t i = 0; i < count; ++i) ask(i);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i)
      if (merges[i].rank < merges[best].rank) best = i;
    if (merges[best].rank == kNoMerge) break;
    tokens[best] = merges[best].result;
    --count;
    for (std::size_t i = best + 1; i < count; ++i) {
      tokens[i] = tokens[i + 1];
      merges[i] = merges[i + 1];
    }
    ask(best);
    if (best > 0) ask(best - 1);
  }
  out.insert(out.end(), tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(count));
}

// What may be merged, as rank << 32 | place: lowest rank first, then leftmost. Ranks fall into bands; only
// the band at hand is in order: what it had when its turn came is sorted, what came since lies in a heap. In
// vocabularies as they are trained hardly anything ever comes to a band at hand or before it, so nearly all
// of a long word goes through memory from front to back.
class Bpe::Queue {
 public:
  void clear() {
    for (auto& band : bands_) band.clear();
    heap_.clear();
    band_ = next_ = 0;
    sorted_ = false;
  }
  void add(std::uint64_t entry) {
    const std::size_t band = band_of(entry);
    if (sorted_ && band <= band_) {
      heap_.push_back(entry);
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
    } else {
      bands_[band].push_back(entry);
    }
  }
  bool take(std::uint64_t& lowest) {
    for (;;) {
      std::vector<std::uint64_t>& band = bands_[band_];
      if (!sorted_) sort(band);
      sorted_ = true;
      if (!heap_.empty() && (next_ == band.size() || heap_.front() < band[next_])) {
        std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
        lowest = heap_.back();
        heap_.pop_back();
        return true;
      }
      if (next_ < band.size()) {
        lowest = band[next_++];
        return true;
      }
      if (band_ + 1 == bands_.size()) return false;
      band.clear();
      ++band_;
      next_ = 0;
      sorted_ = false;
    }
  }
  // Where an entry lies that take() will soon come to, if all goes as it mostly does.
  std::uint32_t place_ahead() const {
    const std::vector<std::uint64_t>& band = bands_[band_];
    return band.empty() ? 0 : static_cast<std::uint32_t>(band[std::min(next_ + kAhead, band.size() - 1)]);
  }

 private:
  static constexpr std::size_t kAhead = 16;   // measured: 8 to 64 are alike
  static constexpr std::size_t kBands = 256;  // of kRanks ranks, the last of all others
  static constexpr std::size_t kRanks = 4096;

  // Most entries of a rank came in the order of their places. So they are counted out by rank, and a rank
  // is sorted only where that is not so.
  void sort(std::vector<std::uint64_t>& band) {
    if (std::is_sorted(band.begin(), band.end())) return;
    if (band.size() < kRanks || band_ + 1 == kBands) return std::sort(band.begin(), band.end());
    const auto rank_of = [](std::uint64_t entry) { return static_cast<std::size_t>(entry >> 32) % kRanks; };
    std::array<std::size_t, kRanks + 1> begin{};
    for (const std::uint64_t entry : band) ++begin[rank_of(entry) + 1];
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    spare_.resize(band.size());
    auto at = begin;
    for (const std::uint64_t entry : band) spare_[at[rank_of(entry)]++] = entry;
    for (std::size_t rank = 0; rank < kRanks; ++rank) {
      const auto first = spare_.begin() + static_cast<std::ptrdiff_t>(begin[rank]),
                 last = spare_.begin() + static_cast<std::ptrdiff_t>(begin[rank + 1]);
      if (!std::is_sorted(first, last)) std::sort(first, last);
    }
    band.swap(spare_);
  }
  static std::size_t band_of(std::uint64_t entry) {
    return static_cast<std::size_t>(std::min<std::uint64_t>(entry >> 44, kBands - 1));
  }

  std::array<std::vector<std::uint64_t>, kBands> bands_;
  std::vector<std::uint64_t> heap_, spare_;
  std::size_t band_ = 0, next_ = 0;  // the band at hand, and how much of it is done
  bool sorted_ = false;              // the band at hand is
};

Bpe::Scratch::Scratch() = default;
Bpe::Scratch::~Scratch() = default;

// A merge makes the left symbol as long as both, and the right one nobody. The queue is not cleaned when a
// pair goes away: an entry counts only while the pair that stands at its place has its rank. To ask that
// again costs little, for the pairs come in the order of their ranks, so that the same one is asked for many
// times in a row. The queue begins with at most n - 1 entries, and each of at most n - 1 merges adds two: 24
// bytes, up to three times that while a vector grows, and once more while they are sorted, beside 8 of a
// symbol.
void Bpe::encode_long(std::span<const Token> word, Scratch& scratch, std::vector<Token>& out) const {
  auto& symbols = scratch.symbols;
  if (!scratch.queue) scratch.queue = std::make_unique<Queue>();
  Queue& queue = *scratch.queue;
  const auto size = static_cast<std::uint32_t>(word.size());
  if (size > symbols.capacity()) {  // merges touch them far apart: with small pages each is a walk of tables
    symbols.clear();
    symbols.reserve(size);
    wish_huge_pages(symbols.data(), size * sizeof(Symbol));
  }
  symbols.resize(size);
  queue.clear();
  const auto merge_at = [&](std::uint32_t at) -> const Merge* {
    const Symbol symbol = symbols[at];
    if (symbol.token == kNobody || symbol.length >= size - at) return nullptr;
    return merges_.find(symbol.token, symbols[at + symbol.length].token);
  };
  const auto ask = [&](std::uint32_t at) {
    if (const Merge* merge = merge_at(at)) queue.add(std::uint64_t{merge->rank} << 32 | at);
  };
  for (std::uint32_t i = 0; i < size; ++i) symbols[i] = {word[i], 1};
  for (std::uint32_t i = 0; i < size; ++i) ask(i);
  for (std::uint64_t lowest; queue.take(lowest);) {
    const auto rank = static_cast<std::uint32_t>(lowest >> 32), at = static_cast<std::uint32_t>(lowest);
    __builtin_prefetch(&symbols[queue.place_ahead()]);
    const Merge* merge = merge_at(at);
    if (!merge || merge->rank != rank) continue;
    Symbol& left = symbols[at];
    Symbol& right = symbols[at + left.length];
    left = {merge->result, left.length + right.length};
    right.token = kNobody;  // it begins no pair any more
    symbols[at + left.length - 1].length = left.length;
    ask(at);
    if (at != 0) ask(at - symbols[at - 1].length);
  }
  for (std::uint32_t i = 0; i < size; i += symbols[i].length) out.push_back(symbols[i].token);
}

}  // namespace nib::inline v0
