// SPDX-License-Identifier: Apache-2.0
//
// Which values wait in shared memory, and their stores and loads.

#include "codegen/nvptx/ParkValues.h"

#include "llvm/ADT/SetVector.h"
#include "llvm/Analysis/DomTreeUpdater.h"
#include "llvm/Analysis/LoopInfo.h"
#include "llvm/IR/Dominators.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/InlineAsm.h"
#include "llvm/IR/IntrinsicsNVPTX.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Operator.h"
#include "llvm/IR/PatternMatch.h"
#include "llvm/Support/NVPTXAddrSpace.h"
#include "llvm/Transforms/Utils/BasicBlockUtils.h"
#include "llvm/Transforms/Utils/LoopSimplify.h"

using namespace llvm;
using mlir::kvq::nvptx::kTwoHalves;

// Registers that a loop may hold from turn to turn, of 255; what a turn needs for itself are the others. By
// measurement: a turn needs more where what is carried is more, and of 16 rows, which carry most, less than of 8 rows;
// and much more where it reads many halves beside few sums. A query whose elements are two halves each, of a head of 96
// or more, leaves a turn the least.
static constexpr unsigned kMostOfTwo = 20;
static unsigned mostHeld(unsigned carried, unsigned halves, bool isLarge) {
  if (isLarge)
    return 24;
  return carried > 72 ? 72 : carried > 48 ? 64 : halves >= 32 ? 36 : 80;
}
// The first loop has the common tiles. The others mask keys or load rows of the tail, and turn seldom: they hold less,
// also of what a turn uses more than twice, and after so many matrix products no later load goes before them. A large
// query of two halves an element allows fewer, in the first loop as well.
static constexpr unsigned kMostHeldLater = 56;
static constexpr int64_t kUsesInFirst = 2, kUsesLater = 4, kProductsAtOnce = 32, kProductsOfTwo = 8;
// Static shared memory of a block.
static constexpr int64_t kSharedBytes = 48 << 10;
static constexpr unsigned kShared = llvm::NVPTXAS::ADDRESS_SPACE_SHARED;

// What of it the module does not use yet.
static int64_t sharedBytesLeft(const Module &module) {
  int64_t left = kSharedBytes;
  for (const GlobalVariable &global : module.globals())
    if (global.getAddressSpace() == kShared)
      left -= static_cast<int64_t>(module.getDataLayout().getTypeAllocSize(global.getValueType()).getFixedValue());
  return left;
}

// Of a token's number: a page has at most 256 tokens.
static constexpr uint64_t kKnownBits = 8;

static unsigned wordsOf(Type *type) {
  if (type->isPointerTy())
    return 2;
  return static_cast<unsigned>(divideCeil(type->getPrimitiveSizeInBits().getFixedValue(), 32));
}

static bool isData(Type *type) { return !type->isIntOrPtrTy(); }

// What a few operations make of arguments and of the lane's number: ptxas makes it again where it is needed.
static bool isMadeAgain(const Instruction &value, int operations = 6) {
  if (operations == 0 || isa<PHINode>(value) || value.mayReadOrWriteMemory())
    return false;
  return all_of(value.operands(), [&](const Use &operand) {
    auto *made = dyn_cast<Instruction>(operand.get());
    return !made || isMadeAgain(*made, operations - 1);
  });
}

// Zero, in a way that ptxas does not see: an address with it is not known before the loop has ended, or before a turn.
// It would move loads, volatile ones as well, to before the loop. Low bits of the loop's number are known where a turn
// visits whole tiles.
static Value *nothing(Loop &loop, Instruction *before) {
  for (PHINode &phi : loop.getHeader()->phis())
    if (phi.getType()->isIntegerTy(64)) {
      IRBuilder<> builder(before);
      Value *number = builder.CreateTrunc(builder.CreateLShr(&phi, kKnownBits), builder.getInt32Ty());
      Value *even = builder.CreateMul(number, builder.CreateAdd(number, builder.getInt32(1)));
      return builder.CreateZExt(builder.CreateAnd(even, builder.getInt32(1)), builder.getInt64Ty());
    }
  return nullptr;
}

