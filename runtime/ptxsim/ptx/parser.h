// SPDX-License-Identifier: Apache-2.0
//
// The parser behind parse(): recursive descent with one token of look-ahead. Every member returns false once something
// was wrong; the first error stays. Loops end because an error leaves the token End.
#pragma once

#include "runtime/format/status.h"
#include "runtime/ptxsim/ptx/lexer.h"
#include "runtime/ptxsim/ptx/names.h"

#include <deque>

namespace kvq::ptxsim::reader {

// What hostile text may make us build. Real modules are far below.
inline constexpr size_t kMaxText = size_t(64) << 20;
inline constexpr size_t kMaxInstructions = 1 << 21, kMaxOperands = 1 << 23, kMaxModifiers = 1 << 23; // of a module
inline constexpr size_t kMaxVariables = 1 << 18, kMaxFunctions = 1 << 14;                            // of a module
inline constexpr size_t kMaxRegisters = 1 << 20, kMaxModuleRegisters = 1 << 22, kMaxLabels = 1 << 20;
inline constexpr int kMaxNesting = 64;   // scopes, expressions, initialisers
inline constexpr size_t kMaxList = 1024; // operands in one pair of brackets
inline constexpr int64_t kMaxGlobalBytes = int64_t(1) << 32, kMaxOtherBytes = 1 << 20; // of a variable
inline constexpr int64_t kMaxInitialisedBytes = 64 << 20;                              // of a module

// A constant: bits as in Operand.
struct Constant {
  Operand::Literal literal = Operand::Literal::Integer;
  bool isUnsigned = false;
  uint64_t bits = 0;
};

// Constant expressions of integers; false: what, in `message`.
bool foldUnary(int op, Constant &value, std::string &message);
bool foldBinary(int op, Constant &left, const Constant &right, std::string &message);
int binaryPrecedence(int op); // 0: not a binary operator

Type typeNamed(std::string_view name);                      // "b32"; None if there is no such type
bool specialNamed(std::string_view name, Special &special); // "%tid.x"

class Parser {
public:
  Parser(std::string_view text, std::string file);
  Result<Module> run();

private:
  // parser.cpp: tokens, errors, the module and the directives without effect.
  bool fail(int line, std::string message, Code code = Code::InvalidArgument);
  bool failHere(const std::string &expected); // "expected .., found TOKEN"
  bool notImplemented(int line, const std::string &what);
  bool advance();
  bool take(char punctuator); // if it is there
  bool expect(char punctuator, const char *where);
  bool takeWord(std::string_view word);
  bool identifier(std::string_view &name, const char *what);
  bool smallInteger(int64_t least, int64_t most, int64_t &value, const char *what);
  bool inRange(const Constant &number, int64_t least, int64_t most, int64_t &value, const char *what, int line);
  bool moduleHeader();
  bool targetDirective();
  bool moduleStatement();
  bool skippedDirective(bool &skipped); // .loc .file .section .pragma
  bool skipLoc();
  bool skipFile();
  bool skipSection();
  bool skipPragma();
  bool attributeDirective();

  // parse_constants.cpp
  bool constant(Constant &value, int precedence = 1);
  bool constantUnary(Constant &value);
  bool constantParenthesis(Constant &value);
  bool integerConstant(int64_t &value, const char *what);

  // parse_declarations.cpp
  struct Linkage {
    bool any = false, isExtern = false;
  };
  bool linkage(Linkage &linkage);
  bool spaceOfWord(std::string_view word, Space &space) const;
  bool variables(Space space, const Linkage &linkage);
  bool alignment(int64_t &align);
  bool declarator(Variable &variable, std::string_view &name, int vector, int64_t align, std::vector<int64_t> &dims);
  bool dimensions(Variable &variable, std::vector<int64_t> &dims);
  bool declareVariable(Variable variable, std::string_view name);
  bool redeclares(const Variable &variable, Entity entity);
  bool registers();
  bool addRegisters(Type type);
  bool param(Variable &variable, std::string_view &name);
  bool paramList(std::vector<Variable> &list, std::vector<std::string_view> &names);

  // parse_initialisers.cpp
  bool initialiser(Variable &variable, std::vector<int64_t> dims);
  bool initialiserList(Variable &variable, const std::vector<int64_t> &dims, size_t level, int64_t begin,
                       int64_t &used);
  bool initialiserValue(Variable &variable, int64_t element);
  bool initialiserSymbol(Variable &variable, int64_t element);
  bool storeConstant(Variable &variable, int64_t element, const Constant &value, int line);

  // parse_functions.cpp
  using Names = std::vector<std::string_view>;
  bool function(bool entry, const Linkage &linkage);
  bool functionDirectives(Function &function);
  bool launchBounds(uint32_t (&bounds)[3]);
  bool placeFunction(Function function, std::string_view name);
  bool declareParams(const Names &params, const Names &returns);
  bool body();
  bool bodyDirective();
  bool label(std::string_view name, int line);
  bool branchTargets(uint32_t label);
  bool callPrototype(uint32_t label);
  bool openScope();
  bool closeScope();

  // parse_instructions.cpp, parse_operands.cpp
  bool guard(Instruction &instruction);
  bool instruction(Instruction instruction, std::string_view opcode);
  bool modifiers(Instruction &instruction, bool &policy, std::string_view &cache);
  bool dropPolicy(Instruction &instruction);
  bool operands(Instruction &instruction);
  bool callOperands(Instruction &instruction);
  bool argumentList(Operand &list);
  bool operand(Operand &operand, int depth);
  bool plainOperand(Operand &operand); // register, special register, symbol, label, sink
  bool specialOperand(Operand &operand, std::string_view name, int line);
  bool negatedOperand(Operand &operand);
  bool addressOperand(Operand &operand);
  bool vectorOperand(Operand &operand);
  bool pairOperand(Operand &operand);
  bool offsetTerms(int64_t &offset);

  Entity resolve(std::string_view name) const;
  Function &current() { return module_.functions[function_]; }

  // A name that can only be a label, which may come later.
  struct Reference {
    enum class Kind : uint8_t { Operand, Targets } kind;
    uint32_t owner, place; // instruction and operand, or list and entry
    std::string_view name;
    int line;
    bool branch; // it can be nothing but a label
  };
  struct OpenScope {
    Scope names;
    std::vector<Reference> pending;
  };
  void refer(Reference::Kind kind, size_t owner, size_t place, std::string_view name, int line, bool branch);
  void settle(const Reference &reference, uint32_t label);

  Lexer lexer_;
  size_t textSize_;
  std::string file_;
  Token token_;
  Status status_;
  Module module_;
  std::deque<OpenScope> scopes_; // the module, the function, braces
  uint32_t function_ = 0;
  int depth_ = 0; // of constant expressions
  size_t instructions_ = 0, operands_ = 0, modifiers_ = 0, variables_ = 0, registers_ = 0;
  int64_t initialised_ = 0;
  size_t operandPlace_ = 0; // of the operand that is being parsed in its instruction; SIZE_MAX: inside of another
  bool branch_ = false;     // operands of a branch: names are labels
};

} // namespace kvq::ptxsim::reader
