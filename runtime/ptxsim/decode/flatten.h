// SPDX-License-Identifier: Apache-2.0
//
// A kernel and the functions that it calls as one list of instructions: every call is inlined, each time with
// registers, variables and labels of its own. A parameter of a call is local memory that both sides name.
#pragma once

#include "runtime/format/status.h"
#include "runtime/ptxsim/ptx/module.h"

#include <vector>

namespace kvq::ptxsim {

// One body in the list: the kernel (0), or a function at one place of call.
struct Instance {
  const Function *function = nullptr;
  int caller = -1;              // instance; -1: the kernel
  std::vector<int> aliases;     // by variable: parameters are variables of the caller (-1: its own)
  std::vector<uint32_t> labels; // by label: where it stands in the list
  uint32_t end = 0;             // in the list, behind the last instruction
};

struct FlatInstruction {
  const Instruction *instruction = nullptr;
  int instance = 0;
  // A return from an inlined function is a jump to its instance's end, a guarded call a jump past it.
  enum class Kind : uint8_t { Plain, Return, SkipCall } kind = Kind::Plain;
  int callee = -1; // SkipCall: the instance that is skipped
};

struct FlatKernel {
  std::vector<Instance> instances;
  std::vector<FlatInstruction> list;
};

// Unsupported for recursion, calls through registers and functions without a body; the message names file and line.
Result<FlatKernel> flatten(const Module &module, const Function &kernel);

} // namespace kvq::ptxsim
