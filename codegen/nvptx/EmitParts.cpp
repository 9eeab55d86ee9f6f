// SPDX-License-Identifier: Apache-2.0
//
// Parts of a program: the warps of one, and what they tell each other. A block has kBlockThreads / parts threads along
// x, whose warps are programs, and the parts along y. So a lane's words and those of the same lane of the other parts
// lie at fixed distances.

#include "codegen/nvptx/LaneEmitter.h"

#include "llvm/Support/NVPTXAddrSpace.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;

// Words of a lane that are exchanged at once; of them a block has two sets, 4 KiB, as what is parked (ParkValues.h)
// needs the rest.
static constexpr int64_t kWords = 4;
static constexpr unsigned kShared = llvm::NVPTXAS::ADDRESS_SPACE_SHARED;

// Made at the kernel's beginning, as a value that ptxas knows to be the same in all lanes.
Value LaneEmitter::partId() {
  return atBeginning("part", [&]() -> Value {
    if (parts == 1)
      return constant(0);
    Value y = uniform(NVVM::ThreadIdYOp::create(b, b.getI32Type()));
    return arith::IndexCastUIOp::create(b, b.getIndexType(), y);
  });
}

// The address of the lane's word 0 of part 0, in memory that the whole block has.
Value LaneEmitter::exchange() {
  static constexpr StringLiteral kName = "exchanged";
  auto module = kernel->getParentOfType<ModuleOp>();
  auto global = module.lookupSymbol<LLVM::GlobalOp>(kName);
  if (!global) {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(module.getBody());
    global = LLVM::GlobalOp::create(b, LLVM::LLVMArrayType::get(b.getI32Type(), 2 * kWords * kBlockThreads),
                                    /*isConstant=*/false, LLVM::Linkage::Internal, kName, Attribute(), /*alignment=*/16,
                                    kShared);
  }
  Value base = LLVM::AddressOfOp::create(b, global), x = NVVM::ThreadIdXOp::create(b, b.getI32Type());
  return LLVM::GEPOp::create(b, base.getType(), b.getI32Type(), base, ArrayRef<LLVM::GEPArg>{x});
}

// Of the warps of one program. The others of the block need not come, and some may have none.
void LaneEmitter::waitForParts() {
  Value number = constant32(0);
  if (kBlockThreads / parts > 32) {
    Value x = NVVM::ThreadIdXOp::create(b, b.getI32Type());
    number = uniform(arith::ShRUIOp::create(b, x, constant32(5)));
  }
  NVVM::BarrierOp::create(b, /*res=*/Type(), number, constant32(32 * parts), /*reductionOp=*/{}, /*predicate=*/{});
}

// Made here and nowhere else: only one part may need it in the end, and LLVM would move what makes it there, for which
// each of its operands waits in a register.
Value LaneEmitter::here(Value value) {
  auto dialect = LLVM::AsmDialectAttr::get(b.getContext(), LLVM::AsmDialect::AD_ATT);
  StringRef registers = isa<FloatType>(value.getType()) ? "=f,f" : "=r,r";
  return LLVM::InlineAsmOp::create(b, value.getType(), value, "mov.b32 $0, $1;", registers, /*has_side_effects=*/true,
                                   /*is_align_stack=*/false, LLVM::TailCallKind::None, dialect, ArrayAttr())
      .getResult(0);
}

// Each part leaves its words, waits, and reads those of all in the same order, so that all get the same. The next ones
// go to the other half of the memory: who waits for those has read these.
void LaneEmitter::emitReduceParts(tile::ReducePartsOp op) {
  Registers values = registersOf(op.getSource());
  if (parts == 1) {
    registers[op.getResult()] = std::move(values);
    return;
  }
  Value first = exchange();
  const int64_t row = kBlockThreads / parts; // words of a part
  auto at = [&](Value from, int64_t words) {
    return LLVM::GEPOp::create(b, first.getType(), b.getI32Type(), from,
                               ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(words)});
  };
  Value number = arith::IndexCastOp::create(b, b.getI32Type(), partId());
  Value own =
      LLVM::GEPOp::create(b, first.getType(), b.getI32Type(), first,
                          ArrayRef<LLVM::GEPArg>{arith::MulIOp::create(b, number, constant32(row)).getResult()});
  for (MutableArrayRef<Value> left = values; !left.empty();) {
    MutableArrayRef<Value> words = left.take_front(kWords);
    const int64_t half = exchanges++ % 2 * kWords;
    auto place = [&](size_t word) { return (half + static_cast<int64_t>(word)) * kBlockThreads; };
    for (auto [word, value] : llvm::enumerate(words))
      LLVM::StoreOp::create(b, value, at(own, place(word)), 4);
    waitForParts();
    for (auto [word, value] : llvm::enumerate(words)) {
      Type type = value.getType();
      value = Value();
      for (int64_t part = 0; part < parts; ++part) {
        Value of = LLVM::LoadOp::create(b, type, at(first, place(word) + part * row), 4);
        value = value ? combine(op.getKind(), value, of) : of;
      }
      value = here(value);
    }
    left = left.drop_front(words.size());
  }
  registers[op.getResult()] = std::move(values);
}
