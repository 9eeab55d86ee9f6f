// SPDX-License-Identifier: Apache-2.0
#include "runtime/format/ptx_text.h"

#include <algorithm>
#include <charconv>

namespace kvq {

namespace {

bool isWordChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
         c == '%' || c == '.';
}

// Words of letters, digits and dots, texts in quotes, and single characters; blanks and comments are between them.
class Words {
public:
  explicit Words(std::string_view text) : rest_(text) { next(); }
  std::string_view word() const { return word_; } // empty at the end
  bool is(std::string_view text) const { return word_ == text; }
  std::string_view take() {
    const std::string_view taken = word_;
    next();
    return taken;
  }
  bool skip(std::string_view text) { return is(text) && !take().empty(); }
  int64_t number() { // 0 where there is none
    std::string_view digits = take();
    const bool hex = digits.starts_with("0x") || digits.starts_with("0X");
    digits.remove_prefix(hex ? 2 : 0);
    uint32_t value = 0;
    const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
    return end.ec == std::errc() ? value : 0;
  }

private:
  void next();
  std::string_view rest_, word_;
};

void Words::next() {
  for (;;) {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size()));
    const bool line = rest_.starts_with("//");
    if (!line && !rest_.starts_with("/*"))
      break;
    const size_t end = rest_.find(line ? "\n" : "*/", 2);
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + (line ? 1 : 2));
  }
  size_t length = static_cast<size_t>(std::find_if_not(rest_.begin(), rest_.end(), isWordChar) - rest_.begin());
  if (length == 0 && rest_.starts_with('"'))
    length = std::min(rest_.find('"', 1), rest_.size() - 1) + 1;
  length = std::min(std::max<size_t>(length, 1), rest_.size());
  word_ = rest_.substr(0, length);
  rest_.remove_prefix(length);
}

// Bytes of a type such as ".u32" or ".bf16x2"; 0: it is none.
int64_t typeBytes(std::string_view type) {
  for (std::string_view kind : {".u", ".s", ".b", ".f", ".bf"}) {
    if (!type.starts_with(kind))
      continue;
    const std::string_view digits = type.substr(kind.size());
    int bits = 0;
    const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
    if (end.ec != std::errc())
      continue;
    const std::string_view after(end.ptr, static_cast<size_t>(digits.data() + digits.size() - end.ptr));
    return after.empty() ? bits / 8 : after == "x2" ? bits / 4 : 0;
  }
  return 0;
}

// ".param .align 8 .b8 name[16]" or ".param .u64 .ptr .global .align 16 name"; false: something else.
bool readParameter(Words &words, PtxEntry &entry) {
  if (!words.skip(".param"))
    return false;
  int64_t size = 0, align = 0, count = 1;
  while (words.word().starts_with('.')) {
    if (words.skip(".align")) {
      const int64_t bytes = words.number();
      align = size ? align : bytes; // after the type it is of what the pointer points to
    } else if (const int64_t bytes = typeBytes(words.take())) {
      size = bytes;
    }
  }
  words.take(); // the name
  if (words.skip("[")) {
    count = words.number();
    if (!words.skip("]"))
      return false;
  }
  if (size == 0 || count == 0 || align > 1024)
    return false;
  align = std::max(align, size);
  const int64_t offset = (entry.parameterBytes + align - 1) / align * align;
  entry.parameters.push_back({offset, size * count});
  entry.parameterBytes = offset + size * count;
  return true;
}

// What follows ".entry", up to the body or the end of a declaration; false: no definition.
bool readEntry(Words &words, PtxEntry &entry) {
  entry.name = words.take();
  if (words.skip("(") && !words.skip(")")) {
    do {
      if (!readParameter(words, entry))
        return false;
    } while (words.skip(","));
    if (!words.skip(")"))
      return false;
  }
  while (!words.word().empty() && !words.is("{") && !words.is(";")) {
    if (!words.skip(".reqntid")) {
      words.take();
      continue;
    }
    std::fill(entry.block, entry.block + 3, 1);
    int i = 0;
    do
      entry.block[i] = static_cast<uint32_t>(words.number());
    while (++i < 3 && words.skip(","));
  }
  return words.is("{");
}

} // namespace

PtxTarget ptxTarget(std::string_view text) {
  PtxTarget target;
  Words words(text);
  // The two directives come first in a module, before any other.
  if (!words.skip(".version"))
    return target;
  int major = 0, minor = 0, *part = &major;
  for (char c : words.take()) {
    if (c == '.')
      part = &minor;
    else if (c >= '0' && c <= '9' && *part < 1000)
      *part = *part * 10 + (c - '0');
  }
  target.version = major * 10 + minor;
  if (words.skip(".target"))
    target.name = words.word();
  return target;
}

bool runsPtx(int major, int minor, std::string_view target) {
  if (!target.starts_with("sm_"))
    return false;
  int number = 0;
  size_t digits = 3;
  for (; digits < target.size() && target[digits] >= '0' && target[digits] <= '9' && number < 10000; ++digits)
    number = number * 10 + (target[digits] - '0');
  const int own = major * 10 + minor;
  const std::string_view suffix = target.substr(digits);
  if (suffix.empty())
    return number <= own;
  // Architecture-specific code runs on that one, family-specific code on the later ones of its major version too.
  return suffix == "a" ? number == own : suffix == "f" && number <= own && number / 10 == major;
}

std::vector<PtxEntry> ptxEntries(std::string_view text) {
  std::vector<PtxEntry> entries;
  int depth = 0;
  for (Words words(text); !words.word().empty();) {
    const std::string_view word = words.take();
    depth += word == "{" ? 1 : word == "}" ? -1 : 0;
    if (depth != 0 || word != ".entry")
      continue;
    PtxEntry entry;
    if (readEntry(words, entry))
      entries.push_back(std::move(entry));
  }
  return entries;
}

} // namespace kvq
