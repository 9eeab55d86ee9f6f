// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/decode/operands.h"

#include <bit>

namespace kvq::ptxsim {

namespace {

bool isClock(Special special) {
  switch (special) {
  case Special::Clock:
  case Special::Clock64:
  case Special::ClockHi:
  case Special::Globaltimer:
  case Special::GlobaltimerLo:
  case Special::GlobaltimerHi:
    return true;
  default:
    return false;
  }
}

double valueOf(const Operand &immediate) {
  return immediate.literal == Operand::Literal::Float32 ? double(std::bit_cast<float>(uint32_t(immediate.bits)))
                                                        : std::bit_cast<double>(immediate.bits);
}

// The bits of an immediate as a register of the type; none where the two do not go together.
bool bitsOf(const Operand &immediate, Type type, uint64_t &bits) {
  bits = immediate.bits;
  if (type == Type::Pred) { // nvcc writes -1 for true
    bits = bits != 0;
    return immediate.literal == Operand::Literal::Integer;
  }
  if (immediate.literal == Operand::Literal::Integer) {
    if (bytesOf(type) < 8)
      bits &= (uint64_t(1) << bytesOf(type) * 8) - 1;
    return type != Type::F32 && type != Type::F64;
  }
  switch (type) {
  case Type::F64:
    bits = std::bit_cast<uint64_t>(valueOf(immediate));
    return true;
  case Type::F32:
  case Type::B32:
    if (immediate.literal != Operand::Literal::Float32)
      bits = std::bit_cast<uint32_t>(float(valueOf(immediate)));
    return true;
  case Type::B64:
    return immediate.literal == Operand::Literal::Float64;
  default:
    return false;
  }
}

const char *const kMissing = "an operand is missing";

} // namespace

Slot OperandDecoder::slotOf(int instance, uint32_t index) {
  const auto key = std::make_pair(instance, index);
  auto found = slots_.find(key);
  if (found == slots_.end())
    found = slots_.emplace(key, frame_.place(typeOf(instance, index))).first;
  return found->second;
}

std::string OperandDecoder::effectiveName(const FlatInstruction &at) const {
  const Instruction &instruction = *at.instruction;
  std::string name = instruction.opcode;
  for (const std::string &modifier : instruction.modifiers) {
    bool local = false;
    if (modifier.starts_with("param") && (instruction.opcode == "ld" || instruction.opcode == "st")) {
      // A base register can only hold the address of a parameter of the kernel in the kernel itself.
      local = at.instance > 0 || modifier == "param::func" || instruction.opcode == "st";
      for (const Operand &operand : instruction.operands)
        if (operand.kind == Operand::Kind::Address && operand.elements[0].kind == Operand::Kind::Symbol)
          local = map_.find(at.instance, operand.elements[0]).space != Space::Param;
    }
    name += local ? ".local" : modifier.starts_with("param::") ? ".param" : "." + modifier;
  }
  return name;
}

std::string OperandDecoder::match(const FlatInstruction &at, const Form &form, DecodedOperands &out) {
  const std::vector<Operand> &operands = at.instruction->operands;
  size_t next = 0;
  for (int side = 0; side < 2; ++side) {
    for (const OperandSpec &spec : side == 0 ? form.results : form.sources) {
      if (next == operands.size()) {
        if (!spec.optional)
          return kMissing;
        continue;
      }
      if (std::string why = matchOne(at.instance, operands[next], spec, side == 0, out); !why.empty())
        return "operand " + std::to_string(next + 1) + " " + why;
      ++next;
    }
  }
  return next == operands.size() ? "" : "there are more operands than the " + std::to_string(next) + " expected";
}

std::string OperandDecoder::matchOne(int instance, const Operand &operand, const OperandSpec &spec, bool result,
                                     DecodedOperands &out) {
  std::vector<Slot> &slots = result ? out.results : out.sources;
  switch (spec.kind) {
  case OperandKind::Address:
    return matchAddress(instance, operand, out);
  case OperandKind::Immediate:
    if (operand.kind != Operand::Kind::Immediate || operand.literal != Operand::Literal::Integer)
      return "must be an integer constant";
    out.immediate = operand.bits;
    return "";
  case OperandKind::Symbol:
    if (operand.kind != Operand::Kind::Symbol)
      return "must be the name of a variable";
    slots.push_back(frame_.constant(Type::U64, uint64_t(map_.find(instance, operand).address + operand.offset)));
    return "";
  case OperandKind::Value:
    break;
  }
  if (operand.kind == Operand::Kind::Vector || spec.vector > 1)
    return matchVector(instance, operand, spec, result, out);
  Slot slot, second = spec.second == Type::None ? Slot{} : frame_.sink();
  if (operand.kind == Operand::Kind::Pair) {
    if (spec.second == Type::None)
      return "must be one register, not two joined by a bar";
    if (std::string why = matchValue(instance, operand.elements[1], spec, spec.second, result, out, second);
        !why.empty())
      return why;
  }
  const Operand &first = operand.kind == Operand::Kind::Pair ? operand.elements[0] : operand;
  if (std::string why = matchValue(instance, first, spec, spec.type, result, out, slot); !why.empty())
    return why;
  slots.push_back(slot);
  if (spec.second != Type::None)
    slots.push_back(second);
  return "";
}

std::string OperandDecoder::matchVector(int instance, const Operand &operand, const OperandSpec &spec, bool result,
                                        DecodedOperands &out) {
  if (operand.kind != Operand::Kind::Vector || int(operand.elements.size()) != spec.vector)
    return "must be a vector of " + std::to_string(spec.vector) + (spec.vector == 1 ? " register" : " registers");
  // Constants among wide registers are as wide as these, so that op.width holds for all elements.
  Type wide = spec.type;
  if (spec.wide)
    for (const Operand &element : operand.elements)
      if (element.kind == Operand::Kind::Register)
        wide = typeOf(instance, element.index);
  for (const Operand &element : operand.elements) {
    Slot slot;
    uint64_t bits = 0;
    if (!result && element.kind == Operand::Kind::Immediate && bytesOf(wide) > bytesOf(spec.type) &&
        bitsOf(element, spec.type, bits))
      slot = frame_.constant(wide, bits);
    else if (std::string why = matchValue(instance, element, spec, spec.type, result, out, slot); !why.empty())
      return "has an element that " + why;
    (result ? out.results : out.sources).push_back(slot);
  }
  if (spec.wide)
    out.width = bytesOf(wide);
  return "";
}

std::string OperandDecoder::matchValue(int instance, const Operand &operand, const OperandSpec &spec, Type type,
                                       bool result, DecodedOperands &out, Slot &slot) {
  switch (operand.kind) {
  case Operand::Kind::Sink:
    if (!result)
      return "must be a value, not '_'";
    slot = frame_.sink();
    if (spec.wide)
      out.width = bytesOf(type);
    return "";
  case Operand::Kind::Register: {
    const Type declared = typeOf(instance, operand.index);
    const bool fits = (declared == Type::Pred) == (type == Type::Pred) &&
                      (bytesOf(declared) == bytesOf(type) || (spec.wide && bytesOf(declared) > bytesOf(type)));
    if (!fits)
      return "is a register of the wrong size";
    slot = slotOf(instance, operand.index);
    if (spec.wide)
      out.width = bytesOf(declared);
    if (operand.negated) {
      const Slot inverted = frame_.place(Type::Pred);
      out.inverted.push_back({slot, inverted});
      slot = inverted;
    }
    return "";
  }
  case Operand::Kind::Immediate: {
    uint64_t bits = 0;
    if (result)
      return "must be a register";
    if (!bitsOf(operand, type, bits))
      return "is a constant that the type does not allow";
    if (spec.wide)
      out.width = bytesOf(type);
    slot = frame_.constant(type, bits);
    return "";
  }
  case Operand::Kind::Special:
    if (result || type == Type::Pred)
      return "must not be a special register";
    out.readsClock |= isClock(Special(operand.index));
    slot = frame_.special(Special(operand.index), type);
    if (spec.wide)
      out.width = bytesOf(type);
    return "";
  case Operand::Kind::Symbol:
    if (result || bytesOf(type) < 4 || type == Type::Pred)
      return "must not be the name of a variable";
    slot = frame_.constant(bytesOf(type) == 8 ? Type::U64 : Type::U32,
                           uint64_t(map_.find(instance, operand).address + operand.offset));
    return "";
  default:
    return "is not a value";
  }
}

std::string OperandDecoder::matchAddress(int instance, const Operand &operand, DecodedOperands &out) {
  if (operand.kind != Operand::Kind::Address)
    return "must be an address in brackets";
  const Operand &base = operand.elements[0];
  const bool second = out.addresses++ > 0;
  (second ? out.secondOffset : out.offset) = operand.offset;
  switch (base.kind) {
  case Operand::Kind::Register: {
    const int bytes = bytesOf(typeOf(instance, base.index));
    if (typeOf(instance, base.index) == Type::Pred || bytes < 4)
      return "has a base that is not a register of 32 or 64 bits";
    (second ? out.secondAddressBytes : out.addressBytes) = bytes;
    out.sources.push_back(slotOf(instance, base.index));
    return "";
  }
  case Operand::Kind::Immediate:
    out.sources.push_back(frame_.constant(Type::U64, base.bits));
    return "";
  case Operand::Kind::Symbol:
    out.sources.push_back(frame_.constant(Type::U64, uint64_t(map_.find(instance, base).address + base.offset)));
    return "";
  default:
    return "has a base that is neither a register nor a variable";
  }
}

} // namespace kvq::ptxsim
