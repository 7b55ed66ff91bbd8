#include "bpe.hpp"

#include <algorithm>
#include <array>
#include <functional>

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

// Symbols form a list in place: a merge grows the left one and unlinks the right one. The queue is not
// cleaned when a pair goes away; an entry counts only while its symbol still has that rank, and then it
// stands for the pair that is there now. The queue begins with at most n - 1 entries, and each of at most n -
// 1 merges adds two and takes one: 16 bytes, doubled by the growth of a vector, beside 16 of a symbol.
void Bpe::encode_long(std::span<const Token> word, Scratch& scratch, std::vector<Token>& out) const {
  auto& symbols = scratch.symbols;
  auto& queue = scratch.queue;
  const auto size = static_cast<std::uint32_t>(word.size());
  symbols.resize(size);
  queue.clear();
  const auto ask = [&](std::uint32_t at) {
    const std::uint32_t next = symbols[at].next;
    const Merge* merge = next == kNobody ? nullptr : merges_.find(symbols[at].token, symbols[next].token);
    symbols[at].rank = merge ? merge->rank : kNoMerge;
    if (merge) queue.push_back(std::uint64_t{merge->rank} << 32 | at);
    return merge != nullptr;
  };
  for (std::uint32_t i = 0; i < size; ++i)
    symbols[i] = {word[i], i - 1, i + 1 < size ? i + 1 : kNobody, kNoMerge};
  for (std::uint32_t i = 0; i < size; ++i) ask(i);
  constexpr std::greater<> kLowestFirst;
  std::make_heap(queue.begin(), queue.end(), kLowestFirst);
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), kLowestFirst);
    const auto rank = static_cast<std::uint32_t>(queue.back() >> 32);
    const auto left = static_cast<std::uint32_t>(queue.back());
    queue.pop_back();
    if (symbols[left].rank != rank) continue;
    const std::uint32_t right = symbols[left].next, behind = symbols[right].next;
    symbols[left].token = merges_.find(symbols[left].token, symbols[right].token)->result;
    symbols[left].next = behind;
    symbols[right].rank = kNoMerge;
    if (behind != kNobody) symbols[behind].previous = left;
    if (ask(left)) std::push_heap(queue.begin(), queue.end(), kLowestFirst);
    if (left != 0 && ask(symbols[left].previous)) std::push_heap(queue.begin(), queue.end(), kLowestFirst);
  }
  for (std::uint32_t i = 0; i != kNobody; i = symbols[i].next) out.push_back(symbols[i].token);
}

}  // namespace nib::inline v0
