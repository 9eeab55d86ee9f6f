// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/decode/memory_map.h"

#include <algorithm>

namespace kvq::ptxsim {

namespace {

int64_t alignTo(int64_t offset, int64_t align) { return (offset + align - 1) / align * align; }

int64_t alignmentOf(const Variable &variable) { return std::max<int64_t>(variable.align, bytesOf(variable.type)); }

// Open length, or extern in shared memory: the block's dynamic memory, of which all such variables are the beginning.
bool isDynamic(const Variable &variable) { return variable.space == Space::Shared && variable.isExtern; }

} // namespace

MemoryMap::MemoryMap(const FlatKernel &flat, const Module &module, const ModuleAddresses &addresses, Kernel &kernel)
    : flat_(flat), module_(module), kernel_(kernel) {
  for (uint32_t i = 0; i < module.variables.size(); ++i)
    if (module.variables[i].space != Space::Shared)
      places_[{-1, nullptr, i}] = {module.variables[i].space, int64_t(addresses.variables[i])};
  placeParams(*flat.instances[0].function);
  for (bool dynamic : {false, true})
    for (const FlatInstruction &at : flat.list)
      for (const Operand &operand : at.instruction->operands)
        scan(at.instance, operand, dynamic);
}

void MemoryMap::placeParams(const Function &function) {
  int64_t offset = 0;
  for (uint32_t i = 0; i < function.params.size(); ++i) {
    const Variable &param = function.params[i];
    offset = alignTo(offset, alignmentOf(param));
    places_[{0, nullptr, i}] = {Space::Param, offset};
    kernel_.attributes.params.push_back({param.name, offset, param.size(), alignmentOf(param)});
    offset += param.size();
  }
  kernel_.attributes.paramBytes = offset;
}

std::pair<MemoryMap::Key, const Variable *> MemoryMap::resolve(int instance, const Operand &symbol) const {
  if (symbol.global)
    return {{-1, nullptr, symbol.index}, &module_.variables[symbol.index]};
  uint32_t index = symbol.index;
  while (flat_.instances[instance].aliases[index] >= 0) {
    index = uint32_t(flat_.instances[instance].aliases[index]);
    instance = flat_.instances[instance].caller;
  }
  const Function *function = flat_.instances[instance].function;
  const Variable &variable = function->variables[index];
  if (variable.space == Space::Shared)
    return {{-1, function, index}, &variable};
  return {{instance, nullptr, index}, &variable};
}

void MemoryMap::scan(int instance, const Operand &operand, bool dynamic) {
  for (const Operand &element : operand.elements)
    scan(instance, element, dynamic);
  if (operand.kind != Operand::Kind::Symbol)
    return;
  const auto [key, variable] = resolve(instance, operand);
  if (isDynamic(*variable) == dynamic && !places_.contains(key))
    place(key, *variable);
}

void MemoryMap::place(const Key &key, const Variable &variable) {
  KernelAttributes &attributes = kernel_.attributes;
  if (variable.space != Space::Shared) { // local, and the parameters of calls
    const int64_t offset = alignTo(attributes.localBytes, alignmentOf(variable));
    places_[key] = {Space::Local, offset};
    attributes.localBytes = offset + variable.size();
    return;
  }
  if (isDynamic(variable)) {
    // Every one of them begins where the first one does; its alignment is at least 16, as the driver gives.
    auto &all = kernel_.sharedVariables;
    if (all.empty() || all.back().size >= 0) {
      attributes.sharedBytes = alignTo(attributes.sharedBytes, std::max<int64_t>(16, alignmentOf(variable)));
      all.push_back({variable.name, attributes.sharedBytes, -1});
    }
    places_[key] = {Space::Shared, all.back().offset};
    return;
  }
  const int64_t offset = alignTo(attributes.sharedBytes, alignmentOf(variable));
  places_[key] = {Space::Shared, offset};
  kernel_.sharedVariables.push_back({variable.name, offset, variable.size()});
  attributes.sharedBytes = offset + variable.size();
}

VariablePlace MemoryMap::find(int instance, const Operand &symbol) const {
  return places_.at(resolve(instance, symbol).first);
}

} // namespace kvq::ptxsim
