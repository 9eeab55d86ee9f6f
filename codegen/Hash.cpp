// SPDX-License-Identifier: Apache-2.0
//
// The compiler's identity: a hash of the library that holds this code, and LLVM's version. A rebuilt compiler has other
// keys, so that no stale kernel is ever found.

#include "codegen/Compile.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Config/llvm-config.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/SHA256.h"

#include <dlfcn.h>

std::string mlir::kvq::compilerHash() {
  static const std::string hash = [] {
    llvm::SHA256 sha;
    sha.update(LLVM_VERSION_STRING);
    Dl_info info;
    if (dladdr(reinterpret_cast<void *>(&compilerHash), &info) && info.dli_fname)
      if (auto file = llvm::MemoryBuffer::getFile(info.dli_fname, /*IsText=*/false, /*RequiresNullTerminator=*/false))
        sha.update((*file)->getBuffer());
    return llvm::toHex(sha.final(), /*LowerCase=*/true);
  }();
  return hash;
}
