// SPDX-License-Identifier: Apache-2.0
//
// Entries and functions: what stands around the instructions, and scopes.
#include "runtime/ptxsim/ptx/parser.h"

namespace kvq::ptxsim::reader {
namespace {

using Kind = Token::Kind;

bool sameParams(const std::vector<Variable> &a, const std::vector<Variable> &b) {
  if (a.size() != b.size())
    return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i].size() != b[i].size() || a[i].align != b[i].align)
      return false;
  return true;
}

bool anyOpen(const std::vector<Variable> &list) {
  for (const Variable &variable : list)
    if (variable.elements == 0)
      return true;
  return false;
}

} // namespace

// Behind .entry or .func: [(results)] NAME [(parameters)] directives, then ; or a body.
bool Parser::function(bool entry, const Linkage &linkage) {
  Function function;
  Names params, returns;
  function.entry = entry;
  while (token_.isWord("attribute") || token_.isWord("noreturn")) {
    bool attribute = token_.isWord("attribute");
    if (!advance() || (attribute && !attributeDirective()))
      return false;
  }
  if (!entry && token_.is('(') && !paramList(function.returns, returns))
    return false;
  function.line = token_.line;
  std::string_view name;
  if (!identifier(name, "the name of a function"))
    return false;
  function.name = name;
  if (token_.is('(') && !paramList(function.params, params))
    return false;
  if (entry && anyOpen(function.params))
    return fail(function.line, "a parameter of the entry " + quoted(name) + " has no length");
  if (!functionDirectives(function))
    return false;
  function.defined = token_.is('{');
  if (function.defined && linkage.isExtern)
    return fail(function.line, "the .extern function " + quoted(name) + " has a body");
  if (!function.defined && !token_.is(';'))
    return failHere("'{' or ';' after the head of a function");
  bool defined = function.defined;
  return advance() && placeFunction(std::move(function), name) &&
         (!defined || (declareParams(params, returns) && body()));
}

bool Parser::functionDirectives(Function &function) {
  while (token_.kind == Kind::DotWord) {
    int line = token_.line;
    std::string_view word = token_.text;
    advance();
    int64_t number = 0;
    if (word == "pragma") {
      if (!skipPragma())
        return false;
      continue;
    }
    // That a function never returns is a promise to the optimizer; control flow shows it as well.
    if (word == "noreturn" && !function.entry)
      continue;
    bool bounds = word == "maxntid" || word == "reqntid" || word == "minnctapersm" || word == "maxnreg";
    if (!bounds)
      return notImplemented(line, "." + std::string(word));
    if (!function.entry)
      return fail(line, "." + std::string(word) + " belongs to an .entry");
    if (word == "maxntid" || word == "reqntid") {
      if (!launchBounds(word == "maxntid" ? function.maxntid : function.reqntid))
        return false;
      continue;
    }
    if (!smallInteger(0, 1 << 20, number, "a launch bound"))
      return false;
    (word == "maxnreg" ? function.maxnreg : function.minnctapersm) = uint32_t(number);
  }
  return status_.isOk();
}

// X [, Y [, Z]]; what is left out is 1.
bool Parser::launchBounds(uint32_t (&bounds)[3]) {
  bounds[0] = bounds[1] = bounds[2] = 1;
  for (int i = 0; i < 3; ++i) {
    int64_t number = 0;
    if (!smallInteger(1, 1 << 20, number, "a launch bound"))
      return false;
    bounds[i] = uint32_t(number);
    if (i < 2 && !take(','))
      break;
  }
  return status_.isOk();
}

// A function may be declared any number of times with the same parameters, and defined once.
bool Parser::placeFunction(Function function, std::string_view name) {
  Entity before = scopes_.front().names.find(name);
  if (before.kind == Entity::Kind::None) {
    if (module_.functions.size() >= kMaxFunctions)
      return fail(function.line, "more than " + std::to_string(kMaxFunctions) + " functions");
    function_ = uint32_t(module_.functions.size());
    scopes_.front().names.declare(name, {Entity::Kind::Function, function_});
    module_.functions.push_back(std::move(function));
    return true;
  }
  if (before.kind != Entity::Kind::Function)
    return fail(function.line, quoted(name) + " is declared twice");
  Function &old = module_.functions[before.index];
  if (old.defined && function.defined)
    return fail(function.line, quoted(name) + " is defined twice");
  if (old.entry != function.entry || !sameParams(old.params, function.params) ||
      !sameParams(old.returns, function.returns))
    return fail(function.line, quoted(name) + " is declared with other parameters in line " + std::to_string(old.line));
  function_ = before.index;
  if (function.defined)
    old = std::move(function);
  return true;
}

// Opens the scope of the body; its first variables are the parameters and the results.
bool Parser::declareParams(const Names &params, const Names &returns) {
  scopes_.emplace_back();
  Function &function = current();
  function.variables = function.params;
  function.variables.insert(function.variables.end(), function.returns.begin(), function.returns.end());
  for (size_t i = 0; i < params.size() + returns.size(); ++i) {
    std::string_view name = i < params.size() ? params[i] : returns[i - params.size()];
    if (name != "_" && !scopes_.back().names.declare(name, {Entity::Kind::Variable, uint32_t(i)}))
      return fail(function.variables[i].line, quoted(name) + " is declared twice");
  }
  return true;
}

