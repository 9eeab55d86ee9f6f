// SPDX-License-Identifier: Apache-2.0
//
// Functions that LLVM would turn into calls on some level, as arithmetic on a scalar or a vector. An emitted object may
// not call anything.

#include "codegen/cpu/TileEmitter.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

#include <cmath>

using namespace mlir;
using namespace mlir::kvq::cpu;

// One FMA where the level has one, two operations otherwise (llvm.fma would be a call there).
Value TileEmitter::multiplyAdd(Value a, Value x, Value c) { return b.create<LLVM::FMulAddOp>(a, x, c); }

static Type withElement(Type type, Type element) {
  if (auto vector = dyn_cast<VectorType>(type))
    return VectorType::get(vector.getShape(), element);
  return element;
}

// 2^f, f in [-1/2, 1/2]: the polynomial of degree 6 with the least relative error, 1.9e-9 before rounding (Remez), so
// that 2^0 is 1.
static constexpr double kExp2Polynomial[] = {1.0000000005541663,   0.693147205737269,    0.24022646890634677,
                                             0.05550328776963366,  0.009618488957046853, 0.0013399931219749573,
                                             0.0001534581202176796};
// The one of degree 4 among those with 2^0 = 1, 2.8e-6: for approximate functions (fastmath afn).
static constexpr double kShortExp2Polynomial[] = {1.0, 0.693124192915619, 0.24024098607872255, 0.055906428980010386,
                                                  0.009582854759925773};
static ArrayRef<double> exp2Polynomial(bool approximate) {
  return approximate ? ArrayRef<double>(kShortExp2Polynomial) : ArrayRef<double>(kExp2Polynomial);
}
// Below it 2^x is 0, so that a masked score weighs nothing.
static constexpr double kSmallestExponent = -124.5;

// 2^x = 2^n 2^f, n = round(x). Adding 1.5 * 2^23 rounds x and leaves n in the low bits. Above 128 the result is
// infinite. A select of a comparison is one instruction where minnum is three, and keeps a NaN.
Value TileEmitter::emitExp2(Value x, bool approximate) {
  if (Value scaled = emitExp2ByScale(x, approximate))
    return scaled;
  Type type = x.getType(), ints = withElement(type, b.getI32Type());
  Value low = splat(type, kSmallestExponent), high = splat(type, 128.0), magic = splat(type, 12582912.0);
  Value above = b.create<arith::CmpFOp>(arith::CmpFPredicate::OGT, x, high);
  Value clamped = b.create<arith::SelectOp>(above, high, x);
  Value below = b.create<arith::CmpFOp>(arith::CmpFPredicate::OLT, clamped, low);
  clamped = b.create<arith::SelectOp>(below, low, clamped);
  Value shifted = b.create<arith::AddFOp>(clamped, magic);
  Value f = b.create<arith::SubFOp>(clamped, b.create<arith::SubFOp>(shifted, magic));
  // Half of 2^f, doubled after the exponent's shift, so that n = 128 becomes infinity and not a negative number.
  Value p = emitPolynomial(f, exp2Polynomial(approximate), 0.5);
  Value bits = b.create<arith::ShLIOp>(b.create<arith::BitcastOp>(ints, shifted), splatInt(ints, 23));
  Value result = b.create<arith::BitcastOp>(type, b.create<arith::AddIOp>(b.create<arith::BitcastOp>(ints, p), bits));
  result = b.create<arith::AddFOp>(result, result);
  Value tiny = b.create<arith::CmpFOp>(arith::CmpFPredicate::OLE, x, low);
  return b.create<arith::SelectOp>(tiny, splat(type, 0.0), result);
}

// The same by AVX-512's vscalefps, which takes any n: half as many instructions. An infinite x makes f a NaN, and the
// instruction gives 0 or infinity for a NaN scaled by an infinite n. Null where the level or the number of lanes has
// no such instruction.
Value TileEmitter::emitExp2ByScale(Value x, bool approximate) {
  auto type = dyn_cast<VectorType>(x.getType());
  int64_t lanes = type ? type.getDimSize(0) : 1;
  if (!level.hasScale || level.spelledOut || (lanes != 4 && lanes != 8 && lanes != 16))
    return {};
  Value n = b.create<math::RoundEvenOp>(x);
  Value p = emitPolynomial(b.create<arith::SubFOp>(x, n), exp2Polynomial(approximate), 1);
  Value zero = splat(type, 0.0);
  SmallVector<Value> operands = {p, n, zero, splatInt(b.getIntegerType(lanes == 16 ? 16 : 8), -1)};
  if (lanes == 16)
    operands.push_back(splatInt(b.getI32Type(), 4)); // rounding as everywhere
  auto name = b.getStringAttr("llvm.x86.avx512.mask.scalef.ps." + std::to_string(lanes * 32));
  Value result = b.create<LLVM::CallIntrinsicOp>(type, name, operands).getResult(0);
  Value matters = b.create<arith::CmpFOp>(arith::CmpFPredicate::UGT, x, splat(type, kSmallestExponent));
  return b.create<arith::SelectOp>(matters, result, zero);
}

