// SPDX-License-Identifier: Apache-2.0
//
// Lane layouts: which elements of a tile a lane of a warp holds. A layout is a linear map over GF(2) from lane bits to
// index bits whose columns are one index bit or 0 (the lanes of that bit hold the same elements). What no lane bit
// selects lies in the lane's registers, which are values without an order; so a layout names lane bits, and for
// elements of 16 bits the bit whose two elements share a register.
//
// Example, the accumulator of m16n8k16 as a tile [heads, tokens]: `lane=[d0.1 d0.2 d1.0 d1.1 d1.2]`. Lane 4t + h holds
// tokens t, t + 8, .. of heads 2h and 2h + 1.
#pragma once

#include "mlir/Support/LLVM.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"

#include <array>
#include <optional>
#include <string>

namespace mlir::kvq::tile {

// A bit of the index along a dimension. Bit b exists where 2^(b+1) divides the extent.
struct TileBit {
  int dim = -1, bit = 0; // dim -1: none
  bool isNone() const { return dim < 0; }
  bool operator==(const TileBit &) const = default;
};

struct LaneLayout {
  static constexpr int kLaneBits = 5;
  std::array<TileBit, kLaneBits> lane; // lowest lane bit first
  TileBit pair;                        // none: a register holds one element

  static std::optional<LaneLayout> parse(StringRef text, std::string &why);
  std::string toText() const;
  bool sameLanes(const LaneLayout &other) const { return lane == other.lane; }
  bool operator==(const LaneLayout &) const = default;
  // The lane bit that selects an index bit, or -1.
  int laneOf(TileBit bit) const;
  // Why a tile of that shape cannot lie so; empty where it can (lanes_c2).
  std::string whyNot(ArrayRef<int64_t> shape) const;
};

// How many low bits an index below `extent` has: the largest b so that 2^b divides it.
int bitsOf(int64_t extent);

// The layout of a tile without dimension `dim`: its bits become none, those of later dimensions move down.
LaneLayout dropDim(LaneLayout layout, int dim);
// The reverse: dimension `dim` is new, and no lane bit selects it.
LaneLayout insertDim(LaneLayout layout, int dim);

// The elements of one lane's registers. Register r holds, in the lane whose bits are all 0, the element with index
// base(r); in lane l the bits that l selects are set as well. With a pair it holds that element and the one whose pair
// bit is set.
class RegisterFile {
public:
  RegisterFile(ArrayRef<int64_t> shape, const LaneLayout &layout);
  int64_t count() const { return count_; }
  SmallVector<int64_t> base(int64_t number) const;
  // The register of an element, in the lane that holds it; lane and pair bits of the index do not matter.
  int64_t find(ArrayRef<int64_t> index) const;
  const LaneLayout &layout() const { return layout_; }
  ArrayRef<int64_t> shape() const { return shape_; }

private:
  SmallVector<int64_t> shape_;
  LaneLayout layout_;
  SmallVector<SmallVector<int64_t>> kept_;    // per dimension: indices whose lane and pair bits are 0, ascending
  SmallVector<SmallVector<int64_t>> ordinal_; // per dimension: index -> place in kept_
  int64_t count_ = 1;
};

} // namespace mlir::kvq::tile
