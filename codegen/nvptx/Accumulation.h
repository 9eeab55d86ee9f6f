// SPDX-License-Identifier: Apache-2.0
//
// What of a program's sums can be written in fewer instructions than op by op.
#pragma once

#include "dialect/tile/Tile.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "llvm/ADT/SmallPtrSet.h"

namespace mlir::kvq::nvptx {

// A loop that carries sum = sum * shrink + bias + products of codes, `shrink` and `bias` one value a row, or a row and
// group: products and bias are carried each for itself, in the units that they come in. What products of codes are to
// be multiplied by, and the bias's broadcast, then stand once behind the loop.
struct CarriedSum {
  unsigned place; // among the loop's carried values
  tile::DotOp dot;
  Value shrink; // [R]
  Value bias;   // [R, G] or null; as it was made, where the product takes it in another layout:
  Type taken;
};

// The value of a product's row of values where it is one row of one constant, as in a sum of coefficients.
std::optional<double> constantRow(tile::DotOp dot);

// The middle of the range of codes.
inline double middleOfCodes(int64_t bits) { return static_cast<double>((int64_t(1) << bits) - 1) / 2; }

// Two products of few rows that are one multiplication, and the sum of one and a multiple of the other that is all they
// are for, if so.
struct ProductPair {
  tile::DotOp first;     // the earlier one; the later one has its results
  arith::AddFOp sum;     // or null
  double ofFirst, ofOwn; // what the results are multiplied by in the sum
};

struct Accumulation {
  explicit Accumulation(func::FuncOp kernel);
  DenseMap<Operation *, SmallVector<CarriedSum>> sums; // by loop
  // Ops that a carried sum or a pair consists of and that are not emitted for themselves.
  llvm::SmallPtrSet<Operation *, 8> absorbed;
  // Products of codes of which none but maxima and multiply-adds are taken: these take them in the units that they come
  // in, each with its own power of two and bias.
  llvm::SmallPtrSet<Operation *, 8> unscaled;
  // A product of at most 8 rows of values with the coefficients of another such: both are one multiplication, of which
  // each has half of the rows. By the later one.
  DenseMap<Operation *, ProductPair> pairs;

private:
  void findSums(scf::ForOp loop);
  void findPairs(Block &block);
  void findUnscaled(Block &block);
  ProductPair pairOf(tile::DotOp own, tile::DotOp first);
};

} // namespace mlir::kvq::nvptx
