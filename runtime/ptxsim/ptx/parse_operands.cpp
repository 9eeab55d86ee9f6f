// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/ptx/parser.h"

namespace kvq::ptxsim::reader {
namespace {

using Kind = Token::Kind;

struct SpecialName {
  std::string_view name;
  Special special;
};
constexpr SpecialName kSpecials[] = {
    {"%tid.x", Special::TidX},
    {"%tid.y", Special::TidY},
    {"%tid.z", Special::TidZ},
    {"%ntid.x", Special::NtidX},
    {"%ntid.y", Special::NtidY},
    {"%ntid.z", Special::NtidZ},
    {"%ctaid.x", Special::CtaidX},
    {"%ctaid.y", Special::CtaidY},
    {"%ctaid.z", Special::CtaidZ},
    {"%nctaid.x", Special::NctaidX},
    {"%nctaid.y", Special::NctaidY},
    {"%nctaid.z", Special::NctaidZ},
    {"%laneid", Special::Laneid},
    {"%warpid", Special::Warpid},
    {"%nwarpid", Special::Nwarpid},
    {"%lanemask_eq", Special::LanemaskEq},
    {"%lanemask_le", Special::LanemaskLe},
    {"%lanemask_lt", Special::LanemaskLt},
    {"%lanemask_ge", Special::LanemaskGe},
    {"%lanemask_gt", Special::LanemaskGt},
    {"%dynamic_smem_size", Special::DynamicSmemSize},
    {"%total_smem_size", Special::TotalSmemSize},
    {"%gridid", Special::Gridid},
    {"%smid", Special::Smid},
    {"%nsmid", Special::Nsmid},
    {"%clock", Special::Clock},
    {"%clock64", Special::Clock64},
    {"%clock_hi", Special::ClockHi},
    {"%globaltimer", Special::Globaltimer},
    {"%globaltimer_lo", Special::GlobaltimerLo},
    {"%globaltimer_hi", Special::GlobaltimerHi},
};

} // namespace

bool specialNamed(std::string_view name, Special &special) {
  for (const SpecialName &entry : kSpecials) {
    if (entry.name == name) {
      special = entry.special;
      return true;
    }
  }
  return false;
}

Entity Parser::resolve(std::string_view name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
    if (Entity entity = scope->names.find(name); entity.kind != Entity::Kind::None)
      return entity;
  return {};
}

// depth 0: an operand of the instruction; 1: inside of brackets, where labels are not known.
bool Parser::operand(Operand &operand, int depth) {
  if (++operands_ > kMaxOperands)
    return fail(token_.line, "more than " + std::to_string(kMaxOperands) + " operands");
  if (depth > 0)
    operandPlace_ = SIZE_MAX;
  if (token_.is('['))
    return addressOperand(operand);
  if (token_.is('{'))
    return depth == 0 ? vectorOperand(operand) : failHere("an element of a vector");
  if (token_.is('!'))
    return negatedOperand(operand);
  if (token_.kind == Kind::Identifier && token_.text != "WARP_SZ")
    return plainOperand(operand) && (!token_.is('|') || pairOperand(operand));
  Constant value;
  if (!constant(value))
    return false;
  operand.kind = Operand::Kind::Immediate;
  operand.literal = value.literal;
  operand.bits = value.bits;
  return true;
}

bool Parser::plainOperand(Operand &operand) {
  int line = token_.line;
  std::string_view name;
  if (!identifier(name, "an operand"))
    return false;
  if (name == "_")
    return true;
  Entity entity = branch_ ? Entity{} : resolve(name);
  operand.index = entity.index;
  switch (entity.kind) {
  case Entity::Kind::Register:
    operand.kind = Operand::Kind::Register;
    if (token_.kind == Kind::DotWord)
      return notImplemented(line, "a component of a register, " + quoted(name) + " " + describe(token_));
    return true;
  case Entity::Kind::Variable:
  case Entity::Kind::ModuleVariable:
    operand.kind = Operand::Kind::Symbol;
    operand.global = entity.kind == Entity::Kind::ModuleVariable;
    return offsetTerms(operand.offset);
  case Entity::Kind::Function:
    operand.kind = Operand::Kind::Function;
    return true;
  default:
    break;
  }
  if (name[0] == '%')
    return specialOperand(operand, name, line);
  if (operandPlace_ == SIZE_MAX || token_.is('+') || token_.is('-'))
    return fail(line, quoted(name) + " is not a register, variable or function");
  operand.kind = Operand::Kind::Label;
  refer(Reference::Kind::Operand, current().instructions.size(), operandPlace_, name, line, branch_);
  return true;
}

// %tid.x and its like, and what must have been a register.
bool Parser::specialOperand(Operand &operand, std::string_view name, int line) {
  std::string whole(name.substr(0, 64));
  if (token_.kind == Kind::DotWord) {
    whole += "." + std::string(token_.text.substr(0, 64));
    advance();
  }
  Special special;
  if (!specialNamed(whole, special))
    return fail(line, quoted(whole) + " is neither a declared register nor a special register that is known");
  operand.kind = Operand::Kind::Special;
  operand.index = uint32_t(special);
  return status_.isOk();
}

// !%p, or ! of a constant.
bool Parser::negatedOperand(Operand &operand) {
  int line = token_.line;
  if (!advance())
    return false;
  if (token_.kind != Kind::Identifier || token_.text == "WARP_SZ") {
    Constant value;
    if (!constantUnary(value))
      return false;
    if (value.literal != Operand::Literal::Integer)
      return fail(line, "an operator that floating-point constants do not have");
    operand.kind = Operand::Kind::Immediate;
    operand.bits = value.bits == 0;
    return true;
  }
  if (!plainOperand(operand))
    return false;
  if (operand.kind != Operand::Kind::Register || current().registers[operand.index].type != Type::Pred)
    return fail(line, "'!' stands before a predicate");
  operand.negated = true;
  return true;
}

// Behind p: |q. Either may be _.
bool Parser::pairOperand(Operand &operand) {
  int line = token_.line;
  auto fits = [](const Operand &half) {
    return half.kind == Operand::Kind::Register || half.kind == Operand::Kind::Sink;
  };
  Operand second;
  if (!advance() || !plainOperand(second))
    return false;
  if (!fits(operand) || !fits(second))
    return fail(line, "'|' joins two registers");
  Operand first = std::move(operand);
  operand = Operand();
  operand.kind = Operand::Kind::Pair;
  operand.elements.push_back(std::move(first));
  operand.elements.push_back(std::move(second));
  return true;
}

bool Parser::vectorOperand(Operand &operand) {
  operand.kind = Operand::Kind::Vector;
  if (!advance())
    return false;
  do {
    if (operand.elements.size() >= kMaxList)
      return fail(token_.line, "a vector of more than " + std::to_string(kMaxList) + " elements");
    operand.elements.emplace_back();
    if (!this->operand(operand.elements.back(), 1))
      return false;
  } while (take(','));
  return expect('}', "after the elements of a vector");
}

// [register + N], [symbol + N], [N]
bool Parser::addressOperand(Operand &operand) {
  operandPlace_ = SIZE_MAX;
  operand.kind = Operand::Kind::Address;
  int line = token_.line;
  if (!advance())
    return false;
  Operand base;
  if (token_.kind == Kind::Identifier && token_.text != "WARP_SZ") {
    if (!plainOperand(base) || !offsetTerms(operand.offset))
      return false;
    operand.offset = int64_t(uint64_t(operand.offset) + uint64_t(base.offset));
    base.offset = 0;
    if (base.kind != Operand::Kind::Register && base.kind != Operand::Kind::Symbol)
      return fail(line, "an address begins with a register, a variable or a constant");
  } else {
    Constant value;
    if (!constant(value))
      return false;
    if (value.literal != Operand::Literal::Integer)
      return fail(line, "a floating-point constant is no address");
    base.kind = Operand::Kind::Immediate;
    base.bits = value.bits;
  }
  operand.elements.push_back(std::move(base));
  if (token_.is(','))
    return notImplemented(line, "an address with coordinates");
  return expect(']', "after an address");
}

// Any number of + N and - N.
bool Parser::offsetTerms(int64_t &offset) {
  constexpr int products = 11; // the operators of a term bind like * and above
  while (token_.is('+') || token_.is('-')) {
    bool minus = token_.is('-');
    int line = token_.line;
    Constant value;
    if (!advance() || !constant(value, products))
      return false;
    if (value.literal != Operand::Literal::Integer)
      return fail(line, "an offset must be an integer");
    offset = int64_t(minus ? uint64_t(offset) - value.bits : uint64_t(offset) + value.bits);
  }
  return status_.isOk();
}

} // namespace kvq::ptxsim::reader
