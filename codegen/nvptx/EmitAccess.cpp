// SPDX-License-Identifier: Apache-2.0
//
// kvq_tile.load and kvq_tile.store: addresses a register, in vectors of up to 16 bytes where neighbours along the last
// dimension are in a lane and the address is known to be aligned.

#include "codegen/nvptx/Access.h"
#include "codegen/nvptx/Alignment.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::RegisterFile;
using tile::TileBit;

// The argument that a pointer comes from.
static Value rootOf(Value ptr) {
  while (Operation *op = ptr.getDefiningOp()) {
    if (auto advance = dyn_cast<tile::AdvanceOp>(op))
      ptr = advance.getBase();
    else if (auto page = dyn_cast<tile::PageOp>(op))
      ptr = page.getPool();
    else
      break;
  }
  return ptr;
}

// Memory of an argument through which the kernel writes nothing; arguments are different memory (kernel_abi.h).
bool LaneEmitter::isReadOnly(Value ptr) {
  Value root = rootOf(ptr);
  return !kernel
              .walk([&](Operation *op) {
                Value written;
                if (auto store = dyn_cast<tile::StoreOp>(op))
                  written = store.getPtr();
                else if (auto codes = dyn_cast<tile::StoreCodesOp>(op))
                  written = codes.getBase();
                return written && rootOf(written) == root ? WalkResult::interrupt() : WalkResult::advance();
              })
              .wasInterrupted();
}

static RegisterFile withoutPair(const RegisterFile &file) {
  tile::LaneLayout layout = file.layout();
  layout.pair = TileBit();
  return RegisterFile(file.shape(), layout);
}

LaneEmitter::Access LaneEmitter::accessOf(Value ptr, Value offset, Value mask, RankedTensorType type) {
  RegisterFile file(type.getShape(), *tile::getLanes(type));
  Access access{scalarOf(ptr), type.getElementType(), 0, false,          false, {}, {}, std::nullopt,
                file,          withoutPair(file),     1, isReadOnly(ptr)};
  access.bytes = access.element.isIndex() ? 8 : std::max(1u, access.element.getIntOrFloatBitWidth() / 8);
  auto offsetTile = dyn_cast<RankedTensorType>(offset.getType());
  access.scalarOffset = !offsetTile;
  access.runs = !offsetTile || offsetTile.getRank() + 1 == type.getRank();
  if (offsetTile) {
    access.offsets = registersOf(offset);
    access.offsetFile = fileOf(offset);
  } else {
    access.offsets = {scalarOf(offset)};
  }
  if (mask)
    access.masks = offsetTile ? registersOf(mask) : Registers{scalarOf(mask)};
  if (access.runs) {
    int last = static_cast<int>(type.getRank()) - 1;
    int64_t aligned = std::min(alignmentOf(ptr), multipleOf(offset) * access.bytes);
    auto fits = [&](int64_t run) {
      int bit = llvm::Log2_64(run) - 1;
      return run * access.bytes <= std::min<int64_t>(aligned, 16) && bit < tile::bitsOf(type.getDimSize(last)) &&
             access.elements.layout().laneOf({last, bit}) < 0;
    };
    while (fits(access.run * 2))
      access.run *= 2;
  }
  return access;
}

// Address of the element whose index is `base` in lane 0.
Value LaneEmitter::address(const Access &access, int64_t offsetRegister, ArrayRef<int64_t> base) {
  Value offset = access.offsets[offsetRegister];
  if (access.runs) {
    int last = static_cast<int>(access.file.shape().size()) - 1;
    offset = b.createOrFold<arith::AddIOp>(offset, laneOffset(access.elements.layout(), last));
    offset = b.createOrFold<arith::AddIOp>(offset, constant(base[last]));
  }
  Value bytes = b.createOrFold<arith::MulIOp>(offset, constant(access.bytes));
  Value word = arith::IndexCastOp::create(b, b.getI64Type(), bytes);
  return LLVM::GEPOp::create(b, access.ptr.getType(), b.getI8Type(), access.ptr, ArrayRef<LLVM::GEPArg>{word});
}

