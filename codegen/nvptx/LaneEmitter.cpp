// SPDX-License-Identifier: Apache-2.0
//
// The walk over a tile program: control flow, scalars, and the choice of a rule.

#include "codegen/nvptx/LaneEmitter.h"

#include "codegen/Target.h"
#include "codegen/nvptx/ParkValues.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::LaneLayout;
using tile::RegisterFile;

static bool isTile(Value value) { return isa<RankedTensorType>(value.getType()); }

// ---- shared helpers ----

RegisterFile LaneEmitter::fileOf(Type type) {
  return RegisterFile(cast<RankedTensorType>(type).getShape(), *tile::getLanes(type));
}

Type LaneEmitter::registerType(Type type) const {
  Type element = getElementTypeOrSelf(type);
  bool paired = element.isF16() && !tile::getLanes(type)->pair.isNone();
  return paired ? Type(VectorType::get({2}, element)) : element;
}

Value LaneEmitter::intrinsic(StringRef name, Type result, ValueRange operands) {
  return LLVM::CallIntrinsicOp::create(b, result, b.getStringAttr(name), operands).getResult(0);
}

// Rounding two values into a register is one instruction.
Value LaneEmitter::pair(Value low, Value high) {
  Type type = VectorType::get({2}, b.getF16Type());
  auto lowRounded = low.getDefiningOp<arith::TruncFOp>(), highRounded = high.getDefiningOp<arith::TruncFOp>();
  if (lowRounded && highRounded && lowRounded.getIn().getType().isF32() && highRounded.getIn().getType().isF32())
    return intrinsic("llvm.nvvm.ff2f16x2.rn", type, {highRounded.getIn(), lowRounded.getIn()});
  Value vector = LLVM::PoisonOp::create(b, type);
  vector = LLVM::InsertElementOp::create(b, vector, low, constant32(0));
  return LLVM::InsertElementOp::create(b, vector, high, constant32(1));
}

Value LaneEmitter::half(Value pair, int64_t which) {
  return LLVM::ExtractElementOp::create(b, pair, constant32(which));
}

// One element, out of its register.
Value LaneEmitter::element(ArrayRef<Value> from, const RegisterFile &file, ArrayRef<int64_t> index) {
  Value value = from[file.find(index)];
  tile::TileBit bit = file.layout().pair;
  return isa<VectorType>(value.getType()) ? half(value, index[bit.dim] >> bit.bit & 1) : value;
}

// A value that is the same in all lanes, so that ptxas knows it: what comes from lane 0 of a shuffle it takes for
// uniform. Loops whose bounds are not, and shuffles within them, cost a call a turn (measured).
Value LaneEmitter::uniform(Value value) { return shuffle("idx", value, constant32(0)); }

Value LaneEmitter::atBeginning(StringRef key, function_ref<Value()> make) {
  if (Value made = laneValues.lookup(key))
    return made;
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(body);
  Value made = make();
  return laneValues[key] = made;
}

Value LaneEmitter::laneOffset(const LaneLayout &layout, int dim) {
  return atBeginning(layout.toText() + "@" + std::to_string(dim), [&]() -> Value {
    Value offset;
    for (int i = 0; i < LaneLayout::kLaneBits;) {
      if (layout.lane[i].dim != dim) {
        ++i;
        continue;
      }
      int count = 1; // lane bits in a row that select index bits in a row
      while (i + count < LaneLayout::kLaneBits && layout.lane[i + count].dim == dim &&
             layout.lane[i + count].bit == layout.lane[i].bit + count)
        ++count;
      Value bits = arith::ShRUIOp::create(b, lane, constant32(i));
      bits = arith::AndIOp::create(b, bits, constant32((1 << count) - 1));
      bits = arith::ShLIOp::create(b, bits, constant32(layout.lane[i].bit));
      offset = offset ? arith::OrIOp::create(b, offset, bits).getResult() : bits;
      i += count;
    }
    offset = offset ? offset : constant32(0);
    return arith::IndexCastUIOp::create(b, b.getIndexType(), offset);
  });
}

Value LaneEmitter::laneBit(int bit) {
  return atBeginning("bit" + std::to_string(bit), [&]() -> Value {
    Value masked = arith::AndIOp::create(b, lane, constant32(1 << bit));
    return arith::CmpIOp::create(b, arith::CmpIPredicate::ne, masked, constant32(0));
  });
}

// ---- the kernel ----

