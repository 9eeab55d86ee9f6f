// SPDX-License-Identifier: Apache-2.0
//
// Integer multiplications of a level, each in its own instruction and in plain IR.

#include "codegen/cpu/IntegerForm.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace mlir::kvq::cpu;

static constexpr int64_t kLongestSum = 256; // contracted codes: the largest head, the longest tile

IntegerForm mlir::kvq::cpu::integerForm(const CpuLevel &level, IntegerType rounding, int64_t bits) {
  IntegerForm form;
  form.signedCoeff = rounding.isSigned();
  bool wide = rounding.getWidth() == 16;
  int64_t byteLimit = form.signedCoeff ? 127 : 255;
  form.kind = level.integers;
  // pmaddubsw saturates with codes of 8 bits, and twice it is no faster than pmaddwd once.
  if (form.kind == IntegerDot::Halves && (wide || bits == 8))
    form.kind = IntegerDot::Pairs;
  switch (form.kind) {
  case IntegerDot::Pairs:
    form.limit = 32767;
    break;
  case IntegerDot::Halves:
    form.limit = byteLimit;
    form.halvesRun = 32767 / (2 * byteLimit * ((int64_t(1) << bits) - 1));
    break;
  case IntegerDot::Bytes:
  case IntegerDot::SameSigns:
    form.limbs = wide ? 2 : 1;
    form.limit = !wide ? byteLimit : form.signedCoeff ? 127 * 256 + 127 : 65535;
    // Bytes multiplies unsigned by signed, SameSigns signed by signed or unsigned by unsigned.
    form.movedCodes = bits == 8 && (form.kind == IntegerDot::Bytes) != form.signedCoeff;
    break;
  }
  int64_t largestCode = form.movedCodes ? 128 : (int64_t(1) << bits) - 1;
  form.limit = std::min(form.limit, ((int64_t(1) << 31) - 1) / (kLongestSum * largestCode));
  return form;
}

static int64_t lanesOf(Value value) { return cast<VectorType>(value.getType()).getDimSize(0); }

Value IntegerMath::asBytes(Value words) {
  return b.create<vector::BitCastOp>(VectorType::get({4 * lanesOf(words)}, b.getI8Type()), words);
}

Value IntegerMath::asHalves(Value words) {
  return b.create<vector::BitCastOp>(VectorType::get({2 * lanesOf(words)}, b.getI16Type()), words);
}

Value IntegerMath::call(llvm::StringRef intrinsic, Type result, ValueRange operands) {
  return b.create<LLVM::CallIntrinsicOp>(result, b.getStringAttr(intrinsic), operands).getResult(0);
}

Value IntegerMath::part(Value words, int64_t index, int64_t bits, bool isSigned) {
  auto by = [&](int64_t count) {
    TypedAttr amount = DenseElementsAttr::get(cast<VectorType>(words.getType()), b.getI32IntegerAttr(count));
    return b.create<arith::ConstantOp>(amount);
  };
  Value moved = b.create<arith::ShLIOp>(words, by(32 - bits * (index + 1)));
  return isSigned ? b.create<arith::ShRSIOp>(moved, by(32 - bits)).getResult()
                  : b.create<arith::ShRUIOp>(moved, by(32 - bits)).getResult();
}

Value IntegerMath::spelledOut(Value a, bool signedA, Value c, bool signedC, int64_t bits) {
  Value sum;
  for (int64_t index = 0; index < 32 / bits; ++index) {
    Value product = b.create<arith::MulIOp>(part(a, index, bits, signedA), part(c, index, bits, signedC));
    sum = sum ? b.create<arith::AddIOp>(sum, product).getResult() : product;
  }
  return sum;
}

Value IntegerMath::pairs(Value a, Value c) {
  if (level.arch != Arch::X86 || level.spelledOut)
    return spelledOut(a, true, c, true, 16);
  switch (lanesOf(a)) {
  case 4:
    return call("llvm.x86.sse2.pmadd.wd", a.getType(), {asHalves(a), asHalves(c)});
  case 8:
    return call("llvm.x86.avx2.pmadd.wd", a.getType(), {asHalves(a), asHalves(c)});
  default:
    return call("llvm.x86.avx512.pmaddw.d.512", a.getType(), {asHalves(a), asHalves(c)});
  }
}

// Only on x86: the sums of a lane's low and high products, as i16.
Value IntegerMath::multiplyHalves(Value codes, Value coeff) {
  Value a = form.signedCoeff ? codes : coeff, c = form.signedCoeff ? coeff : codes; // unsigned, signed
  auto result = VectorType::get({2 * lanesOf(a)}, b.getI16Type());
  if (level.spelledOut) { // without saturation: halvesRun keeps the sums in range
    auto sum = [&](int64_t index) {
      return b.create<arith::AddIOp>(
          b.create<arith::MulIOp>(part(a, index, 8, false), part(c, index, 8, true)),
          b.create<arith::MulIOp>(part(a, index + 1, 8, false), part(c, index + 1, 8, true)));
    };
    auto sixteen = DenseElementsAttr::get(cast<VectorType>(a.getType()), b.getI32IntegerAttr(16));
    Value shift = b.create<arith::ConstantOp>(sixteen);
    Value low = b.create<arith::ShRUIOp>(b.create<arith::ShLIOp>(sum(0), shift), shift);
    return asHalves(b.create<arith::OrIOp>(low, b.create<arith::ShLIOp>(sum(2), shift)));
  }
  switch (lanesOf(a)) {
  case 4:
    return call("llvm.x86.ssse3.pmadd.ub.sw.128", result, {asBytes(a), asBytes(c)});
  case 8:
    return call("llvm.x86.avx2.pmadd.ub.sw", result, {asBytes(a), asBytes(c)});
  default:
    return call("llvm.x86.avx512.pmaddubs.w.512", result, {asBytes(a), asBytes(c)});
  }
}

Value IntegerMath::addHalves(Value acc, Value halves) {
  TypedAttr ones = DenseElementsAttr::get(cast<VectorType>(acc.getType()), b.getI32IntegerAttr(0x00010001));
  Value words = b.create<vector::BitCastOp>(acc.getType(), halves);
  return b.create<arith::AddIOp>(acc, pairs(words, b.create<arith::ConstantOp>(ones)));
}

Value IntegerMath::multiplyAdd(Value acc, Value codes, Value coeff) {
  if (form.usesPairs())
    return b.create<arith::AddIOp>(acc, pairs(codes, coeff));
  if (form.kind == IntegerDot::Halves)
    return b.create<arith::AddIOp>(acc, multiplyHalves(codes, coeff));
  bool same = form.kind == IntegerDot::SameSigns, signedCoeff = form.signedCoeff;
  bool signedCodes = same ? signedCoeff : !signedCoeff;
  if (level.spelledOut)
    return b.create<arith::AddIOp>(acc, spelledOut(codes, signedCodes, coeff, signedCoeff, 8));
  Value x = asBytes(codes), y = asBytes(coeff);
  if (same)
    return call(signedCoeff ? "llvm.aarch64.neon.sdot" : "llvm.aarch64.neon.udot", acc.getType(), {acc, x, y});
  if (signedCodes)
    std::swap(x, y);
  switch (lanesOf(acc)) {
  case 4:
    return call("llvm.x86.avx512.vpdpbusd.128", acc.getType(), {acc, x, y});
  case 8:
    return call("llvm.x86.avx512.vpdpbusd.256", acc.getType(), {acc, x, y});
  default:
    return call("llvm.x86.avx512.vpdpbusd.512", acc.getType(), {acc, x, y});
  }
}
