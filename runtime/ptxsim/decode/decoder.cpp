// SPDX-License-Identifier: Apache-2.0
//
// From instructions to operations: the form of each name is looked up, its operands become slots.
#include "runtime/ptxsim/decode/control_flow.h"
#include "runtime/ptxsim/decode/flatten.h"
#include "runtime/ptxsim/decode/frame.h"
#include "runtime/ptxsim/decode/memory_map.h"
#include "runtime/ptxsim/decode/operands.h"
#include "runtime/ptxsim/decode/registry.h"
#include "runtime/ptxsim/exec/warp.h"

#include <algorithm>
#include <set>

namespace kvq::ptxsim {

namespace {

void invertPredicate(Warp &warp, const Op &op, uint32_t mask);

class Decoder {
public:
  Decoder(const Module &module, const FlatKernel &flat, const ModuleAddresses &addresses, Kernel &kernel)
      : module_(module), flat_(flat), kernel_(kernel), map_(flat, module, addresses, kernel),
        operands_(flat, map_, frame_) {}

  Status run() {
    positions_.resize(flat_.list.size() + 1);
    for (size_t i = 0; i < flat_.list.size(); ++i) {
      positions_[i] = uint32_t(kernel_.operations.size());
      KVQ_RETURN_IF_ERROR(decode(flat_.list[i]));
    }
    positions_.back() = uint32_t(kernel_.operations.size());
    for (auto [operation, target] : jumps_)
      kernel_.operations[operation].target = positions_[target];
    for (std::vector<uint32_t> &table : kernel_.branchTables)
      for (uint32_t &target : table)
        target = positions_[target];
    findReconvergence(kernel_.operations);
    frame_.finish(kernel_);
    for (const Op &op : kernel_.operations)
      if (op.form && op.form->ordersBlocks && op.space != Space::Shared)
        kernel_.blocksIndependent = false;
    return Status::ok();
  }

private:
  Status refuse(const Instruction &instruction, const std::string &why) const {
    return {Code::Unsupported, module_.file + ":" + std::to_string(instruction.line) + ": " + why};
  }

  Status decode(const FlatInstruction &at) {
    const Instruction &instruction = *at.instruction;
    if (at.kind != FlatInstruction::Kind::Plain)
      return jump(at);
    if (instruction.opcode == "bra")
      return branch(at);
    if (instruction.opcode == "brx")
      return branchTable(at);
    std::string name = operands_.effectiveName(at);
    const auto &forms = instructions().find(name);
    if (forms.empty())
      return refuse(instruction, describeUnknown(instruction));
    std::string why;
    for (const auto &form : forms) {
      DecodedOperands decoded;
      why = operands_.match(at, *form, decoded);
      if (why.empty()) {
        emit(at, *form, std::move(decoded));
        return Status::ok();
      }
    }
    return refuse(instruction, instruction.name() + ": " + why);
  }

  // "mma.sync...: not implemented", or which modifier is the unknown one.
  std::string describeUnknown(const Instruction &instruction) const {
    std::string prefix = instruction.opcode;
    if (!instructions().begins(prefix))
      return instruction.name() + ": the instruction '" + prefix + "' is not implemented";
    for (const std::string &modifier : instruction.modifiers) {
      const std::string longer = prefix + "." + modifier;
      if (!instructions().begins(longer))
        return instruction.name() + ": the modifier '." + modifier + "' is not implemented behind '" + prefix + "'";
      prefix = longer;
    }
    return instruction.name() + ": not implemented in this combination; a modifier is missing";
  }

  void guard(const FlatInstruction &at, Op &op) {
    const Instruction &instruction = *at.instruction;
    op.line = instruction.line;
    if (instruction.guard < 0)
      return;
    op.guarded = true;
    op.guardNegated = instruction.guardNegated;
    op.guard = operands_.slotOf(at.instance, uint32_t(instruction.guard));
  }

  void emit(const FlatInstruction &at, const Form &form, DecodedOperands decoded) {
    for (const auto &[from, to] : decoded.inverted)
      emitInversion(at, from, to);
    Op op;
    guard(at, op);
    op.run = form.handler;
    op.form = &form;
    op.flow = decoded.readsClock ? Flow::Clock : form.flow;
    op.opClass = form.opClass;
    op.space = form.space;
    op.propagates = form.propagates;
    op.readers = form.readers;
    op.member = form.member;
    op.offset = decoded.offset;
    op.immediate = decoded.immediate;
    op.addressBytes = uint8_t(decoded.addressBytes);
    op.secondOffset = decoded.secondOffset;
    op.secondAddressBytes = uint8_t(decoded.secondAddressBytes);
    op.width = uint8_t(decoded.width);
    setSlots(op, decoded.results, decoded.sources);
    kernel_.operations.push_back(op);
  }

  void setSlots(Op &op, const std::vector<Slot> &results, const std::vector<Slot> &sources) {
    std::vector<Slot> &all = kernel_.slots.emplace_back(results);
    all.insert(all.end(), sources.begin(), sources.end());
    op.results = all.data();
    op.sources = all.data() + results.size();
    op.resultCount = uint8_t(results.size());
    op.sourceCount = uint8_t(sources.size());
  }

