// SPDX-License-Identifier: Apache-2.0
//
// How a level multiplies codes by coefficients that are integers (format-spec accuracy_c1): which bits of a coefficient
// meet which bits of a word, and the one instruction that does it.
//
// A word of 32 bits holds codes in four bytes; byte j of plane e is the code of contracted index 4e + j. An *operand*
// is what one multiplication takes of every word of a vector: a plane (four codes a lane), or, for products of i16, the
// even or the odd bytes of a plane (two codes a lane). A *coefficient word* is the same for all lanes: the coefficients
// that meet an operand, as bytes or as halves.
#pragma once

#include "codegen/cpu/Target.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvq::cpu {

struct IntegerForm {
  IntegerDot kind = IntegerDot::Pairs;
  int64_t limbs = 1;       // passes over the codes; each takes 8 bits of the coefficients
  bool signedCoeff = true; // the highest limb; the lower one of two is signed too
  bool movedCodes = false; // codes are code - 128, as signed bytes
  int64_t limit = 127;     // largest magnitude of a coefficient
  int64_t halvesRun = 1;   // Halves: operands whose products are summed in i16 without overflow

  bool usesPairs() const { return kind == IntegerDot::Pairs; }
  int64_t operandsPerPlane() const { return usesPairs() ? 2 : 1; }
  int64_t codesPerOperand() const { return usesPairs() ? 2 : 4; }
};

// For coefficients of that rounding (si8, ui8, si16, ui16) and codes of so many bits.
IntegerForm integerForm(const CpuLevel &level, IntegerType rounding, int64_t bits);

// One level's multiplication. Codes and coefficients are vectors of as many i32 as acc has lanes, cut as above.
class IntegerMath {
public:
  IntegerMath(ImplicitLocOpBuilder &b, const CpuLevel &level, const IntegerForm &form)
      : b(b), level(level), form(form) {}
  // acc + sums of products: an i32 a lane; for Halves two i16 a lane.
  Value multiplyAdd(Value acc, Value codes, Value coeff);
  // acc, an i32 a lane, + the two i16 of each lane.
  Value addHalves(Value acc, Value halves);

private:
  Value asBytes(Value words);
  Value asHalves(Value words);
  Value multiplyHalves(Value codes, Value coeff);
  Value pairs(Value a, Value c); // sums of two products of i16, whose vectors are given as i32
  Value call(llvm::StringRef intrinsic, Type result, ValueRange operands);
  // The same in plain IR: the sum of products of a lane's parts of so many bits.
  Value spelledOut(Value a, bool signedA, Value c, bool signedC, int64_t bits);
  Value part(Value words, int64_t index, int64_t bits, bool isSigned);

  ImplicitLocOpBuilder &b;
  const CpuLevel &level;
  const IntegerForm &form;
};

} // namespace mlir::kvq::cpu
