// SPDX-License-Identifier: Apache-2.0
//
// Two products of few rows of values with the same coefficients, such as scales and minima have: one multiplication.

#include "codegen/nvptx/Access.h"
#include "codegen/nvptx/Product.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::RegisterFile;

// One has the lower half of the rows of m, one the upper.
void LaneEmitter::emitPair(tile::DotOp op, const ProductPair &pair) {
  tile::DotOp first = pair.first;
  if (isReadWhole(op) && isReadWhole(first))
    return emitReadPair(op, pair);
  Product product = productOf(op), upper = productOf(first);
  Registers results[2];
  RegisterFile file = fileOf(op.getResult());
  for (Registers &result : results)
    result.resize(static_cast<size_t>(file.count()));
  for (int64_t m : product.mBlocks())
    for (int64_t row = 0; row < product.rows; row += 8) {
      SmallVector<Value> four(4, zeroOf(b.getF32Type()));
      addProducts(product, upper, 0, m, row, product.kBlocks(), four);
      for (int64_t i = 0; i < 4; ++i) {
        int64_t number = file.find({row + i % 2, m});
        Value total = registersOf(i < 2 ? op.getAcc() : first.getAcc())[number];
        results[i / 2][number] = accumulated(total, four[i], 1.0, {});
      }
    }
  if (arith::AddFOp sum = pair.sum) {
    Registers &sums = registers[sum.getResult()];
    for (auto [own, other] : llvm::zip(results[0], results[1]))
      sums.push_back(accumulated(accumulated(zeroOf(b.getF32Type()), own, pair.ofOwn, {}), other, pair.ofFirst, {}));
    return;
  }
  registers[op.getResult()] = std::move(results[0]);
  registers[first.getResult()] = std::move(results[1]);
}

// The load of a product's values, where nothing but the place of halves in registers comes between.
static tile::LoadOp loadOf(tile::DotOp op) {
  auto load = dyn_cast_if_present<tile::LoadOp>(originOf(op.getX()));
  bool isSame = load && getElementTypeOrSelf(load.getType()) == getElementTypeOrSelf(op.getX().getType());
  return isSame ? load : tile::LoadOp();
}

// Whether 16 bytes that a lane reads of the values are an operand: at most four rows, eight neighbours of k in a lane,
// of which the registers 0 and 2 are the two blocks of k of one multiplication, and 1 and 3 those of another.
bool LaneEmitter::isReadWhole(tile::DotOp op) {
  tile::LoadOp load = loadOf(op);
  if (!load || load.getMask() || !isReadOnly(load.getPtr()))
    return false;
  Fragment fragment = assignedFragment(op);
  auto type = cast<RankedTensorType>(load.getType());
  auto isLane = [&](int bit) { return fragment.kLane[0] == bit || fragment.kLane[1] == bit; };
  return fragment.kPair == 0 && fragment.kReg == 2 && !isLane(1) && fragment.mLane[2] < 0 && fragment.mReg < 0 &&
         tile::getLanes(type)->sameLanes(*tile::getLanes(op.getX().getType())) &&
         accessOf(load.getPtr(), load.getOffset(), {}, type).run == 8;
}

