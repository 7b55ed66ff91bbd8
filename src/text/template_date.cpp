#include "template_calls.hpp"

#include <algorithm>

namespace nib::inline v0 {

Result<std::string> template_date(std::string_view format, const TemplateDate& date) {
  constexpr std::string_view kMonths[] = {"January",   "February", "March",    "April",
                                          "May",       "June",     "July",     "August",
                                          "September", "October",  "November", "December"};
  constexpr std::string_view kDays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                        "Thursday", "Friday", "Saturday"};
  constexpr int kBefore[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
  const bool leap = (date.year % 4 == 0 && date.year % 100 != 0) || date.year % 400 == 0;
  if (date.year < 1 || date.year > 9999 || date.month < 1 || date.month > 12 || date.day < 1 ||
      date.day > 31 || date.hour < 0 || date.hour > 23 || date.minute < 0 || date.minute > 59 ||
      date.second < 0 || date.second > 60)
    return Status(Code::argument, "the date given is none");
  const auto month = static_cast<std::size_t>(date.month - 1);
  const int day_of_year = kBefore[month] + date.day + (leap && date.month > 2);
  const int years = date.year - 1;
  const auto weekday =
      static_cast<std::size_t>((years * 365 + years / 4 - years / 100 + years / 400 + day_of_year) % 7);
  const auto padded = [](int number, std::size_t width) {
    std::string digits = concat(number);
    return std::string(width - std::min(width, digits.size()), '0') + digits;
  };
  std::string out;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    const bool bare = format[i + 1] == '-' && i + 2 < format.size();
    i += bare ? 2 : 1;
    const auto number = [&](int value, std::size_t width = 2) {
      out += bare ? concat(value) : padded(value, width);
    };
    switch (format[i]) {
      case 'Y':
        out += concat(date.year);
        break;
      case 'y':
        number(date.year % 100);
        break;
      case 'm':
        number(date.month);
        break;
      case 'd':
        number(date.day);
        break;
      case 'j':
        number(day_of_year, 3);
        break;
      case 'B':
        out += kMonths[month];
        break;
      case 'b':
        out += kMonths[month].substr(0, 3);
        break;
      case 'A':
        out += kDays[weekday];
        break;
      case 'a':
        out += kDays[weekday].substr(0, 3);
        break;
      case 'H':
        number(date.hour);
        break;
      case 'I':
        number((date.hour + 11) % 12 + 1);
        break;
      case 'p':
        out += date.hour < 12 ? "AM" : "PM";
        break;
      case 'M':
        number(date.minute);
        break;
      case 'S':
        number(date.second);
        break;
      case '%':
        out += '%';
        break;
      default:
        return Status(Code::format, concat("strftime_now with %", format[i], ", which nibble does not have"));
    }
  }
  return out;
}

}  // namespace nib::inline v0
