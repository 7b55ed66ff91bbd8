#include "report.hpp"

#include <algorithm>

namespace nib::program {

std::string Table::text() const {
  std::vector<std::size_t> widths(alignment_.size());
  for (const auto& cells : rows_)
    for (std::size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], cells[i].size());
  std::string text;
  for (const auto& cells : rows_) {
    text += indent_;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string fill(widths[i] - cells[i].size(), ' ');
      text += alignment_[i] == 'r' ? fill + cells[i] : cells[i] + fill;
      text += "  ";
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  }
  return text;
}

}  // namespace nib::program