namespace {

class Parking {
public:
  Parking(Function &function, int64_t x, int64_t y)
      : function(function), ofTwoHalves(function.hasFnAttribute(kTwoHalves)), row(x), parts(y),
        rows(sharedBytesLeft(*function.getParent()) / (x * 4)), dominators(function), loops(dominators) {}

  void run() {
    SmallVector<Loop *> outermost(loops.begin(), loops.end());
    // A loop that ends where the next one begins has no place behind it for loads, nor the next one before it for
    // stores.
    for (Loop *loop : outermost)
      simplifyLoop(loop, &dominators, &loops, /*SE=*/nullptr, /*AC=*/nullptr, /*MSSAU=*/nullptr,
                   /*PreserveLCSSA=*/false);
    llvm::sort(outermost, [&](Loop *a, Loop *b) { return dominators.dominates(a->getHeader(), b->getHeader()); });
    for (Loop *loop : outermost)
      if (loop->getLoopPreheader() && loop->getExitBlock() && loop->getLoopLatch()) {
        const bool isFirst = loop == outermost.front();
        const bool isLargeQuery = isLarge(parkOver(*loop, isFirst));
        keepBehind(*loop);
        if (isLargeQuery)
          keepMade(*loop);
        if (isLargeQuery || !isFirst)
          keepWithin(*loop, isLargeQuery ? kProductsOfTwo : kProductsAtOnce);
      }
    finish();
  }

private:
  // Values that leave the registers while a loop runs, and words that it then still holds from turn to turn.
  struct Choice {
    SetVector<Instruction *> values;
    SmallVector<PHINode *> carried;
    unsigned held = 0, halves = 0; // words; pairs that the loop reads
  };

  // Where a value waits: its first row of words of lanes along x. Of a value that all parts of a program have, a row
  // can be a word, where memory is scarce; otherwise each part has a row of its own for each word. (A copy for all
  // costs a branch and a barrier before the loop, and some 10 registers: ptxas moves nothing over them.)
  struct Slot {
    unsigned row;
    bool isOfAll;
  };
  // The lane's places in the first row and in the part's own, at some time.
  struct Place {
    Value *ofAll = nullptr, *own = nullptr;
  };

  bool isLarge(unsigned halves) const { return ofTwoHalves && halves > kMostOfTwo; }
  Choice choose(Loop &loop, bool isFirst);
  SetVector<Instruction *> readOnly(Loop &loop);
  bool isUniform(Value *value);
  bool isOfAllParts(Value *value);
  bool isForAllParts(BasicBlock &block, BasicBlock *from);
  bool canPark(Instruction &value);
  bool isParked(Value *address);
  bool isBehind(Loop &loop, const Use &use);
  unsigned parkOver(Loop &loop, bool isFirst);
  void parkValue(Loop &loop, Instruction &value, Place within, Place behind);
  Slot parkCarried(Loop &loop, PHINode &value, Place within, Place behind);
  void keepBefore(Loop &loop);
  void keepWithin(Loop &loop, int64_t productsAtOnce);
  void keepBehind(Loop &loop);
  void keepMade(Loop &loop);
  Place moved(Loop &loop, Instruction *before);
  static Instruction *behindOf(Place place, Loop &loop);
  unsigned rowsOf(Type *type, bool isOfAll) const { return wordsOf(type) * (isOfAll ? 1 : parts); }
  Value *address(IRBuilder<> &builder, Place at, Slot slot, unsigned word);
  void makeMemory();
  bool makeRoom(Loop &loop, Value *value);
  Instruction *firstPart(Loop &loop);
  void store(Value *value, Slot slot, Instruction *before);
  Instruction *load(Type *type, Slot slot, Place at, Instruction *before, bool ofWarp = false);
  void finish();

  Function &function;
  const bool ofTwoHalves; // whether products multiply what rounding to a half leaves as well
  const int64_t row;      // threads of a block along x
  const unsigned parts;   // of a program, along y
  const int64_t rows;     // of words that there are in shared memory
  DominatorTree dominators;
  LoopInfo loops;
  DenseMap<Value *, Slot> slots;
  SmallVector<Slot> freeWords; // that a loop had for what it carried
  SmallVector<Instruction *> loads;
  DenseMap<Value *, bool> uniform, ofAllParts;
  unsigned used = 0;     // rows
  bool isScarce = false; // whether a row for each part of all that waits over the loop would be too many
  Place lane;
  SmallVector<Value *> placesOfAll;
  DenseMap<Loop *, Instruction *> firstParts; // ends of blocks before loops that the first part alone runs
  GlobalVariable *memory = nullptr;
};

} // namespace

