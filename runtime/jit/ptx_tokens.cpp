// SPDX-License-Identifier: Apache-2.0
#include "runtime/jit/ptx_tokens.h"

#include <cctype>

namespace kvq {

namespace {

bool isLetter(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%'; }
bool isDigit(char c) { return c >= '0' && c <= '9'; }
bool isFollowing(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$'; }

class Splitter {
public:
  explicit Splitter(std::string_view text) : text_(text) {}
  Result<std::vector<PtxToken>> split();

private:
  Status skipSpace();
  Status next(PtxToken &token);
  size_t endOfDotted(size_t at) const;
  size_t endOfNumber(size_t at) const;
  size_t endOfNames(size_t at) const {
    while (at < text_.size() && isFollowing(text_[at]))
      ++at;
    return at;
  }
  bool starts(std::string_view what) const { return text_.substr(at_).starts_with(what); }

  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
};

Status Splitter::skipSpace() {
  while (at_ < text_.size()) {
    if (starts("//")) {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (starts("/*")) {
      const size_t end = text_.find("*/", at_ + 2);
      if (end == std::string_view::npos)
        return ptxError(text_, line_, "a comment that begins here has no end");
      for (; at_ < end + 2; ++at_)
        line_ += text_[at_] == '\n';
    } else if (std::isspace(static_cast<unsigned char>(text_[at_]))) {
      line_ += text_[at_++] == '\n';
    } else {
      break;
    }
  }
  return Status::ok();
}

// .global, .v4.f32 as two, .L2::128B as one.
size_t Splitter::endOfDotted(size_t at) const {
  at = endOfNames(at + 1);
  while (text_.substr(at).starts_with("::"))
    at = endOfNames(at + 2);
  return at;
}

// 12, 0x1fU, 0f3F800000, 1.5e-3.
size_t Splitter::endOfNumber(size_t at) const {
  const bool plain = !text_.substr(at).starts_with("0x") && !text_.substr(at).starts_with("0X");
  at = endOfNames(at);
  if (at + 1 < text_.size() && text_[at] == '.' && isDigit(text_[at + 1]))
    at = endOfNames(at + 1);
  const char last = text_[at - 1];
  if (plain && (last == 'e' || last == 'E') && at + 1 < text_.size() && (text_[at] == '-' || text_[at] == '+') &&
      isDigit(text_[at + 1]))
    at = endOfNames(at + 1);
  return at;
}

Status Splitter::next(PtxToken &token) {
  const size_t begin = at_;
  const char c = text_[begin];
  const char after = begin + 1 < text_.size() ? text_[begin + 1] : '\0';
  if (isLetter(c)) {
    token.kind = PtxToken::Name;
    at_ = endOfNames(begin + 1);
  } else if (isDigit(c)) {
    token.kind = PtxToken::Number;
    at_ = endOfNumber(begin);
  } else if (c == '.' && isFollowing(after)) {
    token.kind = PtxToken::Dotted;
    at_ = endOfDotted(begin);
  } else if (c == '"') {
    token.kind = PtxToken::String;
    const size_t end = text_.find_first_of("\"\n", begin + 1);
    if (end == std::string_view::npos || text_[end] == '\n')
      return ptxError(text_, line_, "a string that begins here has no end");
    at_ = end + 1;
  } else if (std::string_view("{}()[]<>,;:=+-*/!@|&^~?.").find(c) != std::string_view::npos) {
    token.kind = PtxToken::Symbol;
    at_ = begin + 1;
  } else {
    return ptxError(text_, line_,
                    "a character that PTX does not have (code " + std::to_string(static_cast<unsigned char>(c)) + ")");
  }
  token.text = text_.substr(begin, at_ - begin);
  return Status::ok();
}

Result<std::vector<PtxToken>> Splitter::split() {
  std::vector<PtxToken> tokens;
  for (;;) {
    const size_t before = at_;
    KVQ_RETURN_IF_ERROR(skipSpace());
    PtxToken token;
    token.line = line_;
    token.spaced = at_ != before;
    if (at_ < text_.size())
      KVQ_RETURN_IF_ERROR(next(token));
    tokens.push_back(token);
    if (token.kind == PtxToken::End)
      return tokens;
  }
}

} // namespace

Result<std::vector<PtxToken>> splitPtx(std::string_view text) { return Splitter(text).split(); }

void PtxWriter::write(std::string_view text, int line, bool spaced) {
  if (line != line_) {
    if (!out_.lines.empty())
      out_.text += '\n';
    out_.lines.push_back(line);
    line_ = line;
  } else if (spaced) {
    out_.text += ' ';
  }
  out_.text += text;
}

void PtxWriter::writeLine(std::string_view text, int line) {
  line_ = 0;
  write(text, line);
  line_ = 0;
}

PtxText PtxWriter::take() {
  out_.text += '\n';
  line_ = 0;
  return std::move(out_);
}

std::string_view lineOf(std::string_view text, int line) {
  for (; line > 1; --line) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos)
      return {};
    text.remove_prefix(end + 1);
  }
  text = text.substr(0, text.find('\n'));
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos)
    return {};
  return text.substr(first, text.find_last_not_of(" \t\r") + 1 - first);
}

Status ptxError(std::string_view text, int line, const std::string &what) {
  std::string quoted;
  for (char c : lineOf(text, line).substr(0, 120))
    quoted += std::isprint(static_cast<unsigned char>(c)) ? c : '?';
  return {Code::InvalidArgument, "line " + std::to_string(line) + " of the PTX ('" + quoted + "'): " + what};
}

} // namespace kvq
