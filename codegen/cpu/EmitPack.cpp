// SPDX-License-Identifier: Apache-2.0
//
// kvq_tile.store_codes: codes into the words of a section's planes.
//
// 16 consecutive words of a plane of the profile vnni are 16 channels (V) or 16 tokens (K); the fields of a word run
// along the other index. Rows of a tile of codes are vectors of channels. So for V words are built by shifting vectors
// of codes and merging them. For K the fields of one word lie side by side in a vector: they are shifted apart by a
// vector of shifts, and the lanes of as many tokens as a vector has are merged by a network of shuffles, which leaves
// one word of each token in each lane (a shuffle, a shuffle and an `or` for half of the vectors in each of its steps).
// Each code is evaluated once, however many planes it has bits in. A layout of any other form is stored code by code.

#include "codegen/cpu/WordBlock.h"

#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

#include <map>
#include <optional>
#include <tuple>

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::cpu;

// One store_codes: its operands in emitted code.
struct TileEmitter::PackJob {
  Value codes, base, token, channel, begin, end;
  std::array<int64_t, 2> shape; // of the tile of codes
  bool whole;                   // all rows are stored
};

// Bits of a code that belong to a plane, in place 0.
Value TileEmitter::planeField(const PackedPlane &plane, int64_t codeBits, Value code) {
  if (plane.shift > 0)
    code = b.create<arith::ShRUIOp>(code, splatInt(code.getType(), plane.shift));
  if (plane.shift + plane.bits < codeBits)
    code = b.create<arith::AndIOp>(code, splatInt(code.getType(), (int64_t(1) << plane.bits) - 1));
  return code;
}

// The address of the word that holds the code of a row and a channel of the tile.
Value TileEmitter::wordAddress(const PackJob &job, const PackedPlane &plane, Value row, Value channel) {
  Value code = add(codeAddress(plane.map, ::kvq::Dim::Token, add(job.token, row)),
                   codeAddress(plane.map, ::kvq::Dim::Channel, add(job.channel, channel)));
  return address(job.base, b.getI8Type(), add(div(mul(code, plane.bits), 8), constant(plane.offset)));
}

// Whether rows of the tile are stored: a bit mask for each lane, all of `mask` or 0. One row, or as many as lanes.
Value TileEmitter::coveredBits(const PackJob &job, Value row, int64_t lanes, int64_t mask) {
  Type type = vectorOf(b.getI32Type(), lanes);
  auto wide = [&](Value index) -> Value {
    Value value = b.create<arith::IndexCastOp>(b.getI32Type(), index);
    return lanes == 1 ? value : b.create<vector::BroadcastOp>(type, value).getResult();
  };
  Value rows = wide(row);
  if (lanes > 1) {
    SmallVector<int32_t> steps = llvm::to_vector(llvm::seq<int32_t>(0, static_cast<int32_t>(lanes)));
    rows = b.create<arith::AddIOp>(
        rows, b.create<arith::ConstantOp>(DenseElementsAttr::get(cast<VectorType>(type), ArrayRef<int32_t>(steps))));
  }
  Value inside = b.create<arith::AndIOp>(b.create<arith::CmpIOp>(arith::CmpIPredicate::sge, rows, wide(job.begin)),
                                         b.create<arith::CmpIOp>(arith::CmpIPredicate::slt, rows, wide(job.end)));
  return b.create<arith::SelectOp>(inside, splatInt(type, static_cast<int32_t>(mask)), splatInt(type, 0));
}

// Stores words, or the bits of them that `covered` has (null: all).
void TileEmitter::mergeWords(Value words, Value covered, Value at) {
  if (covered) {
    auto type = cast<VectorType>(words.getType());
    Value old = loadVector(at, b.getI32Type(), type.getDimSize(0));
    if (!isa<VectorType>(covered.getType()))
      covered = b.create<vector::BroadcastOp>(type, covered);
    Value kept = b.create<arith::AndIOp>(old, b.create<arith::XOrIOp>(covered, splatInt(type, -1)));
    words = b.create<arith::OrIOp>(kept, b.create<arith::AndIOp>(words, covered));
  }
  storeVector(words, at);
}

