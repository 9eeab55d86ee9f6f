// SPDX-License-Identifier: Apache-2.0
#include "passes/expand/HalfRange.h"

#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::kvq;

int mlir::kvq::storedHeadroom(int bits) { return static_cast<int>(llvm::Log2_32(((1u << bits) - 1) / 3)); }

int mlir::kvq::paramHeadroom(int bits) { return storedHeadroom(bits) + 4; }

HalfRange HalfRange::of(TileBuilder &b, Value largest, int a) {
  constexpr int32_t kExponent = 0x7f800000, kOne = 1 << 23, kBias = 127;
  Value exponent = b.bitAnd(b.bitsOf(largest), b.i32(kExponent));
  // Both powers are normal numbers of f32.
  exponent = b.min(b.max(exponent, b.i32((kBias - 40) * kOne)), b.i32((kBias + 100) * kOne));
  int32_t sum = static_cast<int32_t>(static_cast<uint32_t>(2 * kBias - 1 + a) << 23); // wraps, and back
  Value down = b.floatOf(b.sub(b.i32(sum), exponent));
  return {down, b.floatOf(b.add(exponent, b.i32((1 - a) * kOne)))};
}
