// SPDX-License-Identifier: Apache-2.0
//
// Cubins in the kernel store.
#pragma once

#include "runtime/jit/kernel_store.h"
#include "runtime/jit/nvrtc.h"

#include <functional>

namespace kvq {

// The kernel `entry` of the PTX module as a cubin (CompiledKernel::object) with the compiler's log: from the store,
// else compiled by `nvrtc` and kept. `arch` is "sm_80" and so on. `compiled` says which it was. Errors are
// compilePtx's.
Result<CompiledKernel> obtainCubin(const KernelStore &store, const Nvrtc &nvrtc, std::string_view ptx,
                                   const std::string &entry, const std::string &arch, const CubinOptions &options,
                                   bool &compiled);

// The same for machines that are elsewhere: kept under a key without NVRTC, which they need not have.
Result<CompiledKernel> prepareCubin(const KernelStore &store, const Nvrtc &nvrtc, std::string_view ptx,
                                    const std::string &entry, const std::string &arch, bool &compiled);

// What a device that loads modules asks for a cubin of PTX text, one of its kernels and an architecture: a prepared
// one, else obtainCubin's. NVRTC is looked for when there is none prepared; where it is absent, or the device is
// `frozen`, every such call says so. Thread-safe.
using CubinFunction = std::function<Result<std::vector<uint8_t>>(std::string_view ptx, const std::string &entry,
                                                                 const std::string &arch)>;
CubinFunction cubinFunction(KernelStore store, bool frozen = false, CudaLibrarySearch search = {});

} // namespace kvq
