// SPDX-License-Identifier: Apache-2.0
#include "runtime/format/text.h"

#include <algorithm>
#include <utility>

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

// Insertions, deletions and exchanges of one character that make one text the other (Levenshtein).
static size_t mistakes(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j)
    row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t exchange = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, exchange});
    }
  }
  return row[b.size()];
}

std::vector<std::string_view> nearest(std::string_view text, const std::vector<std::string_view> &names) {
  constexpr size_t kMost = 3, kLongest = 64;
  size_t fewest = kMost;
  std::vector<std::string_view> found;
  for (std::string_view name : names) {
    const size_t count = mistakes(text.substr(0, kLongest), name);
    if (count < fewest)
      found.clear();
    if (count <= fewest && count < name.size()) {
      found.push_back(name);
      fewest = count;
    }
  }
  return found;
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
