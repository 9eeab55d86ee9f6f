// SPDX-License-Identifier: Apache-2.0
//
// Which values wait in shared memory, and their stores and loads.

#include "codegen/nvptx/ParkValues.h"

#include "llvm/ADT/SetVector.h"
#include "llvm/Analysis/LoopInfo.h"
#include "llvm/IR/Dominators.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/IntrinsicsNVPTX.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Operator.h"
#include "llvm/IR/PatternMatch.h"
#include "llvm/Support/NVPTXAddrSpace.h"
#include "llvm/Transforms/Utils/LoopSimplify.h"

using namespace llvm;

// Registers that a loop may hold from turn to turn, of 255; what a turn needs for itself are the others. By
// measurement: a turn needs more where what is carried is more, and of 16 rows, which carry most, less than of 8 rows;
// and much more where it reads many halves beside few sums: two for each f32.
static unsigned mostHeld(unsigned carried, unsigned halves) {
  return carried > 72 ? 72 : carried > 48 ? 64 : halves >= 32 ? 36 : 80;
}
// The first loop has the common tiles. The others mask keys or load rows of the tail, and turn seldom: they hold less,
// also of what a turn uses more than twice, and after so many matrix products no later load goes before them.
static constexpr unsigned kMostHeldLater = 56;
static constexpr int64_t kUsesInFirst = 2, kUsesLater = 4, kProductsAtOnce = 32;
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
      : function(function), row(x), threads(x * y), bytes(sharedBytesLeft(*function.getParent())), dominators(function),
        loops(dominators) {}

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
        parkOver(*loop, isFirst);
        keepBehind(*loop);
        if (!isFirst)
          keepWithin(*loop);
      }
    finish();
  }

private:
  // Values that leave the registers while a loop runs, and words that it then still holds from turn to turn.
  struct Choice {
    SetVector<Instruction *> values;
    SmallVector<PHINode *> carried;
    unsigned held = 0;
  };

  Choice choose(Loop &loop, bool isFirst);
  SetVector<Instruction *> readOnly(Loop &loop);
  bool isUniform(Value *value);
  bool canPark(Instruction &value);
  bool isParked(Value *address);
  bool isBehind(Loop &loop, const Use &use);
  void parkOver(Loop &loop, bool isFirst);
  void parkValue(Loop &loop, Instruction &value, Value *within, Value *behind);
  unsigned parkCarried(Loop &loop, PHINode &value, Value *within, Value *behind);
  void keepBefore(Loop &loop);
  void keepWithin(Loop &loop);
  void keepBehind(Loop &loop);
  Value *moved(Loop &loop, Instruction *before);
  Value *address(IRBuilder<> &builder, Value *at, unsigned word);
  bool makeRoom(Loop &loop, Value *value);
  void store(Value *value, unsigned slot, Instruction *before);
  Instruction *load(Type *type, unsigned slot, Value *at, Instruction *before, bool ofWarp = false);
  void finish();

  Function &function;
  const int64_t row, threads; // of a block along x, and all
  const int64_t bytes;        // of shared memory that there are
  DominatorTree dominators;
  LoopInfo loops;
  DenseMap<Value *, unsigned> slots; // first word
  SmallVector<unsigned> freeWords;   // that a loop had for what it carried
  SmallVector<Instruction *> loads;
  DenseMap<Value *, bool> uniform;
  unsigned words = 0;
  Value *lane = nullptr; // the lane's place in the first word
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
  const auto halves = count_if(read, [](Instruction *value) { return value->getType()->isVectorTy(); });
  unsigned most = mostHeld(choice.held, static_cast<unsigned>(halves));
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
Value *Parking::moved(Loop &loop, Instruction *before) {
  Value *zero = nothing(loop, before);
  return zero ? IRBuilder<>(before).CreateGEP(Type::getInt8Ty(function.getContext()), lane, zero) : lane;
}

void Parking::parkOver(Loop &loop, bool isFirst) {
  Choice choice = choose(loop, isFirst);
  if (choice.values.empty() && choice.carried.empty())
    return;
  Value *within = nullptr, *behind = nullptr;
  auto ready = [&](Value *value) {
    if (!makeRoom(loop, value))
      return false;
    if (!within) {
      within = moved(loop, &*loop.getHeader()->getFirstInsertionPt());
      behind = moved(loop, &*loop.getExitBlock()->getFirstInsertionPt());
    }
    return true;
  };
  for (Instruction *value : choice.values)
    if (ready(value))
      parkValue(loop, *value, within, behind);
  SmallVector<unsigned> released;
  for (PHINode *value : choice.carried)
    if (ready(value))
      released.push_back(parkCarried(loop, *value, within, behind));
  freeWords.append(released);
  if (within)
    keepBefore(loop);
}

