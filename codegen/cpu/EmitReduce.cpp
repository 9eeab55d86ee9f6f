// SPDX-License-Identifier: Apache-2.0
//
// Reductions: of tiles, and across the lanes of vectors.

#include "codegen/cpu/TileEmitter.h"

#include "mlir/Dialect/Vector/IR/VectorOps.h"

#include <limits>

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::cpu;

namespace {

vector::CombiningKind combiningKind(tile::ReduceKind kind, bool isFloat) {
  switch (kind) {
  case tile::ReduceKind::Max:
    return isFloat ? vector::CombiningKind::MAXNUMF : vector::CombiningKind::MAXSI;
  case tile::ReduceKind::Min:
    return isFloat ? vector::CombiningKind::MINNUMF : vector::CombiningKind::MINSI;
  case tile::ReduceKind::Add:
    return vector::CombiningKind::ADD;
  }
  llvm_unreachable("all kinds handled");
}

// NaN is the caller's business (reduce's description): nnan keeps a maximum one instruction.
Value combine(ImplicitLocOpBuilder &b, tile::ReduceKind kind, Value x, Value y) {
  bool isFloat = isa<FloatType>(getElementTypeOrSelf(x.getType()));
  auto nnan = arith::FastMathFlagsAttr::get(b.getContext(), arith::FastMathFlags::nnan);
  if (kind == tile::ReduceKind::Max)
    return isFloat ? b.create<arith::MaxNumFOp>(x, y, nnan).getResult() : b.create<arith::MaxSIOp>(x, y).getResult();
  if (kind == tile::ReduceKind::Min)
    return isFloat ? b.create<arith::MinNumFOp>(x, y, nnan).getResult() : b.create<arith::MinSIOp>(x, y).getResult();
  return isFloat ? b.create<arith::AddFOp>(x, y).getResult() : b.create<arith::AddIOp>(x, y).getResult();
}

// What changes nothing when combined.
double identityOf(tile::ReduceKind kind) {
  double infinite = std::numeric_limits<double>::infinity();
  return kind == tile::ReduceKind::Add ? 0 : kind == tile::ReduceKind::Max ? -infinite : infinite;
}

} // namespace

// A loop that carries vectors: body(index, carried) replaces them.
SmallVector<Value> TileEmitter::accumulate(int64_t begin, int64_t end, int64_t step, ArrayRef<Value> initial,
                                           function_ref<void(Value, MutableArrayRef<Value>)> body) {
  auto turns = b.create<scf::ForOp>(constant(begin), constant(end), constant(step), initial);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(turns.getBody());
  SmallVector<Value> carried(turns.getRegionIterArgs());
  body(turns.getInductionVar(), carried);
  b.create<scf::YieldOp>(carried);
  return SmallVector<Value>(turns.getResults());
}

// body(first row, count): a few rows at a time, the last ones fewer.
void TileEmitter::forRowTiles(int64_t rows, function_ref<void(Value, int64_t)> body) {
  int64_t rest = rows % rowsAtOnce();
  loop(0, rows - rest, rowsAtOnce(), [&](Value row) { body(row, rowsAtOnce()); });
  if (rest > 0)
    body(constant(rows - rest), rest);
}

// The first `count` lanes.
void TileEmitter::storeFirst(Value vector, int64_t count, Value ptr) {
  if (count < cast<VectorType>(vector.getType()).getDimSize(0))
    vector = b.create<vector::ExtractStridedSliceOp>(vector, ArrayRef<int64_t>{0}, ArrayRef<int64_t>{count},
                                                     ArrayRef<int64_t>{1});
  storeVector(vector, ptr);
}

