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

IntegerForm TileEmitter::integerFormOf(tile::DotOp op) {
  auto coeff = op.getCoeff().getDefiningOp<tile::CoeffOp>();
  return integerForm(level, cast<IntegerType>(*coeff.getRound()),
                     getElementTypeOrSelf(op.getX().getType()).getIntOrFloatBitWidth());
}

void TileEmitter::emitRounded(tile::CoeffOp op, tile::DotOp dot) {
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
  Buffer values = allocate({std::min(coeff.rows, kRowsAtOnce), shape[2]}, b.getF32Type());
  int64_t rest = coeff.rows % kRowsAtOnce;
  loop(0, shape[0], 1, [&](Value set) {
    loop(0, coeff.rows - rest, kRowsAtOnce, [&](Value row) { roundRows(op, coeff, values, set, row, kRowsAtOnce); });
    if (rest > 0)
      roundRows(op, coeff, values, set, constant(coeff.rows - rest), rest);
  });
  rounded[op.getResult()] = coeff;
}

// `count` rows of a set from `row` on.
void TileEmitter::roundRows(tile::CoeffOp op, const RoundedCoeff &coeff, const Buffer &values, Value set, Value row,
                            int64_t count) {
  int64_t length = values.shape[1] / coeff.groups, steps = values.shape[1] / lanesFor(length);
  int64_t rowTiles = llvm::divideCeil(coeff.rows, kRowsAtOnce);
  Value turn = mul(add(mul(set, rowTiles), div(row, kRowsAtOnce)), 2 * steps);
  Value largest = largestCoefficients(op, set, row, count, values, length, turn);
  Type floats = largest.getType();
  Value matters = b.create<arith::CmpFOp>(arith::CmpFPredicate::OGT, largest, splat(floats, kSmallestCoefficient));
  Value perUnit = b.create<arith::DivFOp>(splat(floats, coeff.form.limit), largest);
  perUnit = b.create<arith::SelectOp>(matters, perUnit, splat(floats, 0.0));
  Value line = add(mul(set, coeff.rows), row);
  storeFirst(b.create<arith::MulFOp>(largest, splat(floats, 1.0 / coeff.form.limit)), count,
             address(coeff.factors.ptr, coeff.factors.element, line));
  loop(0, coeff.groups, 1, [&](Value group) {
    Value sums = roundCoefficients(op, coeff, values, line, mul(group, length), length, perUnit, count,
                                   add(turn, constant(steps)));
    Value offsets = b.create<arith::MulFOp>(b.create<arith::SIToFPOp>(floats, sums), splat(floats, -coeff.center));
    Value at = add(mul(add(mul(set, coeff.groups), group), coeff.rows), row);
    storeFirst(offsets, count, address(coeff.offsets.ptr, coeff.offsets.element, at));
  });
}

// The first `count` lanes.
void TileEmitter::storeFirst(Value vector, int64_t count, Value ptr) {
  if (count < cast<VectorType>(vector.getType()).getDimSize(0))
    vector = b.create<vector::ExtractStridedSliceOp>(vector, ArrayRef<int64_t>{0}, ArrayRef<int64_t>{count},
                                                     ArrayRef<int64_t>{1});
  storeVector(vector, ptr);
}

// Each of up to four vectors combined across its lanes: results in the first lanes of a vector, one for each.
Value TileEmitter::combineLanes(ArrayRef<Value> vectors, function_ref<Value(Value, Value)> combine) {
  SmallVector<Value> left(vectors);
  while (!llvm::isPowerOf2_64(left.size()))
    left.push_back(left.back());
  int64_t lanes = cast<VectorType>(left[0].getType()).getDimSize(0), parts = 1; // lanes i mod parts belong together
  // Two vectors become one: in each run of four lanes first 32-bit unpacks, then 64-bit ones.
  for (; left.size() > 1; parts *= 2) {
    SmallVector<Value> next;
    for (size_t pair = 0; pair < left.size(); pair += 2) {
      SmallVector<int64_t> low, high;
      for (int64_t lane = 0; lane < lanes; ++lane) {
        int64_t in = lane % 4, from = lane - in;
        from += parts == 1 ? in / 2 + in % 2 * lanes : in % 2 + in / 2 * lanes;
        low.push_back(from);
        high.push_back(from + 2);
      }
      next.push_back(combine(b.create<vector::ShuffleOp>(left[pair], left[pair + 1], low),
                             b.create<vector::ShuffleOp>(left[pair], left[pair + 1], high)));
    }
    left = next;
  }
  Value result = left[0];
  for (int64_t width = lanes / 2; width >= parts; width /= 2) {
    auto half = [&](int64_t begin) {
      return b.create<vector::ExtractStridedSliceOp>(result, ArrayRef<int64_t>{begin}, ArrayRef<int64_t>{width},
                                                     ArrayRef<int64_t>{1});
    };
    Value low = half(0), high = half(width);
    result = combine(low, high);
  }
  return result;
}