namespace {

// The registers of a tile, by one access each: for each register of the offset, runs of neighbours.
struct Runs {
  SmallVector<SmallVector<SmallVector<int64_t>>> ofOffset;
};

} // namespace

static Runs runsOf(const RegisterFile &elements, const std::optional<RegisterFile> &offsets, bool runs, int64_t run) {
  Runs result;
  result.ofOffset.resize(offsets ? static_cast<size_t>(offsets->count()) : 1);
  for (int64_t number = 0; number < elements.count(); ++number) {
    SmallVector<int64_t> index = elements.base(number);
    int64_t last = index.back();
    if (runs && last % run != 0)
      continue;
    SmallVector<int64_t> members;
    for (int64_t i = 0; i < run; ++i) {
      index.back() = last + i;
      members.push_back(elements.find(index));
    }
    index.back() = last;
    if (runs)
      index.pop_back();
    result.ofOffset[offsets ? offsets->find(index) : 0].push_back(members);
  }
  return result;
}

LaneEmitter::Registers LaneEmitter::loadRun(const Access &access, ArrayRef<int64_t> numbers) {
  SmallVector<int64_t> base = access.elements.base(numbers.front()), at = base;
  if (access.runs)
    at.pop_back();
  Value from = address(access, access.offsetFile ? access.offsetFile->find(at) : 0, base);
  int64_t count = static_cast<int64_t>(numbers.size());
  Type type = count == 1 ? access.element : Type(VectorType::get({count}, access.element));
  bool isIndex = access.element.isIndex();
  auto load = LLVM::LoadOp::create(b, isIndex ? b.getI64Type() : type, from, count * access.bytes);
  load.setInvariant(access.invariant);
  if (count == 1)
    return {load};
  Registers values;
  for (int64_t i = 0; i < count; ++i)
    values.push_back(LLVM::ExtractElementOp::create(b, load, constant32(i)));
  return values;
}

LogicalResult LaneEmitter::emitLoad(tile::LoadOp op) {
  if (!isa<RankedTensorType>(op.getResult().getType())) {
    Access access{scalarOf(op.getPtr()),
                  op.getResult().getType(),
                  0,
                  false,
                  true,
                  {scalarOf(op.getOffset())},
                  {},
                  std::nullopt,
                  RegisterFile({}, {}),
                  RegisterFile({}, {}),
                  1,
                  isReadOnly(op.getPtr())};
    access.bytes = std::max(1u, access.element.getIntOrFloatBitWidth() / 8);
    auto read = [&] { return loadRun(access, {0}).front(); };
    if (Value mask = op.getMask()) {
      auto branch = scf::IfOp::create(b, access.element, scalarOf(mask), /*withElseRegion=*/true);
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(branch.thenBlock());
      scf::YieldOp::create(b, read());
      b.setInsertionPointToStart(branch.elseBlock());
      scf::YieldOp::create(b, zeroOf(access.element));
      scalars.map(op.getResult(), branch.getResult(0));
      return success();
    }
    scalars.map(op.getResult(), read());
    return success();
  }
  auto type = cast<RankedTensorType>(op.getResult().getType());
  Access access = accessOf(op.getPtr(), op.getOffset(), op.getMask(), type);
  Registers values(static_cast<size_t>(access.elements.count()));
  Runs runs = runsOf(access.elements, access.offsetFile, access.runs, access.run);
  for (auto [at, members] : llvm::enumerate(runs.ofOffset)) {
    SmallVector<int64_t> numbers;
    Registers loaded;
    for (ArrayRef<int64_t> run : members)
      llvm::append_range(numbers, run);
    auto readAll = [&, &members = members] {
      for (ArrayRef<int64_t> run : members)
        llvm::append_range(loaded, loadRun(access, run));
    };
    if (access.masks.empty()) {
      readAll();
    } else {
      SmallVector<Type> types(numbers.size(), access.element);
      auto branch = scf::IfOp::create(b, types, access.masks[at], /*withElseRegion=*/true);
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(branch.thenBlock());
      readAll();
      scf::YieldOp::create(b, loaded);
      b.setInsertionPointToStart(branch.elseBlock());
      scf::YieldOp::create(b, SmallVector<Value>(numbers.size(), zeroOf(access.element)));
      loaded.assign(branch.getResults().begin(), branch.getResults().end());
    }
    for (auto [number, value] : llvm::zip(numbers, loaded))
      values[number] = value;
  }
  registers[op.getResult()] = repaired(values, access.elements, access.file);
  return success();
}

