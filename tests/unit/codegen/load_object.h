// SPDX-License-Identifier: Apache-2.0
//
// An emitted object made executable in this process by LLVM's ORC: the compiler's tests do not link the runtime, which
// loads objects without LLVM.
#pragma once

#include <kvq/kernel_abi.h>

#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/Support/TargetSelect.h"

namespace kvq_test {

struct LoadedKernel {
  std::unique_ptr<llvm::orc::LLJIT> jit;
  kvq_kernel_fn function;
};

// `add` gives the kernel's code to the JIT.
inline llvm::Expected<LoadedKernel> loadKernel(llvm::StringRef entry,
                                               llvm::function_ref<llvm::Error(llvm::orc::LLJIT &)> add) {
  llvm::InitializeNativeTarget();
  llvm::InitializeNativeTargetAsmPrinter();
  auto jit = llvm::orc::LLJITBuilder().create();
  if (!jit)
    return jit.takeError();
  if (auto error = add(**jit))
    return std::move(error);
  auto symbol = (*jit)->lookup(entry);
  if (!symbol)
    return symbol.takeError();
  auto function = symbol->toPtr<kvq_kernel_fn>();
  return LoadedKernel{std::move(*jit), function};
}

inline llvm::Expected<LoadedKernel> loadObject(llvm::StringRef object, llvm::StringRef entry) {
  return loadKernel(entry, [&](llvm::orc::LLJIT &jit) {
    return jit.addObjectFile(llvm::MemoryBuffer::getMemBufferCopy(object, "kvq"));
  });
}

} // namespace kvq_test
