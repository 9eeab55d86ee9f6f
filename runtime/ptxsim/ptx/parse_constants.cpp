// SPDX-License-Identifier: Apache-2.0
//
// Constant expressions: C's operators on 64-bit integers, signed unless an operand is unsigned; a floating-point
// literal may only have a sign.
#include "runtime/ptxsim/ptx/parser.h"

namespace kvq::ptxsim::reader {
namespace {

using Kind = Token::Kind;
using Literal = Operand::Literal;
constexpr int pair(char first, char second) { return first << 8 | second; }

bool divide(int op, Constant &left, uint64_t b, std::string &message) {
  if (b == 0) {
    message = "a division by zero";
    return false;
  }
  uint64_t a = left.bits;
  if (left.isUnsigned)
    left.bits = op == '/' ? a / b : a % b;
  else if (b == ~uint64_t(0)) // -1: the quotient of the least integer wraps
    left.bits = op == '/' ? 0 - a : 0;
  else
    left.bits = uint64_t(op == '/' ? int64_t(a) / int64_t(b) : int64_t(a) % int64_t(b));
  return true;
}

bool compare(int op, const Constant &left, uint64_t b) {
  uint64_t a = left.bits;
  bool less = left.isUnsigned ? a < b : int64_t(a) < int64_t(b);
  switch (op) {
  case '<':
    return less;
  case '>':
    return !less && a != b;
  case pair('<', '='):
    return less || a == b;
  case pair('>', '='):
    return !less;
  case pair('=', '='):
    return a == b;
  case pair('!', '='):
    return a != b;
  case pair('&', '&'):
    return a && b;
  default:
    return a || b;
  }
}

} // namespace

int binaryPrecedence(int op) {
  switch (op) {
  case pair('|', '|'):
    return 2;
  case pair('&', '&'):
    return 3;
  case '|':
    return 4;
  case '^':
    return 5;
  case '&':
    return 6;
  case pair('=', '='):
  case pair('!', '='):
    return 7;
  case '<':
  case '>':
  case pair('<', '='):
  case pair('>', '='):
    return 8;
  case pair('<', '<'):
  case pair('>', '>'):
    return 9;
  case '+':
  case '-':
    return 10;
  case '*':
  case '/':
  case '%':
    return 11;
  default:
    return 0;
  }
}

bool foldUnary(int op, Constant &value, std::string &message) {
  if (op == '+')
    return true;
  if (value.literal != Literal::Integer) {
    if (op == '-')
      value.bits ^= value.literal == Literal::Float32 ? uint64_t(1) << 31 : uint64_t(1) << 63;
    else
      message = "an operator that floating-point constants do not have";
    return op == '-';
  }
  if (op == '!')
    value = {Literal::Integer, false, value.bits == 0};
  else
    value.bits = op == '-' ? 0 - value.bits : ~value.bits;
  // -9223372036854775808 is the least integer, and not unsigned as the digits alone would be.
  if (op == '-' && value.bits >> 63)
    value.isUnsigned = false;
  return true;
}

bool foldBinary(int op, Constant &left, const Constant &right, std::string &message) {
  if (left.literal != Literal::Integer || right.literal != Literal::Integer) {
    message = "an operator that floating-point constants do not have";
    return false;
  }
  uint64_t b = right.bits;
  if (op == pair('<', '<') || op == pair('>', '>')) {
    if (b > 63) {
      message = "a constant is shifted by more than 63";
      return false;
    }
    left.bits = op == pair('<', '<') ? left.bits << b
                : left.isUnsigned    ? left.bits >> b
                                     : uint64_t(int64_t(left.bits) >> b);
    return true;
  }
  left.isUnsigned = left.isUnsigned || right.isUnsigned;
  switch (op) {
  case '+':
    left.bits += b;
    return true;
  case '-':
    left.bits -= b;
    return true;
  case '*':
    left.bits *= b;
    return true;
  case '/':
  case '%':
    return divide(op, left, b, message);
  case '&':
    left.bits &= b;
    return true;
  case '|':
    left.bits |= b;
    return true;
  case '^':
    left.bits ^= b;
    return true;
  default:
    left = {Literal::Integer, false, compare(op, left, b)};
    return true;
  }
}

// Operators of this precedence and above; 1 includes the conditional operator.
bool Parser::constant(Constant &value, int precedence) {
  if (!constantUnary(value))
    return false;
  std::string message;
  while (token_.kind == Kind::Punctuator && binaryPrecedence(token_.code) >= std::max(precedence, 2)) {
    int op = token_.code, line = token_.line;
    Constant right;
    if (!advance() || !constant(right, binaryPrecedence(op) + 1))
      return false;
    if (!foldBinary(op, value, right, message))
      return fail(line, message);
  }
  if (precedence > 1 || !token_.is('?'))
    return status_.isOk();
  Constant yes, no;
  if (++depth_ > kMaxNesting)
    return fail(token_.line, "a constant expression that is nested too deeply");
  if (!advance() || !constant(yes) || !expect(':', "between the values of '?'") || !constant(no))
    return false;
  --depth_;
  value = value.bits ? yes : no;
  return true;
}

bool Parser::constantUnary(Constant &value) {
  if (++depth_ > kMaxNesting)
    return fail(token_.line, "a constant expression that is nested too deeply");
  bool good = true;
  if (token_.kind == Kind::Number) {
    value = {token_.literal, token_.isUnsigned, token_.bits};
    good = advance();
  } else if (token_.kind == Kind::Identifier && token_.text == "WARP_SZ") {
    value = {Literal::Integer, false, 32};
    good = advance();
  } else if (token_.is('-') || token_.is('+') || token_.is('~') || token_.is('!')) {
    int op = token_.code, line = token_.line;
    std::string message;
    good = advance() && constantUnary(value);
    if (good && !foldUnary(op, value, message))
      return fail(line, message);
  } else if (token_.is('(')) {
    good = constantParenthesis(value);
  } else {
    return failHere("a constant");
  }
  --depth_;
  return good;
}

// (expression), or a conversion: (.s64) unary, (.u64) unary.
bool Parser::constantParenthesis(Constant &value) {
  if (!advance())
    return false;
  if (token_.kind != Kind::DotWord)
    return constant(value) && expect(')', "after a constant expression");
  int line = token_.line;
  bool toUnsigned = token_.isWord("u64");
  if (!toUnsigned && !token_.isWord("s64"))
    return failHere("(.s64) or (.u64)");
  if (!advance() || !expect(')', "after the type of a conversion") || !constantUnary(value))
    return false;
  if (value.literal != Literal::Integer)
    return fail(line, "a floating-point constant is not converted to an integer");
  value.isUnsigned = toUnsigned;
  return true;
}

bool Parser::integerConstant(int64_t &value, const char *what) {
  int line = token_.line;
  Constant number;
  if (!constant(number))
    return false;
  if (number.literal != Literal::Integer)
    return fail(line, std::string(what) + " must be an integer");
  value = int64_t(number.bits);
  return true;
}

} // namespace kvq::ptxsim::reader
