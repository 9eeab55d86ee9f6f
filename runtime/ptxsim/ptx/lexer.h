// SPDX-License-Identifier: Apache-2.0
//
// Tokens of PTX text. A token refers to the text, which must outlive it.
#pragma once

#include "runtime/ptxsim/ptx/module.h"

#include <string>
#include <string_view>

namespace kvq::ptxsim::reader {

struct Token {
  enum class Kind : uint8_t {
    End,
    Identifier, // add, %r1, $L__BB0_1, _
    DotWord,    // .reg, .L2::128B, .m16n8k16: text is without the first dot
    Number,     // bits, literal, isUnsigned
    String,     // text is without the quotes, escapes as written
    Punctuator, // code
    Error,      // message
  };
  Kind kind = Kind::End;
  Operand::Literal literal = Operand::Literal::Integer;
  bool isUnsigned = false; // 5U, and integers from 2^63 on
  int line = 1;
  int code = 0; // of one character, or of two as first << 8 | second
  uint64_t bits = 0;
  std::string_view text;
  const char *message = nullptr;

  bool is(char punctuator) const { return kind == Kind::Punctuator && code == punctuator; }
  bool isWord(std::string_view word) const { return kind == Kind::DotWord && text == word; }
};

// How a message shows a token: quoted, at most 40 characters, printable.
std::string describe(const Token &token);
std::string quoted(std::string_view text);

class Lexer {
public:
  explicit Lexer(std::string_view text) : text_(text) {}
  Token next();

private:
  bool skipBlanks(Token &token);
  bool lexNumber(Token &token);
  bool lexInteger(Token &token, int base, size_t digits);
  bool lexDecimal(Token &token);
  bool lexFloatBits(Token &token, size_t digits);
  bool lexString(Token &token);
  bool lexPunctuator(Token &token);
  char at(size_t offset) const { return place_ + offset < text_.size() ? text_[place_ + offset] : '\0'; }
  size_t wordEnd(size_t from) const;

  std::string_view text_;
  size_t place_ = 0;
  int line_ = 1;
};

} // namespace kvq::ptxsim::reader