// Each of up to eight vectors combined across its lanes: results in the first lanes of a vector, one for each.
Value TileEmitter::combineLanes(ArrayRef<Value> vectors, function_ref<Value(Value, Value)> combine) {
  if (vectors.size() > 4) {
    auto order = llvm::to_vector(llvm::seq<int64_t>(0, vectors.size()));
    return b.create<vector::ShuffleOp>(combineLanes(vectors.take_front(4), combine),
                                       combineLanes(vectors.drop_front(4), combine), order);
  }
  SmallVector<Value> left(vectors);
  int64_t lanes = cast<VectorType>(left[0].getType()).getDimSize(0), parts = 1; // lanes i mod parts belong together
  if (lanes < 4) {                                                              // no run of four
    for (Value &vector : left) {
      Value all = b.create<vector::ExtractOp>(vector, 0);
      for (int64_t lane = 1; lane < lanes; ++lane)
        all = combine(all, b.create<vector::ExtractOp>(vector, lane));
      vector = all;
    }
    auto type = VectorType::get({static_cast<int64_t>(left.size())}, left[0].getType());
    return b.create<vector::FromElementsOp>(type, left);
  }
  while (!llvm::isPowerOf2_64(left.size()))
    left.push_back(left.back());
  // Two vectors become one: in each run of four lanes first 32-bit unpacks, then 64-bit ones.
  for (; left.size() > 1; parts *= 2) {
    SmallVector<Value> next;
    for (size_t pair = 0; pair < left.size(); pair += 2) {
      SmallVector<int64_t> low, high;
      for (int64_t lane = 0; lane < lanes; ++lane) {
        int64_t in = lane % 4, from = lane - in;
        from += parts == 1 ? in / 2 + in % 2 * lanes : in % 2 + in / 2 * lanes;
        low.push_back(from);
        high.push_back(from + 2);
      }
      next.push_back(combine(b.create<vector::ShuffleOp>(left[pair], left[pair + 1], low),
                             b.create<vector::ShuffleOp>(left[pair], left[pair + 1], high)));
    }
    left = next;
  }
  Value result = left[0];
  for (int64_t width = lanes / 2; width >= parts; width /= 2) {
    auto half = [&](int64_t begin) {
      return b.create<vector::ExtractStridedSliceOp>(result, ArrayRef<int64_t>{begin}, ArrayRef<int64_t>{width},
                                                     ArrayRef<int64_t>{1});
    };
    Value low = half(0), high = half(width);
    result = combine(low, high);
  }
  return result;
}

// Vectors of the source, one for each of `at`, reduced along `dim` in one loop: as many chains of operations as
// vectors.
SmallVector<Value> TileEmitter::reduceVectors(tile::ReduceOp op, ArrayRef<SmallVector<Value>> at, int64_t lanes,
                                              int64_t step) {
  int64_t dim = op.getDim(), extent = cast<RankedTensorType>(op.getSource().getType()).getDimSize(dim);
  auto load = [&](Value i) {
    SmallVector<Value> vectors;
    for (SmallVector<Value> index : at) {
      index[dim] = i;
      vectors.push_back(eval(op.getSource(), index, lanes));
    }
    return vectors;
  };
  SmallVector<Value> first = load(constant(0));
  if (extent <= step)
    return first;
  return accumulate(step, extent, step, first, [&](Value i, MutableArrayRef<Value> carried) {
    for (auto [sum, vector] : llvm::zip(carried, load(i)))
      sum = combine(b, op.getKind(), sum, vector);
  });
}

// [rows, columns] along rows, or along columns: several vectors at a time, so that neither the latency of an operation
// nor a horizontal one for each row is in the way.
void TileEmitter::reduceMatrix(tile::ReduceOp op, const Buffer &target, int64_t lanes) {
  bool alongRow = op.getDim() == 1;
  int64_t count = target.shape[0];
  int64_t step = alongRow ? lanes : unrolled(count, lanes);
  loop(0, count, step, [&](Value begin) {
    SmallVector<SmallVector<Value>> at;
    for (int64_t i = 0; i < step; i += alongRow ? 1 : lanes) {
      Value index = add(begin, constant(i));
      at.push_back(alongRow ? SmallVector<Value>{index, Value()} : SmallVector<Value>{Value(), index});
    }
    SmallVector<Value> vectors = reduceVectors(op, at, lanes, alongRow ? lanes : 1);
    if (alongRow)
      vectors = combineRuns(vectors, lanes, [&](Value x, Value y) { return combine(b, op.getKind(), x, y); });
    for (auto [i, vector] : llvm::enumerate(vectors))
      storeVector(vector, address(target.ptr, target.element, add(begin, constant(i * lanes))));
  });
}