// Lanes of m below 4 read the values of one product, those above it the values of the other. A vector has the rows of
// one multiplication in registers 0 and 2, which are the lower half of m, and those of the next in registers 1 and 3,
// the upper half; what a multiplication says of the other half is nobody's. So no register is moved.
void LaneEmitter::emitReadPair(tile::DotOp op, const ProductPair &pair) {
  tile::DotOp first = pair.first;
  Product product = productOf(op);
  Value isFirst = laneBit(4), row = rowOfPair(op, first, isFirst);
  DenseMap<int64_t, SmallVector<Value>> vectors; // by the first of their steps
  auto vectorOf = [&](int64_t k, bool) {
    SmallVector<Value> &vector = vectors[k & ~int64_t(7)];
    if (vector.empty())
      vector = loadPairs(row, k & ~int64_t(7));
    return vector;
  };
  SmallVector<int64_t> steps[2]; // of the lower half of m, of the upper
  for (int64_t k : product.kBlocks())
    steps[k >> 1 & 1].push_back(k);
  RegisterFile file = fileOf(op.getResult());
  Registers results(static_cast<size_t>(file.count())), ofFirst = results;
  // Summed up once, behind the loop, where one carries it.
  Carried *carrier = carriedAsBias(pair);
  if (carrier)
    carrier->pair = &pair;
  for (int64_t block = 0; block < product.rows; block += 8) {
    SmallVector<Value> sums[2];
    for (int64_t half = 0; half < 2; ++half) {
      sums[half].assign(4, zeroOf(b.getF32Type()));
      addProducts(product, 0, block, steps[half], /*restOfA=*/false, vectorOf, sums[half]);
    }
    for (int64_t i = 0; i < 2; ++i) {
      Value own = arith::AddFOp::create(b, sums[0][i], sums[1][2 + i]);
      int64_t number = file.find({block + i, 0});
      if (pair.sum) {
        results[number] = carrier ? own : sumOfPair(pair, own);
        continue;
      }
      Value other = shuffle("bfly", own, constant32(16));
      Value low = arith::SelectOp::create(b, isFirst, other, own),
            high = arith::SelectOp::create(b, isFirst, own, other);
      results[number] = accumulated(registersOf(op.getAcc()) [number], low, 1.0, {});
      ofFirst[number] = accumulated(registersOf(first.getAcc()) [number], high, 1.0, {});
    }
  }
  if (arith::AddFOp sum = pair.sum) {
    registers[sum.getResult()] = std::move(results);
    return;
  }
  registers[op.getResult()] = std::move(results);
  registers[first.getResult()] = std::move(ofFirst);
}

// The sum that a loop carries of which the pair's sum is the bias, if nothing else is added to that.
LaneEmitter::Carried *LaneEmitter::carriedAsBias(const ProductPair &pair) {
  arith::AddFOp sum = pair.sum;
  if (!sum || !sum->hasOneUse())
    return nullptr;
  for (auto &[op, parts] : carried) {
    tile::DotOp dot = parts.sum.dot;
    unsigned bits = getElementTypeOrSelf(dot.getX().getType()).getIntOrFloatBitWidth();
    if (parts.sum.bias == sum.getResult() && dot.getCenter().convertToDouble() == middleOfCodes(bits))
      return &parts;
  }
  return nullptr;
}

// Of both products, from that of this lane.
Value LaneEmitter::sumOfPair(const ProductPair &pair, Value own) {
  auto constantOf = [&](double value) {
    return arith::ConstantOp::create(b, b.getF32FloatAttr(static_cast<float>(value)));
  };
  Value factor = arith::SelectOp::create(b, laneBit(4), constantOf(pair.ofFirst), constantOf(pair.ofOwn));
  own = arith::MulFOp::create(b, own, factor);
  return arith::AddFOp::create(b, own, shuffle("bfly", own, constant32(16)));
}

// Where the values of this lane's product begin.
Value LaneEmitter::rowOfPair(tile::DotOp op, tile::DotOp first, Value isFirst) {
  auto begin = [&](tile::DotOp dot) {
    tile::LoadOp load = loadOf(dot);
    Access access = accessOf(load.getPtr(), load.getOffset(), {}, load.getType());
    return address(access, 0, access.elements.base(0));
  };
  Value own = begin(op);
  auto number = [&](Value address) { return LLVM::PtrToIntOp::create(b, b.getI64Type(), address).getResult(); };
  Value between = arith::SubIOp::create(b, number(begin(first)), number(own)); // of one page: a constant
  Value further = arith::SelectOp::create(b, isFirst, between, zeroOf(b.getI64Type()));
  return LLVM::GEPOp::create(b, own.getType(), b.getI8Type(), own, ArrayRef<LLVM::GEPArg>{further});
}

// Eight halves of a row from `step` on, as four registers.
SmallVector<Value> LaneEmitter::loadPairs(Value row, int64_t step) {
  Value from = LLVM::GEPOp::create(b, row.getType(), b.getF16Type(), row, LLVM::GEPArg(static_cast<int32_t>(step)));
  auto load = LLVM::LoadOp::create(b, VectorType::get({4}, b.getI32Type()), from, 16);
  load.setInvariant(true);
  SmallVector<Value> pairs;
  for (int64_t i = 0; i < 4; ++i) {
    Value word = LLVM::ExtractElementOp::create(b, load, constant32(i));
    pairs.push_back(LLVM::BitcastOp::create(b, VectorType::get({2}, b.getF16Type()), word));
  }
  return pairs;
}
