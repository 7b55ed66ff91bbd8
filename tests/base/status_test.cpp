// Status, Result, the macros that pass them on, the sentences of concat, and allocations that fail inside
// work.
#include <nibble/base/concat.hpp>
#include <nibble/base/status.hpp>
#include <nibble/base/within_memory.hpp>

#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

TEST_CASE("status: fine unless said otherwise") {
  const Status fine;
  CHECK(fine.ok());
  CHECK(fine.code() == Code::ok);
  CHECK(fine.message().empty());
  const Status wrong(Code::format, "a.json: the key \"x\" is a string");
  CHECK_FALSE(wrong.ok());
  CHECK(wrong.code() == Code::format);
  CHECK(wrong.message() == "a.json: the key \"x\" is a string");
  CHECK_FALSE(Status(Code::stopped, "").ok());
}

TEST_CASE("codes: a name for each, no name twice") {
  constexpr Code kCodes[] = {Code::ok,           Code::stopped,       Code::end,         Code::argument,
                             Code::state,        Code::version,       Code::busy,        Code::not_found,
                             Code::io,           Code::format,        Code::unsupported, Code::memory,
                             Code::budget,       Code::device_memory, Code::device,      Code::context_full,
                             Code::small_buffer, Code::internal};
  std::set<std::string> names;
  for (const Code code : kCodes) {
    const std::string name = code_name(code);
    CHECK(name.rfind(static_cast<int>(code) < 0 ? "NIB_E_" : "NIB_", 0) == 0);
    names.insert(name);
  }
  CHECK(names.size() == std::size(kCodes));
  CHECK(std::string(code_name(static_cast<Code>(-12345))) == "NIB_E_INTERNAL");
}

TEST_CASE("result: a value, also one that only moves, or the reason") {
  Result<std::unique_ptr<int>> good(std::make_unique<int>(7));
  REQUIRE(good);
  CHECK(good.ok());
  CHECK(good.status().ok());
  CHECK(**good == 7);
  CHECK(*good.value() == 7);
  CHECK(good->get() == good.value().get());
  const std::unique_ptr<int> taken = good.take();
  CHECK(*taken == 7);

  const Result<std::vector<int>> bad(Status(Code::io, "gone"));
  CHECK_FALSE(bad);
  CHECK(bad.status().code() == Code::io);
  CHECK(bad.status().message() == "gone");
}

// Each says how far it came.
Status tries(const Status& first, int& steps) {
  ++steps;
  NIB_TRY(first);
  ++steps;
  return {};
}
Result<int> assigns(const Result<int>& from, int& steps) {
  ++steps;
  NIB_ASSIGN(const int value, Result<int>(from));
  NIB_ASSIGN(const int again, Result<int>(value + 1));  // two of them in a function
  ++steps;
  return value + again;
}

TEST_CASE("the macros pass on what is wrong, and go on with what is not") {
  int steps = 0;
  CHECK(tries({}, steps).ok());
  CHECK(steps == 2);
  const Status stopped = tries(Status(Code::busy, "later"), steps);
  CHECK(steps == 3);
  CHECK(stopped.code() == Code::busy);
  CHECK(stopped.message() == "later");
  steps = 0;
  CHECK(assigns(5, steps).value() == 11);
  CHECK(steps == 2);
  const Result<int> none = assigns(Status(Code::not_found, "no such"), steps);
  CHECK(steps == 3);
  CHECK(none.status().code() == Code::not_found);
  CHECK(none.status().message() == "no such");
}

TEST_CASE("concat: text as it is, integers in full, other numbers with six digits") {
  CHECK(concat().empty());
  CHECK(concat("a", std::string("bc"), std::string_view("d\0e", 3), 'f') == std::string("abcd\0ef", 7));
  CHECK(concat(0, ' ', -1, ' ', 42u) == "0 -1 42");
  CHECK(concat(std::numeric_limits<std::int64_t>::min(), '/', std::numeric_limits<std::uint64_t>::max()) ==
        "-9223372036854775808/18446744073709551615");
  CHECK(concat(std::uint8_t{200}, ' ', std::int8_t{-100}, ' ', std::uint16_t{65535}) == "200 -100 65535");
  CHECK(concat(0.5, ' ', 1.0f / 3, ' ', -1234567.0, ' ', 1e300) == "0.5 0.333333 -1.23457e+06 1e+300");
  CHECK(concat(std::numeric_limits<double>::infinity(), ' ', std::numeric_limits<float>::quiet_NaN()) ==
        "inf nan");
  CHECK(concat(-std::numeric_limits<double>::max()) == "-1.79769e+308");
}

TEST_CASE("within_memory: what work gives, or that there was no memory for it; other exceptions pass") {
  CHECK(within_memory("x", [] { return Status(); }).ok());
  CHECK(within_memory("x", [] { return Result<int>(3); }).value() == 3);
  CHECK(within_memory("x", [] { return Status(Code::io, "as it is"); }).message() == "as it is");
  const Status refused = within_memory("vocab.json", []() -> Status { throw std::bad_alloc(); });
  CHECK(refused.code() == Code::memory);
  CHECK(refused.message() == "vocab.json: not enough memory");
  const auto absurd = within_memory("vocab.json", []() -> Result<std::vector<int>> {
    std::vector<int> v;
    v.reserve(v.max_size() + 1);
    return v;
  });
  CHECK(absurd.status().code() == Code::memory);
  CHECK_THROWS_AS((void)within_memory("x", []() -> Status { throw std::runtime_error("a bug"); }),
                  std::runtime_error);
}

}  // namespace
}  // namespace nib::test
