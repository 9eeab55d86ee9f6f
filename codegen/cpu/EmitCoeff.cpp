// SPDX-License-Identifier: Apache-2.0
//
// kvq_tile.coeff with rounding: coefficients as integers in the order in which the level's multiplication takes them.
//
// Per set and row: the largest magnitude, then every value over it as an integer. What the center takes away is known
// here, from the rounded coefficients themselves (format-spec accuracy_c1), so that a dot only adds it.

#include "codegen/cpu/TileEmitter.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::cpu;

// Below it all coefficients of a row count as 0: their reciprocal would overflow, and no sum that matters holds them.
static constexpr double kSmallestCoefficient = 1e-30;
static constexpr double kRounder = 12582912.0; // 1.5 * 2^23: adding it leaves the rounded number in the low bits
static constexpr int64_t kRounderBits = 0x4B400000;

// A dot that takes op's integers, or null. All users have to be such dots, over codes of the same type that lie in
// words as such dots want them, and with as many groups: attention has one over whole tiles and one over those at the
// boundary. Coefficients that may be f16 stay f32.
tile::DotOp TileEmitter::integerDotOf(tile::CoeffOp op) {
  if (!op.getRound() || !isa<IntegerType>(*op.getRound()) || op->use_empty())
    return {};
  auto first = dyn_cast<tile::DotOp>(*op->user_begin());
  bool all = first && llvm::all_of(op->getUsers(), [&](Operation *user) {
               auto dot = dyn_cast<tile::DotOp>(user);
               return dot && dot.getCoeff() == op.getResult() && isOverByteParts(dot) &&
                      dot.getX().getType() == first.getX().getType() && dot.getCenter() == first.getCenter() &&
                      scaleGroups(dot) == scaleGroups(first);
             });
  return all ? first : tile::DotOp();
}

bool TileEmitter::takesIntegers(tile::DotOp op) {
  auto coeff = op.getCoeff().getDefiningOp<tile::CoeffOp>();
  return coeff && integerDotOf(coeff);
}

IntegerForm TileEmitter::integerFormOf(tile::DotOp op) {
  auto coeff = op.getCoeff().getDefiningOp<tile::CoeffOp>();
  return integerForm(level, cast<IntegerType>(*coeff.getRound()),
                     getElementTypeOrSelf(op.getX().getType()).getIntOrFloatBitWidth());
}

LogicalResult TileEmitter::emitRounded(tile::CoeffOp op, tile::DotOp dot) {
  if (!buffers.contains(op.getValues()) && failed(materialize(op.getValues()))) // they are read twice
    return failure();
  ArrayRef<int64_t> shape = cast<RankedTensorType>(op.getType()).getShape();
  RoundedCoeff coeff;
  coeff.form = integerFormOf(dot);
  coeff.rows = shape[1];
  coeff.groups = scaleGroups(dot);
  coeff.words = shape[2] / coeff.form.codesPerOperand();
  coeff.center = dot.getCenter().convertToFloat() - (coeff.form.movedCodes ? 128 : 0);
  coeff.integers = allocate({shape[0] * shape[1] * coeff.form.limbs * coeff.words}, b.getI32Type());
  coeff.factors = allocate({shape[0], shape[1]}, b.getF32Type());
  coeff.offsets = allocate({shape[0], coeff.groups, shape[1]}, b.getF32Type());
  loop(0, shape[0], 1, [&](Value set) {
    forRowTiles(coeff.rows, [&](Value row, int64_t count) { roundRows(op, coeff, set, row, count); });
  });
  rounded[op.getResult()] = coeff;
  return success();
}

