// SPDX-License-Identifier: Apache-2.0
//
// A kernel whose optimized LLVM IR calls back with the address of every prefetch and of every load, in their order.
#pragma once

#include "codegen/Compile.h"
#include "tests/unit/codegen/load_object.h"

#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/IntrinsicInst.h"
#include "llvm/IRReader/IRReader.h"
#include "llvm/Support/SourceMgr.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace kvq_test {

struct MemoryAccess {
  bool prefetch;
  uint64_t address;
  uint64_t bytes; // of a load
};
using Recorder = std::function<void(const MemoryAccess &)>;

// Called by the kernel: `recorder` is the address of a Recorder.
inline void recordAccess(uint64_t recorder, uint64_t address, uint64_t bytes) {
  (*reinterpret_cast<const Recorder *>(recorder))({bytes == 0, address, bytes});
}

// Puts the calls into the module; says what it could not see.
inline std::string instrument(llvm::Module &module, const Recorder &recorder) {
  std::vector<llvm::Instruction *> accesses;
  for (llvm::Function &function : module)
    for (llvm::BasicBlock &block : function)
      for (llvm::Instruction &instruction : block) {
        auto *call = llvm::dyn_cast<llvm::IntrinsicInst>(&instruction);
        if (call && call->getIntrinsicID() != llvm::Intrinsic::prefetch && call->onlyReadsMemory() &&
            !call->doesNotAccessMemory())
          return "a kernel that reads by " + call->getCalledFunction()->getName().str();
        if (llvm::isa<llvm::LoadInst>(instruction) || (call && call->getIntrinsicID() == llvm::Intrinsic::prefetch))
          accesses.push_back(&instruction);
      }
  for (llvm::Instruction *access : accesses) {
    llvm::IRBuilder<> b(access);
    llvm::Type *word = b.getInt64Ty();
    auto constant = [&](uint64_t value) { return llvm::ConstantInt::get(word, value); };
    auto *load = llvm::dyn_cast<llvm::LoadInst>(access);
    uint64_t bytes = load ? module.getDataLayout().getTypeStoreSize(load->getType()).getFixedValue() : 0;
    llvm::Value *function = b.CreateIntToPtr(constant(reinterpret_cast<uint64_t>(&recordAccess)), b.getPtrTy());
    b.CreateCall(llvm::FunctionType::get(b.getVoidTy(), {word, word, word}, false), function,
                 {constant(reinterpret_cast<uint64_t>(&recorder)), b.CreatePtrToInt(access->getOperand(0), word),
                  constant(bytes)});
    if (!load)
      access->eraseFromParent();
  }
  return "";
}

// `recorder` must outlive the kernel.
inline llvm::Expected<LoadedKernel> loadRecorded(const mlir::kvq::CompileInput &kernel, const Recorder &recorder) {
  mlir::kvq::CompileInput input = kernel;
  input.stopAfter = "llvm-ir";
  input.writeBundle = false;
  auto text = mlir::kvq::compile(input);
  if (!text)
    return text.takeError();
  auto context = std::make_unique<llvm::LLVMContext>();
  llvm::SMDiagnostic diagnostic;
  auto module = llvm::parseIR(llvm::MemoryBufferRef(text->output, "kvq"), diagnostic, *context);
  if (!module)
    return llvm::createStringError(diagnostic.getMessage());
  if (std::string problem = instrument(*module, recorder); !problem.empty())
    return llvm::createStringError(problem);
  return loadKernel(mlir::kvq::kEntryName, [&](llvm::orc::LLJIT &jit) {
    return jit.addIRModule(llvm::orc::ThreadSafeModule(std::move(module), std::move(context)));
  });
}

} // namespace kvq_test
