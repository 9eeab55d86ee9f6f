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
// boundary.
tile::DotOp TileEmitter::integerDotOf(tile::CoeffOp op) {
  if (!op.getRound() || op->use_empty())
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

void TileEmitter::emitRounded(tile::CoeffOp op, tile::DotOp dot) {
  ArrayRef<int64_t> shape = cast<RankedTensorType>(op.getType()).getShape();
  RoundedCoeff coeff;
  coeff.form = integerForm(level, cast<IntegerType>(*op.getRound()),
                           getElementTypeOrSelf(dot.getX().getType()).getIntOrFloatBitWidth());
  coeff.rows = shape[1];
  coeff.groups = scaleGroups(dot);
  coeff.words = shape[2] / coeff.form.codesPerOperand();
  coeff.integers = allocate({shape[0] * shape[1] * coeff.form.limbs * coeff.words}, b.getI32Type());
  coeff.factors = allocate({shape[0], shape[1]}, b.getF32Type());
  coeff.offsets = allocate({shape[0], shape[1], coeff.groups}, b.getF32Type());
  Buffer values = allocate({shape[2]}, b.getF32Type());
  loop(0, shape[0], 1, [&](Value set) {
    loop(0, shape[1], 1, [&](Value row) {
      Value line = add(mul(set, coeff.rows), row);
      Value largest = largestCoefficient(op, set, row, values);
      Type f32 = b.getF32Type();
      Value matters = b.create<arith::CmpFOp>(arith::CmpFPredicate::OGT, largest, splat(f32, kSmallestCoefficient));
      Value perUnit = b.create<arith::DivFOp>(splat(f32, coeff.form.limit), largest);
      perUnit = b.create<arith::SelectOp>(matters, perUnit, splat(f32, 0.0));
      storeVector(b.create<arith::MulFOp>(largest, splat(f32, 1.0 / coeff.form.limit)),
                  address(coeff.factors.ptr, f32, line));
      double center = dot.getCenter().convertToFloat() - (coeff.form.movedCodes ? 128 : 0);
      int64_t length = shape[2] / coeff.groups;
      loop(0, coeff.groups, 1, [&](Value group) {
        Value sum = roundCoefficients(coeff, values, line, mul(group, length), length, perUnit);
        storeVector(b.create<arith::MulFOp>(b.create<arith::SIToFPOp>(f32, sum), splat(f32, -center)),
                    address(coeff.offsets.ptr, f32, add(mul(line, coeff.groups), group)));
      });
    });
  });
  rounded[op.getResult()] = coeff;
}

// Puts the values of a set and row into `values`; gives the largest magnitude. A NaN counts as nothing: its set is one
// of groups that no query sees.
Value TileEmitter::largestCoefficient(tile::CoeffOp op, Value set, Value row, const Buffer &values) {
  int64_t count = values.shape[0], lanes = wideLanesFor(count);
  Type type = vectorOf(b.getF32Type(), lanes);
  auto steps = b.create<scf::ForOp>(constant(0), constant(count), constant(lanes), ValueRange{splat(type, 0.0)});
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(steps.getBody());
    Value at = steps.getInductionVar(), value = evalCoeff(op, {set, row, at}, lanes);
    storeVector(value, address(values.ptr, values.element, at));
    Value size = b.create<math::AbsFOp>(value), largest = steps.getRegionIterArg(0);
    Value larger = b.create<arith::CmpFOp>(arith::CmpFPredicate::OGT, size, largest);
    b.create<scf::YieldOp>(b.create<arith::SelectOp>(larger, size, largest).getResult());
  }
  return b.create<vector::ReductionOp>(vector::CombiningKind::MAXNUMF, steps.getResult(0), arith::FastMathFlags::nnan);
}

// values[begin ..] as integers; gives their sum.
Value TileEmitter::roundCoefficients(const RoundedCoeff &coeff, const Buffer &values, Value line, Value begin,
                                     int64_t length, Value perUnit) {
  int64_t lanes = wideLanesFor(length);
  Type floats = vectorOf(b.getF32Type(), lanes), ints = vectorOf(b.getI32Type(), lanes);
  Value scale = b.create<vector::BroadcastOp>(floats, perUnit);
  auto steps = b.create<scf::ForOp>(constant(0), constant(length), constant(lanes), ValueRange{splatInt(ints, 0)});
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(steps.getBody());
    Value at = add(begin, steps.getInductionVar());
    Value value = loadVector(address(values.ptr, values.element, at), values.element, lanes);
    Value shifted = multiplyAdd(value, scale, splat(floats, kRounder));
    Value integer = b.create<arith::SubIOp>(b.create<arith::BitcastOp>(ints, shifted), splatInt(ints, kRounderBits));
    storeCoefficients(coeff, integer, line, at);
    b.create<scf::YieldOp>(b.create<arith::AddIOp>(steps.getRegionIterArg(0), integer).getResult());
  }
  return b.create<vector::ReductionOp>(vector::CombiningKind::ADD, steps.getResult(0));
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