static void merge(ImplicitLocOpBuilder &b, Value &into, Value more) {
  into = into ? b.create<arith::OrIOp>(into, more).getResult() : more;
}

// V: the words of one block of tokens for `lanes` channels.
void TileEmitter::packAcrossChannels(const PackJob &job, ArrayRef<WordBlock> blocks, int64_t codeBits, Value row,
                                     Value channel, int64_t lanes) {
  int64_t tokens = 1;
  for (const WordBlock &block : blocks)
    tokens = std::max(tokens, block.extent[0]);
  SmallVector<Value> words(blocks.size()), covered(blocks.size());
  for (int64_t t = 0; t < tokens; ++t) {
    Value at = add(row, constant(t)), code = eval(job.codes, {at, channel}, lanes);
    for (auto [i, block] : llvm::enumerate(blocks)) {
      auto field = llvm::find(block.position, std::array<int64_t, 2>{t % block.extent[0], 0}) - block.position.begin();
      int64_t shift = field * block.plane.bits;
      Value moved = planeField(block.plane, codeBits, code);
      if (shift > 0)
        moved = b.create<arith::ShLIOp>(moved, splatInt(moved.getType(), shift));
      merge(b, words[i], moved);
      if (!job.whole)
        merge(b, covered[i], coveredBits(job, at, 1, block.fieldMask() << shift));
      if ((t + 1) % block.extent[0] == 0) {
        Value first = add(row, constant(t + 1 - block.extent[0]));
        mergeWords(words[i], covered[i], wordAddress(job, block.plane, first, channel));
        words[i] = covered[i] = Value();
      }
    }
  }
}

// Lanes of rows merged: with n rows of n lanes, result j has in lane t the lanes j * run .. j * run + run - 1 of row t,
// combined. Steps of pairs: 32-bit unpacks, 64-bit unpacks, then halves of registers, each one instruction on x86.
SmallVector<Value> TileEmitter::combineRuns(ArrayRef<Value> rows, int64_t run,
                                            function_ref<Value(Value, Value)> combine) {
  int64_t lanes = rows.size();
  SmallVector<SmallVector<Value>> sets = {SmallVector<Value>(rows)};
  for (int64_t step = 0, steps = llvm::Log2_64(lanes); step < steps; ++step) {
    // The bit of a lane's number that this step takes apart.
    int64_t bit = int64_t(1) << (step == 0 ? 1 : step == 1 ? 0 : step);
    SmallVector<int64_t> low, high;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      int64_t from; // within a pair of rows, one after the other; the low half
      if (step == 0)
        from = lane / 4 * 4 + lane % 4 / 2 + (lane % 2) * lanes;
      else if (step == 1)
        from = lane / 4 * 4 + lane % 2 + (lane % 4 / 2) * lanes;
      else
        from = lane / 4 * 8 + lane % 4;
      low.push_back(from);
      high.push_back(from + (step < 2 ? 2 : 4));
    }
    SmallVector<SmallVector<Value>> next(bit < run ? sets.size() : 2 * sets.size());
    for (auto [j, set] : llvm::enumerate(sets))
      for (size_t pair = 0; pair < set.size(); pair += 2) {
        Value lows = b.create<vector::ShuffleOp>(set[pair], set[pair + 1], low);
        Value highs = b.create<vector::ShuffleOp>(set[pair], set[pair + 1], high);
        if (bit < run) {
          next[j].push_back(combine(lows, highs));
        } else {
          next[j].push_back(lows);
          next[j + sets.size()].push_back(highs);
        }
      }
    sets = std::move(next);
  }
  SmallVector<Value> results;
  for (const SmallVector<Value> &set : sets)
    results.push_back(set.front());
  return results;
}