// factor * (c0 + c1 x + ..).
Value TileEmitter::emitPolynomial(Value x, ArrayRef<double> coefficients, double factor) {
  Value p = splat(x.getType(), factor * coefficients.back());
  for (double coefficient : llvm::reverse(coefficients.drop_back()))
    p = multiplyAdd(p, x, splat(x.getType(), factor * coefficient));
  return p;
}

// log2(x) for positive normal x: exponent plus 2/ln2 atanh((m-1)/(m+1)), m in [sqrt(1/2), sqrt(2)), to the 9th power:
// error 4e-9 before rounding. log2(0) = -inf, infinity and NaN stay as they are, negative x gives NaN.
Value TileEmitter::emitLog2(Value x) {
  Type type = x.getType(), ints = withElement(type, b.getI32Type());
  Value bits = b.create<arith::BitcastOp>(ints, x);
  // Bias the split so that the mantissa lands in [sqrt(1/2), sqrt(2)).
  Value offset = b.create<arith::SubIOp>(bits, splatInt(ints, 0x3f3504f3));
  Value exponent = b.create<arith::ShRSIOp>(offset, splatInt(ints, 23));
  Value mantissa = b.create<arith::SubIOp>(bits, b.create<arith::ShLIOp>(exponent, splatInt(ints, 23)));
  Value m = b.create<arith::BitcastOp>(type, mantissa), one = splat(type, 1.0);
  Value s = b.create<arith::DivFOp>(b.create<arith::SubFOp>(m, one), b.create<arith::AddFOp>(m, one));
  Value s2 = b.create<arith::MulFOp>(s, s);
  Value p = splat(type, 1.0 / 9.0);
  for (int power : {7, 5, 3, 1})
    p = multiplyAdd(p, s2, splat(type, 1.0 / power));
  Value fraction = b.create<arith::MulFOp>(b.create<arith::MulFOp>(s, p), splat(type, 2.0 / std::log(2.0)));
  Value result = b.create<arith::AddFOp>(b.create<arith::SIToFPOp>(type, exponent), fraction);
  Value finite = b.create<arith::CmpFOp>(arith::CmpFPredicate::OLT, x, splat(type, INFINITY));
  result = b.create<arith::SelectOp>(finite, result, x);
  Value zero = splat(type, 0.0);
  Value isZero = b.create<arith::CmpFOp>(arith::CmpFPredicate::OEQ, x, zero);
  Value negative = b.create<arith::CmpFOp>(arith::CmpFPredicate::OLT, x, zero);
  result = b.create<arith::SelectOp>(isZero, splat(type, -INFINITY), result);
  return b.create<arith::SelectOp>(negative, splat(type, NAN), result);
}

// Ties to even without roundps: adding and subtracting 2^23 with x's sign, for |x| < 2^23; larger values are integers.
Value mlir::kvq::cpu::emitRoundEven(ImplicitLocOpBuilder &b, Value x) {
  Type type = x.getType(), ints = withElement(type, b.getI32Type());
  auto bitsOf = [&](uint32_t bits) -> Value {
    TypedAttr scalar = b.getI32IntegerAttr(static_cast<int32_t>(bits));
    if (auto vector = dyn_cast<VectorType>(ints))
      scalar = DenseElementsAttr::get(vector, scalar);
    return b.create<arith::ConstantOp>(scalar);
  };
  Value bits = b.create<arith::BitcastOp>(ints, x);
  Value sign = b.create<arith::AndIOp>(bits, bitsOf(0x80000000));
  Value magic = b.create<arith::BitcastOp>(type, b.create<arith::OrIOp>(sign, bitsOf(0x4b000000)));
  Value rounded = b.create<arith::SubFOp>(b.create<arith::AddFOp>(x, magic), magic);
  Value size = b.create<arith::AndIOp>(bits, bitsOf(0x7fffffff));
  Value small = b.create<arith::CmpIOp>(arith::CmpIPredicate::ult, size, bitsOf(0x4b000000));
  return b.create<arith::SelectOp>(small, rounded, x);
}

