// SPDX-License-Identifier: Apache-2.0
//
// A kvq_tile.dot on tensor cores, as LaneEmitter works on it.
#pragma once

#include "codegen/nvptx/LaneEmitter.h"

namespace mlir::kvq::nvptx {

// One product on its way: indices m along x's kept dimension, k along the contracted one, rows of coefficients.
struct LaneEmitter::Product {
  Fragment fragment;
  int contract;
  int64_t rows, n, c, sets, groups;
  std::optional<Packed> codes; // else values:
  Value x;
  std::optional<tile::RegisterFile> xFile;
  tile::LaneLayout xLanes;
  SmallVector<int64_t> words; // that the lane needs
  LoadedWords loaded;
  std::optional<tile::RegisterFile> coeffFile;
  tile::CoeffOp scaled; // coefficients that are multiplied where they are used; else:
  Registers coeff;
  bool isWide = false; // coefficients are two halves
  Value pace;          // zero, when products of this step may begin; or null
  bool telescopes = false;
  UnpackForm form = UnpackForm::Subnormal;                          // of codes
  double center = 0;                                                // of codes
  DenseMap<std::tuple<int64_t, int64_t, int64_t>, Value> coeffSums; // by set, row and group
  DenseMap<std::pair<int64_t, int64_t>, Value> aMade;               // by m, k
  DenseMap<std::tuple<int64_t, int64_t, int64_t>, Value> bMade;     // by set, row, k

  SmallVector<int64_t> xIndex(int64_t m, int64_t k) const {
    return contract == 1 ? SmallVector<int64_t>{m, k} : SmallVector<int64_t>{k, m};
  }
  SmallVector<int64_t> coeffIndex(int64_t set, int64_t row, int64_t k) const {
    return coeffFile->shape().size() == 3 ? SmallVector<int64_t>{set, row, k} : SmallVector<int64_t>{row, k};
  }
  static SmallVector<int64_t> blocks(int64_t extent, ArrayRef<int> bits) {
    int64_t mask = 0;
    for (int bit : bits)
      mask |= bit < 0 ? 0 : int64_t(1) << bit;
    SmallVector<int64_t> result;
    for (int64_t i = 0; i < extent; ++i)
      if ((i & mask) == 0)
        result.push_back(i);
    return result;
  }
  SmallVector<int64_t> mBlocks() const {
    return blocks(n, {fragment.mLane[0], fragment.mLane[1], fragment.mLane[2], fragment.mReg});
  }
  SmallVector<int64_t> kBlocks() const {
    return blocks(c, {fragment.kLane[0], fragment.kLane[1], fragment.kPair, fragment.kReg});
  }
  // Blocks of k in one of the groups that scales make.
  SmallVector<int64_t> kBlocksOf(int64_t group) const {
    SmallVector<int64_t> result;
    for (int64_t k : kBlocks())
      if (k / (c / groups) == group)
        result.push_back(k);
    return result;
  }
  int64_t mHigh(int64_t m) const { return fragment.mReg < 0 ? m : m | int64_t(1) << fragment.mReg; }
  int64_t kHigh(int64_t k) const { return k | int64_t(1) << fragment.kReg; }

  // A code is an operand times two to the power of that.
  int codePower() const { return form == UnpackForm::Magic ? 0 : 24; }
  // Of the range of codes.
  double middle() const { return middleOfCodes(codes->map.bits); }
  // Fields of a byte: the part of a field's number that m decides, and the part that k does.
  int64_t fieldsPerByte() const { return 8 / codes->map.bits; }
  int64_t rowField(int64_t m) const { return codes->map.field(xIndex(m, 0)) % fieldsPerByte(); }
  int64_t stepField(int64_t k) const { return codes->map.field(xIndex(0, k)) % fieldsPerByte(); }
};

} // namespace mlir::kvq::nvptx