// Whether all lanes of a warp have it, as far as ptxas knows: such values it has in registers of the warp, and a branch
// on one needs no care for lanes that go another way. Where one comes back from memory it would no longer know.
bool Parking::isUniform(Value *value) {
  auto *made = dyn_cast<Instruction>(value);
  if (!made)
    return true;
  if (auto found = uniform.find(value); found != uniform.end())
    return found->second;
  uniform[value] = false; // around loops
  auto *call = dyn_cast<IntrinsicInst>(made);
  bool result = all_of(made->operands(), [&](Use &operand) { return isUniform(operand.get()); });
  if (call && call->getIntrinsicID() == Intrinsic::nvvm_shfl_sync_idx_i32)
    result = match(call->getArgOperand(2), PatternMatch::m_Zero());
  else if (call && (call->getIntrinsicID() == Intrinsic::nvvm_read_ptx_sreg_tid_x ||
                    call->getIntrinsicID() == Intrinsic::nvvm_read_ptx_sreg_tid_y))
    result = false;
  return uniform[value] = result;
}

// Whether all parts of a program have it: what is not made of a part's number, nor on ways that depend on one.
bool Parking::isOfAllParts(Value *value) {
  auto *made = dyn_cast<Instruction>(value);
  if (!made)
    return true;
  if (auto found = ofAllParts.find(value); found != ofAllParts.end())
    return found->second;
  ofAllParts[value] = false; // around loops
  auto *call = dyn_cast<CallBase>(made);
  auto *intrinsic = dyn_cast<IntrinsicInst>(made);
  bool result = call ? intrinsic && intrinsic->getIntrinsicID() != Intrinsic::nvvm_read_ptx_sreg_tid_y
                     : !made->mayReadFromMemory() || made->hasMetadata(LLVMContext::MD_invariant_load);
  result = result && all_of(made->operands(), [&](Use &operand) { return isOfAllParts(operand.get()); });
  if (isa<PHINode>(made))
    result = result && isForAllParts(*made->getParent(), dominators.getNode(made->getParent())->getIDom()->getBlock());
  return ofAllParts[value] = result;
}

// Whether all parts that come to `from` take the same ways from there to the block.
bool Parking::isForAllParts(BasicBlock &block, BasicBlock *from) {
  SetVector<BasicBlock *> before(pred_begin(&block), pred_end(&block));
  for (unsigned i = 0; i < before.size(); ++i) {
    auto *branch = dyn_cast<BranchInst>(before[i]->getTerminator());
    if (!branch || before[i] == &block || (branch->isConditional() && !isOfAllParts(branch->getCondition())))
      return false;
    if (before[i] != from)
      before.insert(pred_begin(before[i]), pred_end(before[i]));
  }
  return true;
}

bool Parking::canPark(Instruction &value) {
  Type *type = value.getType();
  if (type->isPointerTy() && type->getPointerAddressSpace() == kShared)
    return false;
  bool isValue = type->isIntOrPtrTy() || type->isFloatingPointTy() || type->isVectorTy();
  return isValue && !isMadeAgain(value) && (type->isPointerTy() || !isUniform(&value));
}

// Values that the loop reads and does not change.
SetVector<Instruction *> Parking::readOnly(Loop &loop) {
  SetVector<Instruction *> values;
  for (BasicBlock *block : loop.blocks())
    for (Instruction &user : *block)
      for (Use &operand : user.operands()) {
        auto *value = dyn_cast<Instruction>(operand.get());
        auto *phi = dyn_cast<PHINode>(&user);
        if (value && !loop.contains(value) && canPark(*value) &&
            (!phi || loop.contains(phi->getIncomingBlock(operand))))
          values.insert(value);
      }
  return values;
}

