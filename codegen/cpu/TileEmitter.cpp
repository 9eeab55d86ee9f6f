// SPDX-License-Identifier: Apache-2.0
//
// The walk over a tile program: which values become buffers, loops with tiles as carried values, scalars.

#include "codegen/cpu/TileEmitter.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Interfaces/ControlFlowInterfaces.h"

#include <utility>

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::cpu;

// Of a thread's stack, of which 8 MiB are usual; the built-in kernels need up to half of it.
static constexpr int64_t kScratchLimit = 1024 * 1024;
static constexpr int64_t kSharedScratch = 4096; // bytes from which on a buffer's memory is used again

TileEmitter::TileEmitter(func::FuncOp kernel, const CpuLevel &level)
    : kernel(kernel), level(level), schedule(kernel->getAttrOfType<tile::ScheduleAttr>(tile::kScheduleAttr)),
      b(kernel.getLoc(), kernel.getContext()) {}

FailureOr<func::FuncOp> TileEmitter::emit() {
  b.setInsertionPoint(kernel);
  Type ptr = LLVM::LLVMPointerType::get(b.getContext());
  auto func = b.create<func::FuncOp>("kvq_entry", b.getFunctionType({ptr, ptr}, {b.getI32Type()}));
  entry = func.addEntryBlock();
  b.setInsertionPointToStart(entry);
  programId = func.getArgument(1);
  for (auto [i, arg] : llvm::enumerate(kernel.getArguments())) {
    Value slot = address(func.getArgument(0), b.getI64Type(), constant(i));
    Type type = isa<tile::PtrType>(arg.getType()) ? ptr : arg.getType();
    scalars.map(arg, b.create<LLVM::LoadOp>(type, slot).getResult());
  }
  if (failed(emitBlock(kernel.getBody().front())))
    return failure();
  if (scratchBytes > kScratchLimit)
    return kernel.emitError("needs ") << scratchBytes << " bytes of scratch memory on the stack, more than the "
                                      << kScratchLimit << " that a kernel may use; work on smaller tiles";
  b.setLoc(kernel.getLoc());
  Value zero = b.create<arith::ConstantIntOp>(b.getI32Type(), 0);
  b.create<func::ReturnOp>(zero);
  return func;
}

LogicalResult TileEmitter::emitBlock(Block &block) {
  auto outer = std::exchange(prefetch, Prefetch()); // a prefetch is spread within its own block
  for (Operation &op : block.without_terminator()) {
    b.setLoc(op.getLoc());
    if (failed(emitOp(op)))
      return failure();
  }
  prefetch = outer;
  return success();
}

// Values that cost next to nothing to evaluate again.
static bool isCheap(Value tile) {
  Operation *op = tile.getDefiningOp();
  if (!op)
    return false;
  return isa<arith::ConstantOp, tensor::SplatOp, tile::IotaOp, tile::BroadcastOp>(op) ||
         cast<RankedTensorType>(tile.getType()).getElementType().isInteger(1);
}

bool TileEmitter::isElementwiseOp(Operation *op) {
  return OpTrait::hasElementwiseMappableTraits(op) ||
         isa<arith::ConstantOp, tensor::SplatOp, tile::IotaOp, tile::BroadcastOp, tile::DequantizeOp, tile::CoeffOp>(
             op);
}

bool TileEmitter::isLazy(Value tile) {
  Operation *op = tile.getDefiningOp();
  if (!op || !isElementwiseOp(op))
    return false;
  if (isCheap(tile))
    return true;
  if (tile.use_empty())
    return false;
  Operation *user = *tile.user_begin();
  // The scales of coefficients are read once for every row.
  if (auto coeff = dyn_cast<tile::CoeffOp>(user);
      coeff && coeff.getScale() == tile && cast<RankedTensorType>(coeff.getValues().getType()).getDimSize(0) > 1)
    return false;
  // What a broadcast repeats is computed once.
  if (auto broadcast = dyn_cast<tile::BroadcastOp>(user);
      broadcast && cast<RankedTensorType>(tile.getType()).getNumElements() <
                       cast<RankedTensorType>(broadcast.getType()).getNumElements())
    return false;
  return tile.hasOneUse() && user->getBlock() == op->getBlock();
}

