// SPDX-License-Identifier: Apache-2.0
//
// Addresses of words, from the layout of a section (format-spec section 3).

#include "codegen/nvptx/Words.h"

#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using ::kvq::Dim;
using tile::LaneLayout;
using tile::TileBit;

FailureOr<WordMap> WordMap::get(Operation *op, tile::LayoutAttr layout, int64_t bits, ArrayRef<int64_t> tile) {
  WordMap result;
  result.bits = bits;
  result.map = tile::parseLayoutAttr(layout);
  result.tile.assign(tile.begin(), tile.end());
  if (result.map.inner.empty())
    return op->emitOpError("takes codes of layout \"")
           << layout.getMap() << "\", which lie in several planes; use 2, 4 or 8 bits on this target";
  const ::kvq::Layout &map = result.map;
  if (llvm::any_of(map.inner, [](const auto &column) { return column.size() != 1; }))
    return op->emitOpError("takes codes of layout \"")
           << layout.getMap()
           << "\", in which an address bit is a sum of index bits; use another layout on this target";
  for (Dim dim : {Dim::Token, Dim::Channel}) {
    int64_t extent = tile[static_cast<int>(dim)];
    auto address = [&](int64_t i) { return dim == Dim::Token ? map.address(i, 0) : map.address(0, i); };
    // A tile that begins at (t, c) has the addresses of the first one, all moved by as much; and so has what a lane
    // holds those of what the first one does.
    auto isMoved = [&](int64_t begin, int64_t i) { return address(begin + i) == address(begin) + address(i); };
    // It may begin within words, as long as each of its words lies in one of theirs.
    int64_t fields = result.codesPerWord();
    auto keepsWords = [&](int64_t begin, int64_t i) {
      int64_t before = address(begin) % fields;
      return before == 0 || (llvm::isPowerOf2_64(extent) && before + address(i) % fields < fields);
    };
    bool repeats = true;
    for (int64_t begin = 0; begin < map.extent(dim); begin += extent)
      for (int64_t i = 0; i < extent; ++i)
        repeats &= isMoved(begin, i) && keepsWords(begin, i);
    for (int bit = 0; bit < tile::bitsOf(extent); ++bit)
      for (int64_t i = 0; i < extent; ++i)
        repeats &= (i >> bit & 1) || isMoved(int64_t(1) << bit, i);
    if (!repeats)
      return op->emitOpError("takes a tile of ") << tile[0] << " x " << tile[1] << " codes, which layout \""
                                                 << layout.getMap() << "\" does not repeat; use another tile";
  }
  return result;
}

LaneLayout WordMap::lanes() const {
  // Index bits of the tile by address; those of the fields and of four words stay in a lane.
  SmallVector<std::pair<int64_t, TileBit>> bitsByAddress;
  for (int dim = 0; dim < 2; ++dim)
    for (int bit = 0; bit < tile::bitsOf(tile[dim]); ++bit) {
      bitsByAddress.push_back({addressOf(static_cast<Dim>(dim), int64_t(1) << bit), {dim, bit}});
    }
  llvm::sort(bitsByAddress, [](const auto &a, const auto &b) { return a.first < b.first; });
  LaneLayout layout;
  int lane = 0;
  for (auto [address, bit] : bitsByAddress)
    if (address >= codesPerWord() * 4 && lane < LaneLayout::kLaneBits)
      layout.lane[lane++] = bit;
  // A small tile: rather narrow accesses than idle lanes.
  for (auto [address, bit] : llvm::reverse(bitsByAddress))
    if (address >= codesPerWord() && address < codesPerWord() * 4 && lane < LaneLayout::kLaneBits)
      layout.lane[lane++] = bit;
  return layout;
}

bool WordMap::beginsAtMultipleOf(int64_t words) const {
  for (Dim dim : {Dim::Token, Dim::Channel})
    for (int64_t at = 0; at < map.extent(dim); at += tile[static_cast<int>(dim)])
      if (addressOf(dim, at) % (words * codesPerWord()) != 0)
        return false;
  return true;
}

Value WordMap::wordsBefore(OpBuilder &b, Location loc, Dim dim, Value at) const {
  auto constant = [&](int64_t value) { return arith::ConstantIndexOp::create(b, loc, value).getResult(); };
  int64_t begin = int64_t(1) << map.innerBits(dim), extent = tile[static_cast<int>(dim)];
  Value words = constant(0), rest = b.createOrFold<arith::DivUIOp>(loc, at, constant(begin));
  int64_t stride = int64_t(1) << map.inner.size();
  // Below the inner part a tile may begin at a few places: their bits, one by one.
  int64_t lowest = extent & -extent;
  for (int bit = 0; bit < map.innerBits(dim); ++bit) {
    int64_t step = int64_t(1) << bit;
    if (step < lowest)
      continue;
    Value isSet =
        b.createOrFold<arith::RemUIOp>(loc, b.createOrFold<arith::DivUIOp>(loc, at, constant(step)), constant(2));
    int64_t address = addressOf(dim, step);
    words = b.createOrFold<arith::AddIOp>(
        loc, words, b.createOrFold<arith::MulIOp>(loc, isSet, constant(address / codesPerWord())));
  }
  for (const ::kvq::OuterLoop &loop : map.loops) {
    if (loop.dim == dim && loop.count > 1) {
      Value digit = b.createOrFold<arith::RemUIOp>(loc, rest, constant(loop.count));
      rest = b.createOrFold<arith::DivUIOp>(loc, rest, constant(loop.count));
      words = b.createOrFold<arith::AddIOp>(
          loc, words, b.createOrFold<arith::MulIOp>(loc, digit, constant(stride / codesPerWord())));
    }
    stride *= loop.count;
  }
  return words;
}

Value WordMap::fieldsBefore(OpBuilder &b, Location loc, Dim dim, Value at) const {
  Value fields;
  for (int bit = 0; bit < map.innerBits(dim); ++bit) {
    int64_t step = int64_t(1) << bit, field = addressOf(dim, step) % codesPerWord();
    if (step % tile[static_cast<int>(dim)] != 0 || field == 0)
      continue;
    auto constant = [&](int64_t value) { return arith::ConstantIntOp::create(b, loc, b.getI32Type(), value); };
    Value number = b.createOrFold<arith::IndexCastOp>(loc, b.getI32Type(), at);
    Value isSet =
        b.createOrFold<arith::AndIOp>(loc, b.createOrFold<arith::ShRUIOp>(loc, number, constant(bit)), constant(1));
    Value part = b.createOrFold<arith::MulIOp>(loc, isSet, constant(field));
    fields = fields ? b.createOrFold<arith::AddIOp>(loc, fields, part) : part;
  }
  return fields;
}
