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

// Arguments through which the kernel writes.
DenseSet<Value> LaneEmitter::writtenArguments(func::FuncOp kernel) {
  DenseSet<Value> written;
  kernel.walk([&](Operation *op) {
    if (auto store = dyn_cast<tile::StoreOp>(op))
      written.insert(rootOf(store.getPtr()));
    else if (auto codes = dyn_cast<tile::StoreCodesOp>(op))
      written.insert(rootOf(codes.getBase()));
  });
  return written;
}

// Arguments are different memory (kernel_abi.h).
bool LaneEmitter::isReadOnly(Value ptr) const { return !written.contains(rootOf(ptr)); }

static RegisterFile withoutPair(const RegisterFile &file) {
  tile::LaneLayout layout = file.layout();
  layout.pair = TileBit();
  return RegisterFile(file.shape(), layout);
}

// How many neighbours along the last dimension one access takes: all in a lane, and aligned.
static int64_t runOf(const RegisterFile &elements, int64_t bytes, int64_t aligned) {
  int last = static_cast<int>(elements.shape().size()) - 1;
  auto fits = [&](int64_t run) {
    int bit = llvm::Log2_64(run) - 1;
    return run * bytes <= std::min<int64_t>(aligned, 16) && bit < tile::bitsOf(elements.shape()[last]) &&
           elements.layout().laneOf({last, bit}) < 0;
  };
  int64_t run = 1;
  while (fits(run * 2))
    run *= 2;
  return run;
}