LogicalResult TileEmitter::emitOp(Operation &op) {
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return emitFor(loop);
  if (auto branch = dyn_cast<scf::IfOp>(op))
    return emitIf(branch);
  if (auto load = dyn_cast<tile::LoadOp>(op))
    return emitLoad(load);
  if (auto store = dyn_cast<tile::StoreOp>(op))
    return emitStore(store);
  if (auto reduce = dyn_cast<tile::ReduceOp>(op))
    return emitReduce(reduce);
  if (auto dot = dyn_cast<tile::DotOp>(op))
    return emitDot(dot);
  if (auto store = dyn_cast<tile::StoreCodesOp>(op))
    return emitStoreCodes(store);
  if (auto prefetch = dyn_cast<tile::PrefetchOp>(op))
    return emitPrefetch(prefetch), success();
  if (auto codes = dyn_cast<tile::CodesOp>(op)) {
    auto type = cast<RankedTensorType>(codes.getType());
    packed[codes] = {scalars.lookup(codes.getBase()),
                     scalars.lookup(codes.getToken()),
                     scalars.lookup(codes.getChannel()),
                     tile::parseLayoutAttr(tile::getLayout(type)),
                     type.getElementTypeBitWidth(),
                     type.getDimSize(0),
                     type.getDimSize(1),
                     packedPlanes(tile::parseSectionAttr(tile::getLayout(type), type.getElementTypeBitWidth()))};
    return success();
  }
  if (auto unpack = dyn_cast<tile::UnpackOp>(op)) {
    auto it = packed.find(unpack.getCodes());
    if (it == packed.end())
      return op.emitOpError("has no lowering here: its codes do not come from kvq_tile.codes in this program");
    FailureOr<Buffer> buffer = unpackToBuffer(&op, it->second, /*asFloat=*/false);
    if (failed(buffer))
      return failure();
    buffers[unpack.getResult()] = *buffer;
    return success();
  }
  if (auto dequantize = dyn_cast<tile::DequantizeOp>(op)) { // its codes become a buffer that eval() reads
    auto it = packed.find(dequantize.getCodes());
    if (it == packed.end())
      return op.emitOpError("has no lowering here: its codes do not come from kvq_tile.codes in this program");
    if (!buffers.contains(dequantize.getCodes())) {
      FailureOr<Buffer> buffer = unpackToBuffer(&op, it->second, /*asFloat=*/true);
      if (failed(buffer))
        return failure();
      buffers[dequantize.getCodes()] = *buffer;
    }
  }
  if (auto coeff = dyn_cast<tile::CoeffOp>(op))
    if (tile::DotOp dot = integerDotOf(coeff))
      return emitRounded(coeff, dot);
  if (auto constantOp = dyn_cast<arith::ConstantOp>(op))
    if (auto dense = dyn_cast<DenseElementsAttr>(constantOp.getValue()); dense && !dense.isSplat())
      return emitConstant(constantOp), success();
  if (op.getNumResults() == 1 && isa<RankedTensorType>(op.getResult(0).getType())) {
    if (!isElementwiseOp(&op))
      return op.emitOpError("has no lowering to CPU code");
    return isLazy(op.getResult(0)) ? success() : materialize(op.getResult(0));
  }
  return emitScalar(op);
}

LogicalResult TileEmitter::emitScalar(Operation &op) {
  if (op.getNumRegions() != 0 || llvm::any_of(op.getOperandTypes(), llvm::IsaPred<RankedTensorType>))
    return op.emitOpError("has no lowering to CPU code");
  if (auto id = dyn_cast<tile::ProgramIdOp>(op)) {
    Value value = loadVector(address(programId, b.getI64Type(), constant(id.getDimension())), b.getI64Type(), 1);
    scalars.map(id.getResult(), b.create<arith::IndexCastOp>(b.getIndexType(), value).getResult());
    return success();
  }
  if (auto advance = dyn_cast<tile::AdvanceOp>(op)) {
    scalars.map(advance.getResult(),
                address(scalars.lookup(advance.getBase()), b.getI8Type(), scalars.lookup(advance.getBytes())));
    return success();
  }
  if (auto page = dyn_cast<tile::PageOp>(op)) {
    Value slot = address(scalars.lookup(page.getTable()), b.getI32Type(), scalars.lookup(page.getEntry()));
    Value number = b.create<arith::IndexCastOp>(b.getIndexType(), loadVector(slot, b.getI32Type(), 1));
    Value bytes = b.create<arith::MulIOp>(number, scalars.lookup(page.getStride()));
    scalars.map(page.getResult(), address(scalars.lookup(page.getPool()), b.getI8Type(), bytes));
    return success();
  }
  if (op.getNumResults() != 1)
    return op.emitOpError("has no lowering to CPU code");
  if (auto constant = dyn_cast<arith::ConstantOp>(op)) {
    auto value = cast<TypedAttr>(constant.getValue());
    scalars.map(constant.getResult(), b.create<arith::ConstantOp>(scalarConstant(value)).getResult());
    return success();
  }
  SmallVector<Value> operands;
  for (Value operand : op.getOperands())
    operands.push_back(scalars.lookup(operand));
  scalars.map(op.getResult(0), evalOp(op, operands, 1));
  return success();
}