// The bits of an f16 or bf16 as f32.
Value TileEmitter::emitExtend(Value half, bool bfloat) {
  Type ints = withElement(half.getType(), b.getI32Type()), floats = withElement(half.getType(), b.getF32Type());
  if (!bfloat && level.hasHalfConversion) {
    Value typed = b.create<arith::BitcastOp>(withElement(half.getType(), b.getF16Type()), half);
    return b.create<arith::ExtFOp>(floats, typed);
  }
  Value bits = b.create<arith::ExtUIOp>(ints, half);
  if (bfloat)
    return b.create<arith::BitcastOp>(floats, b.create<arith::ShLIOp>(bits, splatInt(ints, 16)));
  // Exponent and mantissa moved to f32's places are the value times 2^-112, subnormals included.
  Value sign = b.create<arith::ShLIOp>(b.create<arith::AndIOp>(bits, splatInt(ints, 0x8000)), splatInt(ints, 16));
  Value rest = b.create<arith::ShLIOp>(b.create<arith::AndIOp>(bits, splatInt(ints, 0x7fff)), splatInt(ints, 13));
  Value scaled = b.create<arith::MulFOp>(b.create<arith::BitcastOp>(floats, rest), splat(floats, 0x1p112));
  Value special = b.create<arith::CmpIOp>(arith::CmpIPredicate::uge, rest, splatInt(ints, 0x0f800000));
  Value infinite = b.create<arith::OrIOp>(rest, splatInt(ints, 0x7f800000));
  Value magnitude = b.create<arith::SelectOp>(special, infinite, b.create<arith::BitcastOp>(ints, scaled));
  return b.create<arith::BitcastOp>(floats, b.create<arith::OrIOp>(magnitude, sign));
}

// An f32 rounded to f16 or bf16 (nearest, ties to even), as bits. NaN stays NaN.
Value TileEmitter::emitTruncate(Value x, bool bfloat) {
  Type halves = withElement(x.getType(), b.getI16Type()), ints = withElement(x.getType(), b.getI32Type());
  if (!bfloat && level.hasHalfConversion) {
    Value rounded = b.create<arith::TruncFOp>(withElement(x.getType(), b.getF16Type()), x);
    return b.create<arith::BitcastOp>(halves, rounded);
  }
  Value bits = b.create<arith::BitcastOp>(ints, x);
  Value isNan = b.create<arith::CmpFOp>(arith::CmpFPredicate::UNO, x, x);
  auto shiftRight = [&](Value v, int64_t by) { return b.create<arith::ShRUIOp>(v, splatInt(ints, by)).getResult(); };
  auto lowestKept = [&](Value v, int64_t by) {
    return b.create<arith::AndIOp>(shiftRight(v, by), splatInt(ints, 1)).getResult();
  };
  if (bfloat) {
    Value bias = b.create<arith::AddIOp>(lowestKept(bits, 16), splatInt(ints, 0x7fff));
    Value rounded = shiftRight(b.create<arith::AddIOp>(bits, bias), 16);
    Value quiet = b.create<arith::OrIOp>(shiftRight(bits, 16), splatInt(ints, 0x40));
    return b.create<arith::TruncIOp>(halves, b.create<arith::SelectOp>(isNan, quiet, rounded));
  }
  Value size = b.create<arith::AndIOp>(bits, splatInt(ints, 0x7fffffff));
  Value bias = b.create<arith::AddIOp>(lowestKept(size, 13), splatInt(ints, 0xfff - (112 << 23)));
  Value normal = shiftRight(b.create<arith::AddIOp>(size, bias), 13);
  // Below 2^-14: adding 1/2 puts the last kept bit, 2^-24, at the end of the mantissa.
  Type floats = x.getType();
  Value lifted = b.create<arith::AddFOp>(b.create<arith::BitcastOp>(floats, size), splat(floats, 0.5));
  Value subnormal = b.create<arith::SubIOp>(b.create<arith::BitcastOp>(ints, lifted), splatInt(ints, 0x3f000000));
  auto below = [&](int64_t limit) {
    return b.create<arith::CmpIOp>(arith::CmpIPredicate::ult, size, splatInt(ints, limit)).getResult();
  };
  Value result = b.create<arith::SelectOp>(below(0x38800000), subnormal, normal);
  result = b.create<arith::SelectOp>(below(0x477ff000), result, splatInt(ints, 0x7c00));
  result = b.create<arith::SelectOp>(isNan, splatInt(ints, 0x7e00), result);
  Value sign = b.create<arith::AndIOp>(shiftRight(bits, 16), splatInt(ints, 0x8000));
  return b.create<arith::TruncIOp>(halves, b.create<arith::OrIOp>(result, sign));
}
