// SPDX-License-Identifier: Apache-2.0
//
// kvq_tile.dot over words of packed codes with coefficients that are integers (EmitCoeff.cpp, IntegerForm.h).
//
// A register tile of `rows` times `vectors` accumulators runs over the contracted dimension, once per limb of the
// coefficients. Where several tiles of rows look at the same codes, the operands are cut out of the words once, into
// memory of the first-level cache.

#include "codegen/cpu/TileEmitter.h"

#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::cpu;

struct TileEmitter::IntegerPanel {
  RoundedCoeff coeff;
  Packed codes;
  int64_t contract, contracted, lanes, codesPerStep;
  int64_t tileRows, tileVectors;
  Buffer cut; // operands [step][operand][vector][lane] of one column panel; no pointer where they are cut on the way

  int64_t operandsPerStep() const { return codesPerStep / coeff.form.codesPerOperand(); }
  int64_t steps() const { return contracted / codesPerStep; }
  ::kvq::Dim contractedDim() const { return contract == 0 ? ::kvq::Dim::Token : ::kvq::Dim::Channel; }
  ::kvq::Dim resultDim() const { return contract == 0 ? ::kvq::Dim::Channel : ::kvq::Dim::Token; }
  Value origin(::kvq::Dim dim) const { return dim == ::kvq::Dim::Token ? codes.token : codes.channel; }
};

// Whether address bits of a plane are, from the lowest: what selects a byte's part in a step (contracted bits 2 ..),
// what selects the step's part of a byte, the byte (contracted bits 0, 1), the lane (result bits 0 to 3).
static bool hasByteParts(const ::kvq::Layout &map, int64_t bits, int64_t codes, ::kvq::Dim contracted) {
  int64_t inByte = llvm::Log2_64(8 / bits), inStep = llvm::Log2_64(codes / 4);
  if (static_cast<int64_t>(map.inner.size()) < inByte + 6 ||
      llvm::any_of(map.inner, [](const auto &xors) { return xors.size() != 1; }))
    return false;
  auto isBit = [&](int64_t at, bool ofContracted, int64_t bit) {
    const ::kvq::IndexBit &index = map.inner[at][0];
    return (index.dim == contracted) == ofContracted && index.bit == bit;
  };
  for (int64_t i = 0; i < inStep; ++i)
    if (!isBit(i, true, 2 + i))
      return false;
  for (int64_t i = 0; i < 4; ++i)
    if (!isBit(inByte + 2 + i, false, i))
      return false;
  return isBit(inByte, true, 0) && isBit(inByte + 1, true, 1);
}

// Whether a dot's codes lie as integer multiplications take them (IntegerForm.h).
bool TileEmitter::isOverByteParts(tile::DotOp op) {
  auto x = cast<RankedTensorType>(op.getX().getType());
  if (!tile::getLayout(x))
    return false;
  SmallVector<PackedPlane> planes =
      packedPlanes(tile::parseSectionAttr(tile::getLayout(x), x.getElementTypeBitWidth()));
  int64_t groups = scaleGroups(op);
  int64_t codes = codesPerStep(planes);
  ::kvq::Dim contracted = op.getContract() == 0 ? ::kvq::Dim::Token : ::kvq::Dim::Channel;
  return (x.getDimSize(op.getContract()) / groups) % codes == 0 && llvm::all_of(planes, [&](const PackedPlane &plane) {
           return hasByteParts(plane.map, plane.bits, codes, contracted);
         });
}

// Codes of a lane in one step: those of a word of the widest plane. Narrower planes have more in a word, of which a
// step takes its part.
int64_t TileEmitter::codesPerStep(ArrayRef<PackedPlane> planes) {
  int64_t widest = 1;
  for (const PackedPlane &plane : planes)
    widest = std::max(widest, plane.bits);
  return 32 / widest;
}

// Operand number `index` of a vector's words, one of each plane.
Value TileEmitter::cutOperand(const IntegerPanel &panel, ArrayRef<Value> words, int64_t index) {
  const IntegerForm &form = panel.coeff.form;
  int64_t perPlane = form.operandsPerPlane();
  Value codes;
  for (auto [plane, word] : llvm::zip(panel.codes.planes, words)) {
    Type type = word.getType();
    int64_t right = index / perPlane * plane.bits + index % perPlane * 8 - plane.shift;
    int64_t mask = ((int64_t(1) << plane.bits) - 1) * (form.usesPairs() ? 0x00010001 : 0x01010101) << plane.shift;
    Value part = word;
    if (right > 0)
      part = b.create<arith::ShRUIOp>(part, splatInt(type, right));
    if (right < 0)
      part = b.create<arith::ShLIOp>(part, splatInt(type, -right));
    if (mask != 0xffffffff)
      part = b.create<arith::AndIOp>(part, splatInt(type, static_cast<int32_t>(mask)));
    codes = codes ? b.create<arith::OrIOp>(codes, part).getResult() : part;
  }
  if (form.movedCodes)
    codes = b.create<arith::XOrIOp>(codes, splatInt(codes.getType(), static_cast<int32_t>(0x80808080)));
  return codes;
}