// A tile that a loop carries may be updated in place when the only way from it leads into the accumulator of the dot
// whose result is carried on: the dot reads element (r, n) just before it writes element (r, n).
void TileEmitter::planInPlace(scf::ForOp op, ArrayRef<Buffer> targets) {
  auto yield = cast<scf::YieldOp>(op.getBody()->getTerminator());
  for (auto [i, arg] : llvm::enumerate(op.getRegionIterArgs())) {
    auto dot = yield.getOperand(i).getDefiningOp<tile::DotOp>();
    if (!dot || dot->getBlock() != op.getBody())
      continue;
    std::function<bool(Value)> leadsOnlyToAcc = [&](Value value) {
      return llvm::all_of(value.getUses(), [&](OpOperand &use) {
        if (use.getOwner() == dot)
          return use.get() == dot.getAcc() && value != dot.getCoeff() && value != dot.getX() && value != dot.getScale();
        return use.getOwner()->getNumResults() == 1 && OpTrait::hasElementwiseMappableTraits(use.getOwner()) &&
               isLazy(use.getOwner()->getResult(0)) && leadsOnlyToAcc(use.getOwner()->getResult(0));
      });
    };
    if (dot->hasOneUse() && leadsOnlyToAcc(arg))
      destinations[dot.getResult()] = targets[i];
  }
}

LogicalResult TileEmitter::emitFor(scf::ForOp op) {
  SmallVector<Buffer> targets(op.getNumRegionIterArgs());
  SmallVector<Value> inits;
  for (auto [i, init] : llvm::enumerate(op.getInitArgs())) {
    Value arg = op.getRegionIterArg(i);
    if (auto type = dyn_cast<RankedTensorType>(init.getType())) {
      if (type.getElementType().isInteger(1))
        return op.emitOpError("carries a mask; carry the values it is computed from");
      targets[i] = allocate(type.getShape(), type.getElementType());
      writeInto(init, targets[i]);
      buffers[arg] = targets[i];
    } else {
      inits.push_back(scalars.lookup(init));
    }
  }
  planInPlace(op, targets);
  auto newLoop = b.create<scf::ForOp>(scalars.lookup(op.getLowerBound()), scalars.lookup(op.getUpperBound()),
                                      scalars.lookup(op.getStep()), inits);
  newLoop.setUnsignedCmp(op.getUnsignedCmp());
  scalars.map(op.getInductionVar(), newLoop.getInductionVar());
  size_t next = 0;
  for (auto [i, arg] : llvm::enumerate(op.getRegionIterArgs()))
    if (!targets[i].ptr)
      scalars.map(arg, newLoop.getRegionIterArg(next++));
  if (failed(emitRegion(op.getRegion(), *newLoop.getBody(), targets)))
    return failure();
  next = 0;
  for (auto [i, result] : llvm::enumerate(op.getResults())) {
    if (targets[i].ptr)
      buffers[result] = targets[i];
    else
      scalars.map(result, newLoop.getResult(next++));
  }
  return success();
}

// The body of a loop or a branch. What it puts into buffers, also values from outside that it needs there, is not in
// them where the body does not run: after it the buffers are those of before.
LogicalResult TileEmitter::emitRegion(Region &from, Block &to, ArrayRef<Buffer> targets) {
  OpBuilder::InsertionGuard guard(b);
  DenseMap<Value, Buffer> outer = buffers;
  size_t scratchBefore = scratchInUse.size();
  if (to.mightHaveTerminator())
    to.getTerminator()->erase();
  b.setInsertionPointToEnd(&to);
  SmallVector<Value> yielded;
  if (failed(emitBlock(from.front())) || failed(emitYield(from.front(), targets, yielded)))
    return failure();
  b.create<scf::YieldOp>(yielded);
  buffers = std::move(outer);
  scratchFree.append(scratchInUse.begin() + scratchBefore, scratchInUse.end());
  scratchInUse.truncate(scratchBefore);
  return success();
}