bool Parser::body() {
  while (status_.isOk()) {
    if (token_.kind == Kind::DotWord) {
      bodyDirective();
    } else if (token_.is('@')) {
      Instruction next;
      std::string_view opcode;
      next.line = token_.line;
      if (guard(next) && identifier(opcode, "an instruction behind its guard"))
        instruction(std::move(next), opcode);
    } else if (token_.kind == Kind::Identifier) {
      Instruction next;
      std::string_view name = token_.text;
      next.line = token_.line;
      advance();
      if (take(':'))
        label(name, next.line);
      else
        instruction(std::move(next), name);
    } else if (token_.is('{')) {
      openScope();
    } else if (token_.is('}')) {
      bool last = scopes_.size() == 2;
      current().endLine = token_.line;
      if (closeScope() && last)
        return advance();
      advance();
    } else if (!take(';')) { // an empty statement, as inline assembly may leave
      return token_.kind == Kind::End ? fail(current().line, "the body of " + quoted(current().name) + " is not closed")
                                      : failHere("an instruction, a directive or a label");
    }
  }
  return false;
}

bool Parser::bodyDirective() {
  bool skipped = false;
  if (!skippedDirective(skipped) || skipped)
    return status_.isOk();
  if (takeWord("reg"))
    return registers();
  Linkage link;
  Space space;
  if (!linkage(link))
    return false;
  if (token_.kind != Kind::DotWord)
    return failHere("a directive");
  if (!spaceOfWord(token_.text, space))
    return notImplemented(token_.line, "." + std::string(token_.text) + " in a function");
  return advance() && variables(space, link);
}

bool Parser::openScope() {
  if (scopes_.size() >= size_t(kMaxNesting))
    return fail(token_.line, "braces that are nested more than " + std::to_string(kMaxNesting) + " deep");
  scopes_.emplace_back();
  return advance();
}

// Settles the references to labels of this scope; the others may mean labels further out.
bool Parser::closeScope() {
  OpenScope closed = std::move(scopes_.back());
  scopes_.pop_back();
  for (const Reference &reference : closed.pending) {
    Entity entity = closed.names.find(reference.name);
    if (entity.kind == Entity::Kind::Label)
      settle(reference, entity.index);
    else if (scopes_.size() > 1)
      scopes_.back().pending.push_back(reference);
    else
      return fail(reference.line, reference.branch
                                      ? "the label " + quoted(reference.name) + " is not defined"
                                      : quoted(reference.name) + " is not a register, variable, function or label");
  }
  return true;
}

void Parser::refer(Reference::Kind kind, size_t owner, size_t place, std::string_view name, int line, bool branch) {
  scopes_.back().pending.push_back({kind, uint32_t(owner), uint32_t(place), name, line, branch});
}

void Parser::settle(const Reference &reference, uint32_t label) {
  if (reference.kind == Reference::Kind::Operand)
    current().instructions[reference.owner].operands[reference.place].index = label;
  else
    current().branchTargets[reference.owner].labels[reference.place] = label;
}

// Behind NAME and the colon; a list of targets or a prototype may follow.
bool Parser::label(std::string_view name, int line) {
  auto &labels = current().labels;
  uint32_t index = uint32_t(labels.size());
  if (labels.size() >= kMaxLabels)
    return fail(line, "more than " + std::to_string(kMaxLabels) + " labels");
  if (!scopes_.back().names.declare(name, {Entity::Kind::Label, index}))
    return fail(line, quoted(name) + " is declared twice");
  labels.push_back({std::string(name), uint32_t(current().instructions.size()), line});
  if (takeWord("branchtargets"))
    return branchTargets(index);
  if (takeWord("callprototype"))
    return callPrototype(index);
  return status_.isOk();
}

bool Parser::branchTargets(uint32_t label) {
  size_t list = current().branchTargets.size();
  current().branchTargets.push_back({label, {}});
  auto &labels = current().branchTargets[list].labels;
  do {
    std::string_view name;
    int line = token_.line;
    if (!identifier(name, "a label"))
      return false;
    if (++operands_ > kMaxOperands)
      return fail(line, "more than " + std::to_string(kMaxOperands) + " operands");
    refer(Reference::Kind::Targets, list, labels.size(), name, line, true);
    labels.push_back(0);
  } while (take(','));
  return expect(';', "after .branchtargets");
}

// [(results)] _ (parameters) [.noreturn] ;
bool Parser::callPrototype(uint32_t label) {
  Prototype prototype;
  Names names;
  prototype.label = label;
  std::string_view name;
  if (token_.is('(') && !paramList(prototype.returns, names))
    return false;
  if (!identifier(name, "'_' in a prototype") || (token_.is('(') && !paramList(prototype.params, names)))
    return false;
  takeWord("noreturn");
  current().prototypes.push_back(std::move(prototype));
  return expect(';', "after .callprototype");
}

} // namespace kvq::ptxsim::reader