// An argument of the kernel from its word: an address, an integer, or the bits of an f32 in the low half.
static Value fromWord(ImplicitLocOpBuilder &b, Value word, Type type) {
  if (isa<tile::PtrType>(type))
    return LLVM::IntToPtrOp::create(b, LLVM::LLVMPointerType::get(b.getContext(), 1), word);
  if (type.isInteger(64))
    return word;
  Value low = arith::TruncIOp::create(b, b.getI32Type(), word);
  return type.isF32() ? arith::BitcastOp::create(b, type, low).getResult() : low;
}

void LaneEmitter::emitPrologue(LLVM::LLVMFuncOp entry) {
  auto read = [&](auto *op) {
    using Op = std::remove_pointer_t<decltype(op)>;
    return Op::create(b, b.getI32Type()).getResult();
  };
  Value thread = read(static_cast<NVVM::ThreadIdXOp *>(nullptr)),
        block = read(static_cast<NVVM::BlockIdXOp *>(nullptr));
  lane = arith::AndIOp::create(b, thread, constant32(31));
  Value warp = uniform(arith::ShRUIOp::create(b, thread, constant32(5)));
  Value first = arith::MulIOp::create(b, block, constant32(kBlockThreads / 32 / parts));
  program = arith::IndexCastUIOp::create(b, b.getIndexType(), arith::AddIOp::create(b, first, warp));
  for (BlockArgument argument : kernel.getArguments())
    scalars.map(argument, fromWord(b, entry.getArgument(argument.getArgNumber()), argument.getType()));
}

LogicalResult LaneEmitter::emit() {
  SmallVector<Type> types(kernel.getNumArguments() + 1, b.getI64Type());
  auto type = LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(b.getContext()), types);
  auto entry = LLVM::LLVMFuncOp::create(b, kEntryName, type);
  auto schedule = kernel->getAttrOfType<tile::ScheduleAttr>(tile::kScheduleAttr);
  parts = schedule ? schedule.getWarps() : 1;
  entry->setAttr(NVVM::NVVMDialect::getKernelFuncAttrName(), b.getUnitAttr());
  entry->setAttr(NVVM::NVVMDialect::getReqntidAttrName(),
                 b.getDenseI32ArrayAttr({static_cast<int32_t>(kBlockThreads / parts), static_cast<int32_t>(parts), 1}));
  // Unasked, ptxas spills a few registers to fit one more block on a multiprocessor.
  int64_t blocks = schedule && schedule.getBlocks() > 0 ? schedule.getBlocks() : 2;
  entry->setAttr(NVVM::NVVMDialect::getMinctasmAttrName(), b.getI32IntegerAttr(static_cast<int32_t>(blocks)));
  b.setInsertionPointToStart(entry.addEntryBlock(b));
  emitPrologue(entry);
  programs = entry.getArguments().back();
  Value count = arith::IndexCastOp::create(b, b.getIndexType(), programs);
  Value exists = arith::CmpIOp::create(b, arith::CmpIPredicate::slt, program, count);
  auto branch = scf::IfOp::create(b, exists, /*withElseRegion=*/false);
  LLVM::ReturnOp::create(b, ValueRange());
  body = branch.thenBlock();
  b.setInsertionPoint(body->getTerminator());
  if (failed(emitBlock(kernel.getBody().front()))) {
    entry.erase();
    return failure();
  }
  if (multipliesRests)
    entry.setPassthroughAttr(b.getStrArrayAttr({kTwoHalves}));
  return success();
}

LogicalResult LaneEmitter::emitBlock(Block &block) {
  for (Operation &op : block.without_terminator()) {
    b.setLoc(op.getLoc());
    if (failed(emitOp(op)))
      return failure();
  }
  return success();
}

