// SPDX-License-Identifier: Apache-2.0
//
// Sums that a loop carries in parts (Accumulation.h): products of codes in their own units, biases, and what was
// carried into the loop as the product of all factors that shrank it.

#include "codegen/nvptx/LaneEmitter.h"
#include "codegen/nvptx/Product.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::RegisterFile;

// What the loop carries for a sum, as it begins.
void LaneEmitter::beginCarried(const CarriedSum &sum, SmallVectorImpl<Value> &inits) {
  Type f32 = b.getF32Type();
  tile::DotOp dot = sum.dot;
  Value zero = zeroOf(f32), one = arith::ConstantOp::create(b, b.getF32FloatAttr(1));
  inits.append(static_cast<size_t>(fileOf(dot.getResult()).count()), zero);
  if (sum.bias)
    inits.append(static_cast<size_t>(fileOf(sum.bias).count()), zero);
  inits.append(static_cast<size_t>(fileOf(sum.shrink).count()), one);
}

// The parts, out of a list that begins with them and is shortened by them.
LaneEmitter::Carried LaneEmitter::takeCarried(const CarriedSum &sum, ValueRange &flat) {
  auto take = [&](int64_t count) {
    Registers values(flat.take_front(static_cast<size_t>(count)));
    flat = flat.drop_front(static_cast<size_t>(count));
    return values;
  };
  Carried parts;
  parts.sum = sum;
  parts.products = take(fileOf(parts.sum.dot.getResult()).count());
  if (sum.bias)
    parts.bias = take(fileOf(sum.bias).count());
  parts.factor = take(fileOf(sum.shrink).count());
  return parts;
}

// A tile's products, added to what is carried. Codes count from their middle, so that a long sum stays as small as what
// comes of it: from 0 on, the products and the bias grow with the context and take each other away at the end (8,192
// flat tokens of 2 bits: 1.5e-3 of the result).
void LaneEmitter::carryCluster(Carried &parts, Product &product, ArrayRef<int64_t> blocks, int64_t row) {
  RegisterFile file = fileOf(parts.sum.dot.getResult()), rows = fileOf(parts.sum.shrink);
  for (auto &[place, sum] : clusterSums(product, blocks, row, product.kBlocks(), parts.sum.bias != nullptr)) {
    auto [m, r] = place;
    Value &total = parts.products[file.find({r, m})];
    total = math::FmaOp::create(b, total, element(registersOf(parts.sum.shrink), rows, {r}), sum);
  }
}

// What is added to the carried bias: the tile's own, and what codes have from their centre to their middle.
void LaneEmitter::carryBias(Carried &parts, Product &product) {
  Value bias = parts.sum.bias;
  if (!bias)
    return;
  RegisterFile file = fileOf(bias), rows = fileOf(parts.sum.shrink);
  int64_t columns = file.shape()[1];
  for (int64_t number = 0; number < file.count(); ++number) {
    SmallVector<int64_t> index = file.base(number);
    Value added = registersOf(bias)[number], factor = element(registersOf(parts.sum.shrink), rows, {index[0]});
    if (double more = product.middle() - product.center; more != 0)
      added = accumulated(added, sumOfCoefficients(product, index[1] * product.sets / columns, index[0]), more, {});
    parts.bias[number] = math::FmaOp::create(b, parts.bias[number], factor, added);
  }
}

// What the next turn of the loop begins with.
void LaneEmitter::yieldCarried(const Carried &parts, SmallVectorImpl<Value> &yielded) {
  llvm::append_range(yielded, parts.products);
  llvm::append_range(yielded, parts.bias);
  const Registers shrink = registersOf(parts.sum.shrink);
  for (auto [value, factor] : llvm::zip(parts.factor, shrink))
    yielded.push_back(arith::MulFOp::create(b, value, factor));
}

// The sum itself, behind the loop: init * factors + bias + what products of codes stand for.
LaneEmitter::Registers LaneEmitter::endCarried(const Carried &parts, ArrayRef<Value> init) {
  tile::DotOp dot = parts.sum.dot;
  Product product = fragmentsOf(dot);
  RegisterFile file = fileOf(dot.getResult()), rows = fileOf(parts.sum.shrink);
  Registers result(parts.products.size());
  Registers biases = parts.bias;
  if (parts.sum.bias)
    biases = converted(parts.bias, fileOf(parts.sum.bias), fileOf(parts.sum.taken));
  Sums sums;
  for (int64_t number = 0; number < file.count(); ++number) {
    SmallVector<int64_t> index = file.base(number);
    sums[{index[1], index[0]}] = parts.products[number];
  }
  for (int64_t number = 0; number < file.count(); ++number) {
    SmallVector<int64_t> index = file.base(number);
    auto [value, power] = withoutRowsAbove(product, sums, index[1], index[0]);
    Value total = init[number];
    if (!matchPattern(total, m_PosZeroFloat()))
      total = arith::MulFOp::create(b, total, element(parts.factor, rows, {index[0]}));
    if (Value bias = parts.sum.bias) {
      int64_t columns = cast<RankedTensorType>(bias.getType()).getDimSize(1);
      Value added = element(biases, fileOf(parts.sum.taken), {index[0], index[1] * columns / file.shape()[1]});
      total = matchPattern(total, m_PosZeroFloat()) ? added : arith::AddFOp::create(b, total, added).getResult();
    }
    result[number] = accumulated(total, value, power, {});
  }
  return result;
}
