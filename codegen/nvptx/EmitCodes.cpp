// SPDX-License-Identifier: Apache-2.0
//
// Packed codes: words of a page, single codes out of them, and codes packed into words.

#include "codegen/nvptx/LaneEmitter.h"

#include "codegen/nvptx/Alignment.h"

#include "mlir/IR/Matchers.h"
#include "llvm/ADT/MapVector.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::LaneLayout;
using tile::RegisterFile;
using tile::TileBit;

LogicalResult LaneEmitter::emitCodes(tile::CodesOp op) {
  auto type = cast<RankedTensorType>(op.getResult().getType());
  FailureOr<WordMap> map = WordMap::get(op, tile::getLayout(type), type.getElementTypeBitWidth(), type.getShape());
  if (failed(map))
    return failure();
  packed.try_emplace(op.getResult(), Packed{scalarOf(op.getBase()), scalarOf(op.getToken()), scalarOf(op.getChannel()),
                                            *map, isReadOnly(op.getBase()), alignmentOf(op.getBase())});
  return success();
}

// The part of a word's place that the lane decides.
Value LaneEmitter::laneWords(const WordMap &map, const LaneLayout &lanes) {
  std::string key = "words" + lanes.toText();
  for (int bit = 0; bit < LaneLayout::kLaneBits; ++bit)
    key += " " + std::to_string(lanes.lane[bit].isNone() ? 0 : map.word(indexOf(lanes.lane[bit])));
  return atBeginning(key, [&]() -> Value {
    Value words;
    for (int bit = 0; bit < LaneLayout::kLaneBits;) {
      int64_t step = lanes.lane[bit].isNone() ? 0 : map.word(indexOf(lanes.lane[bit]));
      int count = 1;
      while (step && bit + count < LaneLayout::kLaneBits && !lanes.lane[bit + count].isNone() &&
             map.word(indexOf(lanes.lane[bit + count])) == step << count)
        ++count;
      if (step) {
        Value bits = arith::ShRUIOp::create(b, lane, constant32(bit));
        bits = arith::AndIOp::create(b, bits, constant32((1 << count) - 1));
        bits = arith::MulIOp::create(b, bits, constant32(step));
        words = words ? arith::AddIOp::create(b, words, bits).getResult() : bits;
      }
      bit += count;
    }
    return arith::IndexCastUIOp::create(b, b.getIndexType(), words ? words : constant32(0));
  });
}

Value LaneEmitter::wordAddress(const Packed &codes, const LaneLayout &lanes, int64_t word) {
  Value words = codes.map.wordsBefore(b, b.getLoc(), ::kvq::Dim::Token, codes.token);
  words =
      b.createOrFold<arith::AddIOp>(words, codes.map.wordsBefore(b, b.getLoc(), ::kvq::Dim::Channel, codes.channel));
  words = b.createOrFold<arith::AddIOp>(words, laneWords(codes.map, lanes));
  Value bytes = arith::MulIOp::create(b, words, constant(4));
  Value offset = arith::IndexCastOp::create(b, b.getI64Type(), bytes);
  Value at = LLVM::GEPOp::create(b, codes.base.getType(), b.getI8Type(), codes.base, ArrayRef<LLVM::GEPArg>{offset});
  return LLVM::GEPOp::create(b, codes.base.getType(), b.getI8Type(), at,
                             ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(word * 4)});
}

// By how many bits the codes of a tile that begins within words are higher than in the first tile; null where none
// does.
Value LaneEmitter::beginShift(const Packed &codes) {
  Value token = codes.map.fieldsBefore(b, b.getLoc(), ::kvq::Dim::Token, codes.token);
  Value channel = codes.map.fieldsBefore(b, b.getLoc(), ::kvq::Dim::Channel, codes.channel);
  if (!token && !channel)
    return {};
  Value fields = token && channel ? arith::AddIOp::create(b, token, channel).getResult() : token ? token : channel;
  return arith::MulIOp::create(b, fields, constant32(codes.map.bits));
}