LogicalResult LaneEmitter::emitOp(Operation &op) {
  if (accumulation.absorbed.contains(&op))
    return success();
  if (canWait(&op))
    return wait(&op), success();
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return emitFor(loop);
  if (auto branch = dyn_cast<scf::IfOp>(op))
    return emitIf(branch);
  if (auto load = dyn_cast<tile::LoadOp>(op))
    return emitLoad(load), success();
  if (auto store = dyn_cast<tile::StoreOp>(op))
    return emitStore(store), success();
  if (auto codes = dyn_cast<tile::CodesOp>(op))
    return emitCodes(codes);
  if (auto unpack = dyn_cast<tile::UnpackOp>(op))
    return emitUnpack(unpack);
  if (auto dequantize = dyn_cast<tile::DequantizeOp>(op))
    return emitDequantize(dequantize);
  if (auto store = dyn_cast<tile::StoreCodesOp>(op))
    return emitStoreCodes(store);
  if (auto coeff = dyn_cast<tile::CoeffOp>(op))
    return emitCoeff(coeff);
  if (auto dot = dyn_cast<tile::DotOp>(op))
    return emitDot(dot);
  if (auto reduce = dyn_cast<tile::ReduceOp>(op))
    return emitReduce(reduce), success();
  if (auto reduce = dyn_cast<tile::ReducePartsOp>(op))
    return emitReduceParts(reduce), success();
  if (auto convert = dyn_cast<tile::ConvertOp>(op))
    return emitConvert(convert), success();
  if (auto broadcast = dyn_cast<tile::BroadcastOp>(op))
    return emitBroadcast(broadcast), success();
  if (auto iota = dyn_cast<tile::IotaOp>(op))
    return emitIota(iota), success();
  if (auto splat = dyn_cast<tensor::SplatOp>(op))
    return emitSplat(splat), success();
  if (auto prefetch = dyn_cast<tile::PrefetchOp>(op))
    return emitPrefetch(prefetch), success();
  bool hasTiles = llvm::any_of(op.getOperands(), isTile) || llvm::any_of(op.getResults(), isTile);
  if (auto constant = dyn_cast<arith::ConstantOp>(op); constant && hasTiles)
    return emitConstant(constant);
  if (auto fma = dyn_cast<math::FmaOp>(op); fma && unscaled.contains(fma.getA()))
    return emitMultiplyAdd(fma), success();
  if (hasTiles && OpTrait::hasElementwiseMappableTraits(&op))
    return emitElementwise(op);
  if (!hasTiles)
    return emitScalar(op);
  return op.emitOpError("has no lowering to lanes of a warp; supported on tiles are the elementwise ops of arith and "
                        "math, tensor.splat, scf.for, scf.if and the ops of kvq_tile");
}

LogicalResult LaneEmitter::emitScalar(Operation &op) {
  if (auto id = dyn_cast<tile::ProgramIdOp>(op)) {
    Value number = program;
    if (id.getDimension() == 1)
      number = arith::IndexCastUIOp::create(b, b.getIndexType(), NVVM::BlockIdYOp::create(b, b.getI32Type()));
    if (id.getDimension() == 2)
      number = arith::IndexCastUIOp::create(b, b.getIndexType(), NVVM::BlockIdZOp::create(b, b.getI32Type()));
    scalars.map(id.getResult(), number);
    return success();
  }
  if (isa<tile::PartIdOp>(op)) {
    scalars.map(op.getResult(0), partId());
    return success();
  }
  auto move = [&](Value base, Value bytes) {
    Value offset = arith::IndexCastOp::create(b, b.getI64Type(), bytes);
    return LLVM::GEPOp::create(b, base.getType(), b.getI8Type(), base, ArrayRef<LLVM::GEPArg>{offset}).getResult();
  };
  if (auto advance = dyn_cast<tile::AdvanceOp>(op)) {
    scalars.map(advance.getResult(), move(scalarOf(advance.getBase()), scalarOf(advance.getBytes())));
    return success();
  }
  if (auto page = dyn_cast<tile::PageOp>(op)) {
    Value number = arith::IndexCastOp::create(b, b.getI32Type(), scalarOf(page.getEntry()));
    Value offset = arith::MulIOp::create(b, arith::IndexCastUIOp::create(b, b.getIndexType(), number), constant(4));
    Value entry = move(scalarOf(page.getTable()), offset);
    auto load = LLVM::LoadOp::create(b, b.getI32Type(), entry, 4);
    load.setInvariant(isReadOnly(page.getTable()));
    Value block = arith::IndexCastUIOp::create(b, b.getIndexType(), load);
    scalars.map(page.getResult(),
                move(scalarOf(page.getPool()), arith::MulIOp::create(b, block, scalarOf(page.getStride()))));
    return success();
  }
  bool isArithmetic = op.getNumRegions() == 0 && op.getNumSuccessors() == 0 && op.getDialect() &&
                      llvm::is_contained({"arith", "math"}, op.getDialect()->getNamespace());
  if (!isArithmetic)
    return op.emitOpError("has no lowering to lanes of a warp; supported on scalars are arith, math and kvq_tile");
  b.clone(op, scalars);
  return success();
}

// ---- control flow ----

void LaneEmitter::flatten(ValueRange values, SmallVectorImpl<Value> &flat) {
  for (Value value : values) {
    if (isTile(value))
      llvm::append_range(flat, registersOf(value));
    else
      flat.push_back(scalarOf(value));
  }
}