bool Parking::isBehind(Loop &loop, const Use &use) {
  auto *user = cast<Instruction>(use.getUser());
  auto *phi = dyn_cast<PHINode>(user);
  return dominators.dominates(loop.getExitBlock(), phi ? phi->getIncomingBlock(use) : user->getParent());
}

// What passes through the loop goes in any case; then, until the rest fits, data that the loop reads, then data that it
// carries and uses once a turn.
Parking::Choice Parking::choose(Loop &loop, bool isFirst) {
  Choice choice;
  SetVector<Instruction *> read = readOnly(loop);
  for (BasicBlock &block : function)
    for (Instruction &value : block)
      if (!loop.contains(&value) && !read.contains(&value) && canPark(value) &&
          dominators.dominates(&value, loop.getLoopPreheader()->getTerminator()) &&
          any_of(value.uses(), [&](const Use &use) { return isBehind(loop, use); }))
        choice.values.insert(&value);
  for (PHINode &phi : loop.getHeader()->phis())
    choice.held += wordsOf(phi.getType());
  choice.halves =
      static_cast<unsigned>(count_if(read, [](Instruction *value) { return value->getType()->isVectorTy(); }));
  unsigned most = mostHeld(choice.held, choice.halves, isLarge(choice.halves));
  most = isFirst ? most : std::min(most, kMostHeldLater);
  for (Instruction *value : read)
    choice.held += wordsOf(value->getType());
  auto usesIn = [&](Instruction *value) {
    return count_if(value->users(), [&](User *user) { return loop.contains(cast<Instruction>(user)); });
  };
  for (Instruction *value : read)
    if (choice.held > most && isData(value->getType()) && usesIn(value) <= (isFirst ? kUsesInFirst : kUsesLater)) {
      choice.values.insert(value);
      choice.held -= wordsOf(value->getType());
    }
  for (PHINode &phi : loop.getHeader()->phis()) {
    auto *next = dyn_cast<Instruction>(phi.getIncomingValueForBlock(loop.getLoopLatch()));
    if (choice.held <= most || !isData(phi.getType()) || usesIn(&phi) != 1 || !next || isa<PHINode>(next) ||
        !next->hasOneUse())
      continue;
    choice.carried.push_back(&phi);
    choice.held -= wordsOf(phi.getType());
  }
  return choice;
}

// The lane's place, at a time that ptxas does not move loads from.
Parking::Place Parking::moved(Loop &loop, Instruction *before) {
  Value *zero = nothing(loop, before);
  if (!zero)
    return lane;
  IRBuilder<> builder(before);
  Place place;
  place.ofAll = builder.CreateGEP(builder.getInt8Ty(), lane.ofAll, zero);
  placesOfAll.push_back(place.ofAll);
  place.own = builder.CreateGEP(builder.getInt8Ty(), lane.own, zero);
  return place;
}

// Gives how many pairs of halves the loop reads.
unsigned Parking::parkOver(Loop &loop, bool isFirst) {
  Choice choice = choose(loop, isFirst);
  int64_t asked = 0;
  for (Instruction *value : choice.values)
    asked += slots.contains(value) ? 0 : rowsOf(value->getType(), /*isOfAll=*/false);
  for (PHINode *value : choice.carried)
    asked += rowsOf(value->getType(), /*isOfAll=*/false);
  isScarce = parts > 1 && isLarge(choice.halves) && used + asked > rows;
  Place within, behind;
  auto ready = [&](Value *value) {
    if (!makeRoom(loop, value))
      return false;
    if (!within.own) {
      within = moved(loop, &*loop.getHeader()->getFirstInsertionPt());
      behind = moved(loop, &*loop.getExitBlock()->getFirstInsertionPt());
    }
    return true;
  };
  for (Instruction *value : choice.values)
    if (ready(value))
      parkValue(loop, *value, within, behind);
  SmallVector<Slot> released;
  for (PHINode *value : choice.carried)
    if (ready(value))
      released.push_back(parkCarried(loop, *value, within, behind));
  freeWords.append(released);
  if (within.own)
    keepBefore(loop);
  return choice.halves;
}

