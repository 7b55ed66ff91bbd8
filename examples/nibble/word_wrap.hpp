// Breaks text that comes in pieces at words, as wide as a terminal is.
#pragma once

#include <string>
#include <string_view>

namespace nib::program {

// A word is held back until it is known where it ends. Code is left as it is: between ``` fences, and lines
// that begin with a tab, four spaces or a bar. Width 0 wraps nothing and holds nothing back.
class WordWrap {
 public:
  explicit WordWrap(int width) : width_(width) {}

  // What can be written after this piece (whole UTF-8 characters).
  std::string push(std::string_view text);
  // What was held back; the next piece begins at the beginning of a line.
  std::string finish();

 private:
  void take(std::string_view character, std::string& out);
  void end_word(std::string& out);
  void end_line();
  bool is_code() const;

  int width_;
  int column_ = 0;
  std::string word_;
  int word_columns_ = 0;
  std::string spaces_;      // before the word
  std::string line_start_;  // the first few characters of the line as it came
  bool in_fence_ = false;
};

}  // namespace nib::program