// How many words from `word` on can be read at once: they are in the lane, and their address is a multiple.
static int64_t vectorOf(ArrayRef<int64_t> words, int64_t word, bool aligned) {
  for (int64_t count : {4, 2}) {
    bool all = aligned && word % count == 0;
    for (int64_t i = 0; i < count; ++i)
      all &= llvm::is_contained(words, word + i);
    if (all)
      return count;
  }
  return 1;
}

// A word of the tile, by its place in lane 0. `words`: all that the lane needs, so that neighbours come with it.
Value LaneEmitter::loadWord(const Packed &codes, const LaneLayout &lanes, ArrayRef<int64_t> words, int64_t word,
                            LoadedWords &loaded) {
  if (Value value = loaded.lookup(word))
    return value;
  bool aligned = lanesAlign(codes, lanes);
  int64_t begin = word & ~int64_t(3), count = vectorOf(words, begin, aligned);
  if (count < 4) {
    begin = word & ~int64_t(1);
    count = std::min<int64_t>(2, vectorOf(words, begin, aligned));
  }
  if (count == 1)
    begin = word;
  Type type = count == 1 ? Type(b.getI32Type()) : Type(VectorType::get({count}, b.getI32Type()));
  auto load = LLVM::LoadOp::create(b, type, wordAddress(codes, lanes, begin), count * 4);
  load.setInvariant(codes.isReadOnly);
  for (int64_t i = 0; i < count; ++i)
    loaded[begin + i] =
        count == 1 ? load.getResult() : LLVM::ExtractElementOp::create(b, load, constant32(i)).getResult();
  return loaded[word];
}

// The index of the one element that differs from the first in a bit.
std::array<int64_t, 2> LaneEmitter::indexOf(TileBit bit) {
  std::array<int64_t, 2> index = {0, 0};
  index[bit.dim] = int64_t(1) << bit.bit;
  return index;
}

// Whether each lane's words begin at 16 bytes where word 0 does.
bool LaneEmitter::lanesAlign(const Packed &codes, const LaneLayout &lanes) {
  for (TileBit bit : lanes.lane)
    if (!bit.isNone() && codes.map.word(indexOf(bit)) % 4 != 0)
      return false;
  return codes.alignment >= 16 && codes.map.beginsAtMultipleOf(4);
}

// ---- single codes ----

// By how many bits the codes of the lane are higher in their words than those of lane 0; null where no lane's are.
Value LaneEmitter::laneShift(const WordMap &map, const LaneLayout &lanes) {
  Value shift;
  for (int bit = 0; bit < LaneLayout::kLaneBits; ++bit) {
    int64_t fields = lanes.lane[bit].isNone() ? 0 : map.field(indexOf(lanes.lane[bit]));
    if (!fields)
      continue;
    Value more = arith::SelectOp::create(b, laneBit(bit), constant32(fields * map.bits), constant32(0));
    shift = shift ? arith::AddIOp::create(b, shift, more).getResult() : more;
  }
  return shift;
}

// The code of an element as i32.
Value LaneEmitter::codeAt(const Packed &codes, const RegisterFile &file, ArrayRef<int64_t> index,
                          ArrayRef<int64_t> words, LoadedWords &loaded) {
  const LaneLayout &lanes = file.layout();
  Value word = loadWord(codes, lanes, words, codes.map.word(index), loaded);
  int64_t bits = codes.map.bits;
  Value shift = constant32(codes.map.field(index) * bits);
  for (Value more : {laneShift(codes.map, lanes), beginShift(codes)})
    if (more)
      shift = arith::AddIOp::create(b, shift, more);
  word = b.createOrFold<arith::ShRUIOp>(word, shift);
  return arith::AndIOp::create(b, word, constant32((1 << bits) - 1));
}

// Places of all words that a lane needs for a tile.
static SmallVector<int64_t> wordsOf(const WordMap &map, const RegisterFile &file) {
  SmallVector<int64_t> words;
  for (int64_t number = 0; number < file.count(); ++number)
    words.push_back(map.word(file.base(number)));
  llvm::sort(words);
  words.erase(llvm::unique(words), words.end());
  return words;
}