static Instruction *behindOf(Value *place, Loop &loop) {
  auto *made = cast<Instruction>(place);
  return made->getParent() == loop.getExitBlock() ? made->getNextNode() : &*loop.getExitBlock()->getFirstInsertionPt();
}

void Parking::parkValue(Loop &loop, Instruction &value, Value *within, Value *behind) {
  unsigned slot = slots.lookup(&value);
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
  uniform[again] = isUniform(&value);
  for (Use *use : usesBehind)
    use->set(again);
}

// Each turn loads the value where it uses it and stores the next one where it is made. Gives the word, which is free
// behind the loop.
unsigned Parking::parkCarried(Loop &loop, PHINode &value, Value *within, Value *behind) {
  unsigned slot = slots.lookup(&value);
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
void Parking::keepWithin(Loop &loop) {
  int64_t products = 0;
  for (BasicBlock *block : loop.blocks())
    for (Instruction &value : *block)
      if (isProduct(value) && products++ % kProductsAtOnce == 0)
        fence(&value);
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

Value *Parking::address(IRBuilder<> &builder, Value *at, unsigned word) {
  return builder.CreateConstInBoundsGEP1_64(builder.getInt8Ty(), at, word * static_cast<uint64_t>(threads) * 4);
}

// Words for the value, in which it is, if no loop carries it; false where none are left.
bool Parking::makeRoom(Loop &loop, Value *value) {
  if (slots.contains(value))
    return true;
  const unsigned count = wordsOf(value->getType());
  const bool isFree = count == 1 && !freeWords.empty();
  if (!isFree && (words + count) * threads * 4 > bytes)
    return false;
  if (!lane) {
    Module &module = *function.getParent();
    auto *type = ArrayType::get(Type::getInt32Ty(module.getContext()), 1); // grows in finish()
    memory = new GlobalVariable(module, type, false, GlobalValue::InternalLinkage, PoisonValue::get(type), "parked",
                                nullptr, GlobalValue::NotThreadLocal, kShared);
    IRBuilder<> builder(&*function.getEntryBlock().getFirstInsertionPt());
    Value *thread = builder.CreateIntrinsic(Intrinsic::nvvm_read_ptx_sreg_tid_x, {});
    if (threads > row) {
      Value *y = builder.CreateIntrinsic(Intrinsic::nvvm_read_ptx_sreg_tid_y, {});
      thread = builder.CreateAdd(thread, builder.CreateMul(y, builder.getInt32(static_cast<uint32_t>(row))));
    }
    lane = builder.CreateInBoundsGEP(builder.getInt32Ty(), memory, builder.CreateZExt(thread, builder.getInt64Ty()));
  }
  slots[value] = isFree ? freeWords.pop_back_val() : words;
  words += isFree ? 0 : count;
  if (!loop.contains(cast<Instruction>(value)))
    store(value, slots[value], loop.getLoopPreheader()->getTerminator());
  return true;
}

void Parking::store(Value *value, unsigned slot, Instruction *before) {
  IRBuilder<> builder(before);
  Type *type = value->getType(), *whole = builder.getIntNTy(wordsOf(type) * 32);
  if (type->isPointerTy())
    value = builder.CreatePtrToInt(value, whole);
  else if (isData(type))
    value = builder.CreateBitCast(value, builder.getIntNTy(static_cast<unsigned>(type->getPrimitiveSizeInBits())));
  value = builder.CreateZExt(value, whole);
  for (unsigned word = 0; word < wordsOf(type); ++word) {
    Value *part = builder.CreateTrunc(word ? builder.CreateLShr(value, 32 * word) : value, builder.getInt32Ty());
    builder.CreateAlignedStore(part, address(builder, lane, slot + word), Align(4), /*isVolatile=*/true);
  }
}

// ofWarp: by a shuffle ptxas knows again that all lanes have it.
Instruction *Parking::load(Type *type, unsigned slot, Value *at, Instruction *before, bool ofWarp) {
  IRBuilder<> builder(before);
  Type *whole = builder.getIntNTy(wordsOf(type) * 32);
  Value *value = nullptr;
  for (unsigned i = 0; i < wordsOf(type); ++i) {
    auto *part = builder.CreateAlignedLoad(builder.getInt32Ty(), address(builder, at, slot + i), Align(4),
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

// The memory gets its size; loads that nobody needs, as a later loop has its own, go.
void Parking::finish() {
  if (!memory)
    return;
  auto *type = ArrayType::get(Type::getInt32Ty(memory->getContext()), words * static_cast<uint64_t>(threads));
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
}

void mlir::kvq::nvptx::parkValues(Function &function, int64_t x, int64_t y) { Parking(function, x, y).run(); }