Instruction *Parking::behindOf(Place place, Loop &loop) {
  auto *made = cast<Instruction>(place.own);
  return made->getParent() == loop.getExitBlock() ? made->getNextNode() : &*loop.getExitBlock()->getFirstInsertionPt();
}

void Parking::parkValue(Loop &loop, Instruction &value, Place within, Place behind) {
  Slot slot = slots.lookup(&value);
  SmallVector<Use *> usesBehind, usesWithin;
  for (Use &use : value.uses()) {
    if (isBehind(loop, use))
      usesBehind.push_back(&use);
    else if (loop.contains(cast<Instruction>(use.getUser())))
      usesWithin.push_back(&use);
  }
  for (Use *use : usesWithin)
    use->set(load(value.getType(), slot, within, cast<Instruction>(use->getUser())));
  if (usesBehind.empty())
    return;
  Instruction *again = load(value.getType(), slot, behind, behindOf(behind, loop), isUniform(&value));
  slots[again] = slot;
  ofAllParts[again] = slot.isOfAll;
  uniform[again] = isUniform(&value);
  for (Use *use : usesBehind)
    use->set(again);
}

// Each turn loads the value where it uses it and stores the next one where it is made. Gives the word, which is free
// behind the loop.
Parking::Slot Parking::parkCarried(Loop &loop, PHINode &value, Place within, Place behind) {
  Slot slot = slots.lookup(&value);
  auto *next = cast<Instruction>(value.getIncomingValueForBlock(loop.getLoopLatch()));
  store(value.getIncomingValueForBlock(loop.getLoopPreheader()), slot, loop.getLoopPreheader()->getTerminator());
  SmallVector<Use *> uses(make_pointer_range(value.uses()));
  Instruction *last = nullptr;
  for (Use *use : uses) {
    auto *user = cast<Instruction>(use->getUser());
    if (loop.contains(user))
      use->set(load(value.getType(), slot, within, user));
    else
      use->set(last = last ? last : load(value.getType(), slot, behind, behindOf(behind, loop)));
  }
  store(next, slot, next->getNextNode());
  slots.erase(&value);
  value.eraseFromParent();
  return slot;
}

// ptxas moves no access to memory over it.
static void fence(Instruction *before) {
  IRBuilder<> builder(before);
  builder.CreateIntrinsic(Intrinsic::nvvm_bar_warp_sync, {builder.getInt32(-1)});
}

// Stores before the loop: ptxas would move them, volatile ones as well, to the loads behind it.
void Parking::keepBefore(Loop &loop) { fence(loop.getLoopPreheader()->getTerminator()); }

static bool isProduct(const Instruction &value) {
  auto *call = dyn_cast<IntrinsicInst>(&value);
  return call && Intrinsic::getBaseName(call->getIntrinsicID()).starts_with("llvm.nvvm.mma.");
}

// Loads of a turn at their products: ptxas would load as much ahead as there are registers, and then lack some.
void Parking::keepWithin(Loop &loop, int64_t productsAtOnce) {
  int64_t products = 0;
  for (BasicBlock *block : loop.blocks())
    for (Instruction &value : *block)
      if (isProduct(value) && products++ % productsAtOnce == 0)
        fence(&value);
}

// Sums of a turn where they are made: LLVM moves what the next turn alone needs through all blocks to the loop's end,
// and what it is made of has to wait in its place, which is more.
void Parking::keepMade(Loop &loop) {
  Type *f32 = Type::getFloatTy(function.getContext());
  auto *move = InlineAsm::get(FunctionType::get(f32, {f32}, false), "mov.b32 $0, $1;", "=f,f", /*hasSideEffects=*/true);
  for (PHINode &phi : loop.getHeader()->phis()) {
    auto *next = dyn_cast<Instruction>(phi.getIncomingValueForBlock(loop.getLoopLatch()));
    if (next && next->getType() == f32 && !isa<PHINode>(next) && next->getParent() != loop.getLoopLatch())
      phi.setIncomingValueForBlock(loop.getLoopLatch(), IRBuilder<>(next->getNextNode()).CreateCall(move, next));
  }
}

// Whether an address comes from shared memory, and so not before the loop ends.
bool Parking::isParked(Value *address) {
  while (auto *step = dyn_cast<GEPOperator>(address))
    address = step->getPointerOperand();
  return slots.contains(address);
}