// ---- stores ----

// Whether this lane is the first of those that hold the same elements; null where none do.
Value LaneEmitter::firstOfRepeated(const tile::LaneLayout &layout) {
  int64_t repeated = 0;
  for (int bit = 0; bit < tile::LaneLayout::kLaneBits; ++bit)
    if (layout.lane[bit].isNone())
      repeated |= int64_t(1) << bit;
  if (repeated == 0)
    return {};
  Value bits = arith::AndIOp::create(b, lane, constant32(repeated));
  return arith::CmpIOp::create(b, arith::CmpIPredicate::eq, bits, constant32(0));
}

void LaneEmitter::storeRun(const Access &access, ArrayRef<int64_t> numbers, ArrayRef<Value> values) {
  SmallVector<int64_t> base = access.elements.base(numbers.front()), at = base;
  if (access.runs)
    at.pop_back();
  Value to = address(access, access.offsetFile ? access.offsetFile->find(at) : 0, base);
  int64_t count = static_cast<int64_t>(numbers.size());
  Value value = values[numbers.front()];
  if (count > 1) {
    value = LLVM::PoisonOp::create(b, VectorType::get({count}, access.element));
    for (int64_t i = 0; i < count; ++i)
      value = LLVM::InsertElementOp::create(b, value, values[numbers[i]], constant32(i));
  }
  LLVM::StoreOp::create(b, value, to, count * access.bytes);
}

LogicalResult LaneEmitter::emitStore(tile::StoreOp op) {
  auto guarded = [&](Value condition, function_ref<void()> write) {
    if (!condition)
      return write();
    auto branch = scf::IfOp::create(b, condition, /*withElseRegion=*/false);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPoint(branch.thenBlock()->getTerminator());
    write();
  };
  auto both = [&](Value a, Value c) { return a && c ? arith::AndIOp::create(b, a, c).getResult() : a ? a : c; };
  if (!isa<RankedTensorType>(op.getValue().getType())) {
    Value value = scalarOf(op.getValue());
    Access access{
        scalarOf(op.getPtr()), value.getType(),      0, false, true, {scalarOf(op.getOffset())}, {}, std::nullopt,
        RegisterFile({}, {}),  RegisterFile({}, {}), 1, false};
    access.bytes = std::max(1u, access.element.getIntOrFloatBitWidth() / 8);
    Value mask = op.getMask() ? scalarOf(op.getMask()) : Value();
    guarded(both(firstOfRepeated(tile::LaneLayout()), mask), [&] { storeRun(access, {0}, {value}); });
    return success();
  }
  auto type = cast<RankedTensorType>(op.getValue().getType());
  Access access = accessOf(op.getPtr(), op.getOffset(), op.getMask(), type);
  Registers values = repaired(registersOf(op.getValue()), access.file, access.elements);
  Value first = firstOfRepeated(access.elements.layout());
  Runs runs = runsOf(access.elements, access.offsetFile, access.runs, access.run);
  for (auto [at, members] : llvm::enumerate(runs.ofOffset)) {
    Value condition = both(first, access.masks.empty() ? Value() : access.masks[at]);
    guarded(condition, [&, &members = members] {
      for (ArrayRef<int64_t> run : members)
        storeRun(access, run, values);
    });
  }
  return success();
}
