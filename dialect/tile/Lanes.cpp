// SPDX-License-Identifier: Apache-2.0
//
// Lane layouts: text, checks, and which register holds which element.

#include "dialect/tile/Lanes.h"

#include "llvm/ADT/SmallVector.h"

using namespace mlir;
using namespace mlir::kvq::tile;

int mlir::kvq::tile::bitsOf(int64_t extent) {
  int bits = 0;
  while (extent > 0 && extent % 2 == 0) {
    extent /= 2;
    ++bits;
  }
  return bits;
}

// ---- text ----

static std::string bitText(TileBit bit) {
  return bit.isNone() ? "-" : "d" + std::to_string(bit.dim) + "." + std::to_string(bit.bit);
}

static bool parseBit(StringRef text, TileBit &bit) {
  bit = TileBit();
  if (text == "-")
    return true;
  auto [dim, number] = text.split('.');
  return dim.consume_front("d") && !dim.getAsInteger(10, bit.dim) && !number.getAsInteger(10, bit.bit) &&
         bit.dim >= 0 && bit.dim < 8 && bit.bit >= 0 && bit.bit < 32;
}

std::string LaneLayout::toText() const {
  std::string text = "lane=[";
  for (int i = 0; i < kLaneBits; ++i)
    text += (i ? " " : "") + bitText(lane[i]);
  text += "]";
  return pair.isNone() ? text : text + " pair=" + bitText(pair);
}

std::optional<LaneLayout> LaneLayout::parse(StringRef text, std::string &why) {
  why = "lanes \"" + text.str() + "\" are not written as in lane=[d0.1 d0.2 d1.0 d1.1 -] pair=d0.0";
  LaneLayout layout;
  StringRef rest = text;
  if (!rest.consume_front("lane=[") || !rest.contains(']'))
    return std::nullopt;
  auto [lanes, after] = rest.split(']');
  SmallVector<StringRef> words;
  lanes.split(words, ' ');
  if (words.size() != kLaneBits)
    return std::nullopt;
  for (int i = 0; i < kLaneBits; ++i)
    if (!parseBit(words[i], layout.lane[i]))
      return std::nullopt;
  if (!after.empty() && (!after.consume_front(" pair=") || !parseBit(after, layout.pair)))
    return std::nullopt;
  // lanes_c1
  SmallVector<TileBit> all(layout.lane.begin(), layout.lane.end());
  all.push_back(layout.pair);
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (!all[i].isNone() && all[i] == all[j]) {
        why = "lanes \"" + text.str() + "\" name bit " + bitText(all[i]) + " twice; name each bit once";
        return std::nullopt;
      }
  why.clear();
  return layout;
}

int LaneLayout::laneOf(TileBit bit) const {
  for (int i = 0; i < kLaneBits; ++i)
    if (lane[i] == bit && !bit.isNone())
      return i;
  return -1;
}

std::string LaneLayout::whyNot(ArrayRef<int64_t> shape) const {
  SmallVector<TileBit> all(lane.begin(), lane.end());
  all.push_back(pair);
  for (TileBit bit : all)
    if (!bit.isNone() && (bit.dim >= static_cast<int>(shape.size()) || bit.bit >= bitsOf(shape[bit.dim])))
      return "lanes \"" + toText() + "\" name bit " + bitText(bit) +
             ", which the tile does not have: bit b exists where 2^(b+1) divides the extent";
  return "";
}

static LaneLayout mapBits(LaneLayout layout, function_ref<TileBit(TileBit)> map) {
  for (TileBit &bit : layout.lane)
    bit = bit.isNone() ? bit : map(bit);
  layout.pair = layout.pair.isNone() ? layout.pair : map(layout.pair);
  return layout;
}

LaneLayout mlir::kvq::tile::dropDim(LaneLayout layout, int dim) {
  return mapBits(layout, [dim](TileBit bit) {
    if (bit.dim == dim)
      return TileBit();
    return TileBit{bit.dim > dim ? bit.dim - 1 : bit.dim, bit.bit};
  });
}

LaneLayout mlir::kvq::tile::insertDim(LaneLayout layout, int dim) {
  return mapBits(layout, [dim](TileBit bit) { return TileBit{bit.dim >= dim ? bit.dim + 1 : bit.dim, bit.bit}; });
}

// ---- registers ----

RegisterFile::RegisterFile(ArrayRef<int64_t> shape, const LaneLayout &layout) : shape_(shape), layout_(layout) {
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    int64_t mask = 0;
    for (TileBit bit : layout.lane)
      if (bit.dim == static_cast<int>(dim))
        mask |= int64_t(1) << bit.bit;
    if (layout.pair.dim == static_cast<int>(dim))
      mask |= int64_t(1) << layout.pair.bit;
    SmallVector<int64_t> kept, ordinal(shape[dim]);
    for (int64_t i = 0; i < shape[dim]; ++i)
      if ((i & mask) == 0) {
        ordinal[i] = static_cast<int64_t>(kept.size());
        kept.push_back(i);
      }
    for (int64_t i = 0; i < shape[dim]; ++i)
      ordinal[i] = ordinal[i & ~mask];
    count_ *= static_cast<int64_t>(kept.size());
    kept_.push_back(std::move(kept));
    ordinal_.push_back(std::move(ordinal));
  }
}

SmallVector<int64_t> RegisterFile::base(int64_t number) const {
  SmallVector<int64_t> index(shape_.size());
  for (size_t dim = shape_.size(); dim-- > 0;) {
    int64_t extent = static_cast<int64_t>(kept_[dim].size());
    index[dim] = kept_[dim][number % extent];
    number /= extent;
  }
  return index;
}

int64_t RegisterFile::find(ArrayRef<int64_t> index) const {
  int64_t number = 0;
  for (size_t dim = 0; dim < shape_.size(); ++dim)
    number = number * static_cast<int64_t>(kept_[dim].size()) + ordinal_[dim][index[dim]];
  return number;
}