// Loads of the warp in the block behind the loop.
void Parking::keepBehind(Loop &loop) {
  Value *zero = nullptr;
  for (Instruction &value : *loop.getExitBlock()) {
    auto *load = dyn_cast<LoadInst>(&value);
    if (!load || load->isVolatile() || !isUniform(load->getPointerOperand()) || isParked(load->getPointerOperand()))
      continue;
    zero = zero ? zero : nothing(loop, load);
    if (!zero)
      return;
    IRBuilder<> builder(load);
    load->setOperand(0, builder.CreateGEP(builder.getInt8Ty(), load->getPointerOperand(), zero));
  }
}

Value *Parking::address(IRBuilder<> &builder, Place at, Slot slot, unsigned word) {
  const uint64_t bytes = (slot.row + word * (slot.isOfAll ? 1 : parts)) * static_cast<uint64_t>(row) * 4;
  return builder.CreateConstInBoundsGEP1_64(builder.getInt8Ty(), slot.isOfAll ? at.ofAll : at.own, bytes);
}

void Parking::makeMemory() {
  Module &module = *function.getParent();
  auto *type = ArrayType::get(Type::getInt32Ty(module.getContext()), 1); // grows in finish()
  memory = new GlobalVariable(module, type, false, GlobalValue::InternalLinkage, PoisonValue::get(type), "parked",
                              nullptr, GlobalValue::NotThreadLocal, kShared);
  IRBuilder<> builder(&*function.getEntryBlock().getFirstInsertionPt());
  Value *thread = builder.CreateIntrinsic(Intrinsic::nvvm_read_ptx_sreg_tid_x, {});
  auto at = [&](Value *number) {
    return builder.CreateInBoundsGEP(builder.getInt32Ty(), memory, builder.CreateZExt(number, builder.getInt64Ty()));
  };
  lane.ofAll = lane.own = at(thread);
  if (parts == 1)
    return;
  placesOfAll.push_back(lane.ofAll);
  Value *y = builder.CreateIntrinsic(Intrinsic::nvvm_read_ptx_sreg_tid_y, {});
  lane.own = at(builder.CreateAdd(thread, builder.CreateMul(y, builder.getInt32(static_cast<uint32_t>(row)))));
}

// Words for the value, in which it is, if no loop carries it; false where none are left.
bool Parking::makeRoom(Loop &loop, Value *value) {
  if (slots.contains(value))
    return true;
  const bool isCarried = loop.contains(cast<Instruction>(value));
  const bool isOfAll = isScarce && !isCarried && isOfAllParts(value) && firstPart(loop);
  const unsigned count = rowsOf(value->getType(), isOfAll);
  const bool isFree = count == parts && !isOfAll && !freeWords.empty();
  if (!isFree && used + count > rows)
    return false;
  if (!memory)
    makeMemory();
  slots[value] = isFree ? freeWords.pop_back_val() : Slot{used, isOfAll};
  used += isFree ? 0 : count;
  if (!isCarried)
    store(value, slots[value], isOfAll ? firstPart(loop) : loop.getLoopPreheader()->getTerminator());
  return true;
}

// The end of a block before the loop that the first part of a program runs alone, and the others wait for; null where
// parts may not come to the loop together.
Instruction *Parking::firstPart(Loop &loop) {
  auto [found, isNew] = firstParts.try_emplace(&loop, nullptr);
  BasicBlock *preheader = loop.getLoopPreheader();
  if (!isNew || !isForAllParts(*preheader, &function.getEntryBlock()))
    return found->second;
  IRBuilder<> builder(preheader->getTerminator());
  Value *part = builder.CreateIntrinsic(Intrinsic::nvvm_read_ptx_sreg_tid_y, {});
  Value *isFirst = builder.CreateICmpEQ(part, builder.getInt32(0));
  DomTreeUpdater updater(dominators, DomTreeUpdater::UpdateStrategy::Eager);
  Instruction *end = SplitBlockAndInsertIfThen(isFirst, preheader->getTerminator(), /*Unreachable=*/false,
                                               /*BranchWeights=*/nullptr, &updater, &loops);
  builder.SetInsertPoint(loop.getLoopPreheader()->getTerminator());
  Value *program = builder.getInt32(0); // of the block
  if (row > 32)
    program = builder.CreateLShr(builder.CreateIntrinsic(Intrinsic::nvvm_read_ptx_sreg_tid_x, {}), 5);
  builder.CreateIntrinsic(Intrinsic::nvvm_barrier_cta_sync_aligned_count, {program, builder.getInt32(32 * parts)});
  return firstParts[&loop] = end;
}

