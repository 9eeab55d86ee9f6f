// SPDX-License-Identifier: Apache-2.0
//
// The choice of fragments.

#include "codegen/nvptx/Fragment.h"

#include "llvm/ADT/Sequence.h"
#include "llvm/ADT/SmallSet.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::LaneLayout;
using tile::TileBit;

static TileBit bitOf(int dim, int bit) { return bit < 0 ? TileBit() : TileBit{dim, bit}; }

LaneLayout Fragment::result() const {
  return {{bitOf(0, 1), bitOf(0, 2), bitOf(1, mLane[0]), bitOf(1, mLane[1]), bitOf(1, mLane[2])}, TileBit()};
}

LaneLayout Fragment::coefficients(int rank) const {
  int r = rank - 2, c = rank - 1;
  return {{bitOf(c, kLane[0]), bitOf(c, kLane[1]), bitOf(r, 0), bitOf(r, 1), bitOf(r, 2)}, bitOf(c, kPair)};
}

LaneLayout Fragment::values(int contract) const {
  int m = 1 - contract;
  return {{bitOf(contract, kLane[0]), bitOf(contract, kLane[1]), bitOf(m, mLane[0]), bitOf(m, mLane[1]),
           bitOf(m, mLane[2])},
          bitOf(contract, kPair)};
}

LaneLayout mlir::kvq::nvptx::transposed(const LaneLayout &layout) {
  const auto &lane = layout.lane;
  return {{lane[3], lane[4], layout.pair, lane[0], lane[1]}, lane[2]};
}

bool mlir::kvq::nvptx::isTransposition(const LaneLayout &source, const LaneLayout &target) {
  TileBit column = target.lane[2];
  return !target.pair.isNone() && !column.isNone() && source.laneOf(column) < 0 &&
         (source.pair.isNone() || source.pair == column) && source.sameLanes(transposed(target));
}

nvptx::Move mlir::kvq::nvptx::moveOf(const LaneLayout &source, const LaneLayout &target, Type element) {
  if (source.sameLanes(target))
    return Move::Rename;
  return element.isF16() && isTransposition(source, target) ? Move::Transpose : Move::Shuffle;
}

SmallVector<int> mlir::kvq::nvptx::bitsThatChoose(const LaneLayout &source, const LaneLayout &target) {
  SmallVector<int> bits;
  for (int bit = 0; bit < LaneLayout::kLaneBits; ++bit)
    if (!target.lane[bit].isNone() && source.laneOf(target.lane[bit]) < 0)
      bits.push_back(bit);
  return bits;
}

static RankedTensorType typeOf(Value value) { return cast<RankedTensorType>(value.getType()); }

bool mlir::kvq::nvptx::usesTensorCores(tile::DotOp op) {
  auto x = typeOf(op.getX());
  return typeOf(op.getAcc()).getDimSize(0) % 8 == 0 && x.getDimSize(op.getContract()) % 16 == 0;
}

namespace {

// Hands out bits of an index, each once.
class Bits {
public:
  explicit Bits(int64_t extent) : count(tile::bitsOf(extent)) {}
  int bits() const { return count; }
  bool isFree(int bit) const { return bit >= 0 && bit < count && !used.contains(bit); }
  void take(int bit) { used.insert(bit); }
  int lowest() { // -1: none is left
    for (int bit = 0; bit < count; ++bit)
      if (!used.contains(bit)) {
        used.insert(bit);
        return bit;
      }
    return -1;
  }
  // The next bit of `order` for a lane; without an order the lowest.
  int next(ArrayRef<int> order) {
    for (int bit : order)
      if (isFree(bit)) {
        take(bit);
        return bit;
      }
    return lowest();
  }

private:
  int count;
  llvm::SmallSet<int, 8> used;
};

} // namespace

// What is left to choose: bits that are not chosen yet are -1, of k all four must exist. Lanes take bits in a wished
// order.
static Fragment complete(Fragment fragment, Bits m, Bits k, ArrayRef<int> mOrder = {}, ArrayRef<int> kOrder = {}) {
  for (int &bit : fragment.mLane)
    if (bit < 0)
      bit = m.next(mOrder);
  if (fragment.mReg < 0)
    fragment.mReg = m.lowest();
  if (fragment.kPair < 0)
    fragment.kPair = k.lowest();
  for (int &bit : fragment.kLane)
    if (bit < 0)
      bit = k.next(kOrder);
  if (fragment.kReg < 0) // as codes of the profile mma have it (layout_c7)
    fragment.kReg = k.next({2});
  return fragment;
}

