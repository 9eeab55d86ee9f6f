// SPDX-License-Identifier: Apache-2.0
//
// Sums that a loop carries in parts (Accumulation.h): products of codes in their own units, among which is what was
// carried into the loop, and biases.

#include "codegen/nvptx/LaneEmitter.h"
#include "codegen/nvptx/Product.h"

#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::RegisterFile;

// What the loop carries for a sum, as it begins, but for beginProducts.
void LaneEmitter::beginCarried(const CarriedSum &sum, SmallVectorImpl<Value> &inits) {
  Value zero = zeroOf(b.getF32Type());
  tile::DotOp dot = sum.dot;
  inits.append(static_cast<size_t>(fileOf(dot.getResult()).count()), zero);
  if (sum.bias)
    inits.append(static_cast<size_t>(fileOf(sum.bias).count()), zero);
}

// What the products begin with: `init` in their units, so that it needs no registers of its own while the loop runs.
LaneEmitter::Registers LaneEmitter::beginProducts(const Carried &parts, ArrayRef<Value> init) {
  if (llvm::all_of(init, [](Value value) { return matchPattern(value, m_PosZeroFloat()); }))
    return Registers(init);
  tile::DotOp dot = parts.sum.dot;
  Product product = fragmentsOf(dot);
  RegisterFile file = fileOf(dot.getResult());
  Registers result(init.size());
  // Rows above first: theirs are in the sums of those below.
  for (int64_t field = product.fieldsPerByte() - 1; field >= 0; --field)
    for (int64_t number = 0; number < file.count(); ++number) {
      SmallVector<int64_t> index = file.base(number);
      if (product.rowField(index[1]) != field)
        continue;
      Value above = zeroOf(b.getF32Type());
      if (product.telescopes && field + 1 < product.fieldsPerByte())
        above = result[file.find({index[0], withRowField(product, index[1], field + 1)})];
      result[number] = accumulated(above, init[number], 1 / powerOf(product, index[1]), {});
    }
  return result;
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
  return parts;
}

// A tile's products, added to what is carried. Codes count from their middle, so that a long sum stays as small as what
// comes of it: from 0 on, the products and the bias grow with the context and take each other away at the end (8,192
// flat tokens of 2 bits: 1.5e-3 of the result).
void LaneEmitter::carryCluster(Carried &parts, Product &product, ArrayRef<int64_t> blocks) {
  RegisterFile file = fileOf(parts.sum.dot.getResult()), rows = fileOf(parts.sum.shrink);
  for (auto &[place, sum] : clusterSums(product, blocks, product.kBlocks(), parts.sum.bias != nullptr)) {
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
}

// The sum itself, behind the loop: bias + what products of codes stand for.
LaneEmitter::Registers LaneEmitter::endCarried(const Carried &parts) {
  tile::DotOp dot = parts.sum.dot;
  Product product = fragmentsOf(dot);
  RegisterFile file = fileOf(dot.getResult());
  Registers result(parts.products.size());
  Registers biases = parts.bias;
  for (Value &bias : biases)
    bias = parts.pair ? sumOfPair(*parts.pair, bias) : bias;
  if (parts.sum.bias)
    biases = converted(biases, fileOf(parts.sum.bias), fileOf(parts.sum.taken));
  Sums sums;
  for (int64_t number = 0; number < file.count(); ++number) {
    SmallVector<int64_t> index = file.base(number);
    sums[{index[1], index[0]}] = parts.products[number];
  }
  for (int64_t number = 0; number < file.count(); ++number) {
    SmallVector<int64_t> index = file.base(number);
    auto [value, power] = withoutRowsAbove(product, sums, index[1], index[0]);
    Value total = zeroOf(b.getF32Type());
    if (Value bias = parts.sum.bias) {
      int64_t columns = cast<RankedTensorType>(bias.getType()).getDimSize(1);
      total = element(biases, fileOf(parts.sum.taken), {index[0], index[1] * columns / file.shape()[1]});
    }
    result[number] = accumulated(total, value, power, {});
  }
  return result;
}
