// SPDX-License-Identifier: Apache-2.0
//
// libFuzzer target: any text is answered by an error or by a module whose indices all lie where they should.
#include "runtime/ptxsim/ptx/reader.h"

#include <cstdio>
#include <cstdlib>

using namespace kvq::ptxsim;

namespace {

void require(bool condition, const char *what) {
  if (condition)
    return;
  std::fprintf(stderr, "the module is not sound: %s\n", what);
  std::abort();
}

void checkVariable(const Module &module, const Variable &variable) {
  require(variable.elements >= 0 && variable.align > 0 && (variable.align & (variable.align - 1)) == 0, "a variable");
  require(bytesOf(variable.type) > 0, "the type of a variable");
  require(!variable.initialised || int64_t(variable.bytes.size()) == variable.size(), "the bytes of a variable");
  for (const Variable::Address &address : variable.addresses) {
    require(address.offset >= 0 && address.offset + address.size <= variable.size(), "the place of an address");
    require(address.variable < (address.function ? module.functions.size() : module.variables.size()), "an address");
  }
}

void checkOperand(const Module &module, const Function &function, const Operand &operand) {
  using Kind = Operand::Kind;
  switch (operand.kind) {
  case Kind::Register:
    require(operand.index < function.registers.size(), "a register");
    break;
  case Kind::Special:
    require(operand.index <= uint32_t(Special::GlobaltimerHi), "a special register");
    break;
  case Kind::Symbol:
    require(operand.index < (operand.global ? module.variables.size() : function.variables.size()), "a symbol");
    break;
  case Kind::Label:
    require(operand.index < function.labels.size(), "a label");
    break;
  case Kind::Function:
    require(operand.index < module.functions.size(), "a function");
    break;
  case Kind::Address:
    require(operand.elements.size() == 1, "an address");
    break;
  case Kind::Pair:
    require(operand.elements.size() == 2, "a pair");
    break;
  default:
    break;
  }
  for (const Operand &element : operand.elements)
    checkOperand(module, function, element);
}

void checkFunction(const Module &module, const Function &function) {
  require(function.variables.size() >= (function.defined ? function.params.size() + function.returns.size() : 0),
          "the variables of a function");
  for (const Variable &variable : function.variables)
    checkVariable(module, variable);
  for (const Label &label : function.labels)
    require(label.instruction <= function.instructions.size(), "the place of a label");
  for (const BranchTargets &targets : function.branchTargets) {
    require(targets.label < function.labels.size(), "the label of targets");
    for (uint32_t label : targets.labels)
      require(label < function.labels.size(), "a target");
  }
  for (const Prototype &prototype : function.prototypes)
    require(prototype.label < function.labels.size(), "the label of a prototype");
  for (const Instruction &instruction : function.instructions) {
    require(instruction.line >= 1 && instruction.line <= function.endLine, "a line");
    require(instruction.guard < int64_t(function.registers.size()), "a guard");
    for (const Operand &operand : instruction.operands)
      checkOperand(module, function, operand);
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  kvq::Result<Module> module = parse({reinterpret_cast<const char *>(data), size}, "fuzz.ptx");
  if (!module.isOk()) {
    require(module.status().message().starts_with("fuzz.ptx:"), "a message without its place");
    return 0;
  }
  for (const Variable &variable : module.value().variables)
    checkVariable(module.value(), variable);
  for (const Function &function : module.value().functions)
    checkFunction(module.value(), function);
  return 0;
}