LogicalResult TileEmitter::emitYield(Block &body, ArrayRef<Buffer> targets, SmallVectorImpl<Value> &yielded) {
  Operation *yield = body.getTerminator();
  b.setLoc(yield->getLoc());
  // First every value, then every copy: a value may read, or be, a buffer that another one replaces.
  SmallVector<std::pair<Value, Buffer>> copies;
  for (auto [i, operand] : llvm::enumerate(yield->getOperands())) {
    if (!targets[i].ptr) {
      yielded.push_back(scalars.lookup(operand));
      continue;
    }
    auto it = buffers.find(operand);
    if (it != buffers.end() && it->second.ptr == targets[i].ptr)
      continue; // carried on unchanged, or written in place
    if (it == buffers.end() && failed(materialize(operand)))
      return failure();
    Buffer value = buffers.lookup(operand);
    if (llvm::any_of(targets, [&](const Buffer &target) { return target.ptr && target.ptr == value.ptr; })) {
      Buffer saved = allocate(value.shape, value.element);
      writeInto(operand, saved);
      buffers[operand] = saved;
    }
    copies.push_back({operand, targets[i]});
  }
  for (auto &[value, target] : copies)
    writeInto(value, target);
  return success();
}

LogicalResult TileEmitter::emitIf(scf::IfOp op) {
  SmallVector<Buffer> targets(op.getNumResults());
  SmallVector<Type> types;
  for (auto [i, result] : llvm::enumerate(op.getResults())) {
    if (auto type = dyn_cast<RankedTensorType>(result.getType()))
      targets[i] = allocate(type.getShape(), type.getElementType());
    else
      types.push_back(scalarType(result.getType()));
  }
  bool hasElse = !op.getElseRegion().empty();
  auto branch = b.create<scf::IfOp>(types, scalars.lookup(op.getCondition()), /*addThenBlock=*/true,
                                    /*addElseBlock=*/hasElse);
  if (failed(emitRegion(op.getThenRegion(), branch.getThenRegion().front(), targets)))
    return failure();
  if (hasElse && failed(emitRegion(op.getElseRegion(), branch.getElseRegion().front(), targets)))
    return failure();
  size_t next = 0;
  for (auto [i, result] : llvm::enumerate(op.getResults())) {
    if (targets[i].ptr)
      buffers[result] = targets[i];
    else
      scalars.map(result, branch.getResult(next++));
  }
  return success();
}

// ---- helpers ----

Type TileEmitter::scalarType(Type type) {
  if (isa<tile::PtrType>(type))
    return LLVM::LLVMPointerType::get(b.getContext());
  return type.isF16() || type.isBF16() ? b.getI16Type() : type;
}

TypedAttr TileEmitter::scalarConstant(TypedAttr value) {
  auto number = dyn_cast<FloatAttr>(value);
  if (!number || number.getType().isF32())
    return value;
  return b.getIntegerAttr(scalarType(value.getType()), number.getValue().bitcastToAPInt());
}

Type TileEmitter::storage(Type element) {
  if (element.isF16() || element.isBF16())
    return b.getI16Type();
  if (element.isInteger(1))
    return b.getI8Type();
  return element.isIndex() ? b.getI64Type() : element;
}

Type TileEmitter::vectorOf(Type element, int64_t lanes) {
  return lanes == 1 ? element : VectorType::get({lanes}, element);
}

Value TileEmitter::splat(Type type, double value) {
  Type element = getElementTypeOrSelf(type);
  TypedAttr scalar = b.getFloatAttr(element, value);
  if (auto vector = dyn_cast<VectorType>(type))
    scalar = DenseElementsAttr::get(vector, scalar);
  return b.create<arith::ConstantOp>(scalar);
}

Value TileEmitter::splatInt(Type type, int64_t value) {
  TypedAttr scalar = b.getIntegerAttr(getElementTypeOrSelf(type), value);
  if (auto vector = dyn_cast<VectorType>(type))
    scalar = DenseElementsAttr::get(vector, scalar);
  return b.create<arith::ConstantOp>(scalar);
}

Value TileEmitter::address(Value ptr, Type element, Value index) {
  Value offset = index.getType().isIndex() ? b.create<arith::IndexCastOp>(b.getI64Type(), index).getResult() : index;
  return b.create<LLVM::GEPOp>(ptr.getType(), storage(element), ptr, ArrayRef<LLVM::GEPArg>{offset});
}

