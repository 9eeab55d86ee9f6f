// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/ptx/parser.h"

#include "runtime/ptxsim/ptx/reader.h"

#include <charconv>

namespace kvq::ptxsim {

Result<Module> parse(std::string_view text, std::string file) { return reader::Parser(text, std::move(file)).run(); }

namespace reader {

using Kind = Token::Kind;

Parser::Parser(std::string_view text, std::string file)
    : lexer_(text.size() <= kMaxText ? text : std::string_view()), textSize_(text.size()), file_(std::move(file)) {}

bool Parser::fail(int line, std::string message, Code code) {
  if (status_.isOk())
    status_ = Status(code, file_ + ":" + std::to_string(line) + ": " + message);
  token_ = Token();
  token_.line = line;
  return false;
}

bool Parser::failHere(const std::string &expected) {
  return fail(token_.line, "expected " + expected + ", found " + describe(token_));
}

bool Parser::notImplemented(int line, const std::string &what) {
  return fail(line, what + ": not implemented", Code::Unsupported);
}

bool Parser::advance() {
  if (!status_.isOk())
    return false;
  token_ = lexer_.next();
  if (token_.kind != Kind::Error)
    return true;
  return fail(token_.line, std::string(token_.message) + (token_.text.empty() ? "" : ": " + describe(token_)));
}

bool Parser::take(char punctuator) {
  if (!token_.is(punctuator))
    return false;
  advance();
  return true;
}

bool Parser::expect(char punctuator, const char *where) {
  if (!token_.is(punctuator))
    return failHere("'" + std::string(1, punctuator) + "' " + where);
  return advance();
}

bool Parser::takeWord(std::string_view word) {
  if (!token_.isWord(word))
    return false;
  advance();
  return true;
}

bool Parser::identifier(std::string_view &name, const char *what) {
  if (token_.kind != Kind::Identifier)
    return failHere(what);
  name = token_.text;
  return advance();
}

// A number or an expression in parentheses: what follows it in the text is never an operator of it.
bool Parser::smallInteger(int64_t least, int64_t most, int64_t &value, const char *what) {
  int line = token_.line;
  Constant number;
  return constantUnary(number) && inRange(number, least, most, value, what, line);
}

bool Parser::inRange(const Constant &number, int64_t least, int64_t most, int64_t &value, const char *what, int line) {
  value = int64_t(number.bits);
  if (number.literal != Operand::Literal::Integer || (number.isUnsigned && value < 0) || value < least || value > most)
    return fail(line, std::string(what) + " must be an integer from " + std::to_string(least) + " to " +
                          std::to_string(most));
  return true;
}

Result<Module> Parser::run() {
  module_.file = file_;
  scopes_.emplace_back();
  if (textSize_ > kMaxText)
    fail(1, "the text has more than " + std::to_string(kMaxText >> 20) + " MiB");
  if (advance() && moduleHeader())
    while (token_.kind != Kind::End && moduleStatement())
      ;
  if (!status_.isOk())
    return status_;
  return std::move(module_);
}

bool Parser::moduleHeader() {
  if (!takeWord("version"))
    return failHere(".version, with which a module begins");
  std::string_view text = token_.text;
  auto [dot, first] = std::from_chars(text.data(), text.data() + text.size(), module_.versionMajor);
  bool good = token_.kind == Kind::Number && first == std::errc() && dot != text.data() + text.size() && *dot == '.';
  if (good) {
    auto [end, second] = std::from_chars(dot + 1, text.data() + text.size(), module_.versionMinor);
    good = second == std::errc() && end == text.data() + text.size();
  }
  if (!good)
    return failHere("a version such as 7.8");
  if (!advance())
    return false;
  if (!token_.isWord("target"))
    return failHere(".target, which follows .version");
  return targetDirective();
}

bool Parser::targetDirective() {
  if (!module_.target.empty())
    return fail(token_.line, "a second .target");
  advance();
  std::string_view name;
  int line = token_.line;
  if (!identifier(name, "a target such as sm_80"))
    return false;
  if (!name.starts_with("sm_") || name.size() < 5)
    return notImplemented(line, "target " + quoted(name));
  module_.target = name;
  while (take(',')) {
    line = token_.line;
    if (!identifier(name, "an option of .target"))
      return false;
    // Textures are refused where they are used; debug says that the text was not optimized.
    if (name != "debug" && name != "texmode_unified" && name != "texmode_independent")
      return notImplemented(line, "target option " + quoted(name));
  }
  if (!takeWord("address_size"))
    return true;
  int64_t bits = 0;
  line = token_.line;
  if (!smallInteger(32, 64, bits, "the address size"))
    return false;
  return bits == 64 || notImplemented(line, ".address_size " + std::to_string(bits));
}

bool Parser::moduleStatement() {
  if (token_.kind != Kind::DotWord)
    return failHere("a directive");
  bool skipped = false;
  if (!skippedDirective(skipped))
    return false;
  if (skipped)
    return true;
  if (token_.isWord("target"))
    return targetDirective();
  Linkage link;
  if (!linkage(link))
    return false;
  if (takeWord("entry"))
    return function(true, link);
  if (takeWord("func"))
    return function(false, link);
  Space space;
  if (token_.kind != Kind::DotWord)
    return failHere("a directive");
  if (!spaceOfWord(token_.text, space) || space == Space::Local || space == Space::Param)
    return notImplemented(token_.line, "." + std::string(token_.text) + " at module level");
  return advance() && variables(space, link);
}

// The written list of directives that are read and have no effect: .loc, .file, .section (debug information), and
// .pragma, whose strings are advice to ptxas.
bool Parser::skippedDirective(bool &skipped) {
  skipped = true;
  if (takeWord("loc"))
    return skipLoc();
  if (takeWord("file"))
    return skipFile();
  if (takeWord("section"))
    return skipSection();
  if (takeWord("pragma"))
    return skipPragma();
  skipped = false;
  return true;
}

// .loc FILE LINE COLUMN [, function_name LABEL [+ N], inlined_at FILE LINE COLUMN]
bool Parser::skipLoc() {
  auto numbers = [&] {
    for (int i = 0; i < 3; ++i, advance())
      if (token_.kind != Kind::Number)
        return failHere("a number in .loc");
    return status_.isOk();
  };
  if (!numbers())
    return false;
  while (take(',')) {
    std::string_view word;
    if (!identifier(word, "function_name or inlined_at"))
      return false;
    if (word == "inlined_at") {
      if (!numbers())
        return false;
    } else if (word == "function_name") {
      if (token_.kind != Kind::Identifier && token_.kind != Kind::DotWord)
        return failHere("a label of .debug_str");
      advance();
      int64_t offset = 0;
      if (token_.is('+') && !offsetTerms(offset))
        return false;
    } else {
      return fail(token_.line, "expected function_name or inlined_at, found " + quoted(word));
    }
  }
  return status_.isOk();
}

// .file N "NAME" [, TIME, SIZE]
bool Parser::skipFile() {
  if (token_.kind != Kind::Number || !advance())
    return failHere("the number of a file");
  if (token_.kind != Kind::String || !advance())
    return failHere("the name of a file as a string");
  while (take(',')) {
    if (token_.kind != Kind::Number)
      return failHere("a number in .file");
    advance();
  }
  return status_.isOk();
}

bool Parser::skipSection() {
  if (token_.kind != Kind::DotWord && token_.kind != Kind::Identifier)
    return failHere("the name of a section");
  if (!token_.text.starts_with("debug_"))
    return notImplemented(token_.line, "section " + describe(token_));
  int line = token_.line;
  if (!advance() || !expect('{', "before the contents of a section"))
    return false;
  while (!token_.is('}')) {
    if (token_.kind == Kind::End || token_.is('{'))
      return status_.isOk() ? fail(line, "the section that begins here is not closed") : false;
    if (!advance())
      return false;
  }
  return advance();
}

bool Parser::skipPragma() {
  do {
    if (token_.kind != Kind::String)
      return failHere("a string after .pragma");
    advance();
  } while (take(','));
  return expect(';', "after .pragma");
}

// .attribute(.managed) and (.unified(A, B)) say where the host sees a variable, nothing about the device.
bool Parser::attributeDirective() {
  if (!expect('(', "after .attribute"))
    return false;
  do {
    if (takeWord("managed"))
      continue;
    if (!token_.isWord("unified"))
      return notImplemented(token_.line, ".attribute " + describe(token_));
    int64_t id = 0;
    if (!advance() || !expect('(', "after .unified") || !integerConstant(id, "an identifier") ||
        !expect(',', "between identifiers") || !integerConstant(id, "an identifier") ||
        !expect(')', "after the identifiers of .unified"))
      return false;
  } while (take(','));
  return expect(')', "after .attribute(");
}

} // namespace reader
} // namespace kvq::ptxsim