void Parking::store(Value *value, Slot slot, Instruction *before) {
  IRBuilder<> builder(before);
  Type *type = value->getType(), *whole = builder.getIntNTy(wordsOf(type) * 32);
  if (type->isPointerTy())
    value = builder.CreatePtrToInt(value, whole);
  else if (isData(type))
    value = builder.CreateBitCast(value, builder.getIntNTy(static_cast<unsigned>(type->getPrimitiveSizeInBits())));
  value = builder.CreateZExt(value, whole);
  for (unsigned word = 0; word < wordsOf(type); ++word) {
    Value *part = builder.CreateTrunc(word ? builder.CreateLShr(value, 32 * word) : value, builder.getInt32Ty());
    builder.CreateAlignedStore(part, address(builder, lane, slot, word), Align(4), /*isVolatile=*/true);
  }
}

// ofWarp: by a shuffle ptxas knows again that all lanes have it.
Instruction *Parking::load(Type *type, Slot slot, Place at, Instruction *before, bool ofWarp) {
  IRBuilder<> builder(before);
  Type *whole = builder.getIntNTy(wordsOf(type) * 32);
  Value *value = nullptr;
  for (unsigned i = 0; i < wordsOf(type); ++i) {
    auto *part = builder.CreateAlignedLoad(builder.getInt32Ty(), address(builder, at, slot, i), Align(4),
                                           /*isVolatile=*/true);
    loads.push_back(part);
    Value *word = part;
    if (ofWarp)
      word = builder.CreateIntrinsic(Intrinsic::nvvm_shfl_sync_idx_i32,
                                     {builder.getInt32(-1), part, builder.getInt32(0), builder.getInt32(31)});
    Value *wide = builder.CreateZExt(word, whole);
    value = value ? builder.CreateOr(value, builder.CreateShl(wide, 32 * i)) : wide;
  }
  if (type->isPointerTy())
    return cast<Instruction>(builder.CreateIntToPtr(value, type));
  value = builder.CreateTrunc(value, builder.getIntNTy(static_cast<unsigned>(type->getPrimitiveSizeInBits())));
  return cast<Instruction>(builder.CreateBitCast(value, type));
}

// The memory gets its size; loads that nobody needs, as a later loop has its own, and places go.
void Parking::finish() {
  if (!memory)
    return;
  auto *type = ArrayType::get(Type::getInt32Ty(memory->getContext()), used * static_cast<uint64_t>(row));
  auto *whole = new GlobalVariable(*function.getParent(), type, false, GlobalValue::InternalLinkage,
                                   PoisonValue::get(type), "", nullptr, GlobalValue::NotThreadLocal, kShared);
  whole->takeName(memory);
  whole->setAlignment(Align(16));
  memory->replaceAllUsesWith(whole);
  memory->eraseFromParent();
  for (Instruction *load : loads) {
    SmallVector<Instruction *> chain = {load}; // what is made of it ends unused, or in a use
    while (chain.back()->hasOneUse() && !isa<StoreInst>(chain.back()->user_back()) &&
           (chain.back()->user_back()->isCast() || chain.back()->user_back()->isBinaryOp() ||
            isa<IntrinsicInst>(chain.back()->user_back())))
      chain.push_back(chain.back()->user_back());
    while (!chain.empty() && chain.back()->use_empty())
      chain.pop_back_val()->eraseFromParent();
  }
  for (Value *place : reverse(placesOfAll))
    if (place->use_empty())
      cast<Instruction>(place)->eraseFromParent();
}

void mlir::kvq::nvptx::parkValues(Function &function, int64_t x, int64_t y) { Parking(function, x, y).run(); }
