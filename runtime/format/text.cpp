// SPDX-License-Identifier: Apache-2.0
#include "runtime/format/text.h"

namespace kvq::text {

static bool isDigit(char c) { return c >= '0' && c <= '9'; }

std::string_view leadingDigits(std::string_view text) {
  size_t count = 0;
  while (count < text.size() && isDigit(text[count]))
    ++count;
  return text.substr(0, count);
}

std::optional<int> parseDecimal(std::string_view text) {
  if (text.empty() || text.size() > 9 || leadingDigits(text).size() != text.size())
    return std::nullopt;
  if (text.front() == '0' && text.size() > 1)
    return std::nullopt;
  int value = 0;
  for (char c : text)
    value = value * 10 + (c - '0');
  return value;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> pieces;
  for (size_t begin = 0;;) {
    size_t end = text.find(separator, begin);
    if (end == std::string_view::npos) {
      pieces.push_back(text.substr(begin));
      return pieces;
    }
    pieces.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
}

std::string quote(std::string_view text) {
  constexpr size_t kLongest = 80;
  std::string quoted = "'";
  for (char c : text.substr(0, kLongest))
    quoted += c >= ' ' && c <= '~' ? c : '?';
  quoted += text.size() > kLongest ? "...'" : "'";
  return quoted;
}

} // namespace kvq::text
