// SPDX-License-Identifier: Apache-2.0
//
// A kernel in PTX as a kernel in CUDA C++ whose whole body is one asm statement with the PTX in it: NVRTC takes nothing
// else, and compiles it as ptxas compiles the PTX (docs/nvidia.md).
#pragma once

#include "runtime/jit/ptx_module.h"

namespace kvq {

struct WrappedKernel {
  uint32_t maxRegisters = 0;   // for the compiler's option: one in the source excludes launch bounds; 0: none
  std::string target, version; // of the module
  std::string source;          // CUDA C++
  std::vector<int> lines; // lines[i]: the line of the PTX from which line i + 1 of the asm text came, which begins with
                          // the brace of the body
};

// `entry`, a defined kernel of the module that calls no function of it, within `maxRegisters` and its own .maxnreg (0:
// its launch bounds alone say). InvalidArgument names the line of what cannot be written as CUDA C++.
Result<WrappedKernel> wrapKernel(const PtxModule &module, const PtxFunction &entry, uint32_t maxRegisters = 0);

// The same for the kernel `entry` of a module's text, with the functions that it calls inlined. The lines are those of
// the text.
Result<WrappedKernel> wrapPtx(std::string_view ptx, std::string_view entry, uint32_t maxRegisters = 0);

} // namespace kvq