// The bits of an index in the order in which lanes should select them: first those that address words beyond the 16
// bytes which a lane reads at once, lowest address first.
static SmallVector<int> laneOrder(const ::kvq::Layout &map, ::kvq::Dim dim, int bits, int64_t codesPerWord) {
  SmallVector<std::pair<int64_t, int>> far, near;
  for (int bit = 0; bit < bits; ++bit) {
    int64_t at = int64_t(1) << bit, address = dim == ::kvq::Dim::Token ? map.address(at, 0) : map.address(0, at);
    (address >= 4 * codesPerWord ? far : near).push_back({address, bit});
  }
  llvm::sort(far);
  llvm::sort(near, std::greater<>());
  SmallVector<int> order;
  for (auto &part : {far, near})
    for (auto [address, bit] : part)
      order.push_back(bit);
  return order;
}

// Into how many equal runs scales divide x's kept dimension, and the contracted one.
static int64_t setsOf(tile::DotOp op) {
  auto coeff = typeOf(op.getCoeff());
  return coeff.getRank() == 3 ? coeff.getDimSize(0) : 1;
}

static int64_t groupsOf(tile::DotOp op) { return op.getScale() ? typeOf(op.getScale()).getDimSize(0) : 1; }

// Whether a bit of an index moves within one of `parts` equal runs of it.
static bool isInPart(int bit, int64_t extent, int64_t parts) {
  return bit < 0 || (extent / parts) % (int64_t(2) << bit) == 0;
}

bool mlir::kvq::nvptx::liesInParts(const Fragment &f, tile::DotOp op) {
  auto x = typeOf(op.getX());
  int64_t contract = op.getContract();
  auto all = [](ArrayRef<int> bits, int64_t extent, int64_t parts) {
    return llvm::all_of(bits, [&](int bit) { return isInPart(bit, extent, parts); });
  };
  return all({f.mLane[0], f.mLane[1], f.mLane[2], f.mReg}, x.getDimSize(1 - contract), setsOf(op)) &&
         all({f.kPair, f.kLane[0], f.kLane[1], f.kReg}, x.getDimSize(contract), groupsOf(op));
}

// Hands out the fields of a word along k. `others`: bits of k within a group that are no fields. Lanes read words of
// their own where these suffice; else they share words, of which each takes some of the fields, lowest first: a shift
// by what the lane decides brings them to where those of lane 0 are.
static void takeFields(Fragment &fragment, ArrayRef<int> kFields, int64_t others) {
  for (int64_t i = 0; i + others < 2 && !kFields.empty(); ++i) {
    fragment.kLane[i] = kFields.front();
    kFields = kFields.drop_front();
  }
  if (!kFields.empty())
    fragment.kReg = kFields.front();
}

FailureOr<Fragment> mlir::kvq::nvptx::fragmentOfCodes(tile::DotOp op, ArrayRef<int> tokens) {
  auto type = typeOf(op.getX());
  tile::LayoutAttr attr = tile::getLayout(type);
  ::kvq::Layout map = tile::parseLayoutAttr(attr);
  int64_t codeBits = type.getElementTypeBitWidth(), contract = op.getContract();
  auto refuse = [&](const Twine &why) {
    return op.emitOpError("cannot multiply codes of layout \"") << attr.getMap() << "\" on tensor cores: " << why;
  };
  if (map.inner.empty())
    return op.emitOpError("takes codes of ")
           << codeBits << " bits, which lie in several planes; use 2, 4 or 8 on this target";
  int64_t kept = type.getDimSize(1 - contract), contracted = type.getDimSize(contract);
  Bits m(kept), k(contracted);
  if (k.bits() < 4)
    return refuse("tiles contract a multiple of 16 elements; use the profile mma");
  Fragment fragment;
  fragment.kPair = fragment.kLane[0] = fragment.kLane[1] = fragment.kReg = -1;
  SmallVector<int> kFields; // but for the halves
  size_t fields = llvm::Log2_64(32 / codeBits);
  for (size_t i = 0; i < fields; ++i) {
    if (map.inner[i].size() != 1)
      return refuse("a bit of a word's fields is a sum of index bits; use the profile mma");
    auto [dim, bit] = map.inner[i].front();
    bool isK = static_cast<int64_t>(dim) == contract;
    Bits &bits = isK ? k : m;
    if (!bits.isFree(bit))
      return refuse("a tile ends within a word; use the profile mma");
    bits.take(bit);
    if (i + 1 == fields && !isK) // the two halves of a register are neighbours in k
      return refuse("the halves of a word are not of the contracted dimension; use the profile mma");
    if (i + 1 == fields)
      fragment.kPair = bit;
    else if (isK)
      kFields.push_back(bit);
    else if (fragment.mReg < 0)
      fragment.mReg = bit;
  }
  takeFields(fragment, kFields, llvm::count_if(llvm::seq(k.bits()), [&](int bit) {
               return k.isFree(bit) && isInPart(bit, contracted, groupsOf(op));
             }));
  auto kDim = static_cast<::kvq::Dim>(contract), mDim = static_cast<::kvq::Dim>(1 - contract);
  SmallVector<int> mOrder(contract == 1 ? tokens : ArrayRef<int>());
  llvm::append_range(mOrder, laneOrder(map, mDim, m.bits(), 32 / codeBits));
  SmallVector<int> kOrder = laneOrder(map, kDim, k.bits(), 32 / codeBits);
  // A multiplication takes one scale: bits within a group come first, though lanes then read less than 16 bytes.
  auto putFirst = [](SmallVectorImpl<int> &order, int64_t extent, int64_t parts) {
    SmallVector<int> first, last;
    for (int bit : order)
      (isInPart(bit, extent, parts) ? first : last).push_back(bit);
    llvm::append_range(first, last);
    order = first;
  };
  putFirst(mOrder, kept, setsOf(op));
  putFirst(kOrder, contracted, groupsOf(op));
  return complete(fragment, m, k, mOrder, kOrder);
}