// The words of one step at contracted index `begin`: of every vector, one of each plane.
SmallVector<SmallVector<Value>> TileEmitter::loadWords(const IntegerPanel &panel, Value begin,
                                                       ArrayRef<SmallVector<Value>> columnAddresses) {
  SmallVector<SmallVector<Value>> words(columnAddresses.size());
  for (auto [p, plane] : llvm::enumerate(panel.codes.planes)) {
    Value step = codeAddress(plane.map, panel.contractedDim(), add(panel.origin(panel.contractedDim()), begin));
    for (auto [v, columns] : llvm::enumerate(columnAddresses)) {
      Value bit = mul(add(step, columns[p]), plane.bits);
      Value at = address(panel.codes.base, b.getI8Type(), add(div(bit, 8), constant(plane.offset)));
      Value word = loadVector(at, b.getI32Type(), panel.lanes);
      if (8 / plane.bits > panel.codesPerStep / 4) { // the step's part of each byte
        Value within = b.create<arith::IndexCastOp>(b.getI32Type(), b.create<arith::AndIOp>(bit, constant(7)));
        word = b.create<arith::ShRUIOp>(word, b.create<vector::BroadcastOp>(word.getType(), within));
      }
      words[v].push_back(word);
    }
  }
  return words;
}

// What the result columns of each vector add to an address, in each plane.
SmallVector<SmallVector<Value>> TileEmitter::columnAddresses(const IntegerPanel &panel, Value column) {
  SmallVector<SmallVector<Value>> addresses(panel.tileVectors);
  for (auto [v, ofVector] : llvm::enumerate(addresses))
    for (const PackedPlane &plane : panel.codes.planes) {
      Value at = add(column, constant(static_cast<int64_t>(v) * panel.lanes));
      ofVector.push_back(codeAddress(plane.map, panel.resultDim(), add(panel.origin(panel.resultDim()), at)));
    }
  return addresses;
}

void TileEmitter::cutColumnPanel(tile::DotOp op, const IntegerPanel &panel, Value column, Value firstTurn) {
  SmallVector<SmallVector<Value>> addresses = columnAddresses(panel, column);
  loop(0, panel.steps(), 1, [&](Value step) {
    prefetchTurn(op, add(firstTurn, step));
    SmallVector<SmallVector<Value>> words = loadWords(panel, mul(step, panel.codesPerStep), addresses);
    for (int64_t index = 0; index < panel.operandsPerStep(); ++index)
      for (int64_t v = 0; v < panel.tileVectors; ++v) {
        Value at = add(mul(step, panel.operandsPerStep() * panel.tileVectors * panel.lanes),
                       constant((index * panel.tileVectors + v) * panel.lanes));
        storeVector(cutOperand(panel, words[v], index), address(panel.cut.ptr, b.getI32Type(), at));
      }
  });
}

// The multiplications of one register tile. Steps count words from contracted index 0.
class TileEmitter::IntegerSteps {
public:
  IntegerSteps(TileEmitter &emitter, tile::DotOp op, const IntegerPanel &panel, Value row, ArrayRef<Value> sets,
               ArrayRef<SmallVector<Value>> addresses)
      : e(emitter), op(op), b(emitter.b), panel(panel), addresses(addresses),
        math(emitter.b, emitter.level, panel.coeff.form) {
    // Where the coefficients of a row begin; one place for all vectors where they share a set.
    for (int64_t r = 0; r < panel.tileRows; ++r)
      for (Value set : sets) {
        Value line = e.add(e.mul(set, panel.coeff.rows), e.add(row, e.constant(r)));
        lines.push_back(e.mul(line, panel.coeff.form.limbs * panel.coeff.words));
      }
    setCount = sets.size();
  }