  void emitInversion(const FlatInstruction &at, Slot from, Slot to) {
    Op op;
    op.line = at.instruction->line;
    op.run = invertPredicate;
    op.opClass = OpClass::Predicate;
    op.auxiliary = true;
    op.propagates = true;
    setSlots(op, {to}, {from});
    kernel_.operations.push_back(op);
  }

  Status jump(const FlatInstruction &at) {
    Op op;
    guard(at, op);
    op.flow = Flow::Branch;
    op.opClass = OpClass::Branch;
    const bool skip = at.kind == FlatInstruction::Kind::SkipCall;
    if (skip)
      op.guardNegated = !op.guardNegated;
    jumps_.push_back({uint32_t(kernel_.operations.size()), flat_.instances[skip ? at.callee : at.instance].end});
    setSlots(op, {}, {});
    kernel_.operations.push_back(op);
    return Status::ok();
  }

  Status branch(const FlatInstruction &at) {
    const Instruction &instruction = *at.instruction;
    const bool known =
        instruction.modifiers.empty() || (instruction.modifiers.size() == 1 && instruction.modifiers[0] == "uni");
    if (!known)
      return refuse(instruction, instruction.name() + ": not implemented");
    if (instruction.operands.size() != 1 || instruction.operands[0].kind != Operand::Kind::Label)
      return refuse(instruction, "bra needs one label");
    Op op;
    guard(at, op);
    op.flow = Flow::Branch;
    op.opClass = OpClass::Branch;
    jumps_.push_back(
        {uint32_t(kernel_.operations.size()), flat_.instances[at.instance].labels[instruction.operands[0].index]});
    setSlots(op, {}, {});
    kernel_.operations.push_back(op);
    return Status::ok();
  }

  Status branchTable(const FlatInstruction &at) {
    const Instruction &instruction = *at.instruction;
    const std::string name = instruction.name();
    if (name != "brx.idx" && name != "brx.idx.uni")
      return refuse(instruction, name + ": not implemented");
    const auto &operands = instruction.operands;
    if (operands.size() != 2 || operands[0].kind != Operand::Kind::Register || operands[1].kind != Operand::Kind::Label)
      return refuse(instruction, "brx.idx needs a register and the label of a .branchtargets list");
    const Instance &instance = flat_.instances[at.instance];
    for (const BranchTargets &list : instance.function->branchTargets) {
      if (list.label != operands[1].index)
        continue;
      Op op;
      guard(at, op);
      op.flow = Flow::BranchTable;
      op.opClass = OpClass::Branch;
      std::vector<uint32_t> &targets = kernel_.branchTables.emplace_back();
      for (uint32_t label : list.labels)
        targets.push_back(instance.labels[label]);
      op.targets = &targets;
      setSlots(op, {}, {operands_.slotOf(at.instance, operands[0].index)});
      kernel_.operations.push_back(op);
      return Status::ok();
    }
    return refuse(instruction, "brx.idx: the label names no .branchtargets list");
  }

  const Module &module_;
  const FlatKernel &flat_;
  Kernel &kernel_;
  MemoryMap map_;
  FrameBuilder frame_;
  OperandDecoder operands_;
  std::vector<uint32_t> positions_;                  // of the list: operation
  std::vector<std::pair<uint32_t, uint32_t>> jumps_; // operation, place in the list
};

void invertPredicate(Warp &warp, const Op &op, uint32_t mask) {
  uint32_t &to = warp.predicate(op.results[0]);
  to = (to & ~mask) | (~warp.predicate(op.sources[0]) & mask);
}

void describe(const Function &function, Kernel &kernel) {
  KernelAttributes &attributes = kernel.attributes;
  attributes.name = function.name;
  uint64_t most = 1;
  for (uint32_t each : function.maxntid)
    most *= each ? each : 1;
  if (function.maxntid[0])
    attributes.maxThreads = uint32_t(std::min<uint64_t>(most, 1024));
  most = 1;
  for (int i = 0; i < 3; ++i) {
    attributes.reqntid[i] = function.reqntid[0] ? std::max(1u, function.reqntid[i]) : 0;
    most *= attributes.reqntid[i] ? attributes.reqntid[i] : 1;
  }
  if (function.reqntid[0])
    attributes.maxThreads = uint32_t(std::min<uint64_t>(most, 1024));
  std::set<int32_t> lines;
  for (const Op &op : kernel.operations)
    lines.insert(op.line);
  attributes.lines = int(lines.size());
}

} // namespace

Result<std::unique_ptr<Kernel>> decode(const Module &module, const Function &function,
                                       const ModuleAddresses &addresses) {
  Result<FlatKernel> flat = flatten(module, function);
  KVQ_RETURN_IF_ERROR(flat.status());
  auto kernel = std::make_unique<Kernel>();
  Decoder decoder(module, flat.value(), addresses, *kernel);
  KVQ_RETURN_IF_ERROR(decoder.run());
  describe(function, *kernel);
  return kernel;
}

} // namespace kvq::ptxsim