// [rows, columns] along rows where these are few.
void TileEmitter::reduceRows(tile::ReduceOp op, const Buffer &target) {
  auto source = cast<RankedTensorType>(op.getSource().getType());
  int64_t columns = source.getDimSize(1), lanes = lanesFor(columns);
  auto combineTwo = [&](Value x, Value y) { return combine(b, op.getKind(), x, y); };
  forRowTiles(source.getDimSize(0), [&](Value row, int64_t count) {
    SmallVector<SmallVector<Value>> at;
    for (int64_t r = 0; r < count; ++r)
      at.push_back({add(row, constant(r)), Value()});
    SmallVector<Value> vectors = reduceVectors(op, at, lanes, lanes);
    storeFirst(combineLanes(vectors, combineTwo), count, address(target.ptr, target.element, row));
  });
}

// Whether reduceRows takes a tile.
bool TileEmitter::hasRowsOfVectors(Value tile) {
  auto type = cast<RankedTensorType>(tile.getType());
  return type.getRank() == 2 && type.getElementType().isF32() && lanesFor(type.getDimSize(1)) >= 4;
}

// Reductions of a tile that is about to be written, all along the same dimension: they are done in the same loop. Short
// rows are left to reduceMatrix, which has one horizontal operation for more of them.
SmallVector<tile::ReduceOp> TileEmitter::reductionsBesides(Value tile) {
  SmallVector<tile::ReduceOp> found;
  if (!hasRowsOfVectors(tile))
    return found;
  auto type = cast<RankedTensorType>(tile.getType());
  bool shortRows = type.getDimSize(0) % level.lanes == 0 && type.getDimSize(1) <= 2 * level.lanes;
  for (Operation *user : tile.getUsers())
    if (auto reduce = dyn_cast<tile::ReduceOp>(user);
        reduce && reduce->getBlock() == tile.getParentBlock() && !(shortRows && reduce.getDim() == 1))
      if (found.empty() || found.front().getDim() == reduce.getDim())
        found.push_back(reduce);
  return found;
}

// Writes a tile, of which value(row, column, lanes) gives a vector, and what the reductions make of it.
void TileEmitter::writeReduced(Value tile, const Buffer &target, MutableArrayRef<tile::ReduceOp> ops,
                               function_ref<Value(Value, Value, int64_t)> value) {
  int64_t rows = target.shape[0], columns = target.shape[1], lanes = lanesFor(columns);
  bool alongRow = ops.front().getDim() == 1;
  SmallVector<Buffer> results;
  for (tile::ReduceOp op : ops)
    buffers[op.getResult()] = results.emplace_back(allocate({alongRow ? rows : columns}, target.element));
  // A vector of the tile, which is written, and its chain in each reduction. turn: how many vectors came before.
  auto step = [&](Value row, Value column, int64_t chain, Value turn, MutableArrayRef<Value> carried) {
    prefetchTurn(tile.getDefiningOp(), turn);
    Value vector = value(row, column, lanes);
    storeVector(vector, address(target.ptr, target.element, add(mul(row, columns), column)));
    for (auto [i, op] : llvm::enumerate(ops)) {
      Value &sum = carried[chain * ops.size() + i];
      sum = combine(b, op.getKind(), sum, vector);
    }
  };
  auto initial = [&](int64_t chains) {
    SmallVector<Value> values;
    for (int64_t chain = 0; chain < chains; ++chain)
      for (tile::ReduceOp op : ops)
        values.push_back(splat(vectorOf(target.element, lanes), identityOf(op.getKind())));
    return values;
  };
  // What becomes of one reduction's chains.
  auto chainsOf = [&](ArrayRef<Value> carried, size_t op) {
    SmallVector<Value> chains;
    for (size_t i = op; i < carried.size(); i += ops.size())
      chains.push_back(carried[i]);
    return chains;
  };
  if (alongRow) {
    forRowTiles(rows, [&](Value row, int64_t count) {
      auto carried = accumulate(0, columns, lanes, initial(count), [&](Value at, MutableArrayRef<Value> sums) {
        Value turn = add(mul(row, columns / lanes), mul(div(at, lanes), count));
        for (int64_t r = 0; r < count; ++r)
          step(add(row, constant(r)), at, r, add(turn, constant(r)), sums);
      });
      for (auto [i, op] : llvm::enumerate(ops)) {
        auto two = [&](Value x, Value y) { return combine(b, op.getKind(), x, y); };
        storeFirst(combineLanes(chainsOf(carried, i), two), count, address(results[i].ptr, target.element, row));
      }
    });
    return;
  }
  int64_t width = unrolled(columns, lanes);
  loop(0, columns, width, [&](Value begin) {
    auto carried = accumulate(0, rows, 1, initial(width / lanes), [&](Value row, MutableArrayRef<Value> sums) {
      Value turn = add(mul(div(begin, lanes), rows), mul(row, width / lanes));
      for (int64_t v = 0; v < width / lanes; ++v)
        step(row, add(begin, constant(v * lanes)), v, add(turn, constant(v)), sums);
    });
    for (size_t i = 0; i < ops.size(); ++i)
      for (auto [v, chain] : llvm::enumerate(chainsOf(carried, i)))
        storeVector(chain,
                    address(results[i].ptr, target.element, add(begin, constant(static_cast<int64_t>(v) * lanes))));
  });
}

