// SPDX-License-Identifier: Apache-2.0
//
// A decoded module: for each kernel a flat list of operations, each with its handler and with operands that are places
// in the register frame of a warp. Calls are inlined, symbols are addresses, immediates are registers that nobody
// writes.
#pragma once

#include "runtime/format/status.h"
#include "runtime/ptxsim/ptx/module.h"
#include "runtime/ptxsim/report/report.h"
#include "runtime/ptxsim/simulator.h"

#include <deque>
#include <map>

namespace kvq::ptxsim {

struct Warp;
struct Op;
class Form; // decode/registry.h

// Executes one operation for the lanes in mask (never 0).
using Handler = void (*)(Warp &warp, const Op &op, uint32_t mask);

// Where a register lies in a frame: byte offsets of its 32 lanes (of 2, 4 or 8 bytes each; a predicate is one mask of
// 32 bits) and of the mask of lanes that were written.
struct Slot {
  uint32_t lanes = 0;
  uint32_t written = 0;
};

enum class Flow : uint8_t {
  None,        // the handler does it all
  Branch,      // bra: to `target` where the guard holds
  BranchTable, // brx.idx: sources[0] indexes `targets`
  Exit,        // exit, and ret of a kernel
  Trap,        // trap
  Clock,       // reads %clock and its like, which are brought up to date first
  Barrier,     // bar.*, barrier.*: exec/barrier.cpp
  Collective,  // waits until the lanes of its member mask are there, then the handler runs once for all of them
  WarpSync,    // bar.warp.sync: likewise, and the lanes may stand at different ones
};

struct Op {
  Handler run = nullptr;
  const Slot *results = nullptr; // resultCount, then sourceCount sources
  const Slot *sources = nullptr;
  uint8_t resultCount = 0, sourceCount = 0;
  Flow flow = Flow::None;
  OpClass opClass = OpClass::Alu;
  Space space = Space::Generic;
  bool guarded = false, guardNegated = false;
  bool auxiliary = false;         // made by the decoder, not counted: !%p as an operand
  uint32_t readers = ~0u;         // lanes whose sources are read
  bool propagates = false;        // copies unwritten lanes instead of reading them: mov
  uint8_t width = 0;              // bytes of an access or of an element, where the handler wants it
  uint8_t addressBytes = 8;       // of the base register
  uint8_t secondAddressBytes = 8; // of a second address, as cp.async has
  Slot guard;
  int32_t line = 0;
  uint32_t target = 0;     // Branch: operation
  uint32_t reconverge = 0; // Branch, BranchTable: immediate post-dominator; operations.size(): the end
  int member = -1;         // Collective, WarpSync: index of the source with the member mask; -1: all lanes (.aligned)
  int64_t offset = 0;      // of an address, in bytes
  int64_t secondOffset = 0;
  uint64_t immediate = 0; // the `imm` operand of a form
  const Form *form = nullptr;
  const std::vector<uint32_t> *targets = nullptr;
};

// Registers with contents from the start: immediates and addresses (the same in all warps), and special registers.
struct Constant {
  Slot slot;
  Type type; // as many bytes a lane
  uint64_t bits;
};
struct SpecialUse {
  Slot slot;
  Special special;
  int bytes; // a lane
};

struct Kernel {
  KernelAttributes attributes;
  std::vector<Op> operations;
  std::deque<std::vector<Slot>> slots; // what Op::results and Op::sources point into
  std::deque<std::vector<uint32_t>> branchTables;
  std::vector<Constant> constants;
  std::vector<SpecialUse> specials;
  uint32_t frameBytes = 0;       // multiple of 64
  uint32_t maskBytes = 0;        // of them, at the beginning: the masks of written lanes
  bool blocksIndependent = true; // no global atomics, fences or volatile accesses: blocks may run at once
  // Shared variables of the module and of the kernel, dynamic memory last.
  struct SharedVariable {
    std::string name;
    int64_t offset, size; // size < 0: to the end (dynamic)
  };
  std::vector<SharedVariable> sharedVariables;
};

// Where the module's variables lie; given to the decoder.
struct ModuleAddresses {
  std::vector<uint64_t> variables; // by index into Module::variables: a global address; const: an offset in the bank
};

Result<std::unique_ptr<Kernel>> decode(const Module &module, const Function &function,
                                       const ModuleAddresses &addresses);

} // namespace kvq::ptxsim
