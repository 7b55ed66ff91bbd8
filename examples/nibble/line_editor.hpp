// Lines that a person types, edited, with history; or that another program writes, as they are.
#pragma once

#include "interrupt.hpp"

#include <memory>
#include <string>

namespace nib::program {

class LineReader {
 public:
  enum class Outcome { line, end, interrupted };

  virtual ~LineReader() = default;
  // One line without its newline into `line`; on an interrupt what had been typed of it.
  virtual Outcome read(const char* prompt, std::string& line) = 0;
};

// With editing where stdin is a terminal and this build has libedit; `history_file` (may be empty) is then
// read and kept. Interrupts is what tells that a key was pressed; it outlives the reader.
std::unique_ptr<LineReader> make_line_reader(const std::string& history_file, const Interrupts& interrupts);

// A message may have several lines: each but the last ends with a backslash.
LineReader::Outcome read_message(LineReader& reader, std::string& message);

}  // namespace nib::program