// K: the words of one block of channels for `tokens` tokens, as many at a time as a vector has lanes.
void TileEmitter::packAcrossTokens(const PackJob &job, ArrayRef<WordBlock> blocks, int64_t codeBits, Value row,
                                   Value channel, int64_t tokens, int64_t channels) {
  int64_t lanes = level.lanes;
  // Words that wait for fields of tokens further on: by plane, token and channel of the first field.
  std::map<std::tuple<size_t, int64_t, int64_t>, std::pair<Value, Value>> waiting;
  for (int64_t part = 0; part < tokens; part += lanes) {
    SmallVector<SmallVector<Value>> codes(lanes); // [token][vector]
    for (int64_t t = 0; t < lanes; ++t)
      for (int64_t c = 0; c < channels; c += lanes)
        codes[t].push_back(eval(job.codes, {add(row, constant(part + t)), add(channel, constant(c))}, lanes));
    for (auto [i, block] : llvm::enumerate(blocks)) {
      int64_t width = block.extent[1], run = std::min(width, lanes), inBlock = part % block.extent[0];
      int64_t first = part - inBlock + inBlock % WordBlock::kWords, tokenOffset = inBlock - inBlock % WordBlock::kWords;
      int64_t partMask = 0; // of the fields of these tokens in a word
      SmallVector<int64_t> shift(width);
      for (auto [field, at] : llvm::enumerate(block.position))
        if (at[0] == tokenOffset) {
          shift[at[1]] = field * block.plane.bits;
          partMask |= block.fieldMask() << shift[at[1]];
        }
      for (int64_t c = 0; c < channels; c += std::max(width, lanes)) {
        SmallVector<Value> merged(lanes);
        for (int64_t t = 0; t < lanes; ++t)
          for (int64_t at = c; at < c + std::max(width, lanes); at += lanes) {
            SmallVector<int32_t> shifts;
            for (int64_t lane = 0; lane < lanes; ++lane)
              shifts.push_back(static_cast<int32_t>(shift[(at + lane) % width]));
            Value field = planeField(block.plane, codeBits, codes[t][at / lanes]);
            auto amount = DenseElementsAttr::get(cast<VectorType>(field.getType()), ArrayRef<int32_t>(shifts));
            merge(b, merged[t], b.create<arith::ShLIOp>(field, b.create<arith::ConstantOp>(amount)));
          }
        auto words = combineRuns(merged, run, [&](Value x, Value y) { return b.create<arith::OrIOp>(x, y); });
        for (auto [j, word] : llvm::enumerate(words)) {
          int64_t at = c + static_cast<int64_t>(j) * width;
          auto &[value, covered] = waiting[{i, first, at}];
          merge(b, value, word);
          if (!job.whole)
            merge(b, covered, coveredBits(job, add(row, constant(part)), lanes, partMask));
          if (inBlock + lanes > block.extent[0] - WordBlock::kWords) // no later tokens share these words
            mergeWords(value, covered,
                       wordAddress(job, block.plane, add(row, constant(first)), add(channel, constant(at))));
        }
      }
    }
  }
}

// Any layout: a read, a mask and a write of a byte for each plane of each code.
void TileEmitter::packOneByOne(const PackJob &job, ArrayRef<PackedPlane> planes, int64_t codeBits) {
  Type i32 = b.getI32Type(), i8 = b.getI8Type();
  loop(job.begin, job.end, [&](Value row) {
    loop(0, job.shape[1], 1, [&](Value channel) {
      Value code = eval(job.codes, {row, channel}, 1);
      for (const PackedPlane &plane : planes) {
        Value bit = mul(add(codeAddress(plane.map, ::kvq::Dim::Token, add(job.token, row)),
                            codeAddress(plane.map, ::kvq::Dim::Channel, add(job.channel, channel))),
                        plane.bits);
        Value at = address(job.base, i8, add(div(bit, 8), constant(plane.offset)));
        Value within = b.create<arith::IndexCastOp>(i32, b.createOrFold<arith::AndIOp>(bit, constant(7)));
        Value mask = b.create<arith::ShLIOp>(splatInt(i32, (int64_t(1) << plane.bits) - 1), within);
        Value old = b.create<arith::ExtUIOp>(i32, loadVector(at, i8, 1));
        Value kept = b.create<arith::AndIOp>(old, b.create<arith::XOrIOp>(mask, splatInt(i32, -1)));
        Value moved = b.create<arith::ShLIOp>(planeField(plane, codeBits, code), within);
        storeVector(b.create<arith::TruncIOp>(i8, b.create<arith::OrIOp>(kept, moved)), at);
      }
    });
  });
}

