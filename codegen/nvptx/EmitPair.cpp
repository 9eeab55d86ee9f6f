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
void LaneEmitter::emitPair(tile::DotOp op, tile::DotOp first) {
  if (isReadWhole(op) && isReadWhole(first))
    return emitReadPair(op, first);
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
  registers[op.getResult()] = std::move(results[0]);
  registers[first.getResult()] = std::move(results[1]);
}

// The load of a product's values, where nothing but the place of halves in registers comes between.
static tile::LoadOp loadOf(tile::DotOp op) {
  Value x = op.getX();
  while (auto convert = x.getDefiningOp<tile::ConvertOp>())
    x = convert.getSource();
  return x.getDefiningOp<tile::LoadOp>();
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
void LaneEmitter::emitReadPair(tile::DotOp op, tile::DotOp first) {
  Product product = productOf(op);
  auto begin = [&](tile::LoadOp load) {
    Access access = accessOf(load.getPtr(), load.getOffset(), {}, load.getType());
    return address(access, 0, access.elements.base(0));
  };
  Value isFirst = laneBit(4), from = begin(loadOf(op));
  auto number = [&](Value address) { return LLVM::PtrToIntOp::create(b, b.getI64Type(), address).getResult(); };
  Value between = arith::SubIOp::create(b, number(begin(loadOf(first))), number(from)); // of one page: a constant
  Value none = zeroOf(b.getI64Type()), further = arith::SelectOp::create(b, isFirst, between, none);
  from = LLVM::GEPOp::create(b, from.getType(), b.getI8Type(), from, ArrayRef<LLVM::GEPArg>{further});
  DenseMap<int64_t, SmallVector<Value>> vectors; // by the first of their steps
  auto vectorOf = [&](int64_t k, bool) {
    SmallVector<Value> &vector = vectors[k & ~int64_t(7)];
    if (vector.empty())
      vector = loadPairs(from, k & ~int64_t(7));
    return vector;
  };
  SmallVector<int64_t> steps[2]; // of the lower half of m, of the upper
  for (int64_t k : product.kBlocks())
    steps[k >> 1 & 1].push_back(k);
  RegisterFile file = fileOf(op.getResult());
  Registers results[2];
  for (Registers &result : results)
    result.resize(static_cast<size_t>(file.count()));
  for (int64_t row = 0; row < product.rows; row += 8) {
    SmallVector<Value> sums[2];
    for (int64_t half = 0; half < 2; ++half) {
      sums[half].assign(4, zeroOf(b.getF32Type()));
      addProducts(product, 0, row, steps[half], /*restOfA=*/false, vectorOf, sums[half]);
    }
    for (int64_t i = 0; i < 2; ++i) {
      Value own = arith::AddFOp::create(b, sums[0][i], sums[1][2 + i]);
      Value other = shuffle("bfly", own, constant32(16));
      int64_t number = file.find({row + i, 0});
      auto put = [&](int64_t which, tile::DotOp dot, Value low, Value high) {
        Value value = arith::SelectOp::create(b, isFirst, high, low);
        results[which][number] = accumulated(registersOf(dot.getAcc()) [number], value, 1.0, {});
      };
      put(0, op, own, other);
      put(1, first, other, own);
    }
  }
  registers[op.getResult()] = std::move(results[0]);
  registers[first.getResult()] = std::move(results[1]);
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
