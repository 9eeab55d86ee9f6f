// SPDX-License-Identifier: Apache-2.0
//
// An emitted object made executable in this process by LLVM's ORC: the compiler's tests do not link the runtime, which
// loads objects without LLVM.
#pragma once

#include <kvq/kernel_abi.h>

#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/Support/TargetSelect.h"

namespace kvq_test {

struct LoadedObject {
  std::unique_ptr<llvm::orc::LLJIT> jit;
  kvq_kernel_fn function;
};

inline llvm::Expected<LoadedObject> loadObject(llvm::StringRef object, llvm::StringRef entry) {
  llvm::InitializeNativeTarget();
  llvm::InitializeNativeTargetAsmPrinter();
  auto jit = llvm::orc::LLJITBuilder().create();
  if (!jit)
    return jit.takeError();
  if (auto error = (*jit)->addObjectFile(llvm::MemoryBuffer::getMemBufferCopy(object, "kvq")))
    return std::move(error);
  auto symbol = (*jit)->lookup(entry);
  if (!symbol)
    return symbol.takeError();
  auto function = symbol->toPtr<kvq_kernel_fn>();
  return LoadedObject{std::move(*jit), function};
}

} // namespace kvq_test
