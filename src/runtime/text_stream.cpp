#include "text_stream.hpp"

#include <algorithm>
#include <utility>

namespace nib::inline v0 {
namespace {

// Room for any token's text beside what stop texts hold back: taking a token allocates nothing.
constexpr std::size_t kTextRoom = 1024;

}  // namespace

TextStream::TextStream(const Tokenizer* tokenizer, bool show_specials, std::vector<std::string> stop_texts)
    : tokenizer_(tokenizer),
      specials_(show_specials ? Specials::recognised : Specials::ordinary),
      stop_texts_(std::move(stop_texts)) {
  std::erase(stop_texts_, "");
  std::size_t longest = 0;
  for (const std::string& stop : stop_texts_) longest = std::max(longest, stop.size());
  pending_.reserve(kTextRoom + longest);
  text_.reserve(kTextRoom + longest);
  reset();
}

bool TextStream::push(Token id) {
  text_.clear();
  if (!decoder_) return false;
  decoder_->push(id, pending_);
  std::size_t first = std::string::npos;
  for (const std::string& stop : stop_texts_) first = std::min(first, pending_.find(stop));
  if (first != std::string::npos) {
    text_.assign(pending_, 0, first);
    pending_.clear();
    return true;
  }
  const std::size_t held = held_back();
  text_.assign(pending_, 0, pending_.size() - held);
  pending_.erase(0, pending_.size() - held);
  return false;
}

// The longest end of `pending_` that begins a stop text.
std::size_t TextStream::held_back() const {
  std::size_t longest = 0;
  for (const std::string& stop : stop_texts_)
    for (std::size_t n = std::min(stop.size() - 1, pending_.size()); n > longest; --n)
      if (std::string_view(pending_).ends_with(std::string_view(stop).substr(0, n))) {
        longest = n;
        break;
      }
  return longest;
}

void TextStream::finish() {
  if (!decoder_) return;
  decoder_->finish(pending_);
  text_ += pending_;
  pending_.clear();
}

void TextStream::forget_held() {
  if (tokenizer_) decoder_.emplace(*tokenizer_, specials_);
  pending_.clear();
}

void TextStream::reset() {
  forget_held();
  text_.clear();
}

}  // namespace nib::inline v0