// `count` rows of a set from `row` on.
void TileEmitter::roundRows(tile::CoeffOp op, const RoundedCoeff &coeff, Value set, Value row, int64_t count) {
  int64_t contracted = cast<RankedTensorType>(op.getType()).getDimSize(2), length = contracted / coeff.groups;
  int64_t lanes = lanesFor(length), steps = contracted / lanes;
  Value turn = mul(add(mul(set, llvm::divideCeil(coeff.rows, rowsAtOnce())), div(row, rowsAtOnce())), 2 * steps);
  auto values = [&](int64_t r, Value at) { return evalCoeff(op, {set, add(row, constant(r)), at}, lanes); };

  // The largest magnitudes. A NaN counts as nothing: its set is one of groups that no query sees.
  auto larger = [&](Value x, Value y) -> Value {
    return b.create<arith::SelectOp>(b.create<arith::CmpFOp>(arith::CmpFPredicate::OGT, x, y), x, y);
  };
  SmallVector<Value> nothing(count, splat(vectorOf(b.getF32Type(), lanes), 0.0));
  auto sizes = accumulate(0, contracted, lanes, nothing, [&](Value at, MutableArrayRef<Value> largest) {
    prefetchTurn(op, add(turn, div(at, lanes)));
    for (auto [r, size] : llvm::enumerate(largest))
      size = larger(b.create<math::AbsFOp>(values(r, at)), size);
  });
  Value largest = combineLanes(sizes, larger);
  Type floats = largest.getType();
  Value matters = b.create<arith::CmpFOp>(arith::CmpFPredicate::OGT, largest, splat(floats, kSmallestCoefficient));
  Value perUnit = b.create<arith::DivFOp>(splat(floats, coeff.form.limit), largest);
  perUnit = b.create<arith::SelectOp>(matters, perUnit, splat(floats, 0.0));
  Value line = add(mul(set, coeff.rows), row);
  storeFirst(b.create<arith::MulFOp>(largest, splat(floats, 1.0 / coeff.form.limit)), count,
             address(coeff.factors.ptr, coeff.factors.element, line));

  SmallVector<Value> scales;
  for (int64_t r = 0; r < count; ++r)
    scales.push_back(
        b.create<vector::BroadcastOp>(vectorOf(b.getF32Type(), lanes), b.create<vector::ExtractOp>(perUnit, r)));
  loop(0, coeff.groups, 1, [&](Value group) {
    Value begin = mul(group, length);
    SmallVector<Value> none(count, splatInt(vectorOf(b.getI32Type(), lanes), 0));
    auto sums = accumulate(0, length, lanes, none, [&](Value step, MutableArrayRef<Value> sums) {
      Value at = add(begin, step);
      prefetchTurn(op, add(turn, add(div(at, lanes), constant(steps))));
      for (auto [r, sum] : llvm::enumerate(sums)) {
        Value integers = roundVector(values(r, at), scales[r]);
        storeCoefficients(coeff, integers, add(line, constant(static_cast<int64_t>(r))), at);
        sum = b.create<arith::AddIOp>(sum, integers);
      }
    });
    Value total = combineLanes(sums, [&](Value x, Value y) { return b.create<arith::AddIOp>(x, y); });
    Value offsets = b.create<arith::MulFOp>(b.create<arith::SIToFPOp>(floats, total), splat(floats, -coeff.center));
    Value at = add(mul(add(mul(set, coeff.groups), group), coeff.rows), row);
    storeFirst(offsets, count, address(coeff.offsets.ptr, coeff.offsets.element, at));
  });
}

// values * perUnit to the nearest integers.
Value TileEmitter::roundVector(Value values, Value perUnit) {
  Type ints = VectorType::get(cast<VectorType>(values.getType()).getShape(), b.getI32Type());
  Value shifted = multiplyAdd(values, perUnit, splat(values.getType(), kRounder));
  return b.create<arith::SubIOp>(b.create<arith::BitcastOp>(ints, shifted), splatInt(ints, kRounderBits));
}

// A vector of integers, those of contracted index `at` on, into coefficient words.
void TileEmitter::storeCoefficients(const RoundedCoeff &coeff, Value integers, Value line, Value at) {
  auto type = cast<VectorType>(integers.getType());
  int64_t lanes = type.getDimSize(0);
  Value firstWord = mul(line, coeff.form.limbs * coeff.words);
  if (coeff.form.usesPairs()) {
    SmallVector<int64_t> order; // even bytes of a word meet one operand, odd ones the next
    for (int64_t lane = 0; lane < lanes; lane += 4)
      order.append({lane, lane + 2, lane + 1, lane + 3});
    Value halves = b.create<arith::TruncIOp>(VectorType::get({lanes}, b.getI16Type()), integers);
    halves = b.create<vector::ShuffleOp>(halves, halves, order);
    return storeVector(halves, address(coeff.integers.ptr, b.getI16Type(), add(mul(firstWord, 2), at)));
  }
  auto storeLimb = [&](int64_t limb, Value value) {
    Value bytes = b.create<arith::TruncIOp>(VectorType::get({lanes}, b.getI8Type()), value);
    Value place = add(mul(add(firstWord, constant(limb * coeff.words)), 4), at);
    storeVector(bytes, address(coeff.integers.ptr, b.getI8Type(), place));
  };
  if (coeff.form.limbs == 1)
    return storeLimb(0, integers);
  // The low byte is signed where coefficients are: half of 256 more makes the high one fit it.
  Value high = integers;
  if (coeff.form.signedCoeff)
    high = b.create<arith::AddIOp>(high, splatInt(type, 128));
  storeLimb(0, b.create<arith::ShRSIOp>(high, splatInt(type, 8)));
  storeLimb(1, integers);
}
