// SPDX-License-Identifier: Apache-2.0
//
// kvq_tile.prefetch: its lines are spread over the work that follows it in the block.
//
// All lines at once would fill the processor's line buffers and hold up the loads behind them (measured: 15 % of a
// decode step in one such stall); lines beside products only leave the memory idle during everything else (measured:
// 40 % of a page's time, 4 bits on AVX-512 VNNI). So every loop that takes its time has *turns*, and each turn brings
// in as many lines as its share of the work.

#include "codegen/cpu/TileEmitter.h"

#include "mlir/Dialect/Math/IR/Math.h"

#include <cmath>

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::cpu;

// Of an element-wise value, in instructions a vector: its operations down to buffers.
double TileEmitter::evaluationCost(Value tile) {
  Operation *op = tile.getDefiningOp();
  if (!op || buffers.contains(tile) || op->getNumOperands() == 0)
    return 1;
  double cost = isa<math::Exp2Op, math::Log2Op>(op) ? 12 : 1;
  if (isa<tile::BroadcastOp>(op))
    return cost;
  for (Value operand : op->getOperands())
    if (isa<RankedTensorType>(operand.getType()))
      cost += isLazy(operand) ? evaluationCost(operand) : 1;
  return cost;
}

// Turns of a product, and multiplications in each.
TileEmitter::PrefetchTurns TileEmitter::prefetchTurns(tile::DotOp op) {
  auto x = cast<RankedTensorType>(op.getX().getType()), result = cast<RankedTensorType>(op.getType());
  auto [tileRows, tileVectors] = registerTile(op);
  int64_t rows = result.getDimSize(0), vectors = result.getDimSize(1) / dotLanes(op);
  int64_t columnTiles = vectors / tileVectors, rowTiles = rows / tileRows, length = x.getDimSize(op.getContract());
  PrefetchTurns turns;
  double multiplications = static_cast<double>(rows * vectors * length);
  if (takesIntegers(op)) {
    // Every pass over a word; or the cutting, which comes before all of them.
    IntegerForm form = integerFormOf(op);
    auto planes = packedPlanes(tile::parseSectionAttr(tile::getLayout(x), x.getElementTypeBitWidth()));
    turns.count =
        columnTiles * (length / codesPerStep(planes)) * (rowTiles > 1 && cutsOnce(op) ? 1 : rowTiles * form.limbs);
    multiplications *= static_cast<double>(form.limbs) / static_cast<double>(form.codesPerOperand());
  } else if (isOverWords(op)) {
    turns.count = rowTiles * columnTiles * (length / (32 / x.getElementTypeBitWidth()));
  }
  if (turns.count > 0)
    turns.cost = multiplications / static_cast<double>(turns.count);
  return turns;
}

// The turns of an operation's loops; none where these are short, or not known.
TileEmitter::PrefetchTurns TileEmitter::prefetchTurns(Operation *op) {
  if (auto dot = dyn_cast<tile::DotOp>(op))
    return prefetchTurns(dot);
  if (auto store = dyn_cast<tile::StoreCodesOp>(op)) {
    int64_t steps = packSteps(store);
    return {steps, steps > 0 ? 64.0 : 0.0};
  }
  auto type = op->getNumResults() == 1 ? dyn_cast<RankedTensorType>(op->getResult(0).getType()) : RankedTensorType();
  if (auto coeff = dyn_cast<tile::CoeffOp>(op); coeff && integerDotOf(coeff)) {
    // Two loops over each set and rows: largest magnitudes, rounding.
    int64_t rows = std::min(type.getDimSize(1), rowsAtOnce()), rowTiles = llvm::divideCeil(type.getDimSize(1), rows);
    int64_t steps = type.getDimSize(2) / lanesFor(type.getDimSize(2) / scaleGroups(integerDotOf(coeff)));
    return {type.getDimSize(0) * rowTiles * 2 * steps, 4.0 * static_cast<double>(rows)};
  }
  if (!type || !isElementwiseOp(op) || isLazy(op->getResult(0)) || isa<arith::ExtFOp, tile::CoeffOp>(op))
    return {};
  return {type.getNumElements() / lanesFor(type.getShape().back()), evaluationCost(op->getResult(0))};
}