// Puts the values of `count` rows into `values`; gives their largest magnitudes. A NaN counts as nothing: its set is
// one of groups that no query sees.
Value TileEmitter::largestCoefficients(tile::CoeffOp op, Value set, Value row, int64_t count, const Buffer &values,
                                       int64_t groupLength, Value firstTurn) {
  int64_t length = values.shape[1], lanes = lanesFor(groupLength);
  Type type = vectorOf(b.getF32Type(), lanes);
  auto larger = [&](Value x, Value y) -> Value {
    return b.create<arith::SelectOp>(b.create<arith::CmpFOp>(arith::CmpFPredicate::OGT, x, y), x, y);
  };
  SmallVector<Value> largest(count, splat(type, 0.0));
  auto steps = b.create<scf::ForOp>(constant(0), constant(length), constant(lanes), largest);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(steps.getBody());
    Value at = steps.getInductionVar();
    prefetchTurn(op, add(firstTurn, div(at, lanes)));
    for (auto [r, size] : llvm::enumerate(largest)) {
      Value index = constant(static_cast<int64_t>(r)), value = evalCoeff(op, {set, add(row, index), at}, lanes);
      storeVector(value, address(values.ptr, values.element, add(mul(index, length), at)));
      size = larger(b.create<math::AbsFOp>(value), steps.getRegionIterArg(r));
    }
    b.create<scf::YieldOp>(largest);
  }
  return combineLanes(SmallVector<Value>(steps.getResults()), larger);
}

// values[.., begin ..] of `count` rows as integers; gives their sums.
Value TileEmitter::roundCoefficients(tile::CoeffOp op, const RoundedCoeff &coeff, const Buffer &values, Value line,
                                     Value begin, int64_t length, Value perUnit, int64_t count, Value firstTurn) {
  int64_t lanes = lanesFor(length);
  Type floats = vectorOf(b.getF32Type(), lanes), ints = vectorOf(b.getI32Type(), lanes);
  SmallVector<Value> sums(count, splatInt(ints, 0)), scales;
  for (int64_t r = 0; r < count; ++r)
    scales.push_back(b.create<vector::BroadcastOp>(floats, b.create<vector::ExtractOp>(perUnit, r)));
  auto steps = b.create<scf::ForOp>(constant(0), constant(length), constant(lanes), sums);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(steps.getBody());
    Value at = add(begin, steps.getInductionVar());
    prefetchTurn(op, add(firstTurn, div(at, lanes)));
    for (auto [r, sum] : llvm::enumerate(sums)) {
      Value index = constant(static_cast<int64_t>(r));
      Value from = add(mul(index, values.shape[1]), at);
      Value value = loadVector(address(values.ptr, values.element, from), values.element, lanes);
      Value shifted = multiplyAdd(value, scales[r], splat(floats, kRounder));
      Value integer = b.create<arith::SubIOp>(b.create<arith::BitcastOp>(ints, shifted), splatInt(ints, kRounderBits));
      storeCoefficients(coeff, integer, add(line, index), at);
      sum = b.create<arith::AddIOp>(steps.getRegionIterArg(r), integer);
    }
    b.create<scf::YieldOp>(sums);
  }
  return combineLanes(SmallVector<Value>(steps.getResults()),
                      [&](Value x, Value y) { return b.create<arith::AddIOp>(x, y); });
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
