// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/ptx/lexer.h"

#include <charconv>

namespace kvq::ptxsim::reader {
namespace {

// Not <cctype>: the locale of the host must not matter.
bool isDigit(char c) { return c >= '0' && c <= '9'; }
bool isLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool isWordChar(char c) { return isDigit(c) || isLetter(c) || c == '_' || c == '$'; }
bool startsIdentifier(char c) { return isLetter(c) || c == '_' || c == '$'; }

int digitValue(char c) {
  if (isDigit(c))
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return 99;
}

bool error(Token &token, const char *message) {
  token.kind = Token::Kind::Error;
  token.message = message;
  return false;
}

} // namespace

std::string quoted(std::string_view text) {
  constexpr size_t longest = 40;
  std::string out = "'";
  for (char c : text.substr(0, longest))
    out += c >= ' ' && c <= '~' ? c : '?';
  if (text.size() > longest)
    out += "..";
  return out + "'";
}

std::string describe(const Token &token) {
  switch (token.kind) {
  case Token::Kind::End:
    return "the end of the text";
  case Token::Kind::DotWord:
    return quoted("." + std::string(token.text.substr(0, 64)));
  case Token::Kind::String:
    return "the string " + quoted(token.text);
  default:
    return quoted(token.text);
  }
}

// Stops before the next token; false in an unfinished comment.
bool Lexer::skipBlanks(Token &token) {
  while (place_ < text_.size()) {
    char c = at(0);
    if (c == '\n') {
      ++line_;
      ++place_;
    } else if (c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v') {
      ++place_;
    } else if (c == '/' && at(1) == '/') {
      while (place_ < text_.size() && at(0) != '\n')
        ++place_;
    } else if (c == '/' && at(1) == '*') {
      token.line = line_;
      size_t end = text_.find("*/", place_ + 2);
      if (end == std::string_view::npos)
        return error(token, "a comment that begins here is never closed");
      for (; place_ < end + 2; ++place_)
        line_ += text_[place_] == '\n';
    } else {
      break;
    }
  }
  return true;
}

size_t Lexer::wordEnd(size_t from) const {
  while (from < text_.size() && isWordChar(text_[from]))
    ++from;
  return from;
}

Token Lexer::next() {
  Token token;
  if (!skipBlanks(token))
    return token;
  token.line = line_;
  if (place_ >= text_.size())
    return token;
  size_t begin = place_;
  char c = at(0);
  if (startsIdentifier(c) || (c == '%' && isWordChar(at(1)))) {
    token.kind = Token::Kind::Identifier;
    place_ = wordEnd(place_ + 1);
  } else if (c == '.' && isWordChar(at(1))) {
    token.kind = Token::Kind::DotWord;
    place_ = wordEnd(++begin);
    while (at(0) == ':' && at(1) == ':' && isWordChar(at(2)))
      place_ = wordEnd(place_ + 2);
  } else if (isDigit(c)) {
    lexNumber(token);
  } else if (c == '"') {
    if (lexString(token))
      return token;
  } else {
    lexPunctuator(token);
  }
  token.text = text_.substr(begin, place_ - begin);
  return token;
}

bool Lexer::lexNumber(Token &token) {
  token.kind = Token::Kind::Number;
  char second = at(0) == '0' ? at(1) : '\0';
  bool good = false;
  if (second == 'x' || second == 'X')
    good = place_ += 2, lexInteger(token, 16, 1);
  else if (second == 'b' || second == 'B')
    good = place_ += 2, lexInteger(token, 2, 1);
  else if (second == 'f' || second == 'F')
    good = place_ += 2, lexFloatBits(token, 8);
  else if (second == 'd' || second == 'D')
    good = place_ += 2, lexFloatBits(token, 16);
  else
    good = lexDecimal(token);
  if (good && isWordChar(at(0))) {
    place_ = wordEnd(place_);
    return error(token, "a malformed number");
  }
  return good;
}

// At least `digits` digits of this base, then perhaps U.
bool Lexer::lexInteger(Token &token, int base, size_t digits) {
  uint64_t value = 0;
  size_t count = 0;
  for (; digitValue(at(0)) < base; ++place_, ++count) {
    uint64_t next = value * base + digitValue(at(0));
    if (value > (~uint64_t(0) - digitValue(at(0))) / base)
      return error(token, "an integer of more than 64 bits");
    value = next;
  }
  if (count < digits)
    return error(token, "a malformed number");
  token.isUnsigned = value >> 63 != 0;
  if (at(0) == 'U') {
    token.isUnsigned = true;
    ++place_;
  }
  token.bits = value;
  return true;
}

// 0f and 0d: the bits of a float in exactly 8 or 16 hexadecimal digits.
bool Lexer::lexFloatBits(Token &token, size_t digits) {
  uint64_t value = 0;
  for (size_t i = 0; i < digits; ++i, ++place_) {
    if (digitValue(at(0)) >= 16)
      return error(token, digits == 8 ? "0f takes 8 hexadecimal digits" : "0d takes 16 hexadecimal digits");
    value = value << 4 | digitValue(at(0));
  }
  token.bits = value;
  token.literal = digits == 8 ? Operand::Literal::Float32 : Operand::Literal::Float64;
  return true;
}

bool Lexer::lexDecimal(Token &token) {
  size_t end = place_;
  while (end < text_.size() && isDigit(text_[end]))
    ++end;
  auto is = [&](size_t place, char c) { return place < text_.size() && text_[place] == c; };
  auto digitAt = [&](size_t place) { return place < text_.size() && isDigit(text_[place]); };
  bool floating = is(end, '.') && digitAt(end + 1);
  if (floating)
    while (digitAt(++end))
      ;
  if (is(end, 'e') || is(end, 'E')) {
    size_t exponent = end + 1 + (is(end + 1, '-') || is(end + 1, '+'));
    if (digitAt(exponent)) {
      floating = true;
      for (end = exponent; digitAt(end);)
        ++end;
    }
  }
  if (!floating)
    return lexInteger(token, at(0) == '0' ? 8 : 10, 1);
  double value = 0;
  auto [stop, failure] = std::from_chars(text_.data() + place_, text_.data() + end, value);
  place_ = end;
  if (failure != std::errc() || stop != text_.data() + end)
    return error(token, "a floating-point number that a double cannot hold");
  token.literal = Operand::Literal::Float64;
  token.bits = __builtin_bit_cast(uint64_t, value);
  return true;
}

bool Lexer::lexString(Token &token) {
  size_t begin = ++place_;
  for (; place_ < text_.size() && at(0) != '"'; ++place_) {
    if (at(0) == '\\')
      ++place_;
    if (at(0) == '\n')
      break;
  }
  if (place_ >= text_.size() || at(0) != '"')
    return error(token, "a string that is not closed on its line");
  token.kind = Token::Kind::String;
  token.text = text_.substr(begin, place_ - begin);
  ++place_;
  return true;
}

bool Lexer::lexPunctuator(Token &token) {
  static constexpr std::string_view pairs[] = {"<<", ">>", "<=", ">=", "==", "!=", "&&", "||"};
  token.kind = Token::Kind::Punctuator;
  for (std::string_view pair : pairs) {
    if (text_.substr(place_, 2) == pair) {
      token.code = pair[0] << 8 | pair[1];
      place_ += 2;
      return true;
    }
  }
  token.code = at(0);
  constexpr std::string_view singles = "{}()[]<>,;:=+-*/%!~&|^?@";
  bool known = singles.find(at(0)) != std::string_view::npos;
  ++place_;
  return known || error(token, "a character that PTX does not have");
}

} // namespace kvq::ptxsim::reader
