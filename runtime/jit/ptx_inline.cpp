// SPDX-License-Identifier: Apache-2.0
//
// Parameters of a call (.param variables of the caller and the function's own) become registers, or local memory where
// they are structures or are accessed in pieces. A call becomes
//   { declarations of the function's parameters and results; copies of what is passed;
//     { the function's body } the label where it returns; copies of the results }
// with names that begin with a prefix that no name of the module begins with.
#include "runtime/jit/ptx_inline.h"

#include "runtime/format/text.h"

#include <algorithm>
#include <map>

namespace kvq {

namespace {

// %r: %PREFIXr.
std::string prefixed(const std::string &prefix, std::string_view name) {
  const bool isRegister = name.starts_with("%");
  return (isRegister ? "%" : "") + prefix + std::string(name.substr(isRegister));
}

// What stands for a name within a function.
struct Local {
  enum Kind { Renamed, Register, Memory } kind = Renamed; // the last two: a .param of a function or of a call
  std::string name;
  int64_t bytes = 0, align = 0; // of a .param
  bool isRange = false;         // %r<5>: stands for %r0 to %r4
};
std::string memoryOf(const Local &local) {
  return ".local .align " + std::to_string(local.align) + " .b8 " + local.name + "[" + std::to_string(local.bytes) +
         "];";
}
using Scope = std::map<std::string_view, Local>;

struct Frame {
  const PtxFunction *function;
  std::string prefix; // empty: the kernel itself, whose names stay
  int callLine = 0;   // of the kernel: where its code goes to in the map of lines
  std::vector<Scope> scopes;
  std::string returnLabel;
  bool returnsEarly = false;
};

struct Call {
  size_t at = 0; // the token `call`
  bool hasGuard = false, isNegated = false;
  std::string_view guard;
  const PtxFunction *function = nullptr;
  std::vector<size_t> results, arguments; // tokens
};

class Inliner {
public:
  explicit Inliner(const PtxModule &module) : module_(module) { choosePrefix(); }
  Result<PtxText> run(std::string_view only);

private:
  void choosePrefix();
  const PtxToken &token(size_t i) const { return module_.tokens[std::min(i, module_.tokens.size() - 1)]; }
  void write(Frame &frame, std::string_view text, const PtxToken &from);
  void writeLine(const Frame &frame, const std::string &text, int line) {
    writer_.writeLine(text, frame.callLine ? frame.callLine : line);
  }
  void copyTokens(TokenRange range);

  Status writeBody(Frame &frame);
  Status writeStatement(Frame &frame, size_t &at);
  Status writeInstruction(Frame &frame, size_t &at);
  Status writeRegisters(Frame &frame, size_t &at);
  Status writeVariable(Frame &frame, size_t &at);
  bool writeParameterAccess(Frame &frame, size_t begin, size_t opcode, size_t end);
  void writeRenamed(Frame &frame, size_t begin, size_t end, size_t opcode);
  void writeReturn(Frame &frame, size_t begin, size_t opcode, size_t end);

  Result<Call> readCall(const Frame &frame, size_t begin, size_t opcode, size_t end) const;
  Result<std::vector<size_t>> readOperands(size_t &at, size_t end) const;
  Status inlineCall(Frame &frame, const Call &call);
  Local declareFormal(const Frame &frame, const Frame &callee, const PtxVariable &variable, size_t actual,
                      const std::string &name);
  Status pass(Frame &frame, size_t actual, const Local &formal, const PtxVariable &variable, bool isResult);
  void copy(const Frame &frame, const Local &from, const Local &to, int line);

  bool fitsRegister(const PtxVariable &variable, TokenRange range) const;
  bool isWholeAccess(size_t name, int64_t bytes) const;
  int64_t registerBytes(const PtxFunction &function, const PtxToken &name) const;
  std::string moveOf(const Frame &frame, size_t opcode, size_t reg, int64_t bytes) const;
  const Local *find(const Frame &frame, std::string_view name) const;
  size_t endOfStatement(size_t at, size_t end) const;