// Values from a list that begins with their registers and is shortened by them.
void LaneEmitter::bind(ValueRange values, ValueRange &flat) {
  for (Value value : values) {
    if (!isTile(value)) {
      scalars.map(value, flat.front());
      flat = flat.drop_front();
      continue;
    }
    size_t count = static_cast<size_t>(fileOf(value).count());
    registers[value] = Registers(flat.take_front(count));
    flat = flat.drop_front(count);
  }
}

// The ops of a region of one block into `to`, which ends in a yield.
LogicalResult LaneEmitter::emitRegion(Region &from, Block &to, function_ref<void(SmallVectorImpl<Value> &)> yield) {
  OpBuilder::InsertionGuard guard(b);
  if (!to.empty())
    to.getTerminator()->erase();
  b.setInsertionPointToEnd(&to);
  if (failed(emitBlock(from.front())))
    return failure();
  SmallVector<Value> yielded;
  yield(yielded);
  scf::YieldOp::create(b, yielded);
  return success();
}

LogicalResult LaneEmitter::emitFor(scf::ForOp op) {
  auto found = accumulation.sums.find(op);
  auto sumAt = [&](size_t place) -> const CarriedSum * {
    if (found != accumulation.sums.end())
      for (const CarriedSum &sum : found->second)
        if (sum.place == place)
          return &sum;
    return nullptr;
  };
  SmallVector<Value> inits;
  for (auto [place, init] : llvm::enumerate(op.getInitArgs())) {
    if (const CarriedSum *sum = sumAt(place))
      beginCarried(*sum, inits);
    else
      flatten(init, inits);
  }
  auto loop =
      scf::ForOp::create(b, scalarOf(op.getLowerBound()), scalarOf(op.getUpperBound()), scalarOf(op.getStep()), inits);
  scalars.map(op.getInductionVar(), loop.getInductionVar());
  auto bindAll = [&](ValueRange values, ValueRange flat, function_ref<void(size_t, Carried)> take) {
    for (auto [place, value] : llvm::enumerate(values)) {
      if (const CarriedSum *sum = sumAt(place))
        take(place, takeCarried(*sum, flat));
      else
        bind(value, flat);
    }
  };
  bindAll(op.getRegionIterArgs(), loop.getRegionIterArgs(),
          [&](size_t, Carried parts) { carried[parts.sum.dot] = std::move(parts); });
  auto yield = [&](SmallVectorImpl<Value> &yielded) {
    for (auto [place, value] : llvm::enumerate(op.getYieldedValues())) {
      if (const CarriedSum *sum = sumAt(place))
        yieldCarried(carried[sum->dot], yielded);
      else
        flatten(value, yielded);
    }
  };
  if (failed(emitRegion(op.getRegion(), *loop.getBody(), yield)))
    return failure();
  bindAll(op.getResults(), loop.getResults(), [&](size_t place, Carried parts) {
    parts.pair = carried[parts.sum.dot].pair;
    registers[op.getResult(place)] = endCarried(parts);
    // Only now, since units are known with the loop's codes.
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPoint(loop);
    Registers begin = beginProducts(parts, registersOf(op.getInitArgs()[place]));
    unsigned at = cast<OpResult>(parts.products.front()).getResultNumber();
    for (auto [i, value] : llvm::enumerate(begin))
      loop.getInitArgsMutable()[at + i].assign(value);
    carried.erase(parts.sum.dot);
  });
  return success();
}

LogicalResult LaneEmitter::emitIf(scf::IfOp op) {
  SmallVector<Type> types;
  for (Value result : op.getResults())
    types.append(isTile(result) ? static_cast<size_t>(fileOf(result).count()) : 1, registerType(result.getType()));
  auto branch = scf::IfOp::create(b, types, scalarOf(op.getCondition()), !op.getElseRegion().empty());
  auto emitBranch = [&](Region &from, Block *to) {
    auto yield = [&](SmallVectorImpl<Value> &yielded) {
      flatten(from.front().getTerminator()->getOperands(), yielded);
    };
    return emitRegion(from, *to, yield);
  };
  if (failed(emitBranch(op.getThenRegion(), branch.thenBlock())))
    return failure();
  if (!op.getElseRegion().empty() && failed(emitBranch(op.getElseRegion(), branch.elseBlock())))
    return failure();
  ValueRange flat = branch.getResults();
  bind(op.getResults(), flat);
  return success();
}
