// SPDX-License-Identifier: Apache-2.0
//
// Products of codes that stay in the units that they come in (Accumulation.h). A score is sum * 2^p + bias, where p is
// that of a row of codes and the bias that of a row of queries: one multiply-add for each score, of which the softmax
// asks the maximum and another multiply-add. The maximum is taken among sums of the same units, and the two
// multiply-adds are one.

#include "codegen/nvptx/LaneEmitter.h"
#include "codegen/nvptx/Product.h"

#include "llvm/ADT/MapVector.h"

#include <cmath>

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::RegisterFile;

void LaneEmitter::emitUnscaled(tile::DotOp op, Product &product) {
  RegisterFile file = fileOf(op.getResult());
  const Registers &acc = registersOf(op.getAcc());
  Unscaled &result = unscaled[op.getResult()];
  result.values.resize(acc.size());
  result.biases.resize(acc.size());
  result.powers.resize(acc.size());
  DenseMap<std::pair<Value, Value>, Value> biases; // by what they consist of
  for (ArrayRef<int64_t> blocks : clustersOf(product)) {
    Sums sums = clusterSums(product, blocks, product.kBlocks());
    for (auto &[place, sum] : sums) {
      auto [m, row] = place;
      int64_t number = file.find({row, m}), set = m * product.sets / product.n;
      auto [value, factor] = withoutRowsAbove(product, sums, m, row);
      result.values[number] = value;
      result.powers[number] = std::ilogb(factor);
      Value ofCenter = product.center != 0 ? sumOfCoefficients(product, set, row) : Value();
      Value &bias = biases[{acc[number], ofCenter}];
      if (!bias)
        bias = ofCenter ? accumulated(acc[number], ofCenter, -product.center, {}) : acc[number];
      result.biases[number] = bias;
    }
  }
  // Of each unit the maximum costs a multiply-add, and each bias another and a register. Where that is more than half
  // of what it saves, it was the last that made ptxas spill (16 rows, groups of 32).
  llvm::DenseSet<std::pair<int, Value>> units;
  for (auto [power, bias] : llvm::zip(result.powers, result.biases))
    units.insert({power, bias});
  if (2 * (units.size() + biases.size()) <= acc.size())
    return;
  Registers scores;
  for (auto [value, power, bias] : llvm::zip(result.values, result.powers, result.biases))
    scores.push_back(accumulated(bias, value, std::ldexp(1.0, power), {}));
  registers[op.getResult()] = std::move(scores);
  unscaled.erase(op.getResult());
}

// Of the registers of a lane. Powers of two are positive: the largest sum of some units is the largest value of them.
LaneEmitter::Registers LaneEmitter::largestOf(const Unscaled &tile, const RegisterFile &from, const RegisterFile &to,
                                              int dim) {
  llvm::MapVector<std::pair<int, Value>, Registers> sums; // by units
  for (auto [number, value] : llvm::enumerate(tile.values)) {
    Registers &same = sums[{tile.powers[number], tile.biases[number]}];
    same.resize(tile.values.size());
    same[number] = value;
  }
  Registers result(static_cast<size_t>(to.count()));
  for (auto &[units, same] : sums)
    for (auto [total, sum] : llvm::zip(result, reduced(tile::ReduceKind::Max, same, from, to, dim))) {
      if (!sum)
        continue;
      Value value = accumulated(units.second, sum, std::ldexp(1.0, units.first), {});
      total = total ? combine(tile::ReduceKind::Max, total, value) : value;
    }
  return result;
}

// (sum * 2^p + bias) * factor + more, as sum * (factor * 2^p) + (bias * factor + more).
void LaneEmitter::emitMultiplyAdd(math::FmaOp op) {
  const Unscaled &tile = unscaled.find(op.getA())->second;
  const Registers &factors = registersOf(op.getB()), &more = registersOf(op.getC());
  DenseMap<std::tuple<Value, Value, Value>, Value> rests; // of bias, factor and more
  Registers result;
  for (auto [number, value] : llvm::enumerate(tile.values)) {
    Value &rest = rests[{tile.biases[number], factors[number], more[number]}];
    if (!rest)
      rest = math::FmaOp::create(b, tile.biases[number], factors[number], more[number]);
    Value factor = accumulated(zeroOf(b.getF32Type()), factors[number], std::ldexp(1.0, tile.powers[number]), {});
    result.push_back(math::FmaOp::create(b, value, factor, rest));
  }
  registers[op.getResult()] = std::move(result);
}
