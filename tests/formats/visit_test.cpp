// The format door and the table of names agree.
#include <nibble/formats/visit.hpp>

#include <cstddef>
#include <set>
#include <string>
#include <type_traits>

#include <doctest/doctest.h>

TEST_CASE("visit_format: every named format leads to the type of that name, none leads nowhere") {
  std::set<std::string> names;
  for (std::size_t i = 0; i < std::size(nib::kFormats); ++i) {
    const nib::FormatInfo& info = nib::kFormats[i];
    CAPTURE(std::string(info.name));
    CHECK(static_cast<std::size_t>(info.format) == i);  // the table is indexed by value
    CHECK(names.insert(info.name).second);
    int calls = 0;
    const bool known = nib::visit_format(info.format, [&](auto format) {
      using F = decltype(format);
      ++calls;
      CHECK(F::id == info.format);
      CHECK(nib::agrees_with_format_info<F>());
      static_assert(nib::StoredFormat<F>);
      if (info.scales != nib::Scales::inside)
        CHECK(F::group * F::bits == 8 * static_cast<int>(F::code_bytes));
    });
    CHECK(known == (info.format != nib::Format::none));
    CHECK(calls == (known ? 1 : 0));
  }
}

TEST_CASE("visit_format: a value outside the enumeration is no format") {
  CHECK_FALSE(nib::visit_format(static_cast<nib::Format>(250), [](auto) { CHECK(false); }));
}