LogicalResult LaneEmitter::emitUnpack(tile::UnpackOp op) {
  const Packed &codes = packed.find(op.getCodes())->second;
  RegisterFile file = fileOf(op.getResult());
  SmallVector<int64_t> words = wordsOf(codes.map, file);
  LoadedWords loaded;
  Registers values;
  for (int64_t number = 0; number < file.count(); ++number)
    values.push_back(codeAt(codes, file, file.base(number), words, loaded));
  registers[op.getResult()] = std::move(values);
  return success();
}

// dequantize_c1: a product, rounded, and a sum.
LogicalResult LaneEmitter::emitDequantize(tile::DequantizeOp op) {
  const Packed &codes = packed.find(op.getCodes())->second;
  RegisterFile file = fileOf(op.getResult()), params = fileOf(op.getScale());
  const Registers scales = registersOf(op.getScale()), minima = registersOf(op.getMin());
  SmallVector<int64_t> words = wordsOf(codes.map, file);
  LoadedWords loaded;
  bool perChannel = op.getAxis() == "channel";
  int along = perChannel ? 0 : 1; // the dimension that groups cut
  int64_t group = file.shape()[along] / params.shape()[0];
  SmallVector<int> ragged;
  if (!llvm::isPowerOf2_64(group))
    ragged.push_back(along);
  auto of = [&](const Registers &from, ArrayRef<int64_t> index) {
    return byLanes(file.layout(), ragged, SmallVector<int64_t>(index), [&](ArrayRef<int64_t> here) {
      return element(from, params, {here[along] / group, here[1 - along]});
    });
  };
  Registers values;
  for (int64_t number = 0; number < file.count(); ++number) {
    SmallVector<int64_t> index = file.base(number);
    Value code = codeAt(codes, file, index, words, loaded);
    Value x = arith::UIToFPOp::create(b, b.getF32Type(), code);
    x = arith::MulFOp::create(b, x, of(scales, index));
    values.push_back(arith::AddFOp::create(b, x, of(minima, index)));
  }
  registers[op.getResult()] = std::move(values);
  return success();
}

// ---- packing ----

namespace {

// What becomes one word: registers and the fields that they go to.
struct PackedWord {
  SmallVector<std::pair<int64_t, int64_t>> codes; // register, field
};

} // namespace

// Bits of a word that are stored: all fields of one row are one condition.
Value LaneEmitter::coveredBits(tile::StoreCodesOp op, const RegisterFile &file,
                               ArrayRef<std::pair<int64_t, int64_t>> codes, int64_t bits) {
  llvm::MapVector<int64_t, int64_t> masks;
  for (auto [number, field] : codes)
    masks[file.base(number)[0]] |= ((int64_t(1) << bits) - 1) << field * bits;
  Value covered;
  for (auto [row, mask] : masks) {
    Value at = b.createOrFold<arith::AddIOp>(laneOffset(file.layout(), 0), constant(row));
    Value above = arith::CmpIOp::create(b, arith::CmpIPredicate::sge, at, scalarOf(op.getBegin()));
    Value below = arith::CmpIOp::create(b, arith::CmpIPredicate::slt, at, scalarOf(op.getEnd()));
    Value isStored = arith::AndIOp::create(b, above, below);
    Value part = arith::SelectOp::create(b, isStored, constant32(static_cast<int32_t>(mask)), constant32(0));
    covered = covered ? arith::OrIOp::create(b, covered, part).getResult() : part;
  }
  return covered;
}