  // Sums over `count` steps from `begin` on, for one limb of the coefficients, onto `sums`.
  void run(SmallVectorImpl<Value> &sums, Value begin, int64_t words, int64_t limb, Value firstTurn) {
    bool halves = panel.coeff.form.kind == IntegerDot::Halves;
    // As many words as halves can be summed for without overflow.
    int64_t count = halves ? largestDivisor(words, panel.coeff.form.halvesRun / panel.operandsPerStep()) : 1;
    carry(sums, begin, words, count, /*unroll=*/1, [&](SmallVectorImpl<Value> &carried, Value step) {
      if (!halves)
        return advance(carried, step, limb, firstTurn);
      Type type = VectorType::get({2 * panel.lanes}, b.getI16Type());
      SmallVector<Value> parts(carried.size(), e.splatInt(type, 0));
      carry(parts, step, count, 1, /*unroll=*/4,
            [&](SmallVectorImpl<Value> &inner, Value word) { advance(inner, word, limb, firstTurn); });
      for (auto [sum, part] : llvm::zip(carried, parts))
        sum = math.addHalves(sum, part);
    });
  }

private:
  // A loop over [begin, begin + count) by `step` that carries `values`; straight code where it has at most `unroll`
  // turns.
  void carry(SmallVectorImpl<Value> &values, Value begin, int64_t count, int64_t step, int64_t unroll,
             function_ref<void(SmallVectorImpl<Value> &, Value)> body) {
    if (count / step <= unroll) {
      for (int64_t i = 0; i < count; i += step)
        body(values, e.add(begin, e.constant(i)));
      return;
    }
    auto turns = b.create<scf::ForOp>(begin, e.add(begin, e.constant(count)), e.constant(step), values);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(turns.getBody());
    SmallVector<Value> next(turns.getRegionIterArgs());
    body(next, turns.getInductionVar());
    b.create<scf::YieldOp>(next);
    values.assign(turns.result_begin(), turns.result_end());
  }

  // One word of every vector.
  void advance(SmallVectorImpl<Value> &sums, Value step, int64_t limb, Value firstTurn) {
    if (firstTurn)
      e.prefetchTurn(op, e.add(firstTurn, step));
    SmallVector<SmallVector<Value>> words;
    if (!panel.cut.ptr)
      words = e.loadWords(panel, e.mul(step, panel.codesPerStep), addresses);
    for (int64_t index = 0; index < panel.operandsPerStep(); ++index) {
      SmallVector<Value> codes;
      for (int64_t v = 0; v < panel.tileVectors; ++v)
        codes.push_back(panel.cut.ptr ? loadCut(step, index, v) : e.cutOperand(panel, words[v], index));
      multiplyRows(sums, codes, e.add(e.mul(step, panel.operandsPerStep()), e.constant(index)), limb);
    }
  }

  Value loadCut(Value step, int64_t index, int64_t v) {
    int64_t perStep = panel.operandsPerStep() * panel.tileVectors * panel.lanes;
    Value at = e.add(e.mul(step, perStep), e.constant((index * panel.tileVectors + v) * panel.lanes));
    return e.loadVector(e.address(panel.cut.ptr, b.getI32Type(), at), b.getI32Type(), panel.lanes);
  }

  void multiplyRows(SmallVectorImpl<Value> &sums, ArrayRef<Value> codes, Value operand, int64_t limb) {
    Type words = e.vectorOf(b.getI32Type(), panel.lanes);
    for (int64_t r = 0; r < panel.tileRows; ++r) {
      Value coeff;
      for (int64_t v = 0; v < panel.tileVectors; ++v) {
        if (v < setCount) {
          Value at = e.add(e.add(lines[r * setCount + v], e.constant(limb * panel.coeff.words)), operand);
          Value word = e.loadVector(e.address(panel.coeff.integers.ptr, b.getI32Type(), at), b.getI32Type(), 1);
          coeff = b.create<vector::BroadcastOp>(words, word);
        }
        Value &sum = sums[r * panel.tileVectors + v];
        sum = math.multiplyAdd(sum, codes[v], coeff);
      }
    }
  }

  TileEmitter &e;
  tile::DotOp op;
  ImplicitLocOpBuilder &b;
  const IntegerPanel &panel;
  ArrayRef<SmallVector<Value>> addresses;
  IntegerMath math;
  SmallVector<Value> lines;
  int64_t setCount = 1;
};

// Sums over group number `group` of the contracted dimension.
SmallVector<Value> TileEmitter::integerGroup(const IntegerPanel &panel, IntegerSteps &steps, Value group,
                                             Value firstTurn) {
  int64_t words = panel.steps() / panel.coeff.groups;
  Type ints = vectorOf(b.getI32Type(), panel.lanes);
  SmallVector<Value> sums(panel.tileRows * panel.tileVectors, splatInt(ints, 0));
  for (int64_t limb = 0; limb < panel.coeff.form.limbs; ++limb) {
    if (limb > 0)
      for (Value &sum : sums)
        sum = b.create<arith::ShLIOp>(sum, splatInt(ints, 8));
    // Turns in the order of the passes; a step's number begins with its group.
    Value turn;
    if (firstTurn)
      turn = add(firstTurn, add(mul(group, words * (panel.coeff.form.limbs - 1)), constant(limb * words)));
    steps.run(sums, mul(group, words), words, limb, turn);
  }
  return sums;
}