LaneEmitter::Access LaneEmitter::accessOf(Value ptr, Value offset, Value mask, Type type) {
  Type element = getElementTypeOrSelf(type);
  RegisterFile file = isa<RankedTensorType>(type) ? fileOf(type) : RegisterFile({}, {});
  Access access{.ptr = scalarOf(ptr),
                .element = element,
                .bytes = element.getIntOrFloatBitWidth() / 8,
                .invariant = isReadOnly(ptr),
                .file = file,
                .elements = withoutPair(file)};
  auto flat = [&](Value value) {
    return isa<RankedTensorType>(value.getType()) ? registersOf(value) : Registers{scalarOf(value)};
  };
  access.offsets = flat(offset);
  if (mask)
    access.masks = flat(mask);
  int64_t rank = static_cast<int64_t>(file.shape().size()), offsetRank = 0;
  if (auto offsetTile = dyn_cast<RankedTensorType>(offset.getType())) {
    access.offsetFile = fileOf(offset);
    offsetRank = offsetTile.getRank();
  }
  access.runs = offsetRank < rank;
  if (access.runs)
    access.run = runOf(access.elements, access.bytes, std::min(alignmentOf(ptr), multipleOf(offset) * access.bytes));
  access.inPairs = element.isF16() && access.run > 1 && file.layout().pair == TileBit{static_cast<int>(rank) - 1, 0};
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

// The registers of a tile by one access each, runs of neighbours, for each register of the offset.
SmallVector<SmallVector<SmallVector<int64_t>>> LaneEmitter::runsOf(const Access &access) {
  SmallVector<SmallVector<SmallVector<int64_t>>> result(access.offsets.size());
  for (int64_t number = 0; number < access.elements.count(); ++number) {
    SmallVector<int64_t> index = access.elements.base(number), members{number};
    if (access.runs) {
      int64_t first = index.back();
      if (first % access.run != 0)
        continue;
      for (int64_t i = 1; i < access.run; ++i) {
        index.back() = first + i;
        members.push_back(access.elements.find(index));
      }
      index.pop_back();
    }
    result[access.offsetFile ? access.offsetFile->find(index) : 0].push_back(members);
  }
  return result;
}

// The registers that neighbours fill.
LaneEmitter::Registers LaneEmitter::loadRun(const Access &access, ArrayRef<int64_t> numbers) {
  SmallVector<int64_t> base = access.elements.base(numbers.front()), at = base;
  if (access.runs)
    at.pop_back();
  Value from = address(access, access.offsetFile ? access.offsetFile->find(at) : 0, base);
  int64_t bytes = static_cast<int64_t>(numbers.size()) * access.bytes, count = access.filledBy(numbers).size();
  // A pair is read as a word: LLVM takes a vector of halves apart.
  Type unit = access.inPairs ? b.getI32Type() : access.element;
  auto load = LLVM::LoadOp::create(b, count == 1 ? unit : VectorType::get({count}, unit), from, bytes);
  load.setInvariant(access.invariant);
  Registers values;
  for (int64_t i = 0; i < count; ++i) {
    Value value = count == 1 ? load : LLVM::ExtractElementOp::create(b, load, constant32(i)).getResult();
    values.push_back(access.inPairs ? LLVM::BitcastOp::create(b, access.filledType(), value).getResult() : value);
  }
  return values;
}

// What `read` gives, or `count` zeros where the condition does not hold.
LaneEmitter::Registers LaneEmitter::readIf(Value condition, Type element, size_t count,
                                           function_ref<Registers()> read) {
  if (!condition)
    return read();
  SmallVector<Type> types(count, element);
  auto branch = scf::IfOp::create(b, types, condition, /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(branch.thenBlock());
  scf::YieldOp::create(b, read());
  b.setInsertionPointToStart(branch.elseBlock());
  scf::YieldOp::create(b, SmallVector<Value>(count, zeroOf(element)));
  return Registers(branch.getResults());
}

void LaneEmitter::emitLoad(tile::LoadOp op) {
  Type type = op.getResult().getType();
  Access access = accessOf(op.getPtr(), op.getOffset(), op.getMask(), type);
  Registers values(static_cast<size_t>(access.filled().count()));
  for (auto [at, members] : llvm::enumerate(runsOf(access))) {
    SmallVector<int64_t> numbers;
    for (ArrayRef<int64_t> run : members)
      llvm::append_range(numbers, access.filledBy(run));
    auto readAll = [&, &members = members] {
      Registers loaded;
      for (ArrayRef<int64_t> run : members)
        llvm::append_range(loaded, loadRun(access, run));
      return loaded;
    };
    Value mask = access.masks.empty() ? Value() : access.masks[at];
    for (auto [number, value] : llvm::zip(numbers, readIf(mask, access.filledType(), numbers.size(), readAll)))
      values[number] = value;
  }
  if (isa<RankedTensorType>(type))
    registers[op.getResult()] = access.inPairs ? values : repaired(values, access.elements, access.file);
  else
    scalars.map(op.getResult(), values.front());
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

void LaneEmitter::emitStore(tile::StoreOp op) {
  auto guarded = [&](Value condition, function_ref<void()> write) {
    if (!condition)
      return write();
    auto branch = scf::IfOp::create(b, condition, /*withElseRegion=*/false);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPoint(branch.thenBlock()->getTerminator());
    write();
  };
  auto both = [&](Value a, Value c) { return a && c ? arith::AndIOp::create(b, a, c).getResult() : a ? a : c; };
  Type type = op.getValue().getType();
  Access access = accessOf(op.getPtr(), op.getOffset(), op.getMask(), type);
  Registers values = isa<RankedTensorType>(type) ? repaired(registersOf(op.getValue()), access.file, access.elements)
                                                 : Registers{scalarOf(op.getValue())};
  Value first = firstOfRepeated(access.elements.layout());
  for (auto [at, members] : llvm::enumerate(runsOf(access))) {
    Value condition = both(first, access.masks.empty() ? Value() : access.masks[at]);
    guarded(condition, [&, &members = members] {
      for (ArrayRef<int64_t> run : members)
        storeRun(access, run, values);
    });
  }
}

// A line of the second level a lane: what is on its way there takes no registers. Lanes behind the last line take that.
void LaneEmitter::emitPrefetch(tile::PrefetchOp op) {
  constexpr int64_t kLine = 128, kLanes = 32;
  int64_t lines = llvm::divideCeil(op.getBytes(), kLine);
  auto at = [&](Value line) {
    Value bytes = arith::ExtUIOp::create(b, b.getI64Type(), arith::MulIOp::create(b, line, constant32(kLine)));
    return LLVM::GEPOp::create(b, scalarOf(op.getBase()).getType(), b.getI8Type(), scalarOf(op.getBase()),
                               ArrayRef<LLVM::GEPArg>{bytes});
  };
  for (int64_t first = 0; first < lines; first += kLanes) {
    Value line = arith::AddIOp::create(b, lane, constant32(first));
    if (first + kLanes > lines)
      line = arith::MinUIOp::create(b, line, constant32(lines - 1));
    // LLVM's intrinsic asks for a newer ISA than the instruction does.
    LLVM::InlineAsmOp::create(b, TypeRange(), ValueRange{at(line)}, "prefetch.global.L2 [$0];", "l",
                              /*has_side_effects=*/true, /*is_align_stack=*/false, LLVM::TailCallKind::None,
                              LLVM::AsmDialectAttr(), ArrayAttr());
  }
}