// The result's elements in loops; inside, the source's dimension in a loop that carries vectors.
LogicalResult TileEmitter::emitReduce(tile::ReduceOp op) {
  if (buffers.contains(op.getResult()))
    return success();
  auto source = cast<RankedTensorType>(op.getSource().getType());
  int64_t dim = op.getDim(), rank = source.getRank();
  bool horizontal = dim == rank - 1;
  int64_t native = lanesFor(source.getShape().back());
  int64_t lanes = horizontal ? wideLanesFor(source.getShape().back()) : native, step = horizontal ? lanes : 1;
  auto reduceAt = [&](const SmallVector<Value> &index) -> Value { // index of the source without its entry `dim`
    Value vector = reduceVectors(op, index, lanes, step).front();
    if (!horizontal || lanes == 1)
      return vector;
    bool isFloat = isa<FloatType>(source.getElementType());
    bool ordered = isFloat && op.getKind() != tile::ReduceKind::Add;
    return b.create<vector::ReductionOp>(combiningKind(op.getKind(), isFloat), vector,
                                         ordered ? arith::FastMathFlags::nnan : arith::FastMathFlags::none);
  };
  if (rank == 1) {
    scalars.map(op.getResult(), reduceAt({Value()}));
    return success();
  }
  auto type = cast<RankedTensorType>(op.getType());
  Buffer buffer = allocate(type.getShape(), type.getElementType());
  buffers[op.getResult()] = buffer;
  if (rank == 2 && native == level.lanes && (!horizontal || type.getDimSize(0) % native == 0)) {
    reduceMatrix(op, buffer, native);
    return success();
  }
  if (horizontal && hasRowsOfVectors(op.getSource())) {
    reduceRows(op, buffer);
    return success();
  }
  SmallVector<Value> index;
  std::function<void(int64_t, Value)> nest = [&](int64_t outer, Value linear) {
    if (outer == type.getRank()) {
      SmallVector<Value> at(index);
      at.insert(at.begin() + dim, Value());
      storeVector(reduceAt(at), address(buffer.ptr, buffer.element, linear));
      return;
    }
    bool vectors = !horizontal && outer + 1 == type.getRank();
    loop(0, type.getDimSize(outer), vectors ? lanes : 1, [&](Value i) {
      index.push_back(i);
      nest(outer + 1, outer == 0 ? i : add(mul(linear, type.getDimSize(outer)), i));
      index.pop_back();
    });
  };
  nest(0, constant(0));
  return success();
}