Operation *mlir::kvq::nvptx::originOf(Value tile) {
  Operation *op = tile.getDefiningOp();
  while (isa_and_present<arith::ExtFOp, arith::TruncFOp, tile::ConvertOp>(op))
    op = op->getOperand(0).getDefiningOp();
  return op;
}

std::optional<Fragment> mlir::kvq::nvptx::fragmentOfValues(tile::DotOp op, std::optional<LaneLayout> coeff,
                                                           std::optional<LaneLayout> result) {
  auto x = typeOf(op.getX());
  int contract = static_cast<int>(op.getContract()), rank = static_cast<int>(typeOf(op.getCoeff()).getRank());
  Bits m(x.getDimSize(1 - contract)), k(x.getDimSize(contract));
  Fragment fragment;
  fragment.kPair = fragment.kLane[0] = fragment.kLane[1] = fragment.kReg = -1;
  if (coeff) {
    for (int i = 0; i < 2; ++i) {
      if (coeff->lane[i].dim != rank - 1)
        return std::nullopt;
      fragment.kLane[i] = coeff->lane[i].bit;
      k.take(fragment.kLane[i]);
    }
    if (coeff->pair.dim == rank - 1) {
      fragment.kPair = coeff->pair.bit;
      k.take(fragment.kPair);
    }
    if (!fragment.coefficients(rank).sameLanes(*coeff))
      return std::nullopt;
  }
  if (result) {
    for (int i = 0; i < 3; ++i)
      if (TileBit bit = result->lane[i + 2]; bit.dim == 1) {
        fragment.mLane[i] = bit.bit;
        m.take(bit.bit);
      }
    // Rows that a result repeats stay so; others would be another layout.
    Fragment completed = complete(fragment, m, k);
    if (!completed.result().sameLanes(*result))
      return std::nullopt;
    return completed;
  }
  // Along the last dimension of what is read, lanes leave each other eight neighbours, which are 16 bytes of halves. As
  // m they come by a transposition, which puts pairs of them on the first lane.
  if (!isa_and_present<tile::LoadOp>(originOf(op.getX())))
    return complete(fragment, m, k);
  SmallVector<int> order = contract == 1 ? SmallVector<int>{3, 4} : SmallVector<int>{0, 3, 4};
  llvm::erase_if(order,
                 [&](int bit) { return !isInPart(bit, x.getDimSize(1), contract == 1 ? groupsOf(op) : setsOf(op)); });
  return contract == 1 ? complete(fragment, m, k, {}, order) : complete(fragment, m, k, order);
}

Fragment mlir::kvq::nvptx::assignedFragment(tile::DotOp op) {
  auto coeff = tile::getLanes(op.getCoeff().getType()), result = tile::getLanes(op.getType());
  if (tile::getLayout(typeOf(op.getX()))) {
    // The same choice as when layouts were assigned: tokens on lanes of m are those of the result.
    SmallVector<int> tokens;
    for (int i = 2; i < 5; ++i)
      tokens.push_back(result->lane[i].bit);
    return *fragmentOfCodes(op, tokens);
  }
  // Coefficients of f32 have no pairs; where values are halves, theirs are what was chosen.
  auto x = tile::getLanes(op.getX().getType());
  if (coeff->pair.isNone() && x->pair.dim == static_cast<int>(op.getContract()))
    coeff->pair = {static_cast<int>(typeOf(op.getCoeff()).getRank()) - 1, x->pair.bit};
  return *fragmentOfValues(op, coeff, result);
}
