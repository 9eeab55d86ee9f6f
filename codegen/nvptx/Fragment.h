// SPDX-License-Identifier: Apache-2.0
//
// How a product is taken by m16n8k16, the tensor cores' multiplication of halves: rows of x on m, rows of coefficients
// on n, the contracted dimension on k. A fragment says which index bits are which bits of m and k; the PTX ISA
// ("Matrix Fragments for mma.m16n8k16 with floating point type") says which lane holds them:
//
//   A(m, k)  lane=[k.1 k.2 m.0 m.1 m.2]  registers m.3, k.3, pair k.0
//   B(k, n)  lane=[k.1 k.2 n.0 n.1 n.2]  register  k.3,      pair k.0
//   C(m, n)  lane=[n.1 n.2 m.0 m.1 m.2]  registers m.3, n.0
//
// Any bits of the contracted dimension may be k, as long as A and B agree, and any of x's other dimension m: stored
// orders choose them. Bits that are in no fragment count products.
#pragma once

#include "dialect/tile/Tile.h"

namespace mlir::kvq::nvptx {

struct Fragment {
  // Bits of the index along x's kept dimension; -1: rows are repeated, which is what a short dimension gets.
  int mLane[3] = {-1, -1, -1}, mReg = -1;
  // Bits of the index along the contracted dimension.
  int kPair = 0, kLane[2] = {1, 2}, kReg = 3;

  // The layouts of [R, N], the result; of [S, R, C] or [R, C], the coefficients; of x as values.
  tile::LaneLayout result() const;
  tile::LaneLayout coefficients(int rank) const;
  tile::LaneLayout values(int contract) const;
};

// What becomes `layout` by transposing 8x8 blocks of paired halves, and the reverse. movmatrix takes their rows from
// lane bits 2 to 4 and their columns from the pair and lane bits 0 and 1 (PTX ISA, movmatrix), and swaps them.
tile::LaneLayout transposed(const tile::LaneLayout &layout);

// Whether an f16 tile, in pairs or not, is brought into `target` so: its lanes have both halves of the pairs to swap.
bool isTransposition(const tile::LaneLayout &source, const tile::LaneLayout &target);

// How a tile gets from one layout to another.
enum class Move {
  Rename,    // lanes keep what they have
  Transpose, // movmatrix, of 8x8 blocks of pairs of halves
  Shuffle    // words from lane to lane
};
Move moveOf(const tile::LaneLayout &source, const tile::LaneLayout &target, Type element);
// Bits of a lane's number, as the target numbers elements, that choose a register of the lane that is asked: each
// doubles what is sent.
SmallVector<int> bitsThatChoose(const tile::LaneLayout &source, const tile::LaneLayout &target);

// Whether a product takes this form: rows are a multiple of 8 and at least 16 elements are contracted. Others are sums
// of a few products an element.
bool usesTensorCores(tile::DotOp op);

// The fragment of a product with packed codes, chosen so that words are operands as they lie; where a group has fewer
// words along k than lanes, lanes share words, and bits of a word's fields are on lanes. `tokens`: bits of the token
// index that should be on lanes of m where codes leave a choice. Fails with a diagnostic where the layout has no such
// fragment.
FailureOr<Fragment> fragmentOfCodes(tile::DotOp op, ArrayRef<int> tokens);

// Whether the 16 elements of m and of k that a multiplication takes have one scale.
bool liesInParts(const Fragment &fragment, tile::DotOp op);

// The op that a tile comes from, behind those that change nothing but its type and layout; null where that is none.
Operation *originOf(Value tile);

// The fragment of a product with values, after what is known of the coefficients and the result. Empty where what is
// known has another form.
std::optional<Fragment> fragmentOfValues(tile::DotOp op, std::optional<tile::LaneLayout> coeff,
                                         std::optional<tile::LaneLayout> result);

// The fragment that layouts were assigned by, from the types of coefficients and result.
Fragment assignedFragment(tile::DotOp op);

} // namespace mlir::kvq::nvptx
