// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/decode/flatten.h"

namespace kvq::ptxsim {

namespace {

constexpr size_t kMostInstructions = 4'000'000; // inlining multiplies: text of hostile input must not fill the memory
constexpr int kDeepest = 64;

class Flattener {
public:
  explicit Flattener(const Module &module) : module_(module) {}

  Result<FlatKernel> run(const Function &kernel) {
    KVQ_RETURN_IF_ERROR(body(kernel, -1, std::vector<int>(kernel.variables.size(), -1), 0));
    return std::move(flat_);
  }

private:
  Status refuse(const Instruction &instruction, const std::string &why) const {
    return {Code::Unsupported, module_.file + ":" + std::to_string(instruction.line) + ": " + why};
  }

  Status body(const Function &function, int caller, std::vector<int> aliases, int depth) {
    const int self = int(flat_.instances.size());
    flat_.instances.push_back({&function, caller, std::move(aliases), {}, 0});
    std::vector<uint32_t> where(function.instructions.size() + 1);
    for (size_t i = 0; i < function.instructions.size(); ++i) {
      const Instruction &instruction = function.instructions[i];
      where[i] = uint32_t(flat_.list.size());
      if (flat_.list.size() > kMostInstructions)
        return refuse(instruction, "the kernel has more than 4,000,000 instructions when its calls are inlined");
      if (instruction.opcode == "call")
        KVQ_RETURN_IF_ERROR(call(instruction, self, depth));
      else if (instruction.opcode == "ret" && caller >= 0)
        flat_.list.push_back({&instruction, self, FlatInstruction::Kind::Return, -1});
      else
        flat_.list.push_back({&instruction, self, FlatInstruction::Kind::Plain, -1});
    }
    where.back() = uint32_t(flat_.list.size());
    Instance &instance = flat_.instances[self];
    instance.end = where.back();
    for (const Label &label : function.labels)
      instance.labels.push_back(where[label.instruction]);
    return Status::ok();
  }

  Status call(const Instruction &instruction, int self, int depth) {
    // call (results), function, (arguments): either list may be missing.
    const std::vector<Operand> &operands = instruction.operands;
    size_t name = 0;
    while (name < operands.size() && operands[name].kind != Operand::Kind::Function)
      ++name;
    if (name == operands.size())
      return refuse(instruction, "a call through a register is not implemented; call the function by its name");
    const Function &callee = module_.functions[operands[name].index];
    if (!callee.defined)
      return refuse(instruction, "call of '" + callee.name + "', which has no body in this module");
    for (int i = self; i >= 0; i = flat_.instances[i].caller)
      if (flat_.instances[i].function == &callee)
        return refuse(instruction, "recursive call of '" + callee.name + "' is not implemented");
    if (depth >= kDeepest)
      return refuse(instruction, "calls are nested more than 64 deep");

    std::vector<int> aliases(callee.variables.size(), -1);
    size_t next = 0;
    if (name + 1 < operands.size())
      KVQ_RETURN_IF_ERROR(bind(instruction, operands[name + 1], callee.params, next, aliases));
    else if (!callee.params.empty())
      return refuse(instruction, "call of '" + callee.name + "' without its parameters");
    if (name > 0)
      KVQ_RETURN_IF_ERROR(bind(instruction, operands[0], callee.returns, next, aliases));
    if (instruction.guard >= 0)
      flat_.list.push_back({&instruction, self, FlatInstruction::Kind::SkipCall, int(flat_.instances.size())});
    return body(callee, self, std::move(aliases), depth + 1);
  }

  // Function::variables lists the parameters first and then the results: next counts through both.
  Status bind(const Instruction &instruction, const Operand &list, const std::vector<Variable> &formal, size_t &next,
              std::vector<int> &aliases) {
    if (list.elements.size() != formal.size())
      return refuse(instruction, "the call has " + std::to_string(list.elements.size()) + " operands where " +
                                     std::to_string(formal.size()) + " are declared");
    for (const Operand &actual : list.elements) {
      if (actual.kind != Operand::Kind::Symbol || actual.global)
        return refuse(instruction, "a parameter of a call must be a .param variable");
      aliases[next++] = int(actual.index);
    }
    return Status::ok();
  }

  const Module &module_;
  FlatKernel flat_;
};

} // namespace

Result<FlatKernel> flatten(const Module &module, const Function &kernel) { return Flattener(module).run(kernel); }

} // namespace kvq::ptxsim