// Prefetches with no work between them are one, of several pieces of memory.
void TileEmitter::emitPrefetch(tile::PrefetchOp op) {
  int64_t lines = llvm::divideCeil(op.getBytes(), 64);
  if (!std::exchange(prefetch.open, true)) {
    prefetch.pieces.clear();
    prefetch.shares.clear();
  }
  int64_t before = prefetch.pieces.empty() ? 0 : prefetch.pieces.back().end;
  prefetch.pieces.push_back(
      {address(scalars.lookup(op.getBase()), b.getI8Type(), constant(-64 * before)), before + lines});
  for (Operation *next = op->getNextNode(); next && prefetchTurns(next).count < kFewestTurns;
       next = next->getNextNode())
    if (isa<tile::PrefetchOp>(next))
      return;
  prefetch.open = false;
  sharePrefetch(op);
}

// Divides the lines among the operations behind op.
void TileEmitter::sharePrefetch(tile::PrefetchOp op) {
  struct Share {
    Operation *op;
    PrefetchTurns turns;
    double wanted; // lines a turn
    int64_t lines; // of all turns: whole numbers of lines a turn, or less than one
    double lacks() const { return wanted - static_cast<double>(lines) / static_cast<double>(turns.count); }
  };
  SmallVector<Share> shares;
  double work = 0;
  for (Operation *next = op->getNextNode(); next && !isa<tile::PrefetchOp>(next); next = next->getNextNode())
    if (PrefetchTurns turns = prefetchTurns(next); turns.count >= kFewestTurns) {
      shares.push_back({next, turns, 0, 0});
      work += static_cast<double>(turns.count) * turns.cost;
    }
  int64_t left = prefetch.pieces.back().end;
  const auto all = static_cast<double>(left);
  for (Share &share : shares) {
    share.wanted = all * share.turns.cost / work;
    double turns = share.wanted < 1 ? share.wanted * static_cast<double>(share.turns.count) : std::floor(share.wanted);
    share.lines = static_cast<int64_t>(turns) * (share.wanted < 1 ? 1 : share.turns.count);
    left -= share.lines;
  }
  // What is left goes to those that lack most of what they want.
  SmallVector<Share *> order(llvm::make_pointer_range(shares));
  llvm::sort(order, [](const Share *a, const Share *b) {
    return a->lacks() != b->lacks() ? a->lacks() > b->lacks() : a < b; // the earlier one first
  });
  for (Share *share : order)
    if (share->turns.count <= left && share->lines >= share->turns.count) {
      share->lines += share->turns.count;
      left -= share->turns.count;
    }
  loop(0, left, 1, [&](Value line) { prefetchLine(line, 0, left); });
  int64_t first = left;
  // In the order of the lines, which the processor's own prefetcher then follows (measured: 13 % of an 8-bit step).
  for (const Share &share : shares) {
    prefetch.shares[share.op] = {first, share.lines, share.turns.count};
    first += share.lines;
  }
}

// line: one of those from `begin` to `end`.
void TileEmitter::prefetchLine(Value line, int64_t begin, int64_t end) {
  Value base;
  for (const PrefetchPiece &piece : llvm::reverse(prefetch.pieces)) {
    int64_t pieceBegin = &piece == prefetch.pieces.begin() ? 0 : (&piece - 1)->end;
    if (pieceBegin >= end || piece.end <= begin)
      continue;
    if (!base) {
      base = piece.base;
      continue;
    }
    Value here = b.create<arith::CmpIOp>(arith::CmpIPredicate::slt, line, constant(piece.end));
    base = b.create<arith::SelectOp>(here, piece.base, base);
  }
  // read, keep in all levels, data cache
  b.create<LLVM::Prefetch>(address(base, b.getI8Type(), mul(line, 64)), 0, 3, 1);
}

// The lines that fall to one turn of an operation. Where turns are more than lines, several name the same one.
void TileEmitter::prefetchTurn(Operation *op, Value turn) {
  auto it = prefetch.shares.find(op);
  if (it == prefetch.shares.end() || it->second.lines == 0)
    return;
  auto [first, lines, turns] = it->second;
  auto line = [&](Value ofShare) { prefetchLine(add(ofShare, constant(first)), first, first + lines); };
  if (lines < turns)
    return line(div(mul(turn, lines), turns));
  for (int64_t i = 0; i < lines / turns; ++i)
    line(add(mul(turn, lines / turns), constant(i)));
}
