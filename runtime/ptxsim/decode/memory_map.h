// SPDX-License-Identifier: Apache-2.0
//
// Where the variables of a kernel lie: parameters as the driver passes them, shared variables of a block, local
// variables of a thread.
#pragma once

#include "runtime/ptxsim/decode/flatten.h"
#include "runtime/ptxsim/decode/program.h"

#include <map>

namespace kvq::ptxsim {

// A place: an address in its space.
struct VariablePlace {
  Space space = Space::Global;
  int64_t address = 0;
};

// Places what the kernel names, dynamic shared memory behind everything static, and fills in the kernel's attributes
// and sharedVariables.
class MemoryMap {
public:
  MemoryMap(const FlatKernel &flat, const Module &module, const ModuleAddresses &addresses, Kernel &kernel);
  // Of an operand of kind Symbol in a body.
  VariablePlace find(int instance, const Operand &symbol) const;

private:
  // A variable of one body, of a function whatever its calls (.shared), or of the module (both null).
  struct Key {
    int instance;
    const Function *function;
    uint32_t index;
    auto operator<=>(const Key &) const = default;
  };
  std::pair<Key, const Variable *> resolve(int instance, const Operand &symbol) const;
  void scan(int instance, const Operand &operand, bool dynamic);
  void place(const Key &key, const Variable &variable);
  void placeParams(const Function &function);

  const FlatKernel &flat_;
  const Module &module_;
  Kernel &kernel_;
  std::map<Key, VariablePlace> places_;
};

} // namespace kvq::ptxsim
