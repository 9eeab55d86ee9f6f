// SPDX-License-Identifier: Apache-2.0
//
// Calls in PTX replaced by what they call. ptxas and nvJitLink leave a call of a .func a call, with the registers that
// its convention costs; NVRTC takes none in an asm statement.
#pragma once

#include "runtime/jit/ptx_module.h"

namespace kvq {

// The module without its functions, each call in a kernel replaced by the function's body, and so on for the calls in
// that. Registers, labels and variables of a body get names that the module does not have. `only`: the kernel that is
// kept; empty: all of them. InvalidArgument names the line of a call that cannot be inlined: recursion, a call through
// a pointer, a function that the module does not define.
Result<PtxText> inlineCalls(const PtxModule &module, std::string_view only = {});

bool hasCalls(const PtxModule &module, const PtxFunction &function);

} // namespace kvq