LogicalResult LaneEmitter::emitStoreCodes(tile::StoreCodesOp op) {
  auto type = cast<RankedTensorType>(op.getCodes().getType());
  int64_t bits = op.getBits();
  FailureOr<WordMap> map = WordMap::get(op, op.getLayout(), bits, type.getShape());
  if (failed(map))
    return failure();
  RegisterFile file = fileOf(op.getCodes());
  const Registers codes = registersOf(op.getCodes());
  Packed target{scalarOf(op.getBase()),
                scalarOf(op.getToken()),
                op.getChannel() ? scalarOf(op.getChannel()) : constant(0),
                *map,
                false,
                alignmentOf(op.getBase())};
  llvm::MapVector<int64_t, PackedWord> packedWords;
  for (int64_t number = 0; number < file.count(); ++number)
    packedWords[map->word(file.base(number))].codes.push_back({number, map->field(file.base(number))});
  SmallVector<int64_t> words = wordsOf(*map, file);
  bool whole = matchPattern(op.getBegin(), m_Zero());
  for (auto &[word, content] : packedWords) // a tile that ends within words leaves the rest of them as it is
    whole &= static_cast<int64_t>(content.codes.size()) == map->codesPerWord();
  APInt end;
  whole &= matchPattern(op.getEnd(), m_ConstantInt(&end)) && end.getSExtValue() == type.getDimSize(0);
  Value first = firstOfRepeated(file.layout()), begin = beginShift(target);
  auto placed = [&](Value word) { return begin ? arith::ShLIOp::create(b, word, begin).getResult() : word; };
  auto write = [&] {
    for (size_t i = 0; i < words.size();) {
      int64_t count = vectorOf(words, words[i], lanesAlign(target, file.layout()));
      SmallVector<Value> values, covered;
      for (int64_t j = 0; j < count; ++j) {
        const PackedWord &content = packedWords[words[i + j]];
        Value value;
        for (auto [number, field] : content.codes) {
          Value part = b.createOrFold<arith::ShLIOp>(codes[number], constant32(field * bits));
          value = value ? arith::OrIOp::create(b, value, part).getResult() : part;
        }
        values.push_back(placed(value));
        if (!whole)
          covered.push_back(placed(coveredBits(op, file, content.codes, bits)));
      }
      storeWords(wordAddress(target, file.layout(), words[i]), values, covered);
      i += static_cast<size_t>(count);
    }
  };
  if (!first)
    return write(), success();
  auto branch = scf::IfOp::create(b, first, /*withElseRegion=*/false);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPoint(branch.thenBlock()->getTerminator());
  return write(), success();
}

// Words at an address; where `covered` is given, only those bits of each, if any.
void LaneEmitter::storeWords(Value to, ArrayRef<Value> values, ArrayRef<Value> covered) {
  int64_t count = static_cast<int64_t>(values.size());
  Type type = count == 1 ? Type(b.getI32Type()) : Type(VectorType::get({count}, b.getI32Type()));
  auto join = [&](ArrayRef<Value> parts) {
    if (count == 1)
      return parts.front();
    Value vector = LLVM::PoisonOp::create(b, type);
    for (int64_t i = 0; i < count; ++i)
      vector = LLVM::InsertElementOp::create(b, vector, parts[i], constant32(i));
    return vector;
  };
  if (covered.empty()) {
    LLVM::StoreOp::create(b, join(values), to, count * 4);
    return;
  }
  Value any = covered.front();
  for (Value mask : covered.drop_front())
    any = arith::OrIOp::create(b, any, mask);
  Value touches = arith::CmpIOp::create(b, arith::CmpIPredicate::ne, any, constant32(0));
  auto branch = scf::IfOp::create(b, touches, /*withElseRegion=*/false);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPoint(branch.thenBlock()->getTerminator());
  Value old = LLVM::LoadOp::create(b, type, to, count * 4);
  SmallVector<Value> merged;
  for (int64_t i = 0; i < count; ++i) {
    Value before = count == 1 ? old : LLVM::ExtractElementOp::create(b, old, constant32(i)).getResult();
    Value kept = arith::AndIOp::create(b, before, arith::XOrIOp::create(b, covered[i], constant32(-1)));
    merged.push_back(arith::OrIOp::create(b, kept, arith::AndIOp::create(b, values[i], covered[i])));
  }
  LLVM::StoreOp::create(b, join(merged), to, count * 4);
}
