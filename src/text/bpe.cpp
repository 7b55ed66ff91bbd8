#include "bpe.hpp"

#include <algorithm>
#include <bit>
#include <functional>

namespace nib::inline v0 {
namespace {

constexpr std::uint32_t kEnd = 0xffff'ffffu;
constexpr std::size_t kShort = 48;  // bytes; below, a scan for the best pair beats a heap
constexpr Token kMostTokens = 1u << 24;

std::size_t hash_bytes(std::string_view bytes) {
  std::uint64_t hash = 0xcbf2'9ce4'8422'2325u;
  for (const char c : bytes) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100'0000'01b3u;
  return static_cast<std::size_t>(hash ^ hash >> 29);
}

}  // namespace

bool Vocabulary::add(Token id, std::string_view bytes) {
  if (id >= kMostTokens || has(id) || block_.size() + bytes.size() > 0x7fff'ffffu) return false;
  if (id >= places_.size())
    places_.resize(std::max<std::size_t>(id + std::size_t{1}, places_.size() * 3 / 2));
  Place& place = places_[id];
  place.offset = static_cast<std::uint32_t>(block_.size());
  place.size = static_cast<std::uint32_t>(bytes.size()) & 0x7fff'ffffu;
  place.used = 1;
  block_ += bytes;
  return true;
}

void Vocabulary::index() {
  while (!places_.empty() && !places_.back().used) places_.pop_back();
  slots_.assign(std::bit_ceil(places_.size() * 2 + 2), kNone);
  const std::size_t mask = slots_.size() - 1;
  for (Token id = 0; id < places_.size(); ++id) {
    if (!places_[id].used || find(bytes(id)) != kNone) continue;
    std::size_t i = hash_bytes(bytes(id));
    while (slots_[i & mask] != kNone) ++i;
    slots_[i & mask] = id;
  }
}

Token Vocabulary::find(std::string_view wanted) const {
  if (slots_.empty()) return kNone;
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t i = hash_bytes(wanted);; ++i) {
    const Token id = slots_[i & mask];
    if (id == kNone || bytes(id) == wanted) return id;
  }
}

void MergeTable::reserve(std::size_t count) {
  slots_.assign(std::bit_ceil(count * 2 + 2), Slot{});
  mask_ = slots_.size() - 1;
  shift_ = 64 - std::countr_zero(slots_.size());
}

void MergeTable::add(Token left, Token right, Merge merge) {
  if (find(left, right)) return;
  std::size_t i = hash(left, right);
  while (slots_[i & mask_].left != Vocabulary::kNone) ++i;
  slots_[i & mask_] = {left, right, merge};
}

void Bpe::encode(std::string_view word, BpeScratch& scratch, std::vector<Token>& out) const {
  if (whole_words_first)
    if (const Token id = vocabulary.find(word); id != Vocabulary::kNone) return out.push_back(id);
  word.size() <= kShort ? merge_short(word, out) : merge_long(word, scratch, out);
}

// All candidate ranks in a small array; the lowest is found by looking at all.
void Bpe::merge_short(std::string_view word, std::vector<Token>& out) const {
  Token ids[kShort];
  Merge merge[kShort];  // of symbol i with i + 1
  std::size_t count = 0;
  for (const char c : word)
    if (const Token id = byte_tokens[static_cast<std::uint8_t>(c)]; id != Vocabulary::kNone)
      ids[count++] = id;
  const auto look_up = [&](std::size_t i) {
    const Merge* found = i + 1 < count ? merges.find(ids[i], ids[i + 1]) : nullptr;
    merge[i] = found ? *found : Merge{kEnd, 0};
  };
  for (std::size_t i = 0; i < count; ++i) look_up(i);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i)
      if (merge[i].rank < merge[best].rank) best = i;
    if (merge[best].rank == kEnd) break;
    ids[best] = merge[best].result;
    std::copy(ids + best + 2, ids + count, ids + best + 1);
    std::copy(merge + best + 2, merge + count, merge + best + 1);
    --count;
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  out.insert(out.end(), ids, ids + count);
}

// A linked list of symbols and a heap of candidates: n log n for any word. A candidate whose symbols have
// changed since is stale and skipped.
void Bpe::merge_long(std::string_view word, BpeScratch& scratch, std::vector<Token>& out) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  for (const char c : word) {
    const Token id = byte_tokens[static_cast<std::uint8_t>(c)];
    if (id == Vocabulary::kNone) continue;
    const auto at = static_cast<std::uint32_t>(symbols.size());
    if (at > 0) symbols.back().next = at;
    symbols.push_back({id, at == 0 ? kEnd : at - 1, kEnd});
  }
  const auto candidate = [&](std::uint32_t at) -> std::optional<BpeScratch::Candidate> {
    if (at == kEnd || symbols[at].next == kEnd) return {};
    const Token left = symbols[at].id, right = symbols[symbols[at].next].id;
    const Merge* merge = merges.find(left, right);
    if (!merge) return {};
    return BpeScratch::Candidate{merge->rank, at, left, right};
  };
  for (std::uint32_t at = 0; at < symbols.size(); ++at)
    if (const auto c = candidate(at)) heap.push_back(*c);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const BpeScratch::Candidate best = heap.back();
    heap.pop_back();
    BpeScratch::Symbol& left = symbols[best.at];
    if (left.id != best.left || left.next == kEnd || symbols[left.next].id != best.right) continue;
    left.id = merges.find(best.left, best.right)->result;
    BpeScratch::Symbol& gone = symbols[left.next];
    gone.id = Vocabulary::kNone;
    left.next = gone.next;
    if (left.next != kEnd) symbols[left.next].previous = best.at;
    for (const std::uint32_t at : {left.previous, best.at})
      if (const auto c = candidate(at)) {
        heap.push_back(*c);
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
      }
  }
  for (std::uint32_t at = symbols.empty() ? kEnd : 0; at != kEnd; at = symbols[at].next)
    out.push_back(symbols[at].id);
}

}  // namespace nib::inline v0