  const PtxModule &module_;
  PtxWriter writer_;
  std::string prefix_;
  int count_ = 0;
  int lastLine_ = 0; // of the token that was written last, in the module
  std::vector<const PtxFunction *> active_;
};

void Inliner::choosePrefix() {
  prefix_ = "kvq_in";
  const auto taken = [&](const PtxToken &token) {
    const std::string_view name = token.text.substr(token.text.starts_with("%") ? 1 : 0);
    return token.kind == PtxToken::Name && name.starts_with(prefix_);
  };
  while (std::any_of(module_.tokens.begin(), module_.tokens.end(), taken))
    prefix_ += "_";
}

void Inliner::write(Frame &frame, std::string_view text, const PtxToken &from) {
  if (from.line != lastLine_)
    writer_.breakLine();
  lastLine_ = from.line;
  writer_.write(text, frame.callLine ? frame.callLine : from.line, from.spaced);
}

const Local *Inliner::find(const Frame &frame, std::string_view name) const {
  const size_t stem = name.find_last_not_of("0123456789") + 1;
  for (auto scope = frame.scopes.rbegin(); scope != frame.scopes.rend(); ++scope) {
    if (auto found = scope->find(name); found != scope->end() && !found->second.isRange)
      return &found->second;
    if (auto found = scope->find(name.substr(0, stem)); found != scope->end() && found->second.isRange)
      return &found->second;
  }
  return nullptr;
}

size_t Inliner::endOfStatement(size_t at, size_t end) const {
  while (at < end && !token(at).is(";"))
    ++at;
  return at;
}

// ---- parameters
// ------------------------------------------------------------------------------------------------------

// Whether `name`, which follows a '[', is all of what an ld or st of its own accesses.
bool Inliner::isWholeAccess(size_t name, int64_t bytes) const {
  size_t next = name + 1;
  if (token(next).is("+") && token(next + 1).is("0"))
    next += 2;
  if (!token(next).is("]"))
    return false;
  size_t opcode = name;
  while (opcode > 0 && !token(opcode).is("ld") && !token(opcode).is("st")) {
    if (token(opcode).is(";"))
      return false;
    --opcode;
  }
  std::string_view type;
  for (size_t i = opcode + 1; token(i).kind == PtxToken::Dotted; ++i) {
    if (token(i).is(".v2") || token(i).is(".v4"))
      return false;
    type = token(i).text;
  }
  return ptxTypeBytes(type) == bytes;
}

// Of a register that the function declares; 0: it declares none of this name.
int64_t Inliner::registerBytes(const PtxFunction &function, const PtxToken &name) const {
  const std::string_view stem = name.text.substr(0, name.text.find_last_not_of("0123456789") + 1);
  int64_t bytes = 0;
  bool isDeclaration = false;
  for (size_t i = function.body.begin; i < function.body.end; ++i) {
    if (token(i).is(".reg"))
      isDeclaration = true;
    else if (token(i).is(";"))
      isDeclaration = false;
    else if (isDeclaration && token(i).kind == PtxToken::Dotted)
      bytes = ptxTypeBytes(token(i).text);
    else if (isDeclaration && token(i).text == (token(i + 1).is("<") ? stem : name.text))
      return bytes;
  }
  return 0;
}

// The instruction for an ld or st, at `opcode`, of a parameter of `bytes` that is a register now: loads extend into
// wider registers, stores take the low part of them.
std::string Inliner::moveOf(const Frame &frame, size_t opcode, size_t reg, int64_t bytes) const {
  const int64_t wide = token(reg).kind == PtxToken::Name ? registerBytes(*frame.function, token(reg)) : 0;
  const std::string narrow = std::to_string(8 * bytes);
  if (wide <= bytes)
    return "mov.b" + narrow;
  size_t type = opcode + 1;
  while (token(type + 1).kind == PtxToken::Dotted)
    ++type;
  const std::string kind = token(type).text.starts_with(".s") ? ".s" : ".u";
  const std::string whole = std::to_string(8 * wide);
  return token(opcode).is("ld") ? "cvt" + kind + whole + kind + narrow : "cvt" + kind + narrow + kind + whole;
}

bool Inliner::fitsRegister(const PtxVariable &variable, TokenRange range) const {
  if (variable.isArray || (variable.elementBytes != 2 && variable.elementBytes != 4 && variable.elementBytes != 8))
    return false;
  for (size_t i = range.begin, depth = 0; i < range.end; ++i) {
    if (token(i).is("}") && depth-- == 0)
      break;
    depth += token(i).is("{");
    if (token(i).text == variable.name && token(i - 1).is("[") && !isWholeAccess(i, variable.bytes()))
      return false;
  }
  return true;
}

// What stands for a parameter or result of a function: a register or memory of its own, or the caller's memory itself.
Local Inliner::declareFormal(const Frame &frame, const Frame &callee, const PtxVariable &variable, size_t actual,
                             const std::string &name) {
  Local local{Local::Memory, name, variable.bytes(), variable.align, false};
  const std::string bits = ".b" + std::to_string(8 * variable.elementBytes) + " ";
  const Local *given = find(frame, token(actual).text);
  if (variable.space == ".reg") {
    local.kind = Local::Register;
    writer_.writeLine(".reg " + std::string(variable.type) + " " + name + ";", callee.callLine);
  } else if (fitsRegister(variable, {callee.function->body.begin + 1, callee.function->body.end})) {
    local.kind = Local::Register;
    writer_.writeLine(".reg " + bits + name + ";", callee.callLine);
  } else if (given && given->kind == Local::Memory && given->bytes == local.bytes) {
    return *given;
  } else {
    writer_.writeLine(memoryOf(local), callee.callLine);
  }
  return local;
}

void Inliner::copy(const Frame &frame, const Local &from, const Local &to, int line) {
  const std::string bits = ".b" + std::to_string(8 * to.bytes) + " ";
  if (from.kind == Local::Register && to.kind == Local::Register)
    writeLine(frame, "mov" + bits + to.name + ", " + from.name + ";", line);
  else if (from.kind == Local::Register)
    writeLine(frame, "st.local" + bits + "[" + to.name + "], " + from.name + ";", line);
  else if (to.kind == Local::Register)
    writeLine(frame, "ld.local" + bits + to.name + ", [" + from.name + "];", line);
}

// Copies what stands at `actual` in the call to the function's parameter, or the function's result to it.
Status Inliner::pass(Frame &frame, size_t actual, const Local &formal, const PtxVariable &variable, bool isResult) {
  const PtxToken &given = token(actual);
  const Local *local = find(frame, given.text);
  if (local && local->kind != Local::Renamed) {
    if (local->bytes != formal.bytes)
      return module_.error(given.line, text::quote(given.text) + " has " + std::to_string(local->bytes) +
                                           " bytes but the function takes " + std::to_string(formal.bytes));
    copy(frame, isResult ? formal : *local, isResult ? *local : formal, given.line);
    return Status::ok();
  }
  if (variable.space != ".reg")
    return module_.error(given.line, text::quote(given.text) + " is no .param variable of this call");
  std::string name = local ? local->name : std::string(given.text);
  if (local && local->isRange)
    name += given.text.substr(given.text.find_last_not_of("0123456789") + 1);
  const std::string move = "mov" + std::string(variable.type == ".pred" ? ".pred" : variable.type) + " ";
  writeLine(frame, move + (isResult ? name + ", " + formal.name : formal.name + ", " + name) + ";", given.line);
  return Status::ok();
}

// ---- calls
// -----------------------------------------------------------------------------------------------------------

Result<std::vector<size_t>> Inliner::readOperands(size_t &at, size_t end) const {
  std::vector<size_t> operands;
  for (++at; at < end && !token(at).is(")"); ++at) {
    if (token(at).is(","))
      continue;
    if (token(at).kind != PtxToken::Name && token(at).kind != PtxToken::Number)
      return module_.error(token(at).line, text::quote(token(at).text) + " cannot be passed to a function");
    operands.push_back(at);
  }
  ++at;
  return operands;
}

// [@p] call[.uni] [(results),] name [, (arguments)] ;
Result<Call> Inliner::readCall(const Frame &frame, size_t begin, size_t opcode, size_t end) const {
  Call call;
  call.at = opcode;
  call.hasGuard = begin != opcode;
  if (call.hasGuard) {
    call.isNegated = token(begin + 1).is("!");
    call.guard = token(opcode - 1).text;
  }
  size_t at = opcode + 1;
  while (token(at).is(".uni"))
    ++at;
  if (token(at).is("(")) {
    auto results = readOperands(at, end);
    if (!results.isOk())
      return results.status();
    call.results = results.value();
    at += token(at).is(",");
  }
  const PtxToken &target = token(at++);
  if (target.text.starts_with("%") || find(frame, target.text))
    return module_.error(target.line, "a call through a pointer cannot be inlined: call the function by its name");
  call.function = module_.find(target.text);
  if (!call.function || !call.function->isDefined() || call.function->isEntry)
    return module_.error(target.line, "the function " + text::quote(target.text) + " is called but nothing defines it");
  at += token(at).is(",");
  if (at < end && token(at).is("(")) {
    auto arguments = readOperands(at, end);
    if (!arguments.isOk())
      return arguments.status();
    call.arguments = arguments.value();
  }
  if (at != end)
    return module_.error(token(at).line, "there is " + text::quote(token(at).text) + " where the call should end");
  if (call.arguments.size() != call.function->parameters.size() || call.results.size() != call.function->results.size())
    return module_.error(target.line, "the function " + text::quote(target.text) + " takes " +
                                          std::to_string(call.function->parameters.size()) + " parameters and gives " +
                                          std::to_string(call.function->results.size()) + " results, not " +
                                          std::to_string(call.arguments.size()) + " and " +
                                          std::to_string(call.results.size()));
  return call;
}

Status Inliner::inlineCall(Frame &frame, const Call &call) {
  const PtxFunction &function = *call.function;
  const int line = token(call.at).line;
  if (std::find(active_.begin(), active_.end(), &function) != active_.end())
    return module_.error(line, "the function " + text::quote(function.name) + " calls itself, which cannot be inlined");
  // Names of the function's own go on with '_' after the number, those of the call with a letter.
  const std::string stem = prefix_ + std::to_string(count_++);
  Frame callee{&function, stem + "_", frame.callLine ? frame.callLine : line, {{}}, {}, false};
  callee.returnLabel = stem + "return";
  const std::string skip = stem + "skip";
  if (call.hasGuard) {
    const Local *guard = find(frame, call.guard);
    std::string name = guard ? guard->name : std::string(call.guard);
    if (guard && guard->isRange)
      name += call.guard.substr(call.guard.find_last_not_of("0123456789") + 1);
    writeLine(frame, (call.isNegated ? "@" : "@!") + name + " bra " + skip + ";", line);
  }
  writeLine(frame, "{", line);
  std::vector<Local> parameters, results;
  for (size_t i = 0; i < function.parameters.size(); ++i)
    parameters.push_back(
        declareFormal(frame, callee, function.parameters[i], call.arguments[i], "%" + stem + "p" + std::to_string(i)));
  for (size_t i = 0; i < function.results.size(); ++i)
    results.push_back(
        declareFormal(frame, callee, function.results[i], call.results[i], "%" + stem + "q" + std::to_string(i)));
  for (size_t i = 0; i < parameters.size(); ++i)
    KVQ_RETURN_IF_ERROR(pass(frame, call.arguments[i], parameters[i], function.parameters[i], false));
  const auto bind = [&](const PtxVariable &variable, Local local) {
    if (variable.space == ".reg")
      local.kind = Local::Renamed;
    callee.scopes[0][variable.name] = local;
  };
  for (size_t i = 0; i < parameters.size(); ++i)
    bind(function.parameters[i], parameters[i]);
  for (size_t i = 0; i < results.size(); ++i)
    bind(function.results[i], results[i]);
  active_.push_back(&function);
  KVQ_RETURN_IF_ERROR(writeBody(callee));
  active_.pop_back();
  if (callee.returnsEarly)
    writeLine(frame, callee.returnLabel + ":", line);
  for (size_t i = 0; i < results.size(); ++i)
    KVQ_RETURN_IF_ERROR(pass(frame, call.results[i], results[i], function.results[i], true));
  writeLine(frame, "}", line);
  if (call.hasGuard)
    writeLine(frame, skip + ":", line);
  return Status::ok();
}

// ---- statements
// ------------------------------------------------------------------------------------------------------

void Inliner::writeRenamed(Frame &frame, size_t begin, size_t end, size_t opcode) {
  for (size_t i = begin; i < end; ++i) {
    const PtxToken &next = token(i);
    const Local *local = i != opcode && next.kind == PtxToken::Name ? find(frame, next.text) : nullptr;
    if (!local) {
      write(frame, next.text, next);
      continue;
    }
    const size_t stem = next.text.find_last_not_of("0123456789") + 1;
    write(frame, local->name + std::string(local->isRange ? next.text.substr(stem) : ""), next);
  }
}

// ld.param and st.param of what is no parameter any more. False: the instruction is none of that.
bool Inliner::writeParameterAccess(Frame &frame, size_t begin, size_t opcode, size_t end) {
  if (!token(opcode).is("ld") && !token(opcode).is("st"))
    return false;
  size_t space = opcode + 1, name = opcode;
  while (space < end && !token(space).text.starts_with(".param"))
    ++space;
  while (name < end && !token(name).is("["))
    ++name;
  const Local *local = space < end && name < end ? find(frame, token(++name).text) : nullptr;
  if (!local || local->kind == Local::Renamed)
    return false;
  writeRenamed(frame, begin, opcode, end);
  if (local->kind == Local::Memory) {
    writeRenamed(frame, opcode, space, opcode);
    write(frame, ".local", token(space));
    writeRenamed(frame, space + 1, end + 1, end);
    return true;
  }
  size_t operands = opcode + 1;
  while (token(operands).kind == PtxToken::Dotted)
    ++operands;
  if (token(opcode).is("ld")) {
    write(frame, moveOf(frame, opcode, operands, local->bytes), token(opcode));
    writeRenamed(frame, operands, name - 1, end);
    write(frame, " " + local->name + ";", token(name));
    return true;
  }
  while (!token(operands).is("]"))
    ++operands;
  write(frame, moveOf(frame, opcode, operands + 2, local->bytes), token(opcode));
  write(frame, " " + local->name, token(name));
  writeRenamed(frame, operands + 1, end + 1, end);
  return true;
}

void Inliner::writeReturn(Frame &frame, size_t begin, size_t opcode, size_t end) {
  if (begin == opcode && end + 2 == frame.function->body.end)
    return; // the last statement of the function
  frame.returnsEarly = true;
  writeRenamed(frame, begin, opcode, end);
  write(frame, "bra", token(opcode));
  writeRenamed(frame, opcode + 1, end, end);
  write(frame, " " + frame.returnLabel + ";", token(end));
}

Status Inliner::writeInstruction(Frame &frame, size_t &at) {
  const size_t begin = at, end = endOfStatement(at, frame.function->body.end - 1);
  if (!token(end).is(";"))
    return module_.error(token(begin).line, "an instruction that begins here has no ';'");
  at = end + 1;
  size_t opcode = begin;
  if (token(begin).is("@"))
    opcode += token(begin + 1).is("!") ? 3 : 2;
  if (opcode >= end)
    return module_.error(token(begin).line, "a predicate without an instruction");
  if (token(opcode).is("call")) {
    auto call = readCall(frame, begin, opcode, end);
    if (!call.isOk())
      return call.status();
    return inlineCall(frame, call.value());
  }
  if (token(opcode).is("ret") && !frame.prefix.empty()) {
    writeReturn(frame, begin, opcode, end);
    return Status::ok();
  }
  if (writeParameterAccess(frame, begin, opcode, end))
    return Status::ok();
  for (size_t i = opcode + 1; i < end; ++i)
    if (const Local *local = find(frame, token(i).text); local && local->kind != Local::Renamed)
      return module_.error(token(i).line, "the address of a parameter of a call is taken, which cannot be inlined");
  writeRenamed(frame, begin, end + 1, opcode);
  return Status::ok();
}

// .reg .b32 %r<5>, %x;
Status Inliner::writeRegisters(Frame &frame, size_t &at) {
  const size_t end = endOfStatement(at, frame.function->body.end - 1);
  if (!token(end).is(";"))
    return module_.error(token(at).line, "a declaration that begins here has no ';'");
  for (size_t i = at; i < end; ++i) {
    const std::string_view name = token(i).text;
    if (frame.prefix.empty() || token(i).kind != PtxToken::Name)
      continue;
    frame.scopes.back()[name] = {Local::Renamed, prefixed(frame.prefix, name), 0, 0, token(i + 1).is("<")};
  }
  for (; at <= end; ++at) {
    const auto found = frame.scopes.back().find(token(at).text);
    const bool isNew = token(at).kind == PtxToken::Name && found != frame.scopes.back().end();
    write(frame, isNew ? std::string_view(found->second.name) : token(at).text, token(at));
  }
  return Status::ok();
}

Status Inliner::writeVariable(Frame &frame, size_t &at) {
  const size_t begin = at;
  auto read = readVariable(module_, at);
  if (!read.isOk())
    return read.status();
  const PtxVariable &variable = read.value();
  const bool isInlined = !frame.prefix.empty();
  if (variable.space == ".param") {
    Local local{Local::Memory, "%" + prefix_ + std::to_string(count_++), variable.bytes(), variable.align, false};
    if (fitsRegister(variable, {at, frame.function->body.end}))
      local.kind = Local::Register;
    const std::string bits = std::to_string(8 * variable.elementBytes);
    writeLine(frame, local.kind == Local::Register ? ".reg .b" + bits + " " + local.name + ";" : memoryOf(local),
              variable.line);
    frame.scopes.back()[variable.name] = local;
    return Status::ok();
  }
  if (isInlined && variable.space != ".local")
    return module_.error(variable.line, "a variable in " + std::string(variable.space) +
                                            " within a function cannot be inlined: declare it outside");
  if (isInlined)
    frame.scopes.back()[variable.name] = {Local::Renamed, prefixed(frame.prefix, variable.name), 0, 0, false};
  writeRenamed(frame, begin, at, begin);
  return Status::ok();
}

Status Inliner::writeStatement(Frame &frame, size_t &at) {
  const PtxToken &first = token(at);
  if (first.is("{") || first.is("}")) {
    if (first.is("{"))
      frame.scopes.emplace_back();
    else if (frame.scopes.size() > 1)
      frame.scopes.pop_back();
    else
      return module_.error(first.line, "a brace that closes nothing");
    write(frame, first.text, first);
    ++at;
  } else if (first.is(".loc")) {
    while (at < frame.function->body.end - 1 && token(at).line == first.line)
      ++at;
  } else if (first.kind == PtxToken::Name && token(at + 1).is(":")) {
    writeRenamed(frame, at, at + 2, at + 2);
    at += 2;
  } else if (first.is(".reg")) {
    return writeRegisters(frame, at);
  } else if (first.is(".param") || first.is(".local") || first.is(".shared") || first.is(".global") ||
             first.is(".const")) {
    return writeVariable(frame, at);
  } else {
    return writeInstruction(frame, at);
  }
  return Status::ok();
}

Status Inliner::writeBody(Frame &frame) {
  const TokenRange body = frame.function->body;
  if (frame.scopes.empty())
    frame.scopes.emplace_back();
  for (size_t i = body.begin; i < body.end && !frame.prefix.empty(); ++i)
    if (token(i).kind == PtxToken::Name && token(i + 1).is(":"))
      frame.scopes[0][token(i).text] = {Local::Renamed, prefixed(frame.prefix, token(i).text), 0, 0, false};
  for (size_t at = body.begin; at < body.end;)
    KVQ_RETURN_IF_ERROR(writeStatement(frame, at));
  return Status::ok();
}

void Inliner::copyTokens(TokenRange range) {
  for (size_t i = range.begin; i < range.end; ++i)
    writer_.write(token(i));
}

Result<PtxText> Inliner::run(std::string_view only) {
  std::string targets;
  for (std::string_view target : module_.targets)
    targets += (targets.empty() ? "" : ", ") + std::string(target);
  writer_.writeLine(".version " + std::string(module_.version), 1);
  writer_.writeLine(".target " + targets, 1);
  writer_.writeLine(".address_size 64", 1);
  for (const PtxVariable &variable : module_.variables)
    copyTokens(variable.whole);
  for (const PtxFunction &function : module_.functions) {
    if (!function.isEntry || !function.isDefined() || (!only.empty() && function.name != only))
      continue;
    writer_.breakLine();
    copyTokens({function.whole.begin, function.body.begin});
    Frame frame{&function, "", 0, {}, {}, false};
    lastLine_ = 0;
    KVQ_RETURN_IF_ERROR(writeBody(frame));
  }
  return writer_.take();
}

} // namespace

bool hasCalls(const PtxModule &module, const PtxFunction &function) {
  for (size_t i = function.body.begin; i < function.body.end; ++i)
    if (module.tokens[i].kind == PtxToken::Name && module.tokens[i].is("call"))
      return true;
  return false;
}

Result<PtxText> inlineCalls(const PtxModule &module, std::string_view only) { return Inliner(module).run(only); }

} // namespace kvq
