// SPDX-License-Identifier: Apache-2.0
//
// Pairs of halves that a later loop reads become permutations of those of an earlier loop, of the same elements.

#include "codegen/nvptx/ShareHalves.h"

#include "llvm/AsmParser/Parser.h"
#include "llvm/IR/InstIterator.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/IntrinsicInst.h"
#include "llvm/IR/IntrinsicsNVPTX.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Verifier.h"
#include "llvm/Support/SourceMgr.h"

#include <gtest/gtest.h>

using namespace llvm;

namespace {

// Elements a to e. The first loop reads (a, b) and (c, d), low half first; `before` stands in front of the second
// loop, which reads %pair.
std::string program(const std::string &before) {
  return R"(
declare <2 x half> @llvm.nvvm.ff2f16x2.rn(float, float)
declare i1 @more()
declare void @use(<2 x half>)
define void @kernel(float %a, float %b, float %c, float %d, float %e, i1 %if) {
entry:
  %ab = call <2 x half> @llvm.nvvm.ff2f16x2.rn(float %b, float %a)
  %cd = call <2 x half> @llvm.nvvm.ff2f16x2.rn(float %d, float %c)
  br label %first
first:
  call void @use(<2 x half> %ab)
  call void @use(<2 x half> %cd)
  %again = call i1 @more()
  br i1 %again, label %first, label %between
between:
)" + before +
         R"(
  br label %second
second:
  call void @use(<2 x half> %pair)
  %more = call i1 @more()
  br i1 %more, label %second, label %end
end:
  ret void
}
)";
}

std::string pair(const std::string &low, const std::string &high, const std::string &name = "pair") {
  return "  %" + name + " = call <2 x half> @llvm.nvvm.ff2f16x2.rn(float %" + high + ", float %" + low + ")\n";
}

class Shared {
public:
  explicit Shared(const std::string &before) {
    SMDiagnostic error;
    module = parseAssemblyString(program(before), error, context);
    EXPECT_TRUE(module) << error.getMessage().str();
    mlir::kvq::nvptx::shareHalves(*module->getFunction("kernel"));
    EXPECT_FALSE(verifyModule(*module, &errs()));
  }

  // Pairs that are made.
  int pairs() const {
    int count = 0;
    for (Instruction &value : instructions())
      count += isPair(value);
    return count;
  }

  // The names of the elements, low one first, of what the second loop reads.
  std::string read() const {
    for (BasicBlock &block : function())
      if (block.getName() == "second")
        for (Instruction &value : block)
          if (auto *call = dyn_cast<CallInst>(&value); call && call->arg_size() == 1)
            return elements(call->getArgOperand(0));
    return "";
  }

private:
  static bool isPair(const Value &value) {
    auto *call = dyn_cast<IntrinsicInst>(&value);
    return call && call->getIntrinsicID() == Intrinsic::nvvm_ff2f16x2_rn;
  }

  static std::string elements(Value *value) {
    if (isPair(*value)) {
      auto *call = cast<IntrinsicInst>(value);
      return (call->getArgOperand(1)->getName() + call->getArgOperand(0)->getName()).str();
    }
    auto *shuffle = dyn_cast<ShuffleVectorInst>(value);
    if (!shuffle)
      return "?";
    std::string both = elements(shuffle->getOperand(0)) + elements(shuffle->getOperand(1)), chosen;
    for (int index : shuffle->getShuffleMask())
      chosen += both[static_cast<size_t>(index)];
    return chosen;
  }

  Function &function() const { return *module->getFunction("kernel"); }
  iterator_range<inst_iterator> instructions() const { return llvm::instructions(function()); }

  LLVMContext context;
  std::unique_ptr<Module> module;
};

} // namespace

TEST(ShareHalves, ALaterPairIsAPermutation) {
  for (const char *elements : {"ac", "ca", "bd", "ad", "cb", "ba", "aa"}) {
    Shared shared(pair({elements[0]}, {elements[1]}));
    EXPECT_EQ(shared.pairs(), 2) << elements;
    EXPECT_EQ(shared.read(), elements);
  }
}

TEST(ShareHalves, APairWithAnElementOfNoOtherStays) {
  for (const char *elements : {"ae", "ea", "ee"}) {
    Shared shared(pair({elements[0]}, {elements[1]}));
    EXPECT_EQ(shared.pairs(), 3) << elements;
    EXPECT_EQ(shared.read(), elements);
  }
}

TEST(ShareHalves, APairThatStaysServesNoPairOfItsOwnBlock) {
  Shared shared(pair("a", "e", "other") + pair("e", "a") +
                "  br label %inner\ninner:\n  call void @use(<2 x half> %other)\n  %on = call i1 @more()\n"
                "  br i1 %on, label %inner, label %join\njoin:\n");
  EXPECT_EQ(shared.pairs(), 4);
  EXPECT_EQ(shared.read(), "ea");
}

TEST(ShareHalves, APairThatIsNotAlwaysMadeServesNobody) {
  Shared shared("  br i1 %if, label %some, label %join\nsome:\n" + pair("e", "a", "maybe") +
                "  br label %inner\ninner:\n  call void @use(<2 x half> %maybe)\n  %on = call i1 @more()\n"
                "  br i1 %on, label %inner, label %join\njoin:\n" +
                pair("e", "e"));
  EXPECT_EQ(shared.pairs(), 4);
  EXPECT_EQ(shared.read(), "ee");
}

TEST(ShareHalves, WhatNoLoopReadsStays) {
  Shared shared(pair("a", "c", "here") + "  call void @use(<2 x half> %here)\n" + pair("a", "d"));
  EXPECT_EQ(shared.pairs(), 3);
  EXPECT_EQ(shared.read(), "ad");
}
