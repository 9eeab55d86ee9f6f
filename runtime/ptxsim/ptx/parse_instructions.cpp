// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/ptx/parser.h"

#include "runtime/ptxsim/ptx/reader.h"

namespace kvq::ptxsim::reader {
namespace {

using Kind = Token::Kind;
constexpr size_t kMaxModifiersEach = 32; // the longest names of the ISA have about 15

} // namespace

// @%p or @!%p
bool Parser::guard(Instruction &instruction) {
  int line = token_.line;
  if (!advance())
    return false;
  instruction.guardNegated = take('!');
  std::string_view name;
  if (!identifier(name, "the predicate of a guard"))
    return false;
  Entity entity = resolve(name);
  if (entity.kind != Entity::Kind::Register)
    return fail(line, "the predicate " + quoted(name) + " is not declared");
  if (current().registers[entity.index].type != Type::Pred)
    return fail(line, "the guard " + quoted(name) + " is not a predicate");
  instruction.guard = int32_t(entity.index);
  return true;
}

bool Parser::instruction(Instruction instruction, std::string_view opcode) {
  if (++instructions_ > kMaxInstructions)
    return fail(instruction.line, "more than " + std::to_string(kMaxInstructions) + " instructions");
  instruction.opcode = opcode.substr(0, 64);
  bool policy = false;
  std::string_view cache;
  if (!modifiers(instruction, policy, cache))
    return false;
  branch_ = opcode == "bra";
  if (!(opcode == "call" ? callOperands(instruction) : operands(instruction)))
    return false;
  if (!token_.is(';'))
    return failHere("',' or ';' after an operand of " + quoted(instruction.name()));
  advance();
  if (policy && !dropPolicy(instruction))
    return false;
  // The one thing that a cache hint forbids: .cg copies go in whole sectors' halves.
  if (opcode == "cp" && cache == "cg" && instruction.operands.size() > 2) {
    const Operand &size = instruction.operands[2];
    if (size.kind != Operand::Kind::Immediate || size.bits != 16)
      return fail(instruction.line, "cp.async.cg copies 16 bytes; other sizes take .ca");
  }
  current().instructions.push_back(std::move(instruction));
  return true;
}

bool Parser::modifiers(Instruction &instruction, bool &policy, std::string_view &cache) {
  for (; token_.kind == Kind::DotWord; advance()) {
    if (isHint(instruction.opcode, token_.text)) {
      policy |= token_.text == "L2::cache_hint";
      if (token_.text == "ca" || token_.text == "cg")
        cache = token_.text;
      continue;
    }
    if (instruction.modifiers.size() >= kMaxModifiersEach || ++modifiers_ > kMaxModifiers)
      return fail(token_.line, "too many modifiers of " + quoted(instruction.opcode));
    instruction.modifiers.emplace_back(token_.text.substr(0, 64));
  }
  return status_.isOk();
}

// .L2::cache_hint takes a policy of 64 bits as last operand, which goes with it.
bool Parser::dropPolicy(Instruction &instruction) {
  bool good = instruction.operands.size() >= 2;
  if (good) {
    const Operand &last = instruction.operands.back();
    good = last.kind == Operand::Kind::Immediate ||
           (last.kind == Operand::Kind::Register && bytesOf(current().registers[last.index].type) == 8);
  }
  if (!good)
    return fail(instruction.line, ".L2::cache_hint needs a policy of 64 bits as the last operand");
  instruction.operands.pop_back();
  return true;
}

bool Parser::operands(Instruction &instruction) {
  if (token_.is(';'))
    return true;
  do {
    if (instruction.operands.size() >= kMaxList)
      return fail(token_.line, "too many operands of " + quoted(instruction.name()));
    operandPlace_ = instruction.operands.size();
    instruction.operands.emplace_back();
    if (!operand(instruction.operands.back(), 0))
      return false;
  } while (take(','));
  return status_.isOk();
}

// [(results),] FUNCTION [, (arguments)] [, prototype]
bool Parser::callOperands(Instruction &instruction) {
  auto &list = instruction.operands;
  list.resize(3);
  list[0].kind = list[2].kind = Operand::Kind::Vector;
  if (token_.is('(') && (!argumentList(list[0]) || !expect(',', "after the results of a call")))
    return false;
  std::string_view name;
  int line = token_.line;
  if (!identifier(name, "the function of a call"))
    return false;
  Entity entity = resolve(name);
  if (entity.kind == Entity::Kind::Function)
    list[1].kind = Operand::Kind::Function;
  else if (entity.kind == Entity::Kind::Register)
    list[1].kind = Operand::Kind::Register;
  else
    return fail(line, "the function " + quoted(name) + " is not declared");
  list[1].index = entity.index;
  bool more = take(',');
  if (more && token_.is('(')) {
    if (!argumentList(list[2]))
      return false;
    more = take(',');
  }
  if (!more)
    return status_.isOk();
  line = token_.line;
  if (!identifier(name, "the prototype of a call"))
    return false;
  list.emplace_back().kind = Operand::Kind::Label;
  refer(Reference::Kind::Operand, current().instructions.size(), 3, name, line, true);
  return true;
}

bool Parser::argumentList(Operand &list) {
  if (!advance())
    return false;
  if (take(')'))
    return status_.isOk();
  do {
    if (list.elements.size() >= kMaxList)
      return fail(token_.line, "too many arguments of a call");
    list.elements.emplace_back();
    if (!operand(list.elements.back(), 1))
      return false;
  } while (take(','));
  return expect(')', "after the arguments of a call");
}

} // namespace kvq::ptxsim::reader
