// SPDX-License-Identifier: Apache-2.0
//
// Operands of an instruction against what a form wants: registers and immediates become slots, symbols addresses.
#pragma once

#include "runtime/ptxsim/decode/flatten.h"
#include "runtime/ptxsim/decode/frame.h"
#include "runtime/ptxsim/decode/memory_map.h"
#include "runtime/ptxsim/decode/registry.h"

namespace kvq::ptxsim {

struct DecodedOperands {
  std::vector<Slot> results, sources;
  std::vector<std::pair<Slot, Slot>> inverted; // predicates that are used as !p: from, to
  int addresses = 0;                           // operands in brackets
  int64_t offset = 0, secondOffset = 0;
  uint64_t immediate = 0;
  int addressBytes = 8, secondAddressBytes = 8;
  int width = 0; // bytes of the register of the first value that may be wide
  bool readsClock = false;
};

class OperandDecoder {
public:
  OperandDecoder(const FlatKernel &flat, const MemoryMap &map, FrameBuilder &frame)
      : flat_(flat), map_(map), frame_(frame) {}
  Slot slotOf(int instance, uint32_t index);
  // Empty if the operands fit the form; else why they do not.
  std::string match(const FlatInstruction &at, const Form &form, DecodedOperands &out);
  // The name to look up: parameters of calls are local memory, so ld.param of one is ld.local.
  std::string effectiveName(const FlatInstruction &at) const;

private:
  std::string matchOne(int instance, const Operand &operand, const OperandSpec &spec, bool result,
                       DecodedOperands &out);
  std::string matchValue(int instance, const Operand &operand, const OperandSpec &spec, Type type, bool result,
                         DecodedOperands &out, Slot &slot);
  std::string matchAddress(int instance, const Operand &operand, DecodedOperands &out);
  std::string matchVector(int instance, const Operand &operand, const OperandSpec &spec, bool result,
                          DecodedOperands &out);
  Type typeOf(int instance, uint32_t index) const { return flat_.instances[instance].function->registers[index].type; }

  const FlatKernel &flat_;
  const MemoryMap &map_;
  FrameBuilder &frame_;
  std::map<std::pair<int, uint32_t>, Slot> slots_;
};

} // namespace kvq::ptxsim
