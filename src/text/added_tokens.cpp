#include "added_tokens.hpp"

#include <algorithm>
#include <numeric>

namespace nib::inline v0 {
namespace {

std::size_t total_bytes(std::span<const AddedTokens::Spelling> spellings) {
  std::size_t total = 0;
  for (const auto& spelling : spellings) total += spelling.content.size();
  return total;
}

}  // namespace

AddedTokens::AddedTokens(std::span<const Spelling> spellings) : children_(total_bytes(spellings)) {
  struct Origin {
    std::uint32_t parent, depth;
    unsigned char byte;
  };
  std::vector<Origin> origins = {{}};
  for (const Spelling& spelling : spellings) {
    std::uint32_t node = 0, depth = 0;
    for (auto at = spelling.content.rbegin(); at != spelling.content.rend(); ++at) {
      const auto byte = static_cast<unsigned char>(*at);
      std::uint32_t& child = children_.at(node, byte);
      ++depth;
      if (child == 0) {
        child = static_cast<std::uint32_t>(nodes_.size());
        nodes_.push_back({});
        origins.push_back({node, depth, byte});
      }
      node = child;
    }
    starts_[static_cast<unsigned char>(spelling.content.back())] = true;
    nodes_[node].all = {depth, spelling.id};
    if (!spelling.special) nodes_[node].ordinary = nodes_[node].all;
  }
  // By depth, because a fallback is always a shallower node.
  std::vector<std::uint32_t> order(nodes_.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return origins[a].depth < origins[b].depth; });
  for (const std::uint32_t i : order) {
    if (origins[i].depth < 2) continue;  // falls back to the root
    Node& node = nodes_[i];
    node.fallback = step(nodes_[origins[i].parent].fallback, origins[i].byte);
    if (node.all.size == 0) node.all = nodes_[node.fallback].all;
    if (node.ordinary.size == 0) node.ordinary = nodes_[node.fallback].ordinary;
  }
}

std::uint32_t AddedTokens::step(std::uint32_t node, unsigned char byte) const {
  for (;; node = nodes_[node].fallback) {
    if (const std::uint32_t* child = children_.find(node, byte)) return *child;
    if (node == 0) return 0;
  }
}

void AddedTokens::find(std::string_view text, Specials specials, std::vector<Match>& out) const {
  const auto ending = specials == Specials::recognised ? &Node::all : &Node::ordinary;
  find_each(
      text, [&](std::uint32_t node, std::size_t) { return nodes_[node].*ending; }, out);
}

void AddedTokens::find(std::string_view text, std::size_t offset, std::span<const TextRange> own,
                       std::vector<Match>& out) const {
  std::size_t before = own.size();  // the ranges that begin at or before the place at hand
  const auto ending_at = [&](std::uint32_t node, std::size_t at) {
    const std::size_t place = offset + at;
    while (before > 0 && own[before - 1].begin > place) --before;
    const Ending ordinary = nodes_[node].ordinary;
    if (before == 0 || own[before - 1].end <= place) return ordinary;
    // Shorter spellings that begin here are those of the fallbacks.
    const std::size_t most = own[before - 1].end - place;
    while (nodes_[node].all.size > most) node = nodes_[node].fallback;
    return nodes_[node].all.size > ordinary.size ? nodes_[node].all : ordinary;
  };
  find_each(text, ending_at, out);
}

template <class EndingAt>
void AddedTokens::find_each(std::string_view text, EndingAt ending_at, std::vector<Match>& out) const {
  out.clear();
  if (nodes_.size() == 1) return;
  std::uint32_t node = 0;
  for (std::size_t at = text.size(); at-- > 0;) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (node == 0 && !starts_[byte]) continue;
    node = step(node, byte);
    const Ending found = ending_at(node, at);
    if (found.size != 0) out.push_back({at, found.size, found.id});
  }
  // Now one candidate per place, the last place first; of those that overlap the leftmost stays.
  std::reverse(out.begin(), out.end());
  std::size_t kept = 0, end = 0;
  for (const Match& match : out) {
    if (match.begin < end) continue;
    end = match.begin + match.size;
    out[kept++] = match;
  }
  out.resize(kept);
}

}  // namespace nib::inline v0
