// SPDX-License-Identifier: Apache-2.0
//
// Which pairs are permutations of others.

#include "codegen/nvptx/ShareHalves.h"

#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/PostOrderIterator.h"
#include "llvm/Analysis/LoopInfo.h"
#include "llvm/IR/Dominators.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/IntrinsicInst.h"
#include "llvm/IR/IntrinsicsNVPTX.h"

using namespace llvm;

namespace {

// A half of a pair.
struct Half {
  IntrinsicInst *pair = nullptr;
  int index = 0; // 0: the low one
};

} // namespace

static IntrinsicInst *asPair(Instruction &value) {
  auto *call = dyn_cast<IntrinsicInst>(&value);
  return call && call->getIntrinsicID() == Intrinsic::nvvm_ff2f16x2_rn ? call : nullptr;
}

static Value *low(IntrinsicInst *pair) { return pair->getArgOperand(1); }
static Value *high(IntrinsicInst *pair) { return pair->getArgOperand(0); }

// Whether a loop reads the pair, which is made before it.
static bool isForLoops(IntrinsicInst *pair, const LoopInfo &loops) {
  return !loops.getLoopFor(pair->getParent()) && any_of(pair->users(), [&](User *user) {
    return loops.getLoopFor(cast<Instruction>(user)->getParent()) != nullptr;
  });
}

static void permute(IntrinsicInst *pair, Half low, Half high) {
  for (Use &use : make_early_inc_range(pair->uses())) {
    auto *user = cast<Instruction>(use.getUser());
    auto *phi = dyn_cast<PHINode>(user);
    IRBuilder<> builder(phi ? phi->getIncomingBlock(use)->getTerminator() : user);
    use.set(builder.CreateShuffleVector(low.pair, high.pair, ArrayRef<int>{low.index, 2 + high.index}));
  }
  pair->eraseFromParent();
}

void mlir::kvq::nvptx::shareHalves(Function &function) {
  DominatorTree dominators(function);
  LoopInfo loops(dominators);
  DenseMap<llvm::Value *, Half> first; // by element
  SmallVector<IntrinsicInst *> pairs;
  for (BasicBlock *block : ReversePostOrderTraversal<Function *>(&function))
    for (Instruction &value : *block)
      if (IntrinsicInst *pair = asPair(value); pair && isForLoops(pair, loops))
        pairs.push_back(pair);
  for (IntrinsicInst *pair : pairs) {
    auto of = [&](llvm::Value *element) {
      Half half = first.lookup(element);
      return half.pair && dominators.dominates(half.pair, pair) && half.pair->getParent() != pair->getParent() ? half
                                                                                                               : Half();
    };
    if (Half a = of(low(pair)), b = of(high(pair)); a.pair && b.pair) {
      permute(pair, a, b);
      continue;
    }
    first.try_emplace(low(pair), Half{pair, 0});
    first.try_emplace(high(pair), Half{pair, 1});
  }
}