// Loads assume no more than the element's alignment: pages and rows of tensors may start anywhere.
Value TileEmitter::loadVector(Value ptr, Type element, int64_t lanes) {
  Type type = storage(element);
  Value value = b.create<LLVM::LoadOp>(vectorOf(type, lanes), ptr, type.getIntOrFloatBitWidth() / 8);
  if (element.isInteger(1))
    return b.create<arith::TruncIOp>(vectorOf(element, lanes), value);
  return element.isIndex() ? b.create<arith::IndexCastOp>(vectorOf(element, lanes), value).getResult() : value;
}

void TileEmitter::storeVector(Value value, Value ptr) {
  Type element = getElementTypeOrSelf(value.getType());
  int64_t lanes = isa<VectorType>(value.getType()) ? cast<VectorType>(value.getType()).getDimSize(0) : 1;
  if (element.isInteger(1)) {
    element = b.getI8Type();
    value = b.create<arith::ExtUIOp>(vectorOf(element, lanes), value);
  }
  if (element.isIndex()) {
    value = b.create<arith::IndexCastOp>(vectorOf(b.getI64Type(), lanes), value);
    element = b.getI64Type();
  }
  b.create<LLVM::StoreOp>(value, ptr, element.getIntOrFloatBitWidth() / 8);
}

Value TileEmitter::add(Value a, Value c) { return b.createOrFold<arith::AddIOp>(a, c); }
Value TileEmitter::mul(Value a, int64_t factor) {
  return factor == 1 ? a : b.createOrFold<arith::MulIOp>(a, constant(factor));
}
Value TileEmitter::div(Value a, int64_t divisor) {
  return divisor == 1 ? a : b.createOrFold<arith::DivUIOp>(a, constant(divisor));
}

int64_t TileEmitter::lanesFor(int64_t extent) {
  int64_t lanes = level.lanes;
  while (extent % lanes != 0)
    lanes /= 2;
  return lanes;
}

int64_t TileEmitter::largestDivisor(int64_t of, int64_t limit) {
  int64_t divisor = std::max<int64_t>(1, std::min(of, limit));
  while (of % divisor != 0)
    --divisor;
  return divisor;
}

int64_t TileEmitter::wideLanesFor(int64_t extent) {
  int64_t lanes = lanesFor(extent);
  return lanes == level.lanes ? unrolled(extent, lanes) : lanes;
}

TileEmitter::Buffer TileEmitter::allocate(ArrayRef<int64_t> shape, Type element) {
  int64_t count = ShapedType::getNumElements(shape);
  int64_t bytes = count * (storage(element).getIntOrFloatBitWidth() / 8);
  // Small buffers stay apart: LLVM may keep them in registers.
  auto again = llvm::find_if(scratchFree, [&](const Scratch &scratch) { return scratch.bytes == bytes; });
  if (bytes >= kSharedScratch && again != scratchFree.end()) {
    scratchInUse.push_back(*again);
    scratchFree.erase(again);
    return {scratchInUse.back().ptr, SmallVector<int64_t>(shape), element};
  }
  scratchBytes += bytes;
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(entry);
  Value size = b.create<LLVM::ConstantOp>(b.getI64Type(), b.getI64IntegerAttr(count));
  Value ptr = b.create<LLVM::AllocaOp>(LLVM::LLVMPointerType::get(b.getContext()), storage(element), size, 64);
  scratchInUse.push_back({ptr, bytes});
  return {ptr, SmallVector<int64_t>(shape), element};
}

void TileEmitter::loop(int64_t begin, int64_t end, int64_t step, function_ref<void(Value)> body) {
  if (begin + step >= end) {
    if (begin < end)
      body(constant(begin));
    return;
  }
  auto op = b.create<scf::ForOp>(constant(begin), constant(end), constant(step));
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(op.getBody());
  body(op.getInductionVar());
}

void TileEmitter::loop(Value begin, Value end, function_ref<void(Value)> body) {
  auto op = b.create<scf::ForOp>(begin, end, constant(1));
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(op.getBody());
  body(op.getInductionVar());
}

void TileEmitter::forEachVector(ArrayRef<int64_t> shape, bool unroll,
                                function_ref<void(ArrayRef<Value>, int64_t)> body) {
  SmallVector<Value> index;
  int64_t lanes = lanesFor(shape.back()), step = unroll ? unrolled(shape.back(), lanes) : lanes;
  std::function<void(size_t)> nest = [&](size_t dim) {
    bool last = dim + 1 == shape.size();
    loop(0, shape[dim], last ? step : 1, [&](Value i) {
      for (int64_t done = 0; done < (last ? step : 1); done += lanes) {
        index.push_back(add(i, constant(done)));
        last ? body(index, lanes) : nest(dim + 1);
        index.pop_back();
      }
    });
  };
  nest(0);
}