// Rows row.., vectors of columns column...
void TileEmitter::emitIntegerTile(tile::DotOp op, const IntegerPanel &panel, const Buffer &out, Value row, Value column,
                                  Value firstTurn) {
  int64_t lanes = panel.lanes, vectors = panel.tileVectors, groups = panel.coeff.groups;
  Type floats = vectorOf(b.getF32Type(), lanes);
  bool shared = panel.coeff.factors.shape[0] == 1;
  SmallVector<Value> columns, sets;
  for (int64_t v = 0; v < vectors; ++v) {
    columns.push_back(add(column, constant(v * lanes)));
    if (v == 0 || !shared)
      sets.push_back(coefficientSet(op, columns[v]));
  }
  SmallVector<SmallVector<Value>> addresses = columnAddresses(panel, column);
  IntegerSteps steps(*this, op, panel, row, sets, addresses);
  auto inAllLanes = [&](const Buffer &of, Value at) {
    return b.create<vector::BroadcastOp>(floats, loadVector(address(of.ptr, of.element, at), of.element, 1));
  };
  auto setOf = [&](int64_t i) { return sets[shared ? 0 : i % vectors]; };
  auto rowOf = [&](int64_t i) { return add(row, constant(i / vectors)); };
  auto offset = [&](int64_t i, Value group) {
    Value line = add(mul(setOf(i), groups), group);
    return inAllLanes(panel.coeff.offsets, add(mul(line, panel.coeff.rows), rowOf(i)));
  };
  auto factor = [&](int64_t i) {
    return inAllLanes(panel.coeff.factors, add(mul(setOf(i), panel.coeff.rows), rowOf(i)));
  };
  auto groupTotals = [&](Value group, ArrayRef<Value> totals) {
    SmallVector<Value> sums = integerGroup(panel, steps, group, firstTurn);
    for (auto [i, sum] : llvm::enumerate(sums)) {
      Value value = b.create<arith::SIToFPOp>(floats, sum);
      value = b.create<arith::AddFOp>(value, offset(i, group));
      if (op.getScale())
        value = multiplyAdd(value, eval(op.getScale(), {group, columns[i % vectors]}, lanes), totals[i]);
      sum = value;
    }
    return sums;
  };
  SmallVector<Value> totals(panel.tileRows * vectors, splat(floats, 0.0));
  if (groups == 1) {
    totals = groupTotals(constant(0), totals);
  } else {
    auto rolled = b.create<scf::ForOp>(constant(0), constant(groups), constant(1), totals);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(rolled.getBody());
    SmallVector<Value> carried(rolled.getRegionIterArgs());
    b.create<scf::YieldOp>(groupTotals(rolled.getInductionVar(), carried));
    totals.assign(rolled.result_begin(), rolled.result_end());
  }
  for (auto [i, total] : llvm::enumerate(totals)) {
    Value at = rowOf(i), to = columns[i % vectors];
    Value result = multiplyAdd(total, factor(i), eval(op.getAcc(), {at, to}, lanes));
    storeVector(result, address(out.ptr, out.element, add(mul(at, out.shape[1]), to)));
  }
}

void TileEmitter::emitIntegerDot(tile::DotOp op, const Packed &codes, const RoundedCoeff &coeff, const Buffer &out) {
  IntegerPanel panel;
  panel.coeff = coeff;
  panel.codes = codes;
  panel.contract = op.getContract();
  panel.contracted = panel.contract == 0 ? codes.tokens : codes.channels;
  panel.lanes = dotLanes(op);
  panel.codesPerStep = codesPerStep(codes.planes);
  std::tie(panel.tileRows, panel.tileVectors) = registerTile(op);
  int64_t rows = out.shape[0], rowTiles = rows / panel.tileRows, steps = panel.steps();
  bool cutOnce = rowTiles > 1 && cutsOnce(op);
  if (cutOnce)
    panel.cut = allocate({steps * panel.operandsPerStep() * panel.tileVectors * panel.lanes}, b.getI32Type());
  loop(0, out.shape[1], panel.tileVectors * panel.lanes, [&](Value column) {
    int64_t turns = cutOnce ? steps : steps * coeff.form.limbs;
    int64_t perColumn = cutOnce ? turns : turns * rowTiles;
    Value firstTurn = mul(div(column, panel.tileVectors * panel.lanes), perColumn);
    if (cutOnce)
      cutColumnPanel(op, panel, column, firstTurn);
    loop(0, rows, panel.tileRows, [&](Value row) {
      Value turn = add(firstTurn, mul(div(row, panel.tileRows), turns));
      emitIntegerTile(op, panel, out, row, column, cutOnce ? Value() : turn);
    });
  });
}