// How store_codes goes by blocks of words: tokens and channels of one step; nothing where it goes code by code.
std::optional<std::array<int64_t, 2>> TileEmitter::packStep(tile::StoreCodesOp op) {
  auto blocks = WordBlock::of(packedPlanes(tile::parseSectionAttr(op.getLayout(), op.getBits())));
  if (failed(blocks))
    return std::nullopt;
  std::array<int64_t, 2> step = {1, 1};
  for (const WordBlock &block : *blocks)
    for (int dim : {0, 1})
      step[dim] = std::max(step[dim], block.extent[dim]);
  // Tokens of a K block that share no word are steps of their own.
  if (blocks->front().acrossTokens)
    step = {step[0] > WordBlock::kWords ? step[0] : level.lanes, std::max(step[1], level.lanes)};
  auto type = cast<RankedTensorType>(op.getCodes().getType());
  if (type.getDimSize(0) % step[0] != 0 || type.getDimSize(1) % step[1] != 0)
    return std::nullopt;
  return step;
}

int64_t TileEmitter::packSteps(tile::StoreCodesOp op) {
  auto step = packStep(op);
  return step ? cast<RankedTensorType>(op.getCodes().getType()).getNumElements() / ((*step)[0] * (*step)[1]) : 0;
}

// Where every row is stored, parameters of channels stay in registers over the rows: channels are the outer loop. Else
// which bits are stored does, over the channels.
void TileEmitter::packBlocks(tile::StoreCodesOp op, const PackJob &job, std::array<int64_t, 2> step,
                             function_ref<void(Value, Value)> body) {
  int64_t rows = job.shape[0] / step[0];
  auto at = [&](Value row, Value channel) {
    prefetchTurn(op, add(mul(div(channel, step[1]), rows), div(row, step[0])));
    body(row, channel);
  };
  if (job.whole)
    loop(0, job.shape[1], step[1],
         [&](Value channel) { loop(0, job.shape[0], step[0], [&](Value row) { at(row, channel); }); });
  else
    loop(0, job.shape[0], step[0],
         [&](Value row) { loop(0, job.shape[1], step[1], [&](Value channel) { at(row, channel); }); });
}

LogicalResult TileEmitter::emitStoreCodes(tile::StoreCodesOp op) {
  SmallVector<PackedPlane> planes = packedPlanes(tile::parseSectionAttr(op.getLayout(), op.getBits()));
  for (const PackedPlane &plane : planes)
    if (llvm::any_of(plane.map.inner, [](const auto &xors) { return xors.size() != 1; }))
      return op.emitOpError("has no lowering for a layout that combines index bits");
  auto type = cast<RankedTensorType>(op.getCodes().getType());
  PackJob job = {op.getCodes(),
                 scalars.lookup(op.getBase()),
                 scalars.lookup(op.getToken()),
                 op.getChannel() ? scalars.lookup(op.getChannel()) : constant(0),
                 scalars.lookup(op.getBegin()),
                 scalars.lookup(op.getEnd()),
                 {type.getDimSize(0), type.getDimSize(1)},
                 isConstantIntValue(op.getBegin(), 0) && isConstantIntValue(op.getEnd(), type.getDimSize(0))};
  auto step = packStep(op);
  if (!step) {
    packOneByOne(job, planes, op.getBits());
    return success();
  }
  std::vector<WordBlock> blocks = *WordBlock::of(planes);
  packBlocks(op, job, *step, [&](Value row, Value channel) {
    if (blocks.front().acrossTokens)
      return packAcrossTokens(job, blocks, op.getBits(), row, channel, (*step)[0], (*step)[1]);
    for (int64_t c = 0; c < (*step)[1]; c += level.lanes)
      packAcrossChannels(job, blocks, op.getBits(), row, add(channel, constant(c)), level.lanes);
  });
  return success();
}
