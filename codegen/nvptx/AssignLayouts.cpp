// SPDX-License-Identifier: Apache-2.0
//
// kvq-nvptx-assign-layouts: every tile gets a lane layout. Products and packed codes demand theirs; from there layouts
// spread, first from what is read to what is made, then to all that is connected; what nothing demands gets a default.
// Where a tile is needed in another layout than it has, it is made again if that is cheap, or converted.

#include "codegen/nvptx/Fragment.h"
#include "codegen/nvptx/Passes.h"
#include "codegen/nvptx/TileEdges.h"
#include "codegen/nvptx/Words.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

namespace mlir::kvq::nvptx {
#define GEN_PASS_DEF_ASSIGNLAYOUTSPASS
#include "codegen/nvptx/Passes.h.inc"
} // namespace mlir::kvq::nvptx

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::LaneLayout;
using tile::TileBit;

static RankedTensorType typeOf(Value value) { return cast<RankedTensorType>(value.getType()); }

namespace {

class Assigner {
public:
  explicit Assigner(func::FuncOp kernel) : kernel(kernel) {}
  LogicalResult run();

private:
  enum class Reach { Results, All, Choices };
  void collect();
  LogicalResult anchorCodes();
  void anchorValues();
  LogicalResult anchorWords();
  void assignDefaults();
  void assign(Value tile, LaneLayout layout);
  void demand(Value coeff, LaneLayout layout);
  void propagate(Reach reach);
  std::optional<LaneLayout> known(Value tile) const;

  void fixOp(Operation *op);
  void fixLoop(scf::ForOp op);
  void fixResult(Value result, LaneLayout natural);
  void require(OpOperand &operand, LaneLayout layout);
  Value inLayout(Value tile, LaneLayout layout);
  Value madeAgain(Value tile, LaneLayout layout, int depth);
  void setTypes();

  func::FuncOp kernel;
  DenseMap<Value, LaneLayout> layouts;
  DenseMap<Value, SmallVector<TileEdge>> edges;
  DenseMap<Operation *, Fragment> fragments;
  DenseMap<Operation *, LaneLayout> words; // of codes that are stored
  DenseMap<Value, LaneLayout> demanded;    // of coefficients, by the first product that takes them
  SmallVector<Value> fresh;                // assigned, not yet propagated from
  SmallVector<Value> tiles;                // in program order
  SmallVector<Operation *> ops;
};

} // namespace

void Assigner::collect() {
  kernel.walk<WalkOrder::PreOrder>([&](Operation *op) {
    ops.push_back(op);
    for (Value result : op->getResults())
      if (isSpreadTile(result))
        tiles.push_back(result);
    for (Region &region : op->getRegions())
      for (BlockArgument argument : region.getArguments())
        if (isSpreadTile(argument))
          tiles.push_back(argument);
    forEachEdge(op, [&](TileEdge edge) { edges[edge.from].push_back(edge); });
  });
}

std::optional<LaneLayout> Assigner::known(Value tile) const {
  auto found = layouts.find(tile);
  return found == layouts.end() ? std::nullopt : std::optional(found->second);
}

// Coefficients of a product: what they are made of is wanted likewise.
void Assigner::demand(Value coeff, LaneLayout layout) {
  assign(coeff, layout);
  demanded.try_emplace(coeff, layout);
  if (auto made = coeff.getDefiningOp<tile::CoeffOp>())
    demanded.try_emplace(made.getValues(), tile::dropDim(layout, 0));
}

void Assigner::assign(Value tile, LaneLayout layout) {
  if (layouts.try_emplace(tile, fitPair(layout, tile)).second)
    fresh.push_back(tile);
}

// Spreads along edges of a kind until nothing changes. What was assigned first stays.
void Assigner::propagate(Reach reach) {
  auto takes = [reach](TileEdge::Kind kind) {
    if (kind == TileEdge::Choice)
      return reach == Reach::Choices;
    return kind != TileEdge::Operand || reach != Reach::Results;
  };
  // Where more edges count than before, everything known is a beginning again.
  for (Value tile : tiles)
    if (layouts.contains(tile))
      fresh.push_back(tile);
  for (size_t i = 0; i < fresh.size(); ++i) {
    LaneLayout layout = layouts[fresh[i]];
    for (const TileEdge &edge : edges[fresh[i]])
      if (takes(edge.kind))
        assign(edge.to, edge.map(layout));
  }
  fresh.clear();
}

// Products that contract tokens first: the others then put the tokens on lanes that a transposition brings where these
// need them.
LogicalResult Assigner::anchorCodes() {
  SmallVector<tile::DotOp> products;
  for (uint64_t contract : {0, 1})
    for (Operation *op : ops)
      if (auto dot = dyn_cast<tile::DotOp>(op);
          dot && tile::getLayout(typeOf(dot.getX())) && dot.getContract() == contract)
        products.push_back(dot);
  SmallVector<int> tokens;
  for (tile::DotOp dot : products) {
    if (!usesTensorCores(dot))
      return dot.emitOpError("multiplies packed codes with ")
             << typeOf(dot.getAcc()).getDimSize(0) << " rows of coefficients over "
             << typeOf(dot.getX()).getDimSize(dot.getContract())
             << " elements; this target takes a multiple of 8 rows and of 16 elements";
    FailureOr<Fragment> fragment = fragmentOfCodes(dot, tokens);
    if (failed(fragment))
      return failure();
    if (dot.getContract() == 0)
      tokens = {fragment->kPair, fragment->kLane[0], fragment->kLane[1]};
    fragments[dot] = *fragment;
    assign(dot.getResult(), fragment->result());
  }
  propagate(Reach::Results);
  for (tile::DotOp dot : products)
    demand(dot.getCoeff(), fragments[dot].coefficients(static_cast<int>(typeOf(dot.getCoeff()).getRank())));
  propagate(Reach::All);
  return success();
}

// Whether a tile is 16-bit elements as memory has them, whose neighbours lie along the last dimension, and is wanted in
// pairs along another: reading pairs and swapping them takes half as many loads, and a move for each pair either way.
static bool isReadByRows(Value tile, const LaneLayout &wanted) {
  int last = static_cast<int>(typeOf(tile).getRank()) - 1;
  bool isPairOfRows = typeOf(tile).getElementType().isF16() && !wanted.pair.isNone() && wanted.pair.dim != last;
  bool hasBlocks = llvm::all_of(wanted.lane, [](TileBit bit) { return !bit.isNone(); }) && wanted.lane[2].dim == last;
  auto load = dyn_cast_if_present<tile::LoadOp>(originOf(tile));
  return isPairOfRows && hasBlocks && load && getElementTypeOrSelf(load.getType()).getIntOrFloatBitWidth() == 16;
}

// Products with values adapt to what is known around them.
void Assigner::anchorValues() {
  for (Operation *op : ops) {
    auto dot = dyn_cast<tile::DotOp>(op);
    if (!dot || fragments.contains(dot) || !usesTensorCores(dot))
      continue;
    auto found = demanded.find(dot.getCoeff());
    auto coeff = found == demanded.end() ? known(dot.getCoeff()) : std::optional(found->second);
    auto result = known(dot.getResult());
    auto fragment = fragmentOfValues(dot, coeff, result);
    if (!fragment) // a result that others hold otherwise is converted
      fragment = fragmentOfValues(dot, coeff, std::nullopt);
    if (!fragment)
      fragment = fragmentOfValues(dot, std::nullopt, result);
    if (!fragment)
      fragment = fragmentOfValues(dot, std::nullopt, std::nullopt);
    fragments[dot] = *fragment;
    assign(dot.getResult(), fragment->result());
    demand(dot.getCoeff(), fragment->coefficients(static_cast<int>(typeOf(dot.getCoeff()).getRank())));
    LaneLayout values = fragment->values(static_cast<int>(dot.getContract()));
    assign(dot.getX(), isReadByRows(dot.getX(), values) ? transposed(values) : values);
    propagate(Reach::All);
  }
}

// Tiles that become words of codes or come from them.
LogicalResult Assigner::anchorWords() {
  for (Operation *op : ops) {
    Value tile;
    tile::LayoutAttr layout;
    int64_t bits = 0;
    if (auto store = dyn_cast<tile::StoreCodesOp>(op)) {
      tile = store.getCodes();
      layout = store.getLayout();
      bits = store.getBits();
    } else if (isa<tile::UnpackOp, tile::DequantizeOp>(op)) {
      tile = op->getResult(0);
      layout = tile::getLayout(typeOf(op->getOperand(0)));
      bits = typeOf(op->getOperand(0)).getElementTypeBitWidth();
    } else {
      continue;
    }
    FailureOr<WordMap> map = WordMap::get(op, layout, bits, typeOf(tile).getShape());
    if (failed(map))
      return failure();
    if (isa<tile::StoreCodesOp>(op))
      words[op] = map->lanes();
    assign(tile, map->lanes());
    propagate(Reach::All);
  }
  return success();
}

void Assigner::assignDefaults() {
  propagate(Reach::Choices);
  for (Value tile : tiles)
    if (!layouts.contains(tile)) {
      assign(tile, defaultLayout(typeOf(tile)));
      propagate(Reach::All);
      propagate(Reach::Choices);
    }
}

// ---- conversions ----

// The tile made again from what any lane can have: constants, indices, scalars, memory. Null where that is not so. All
// that is made again stands behind what it repeats, so that a load reads the same.
Value Assigner::madeAgain(Value tile, LaneLayout layout, int depth) {
  Operation *op = tile.getDefiningOp();
  bool loses = getElementTypeOrSelf(tile.getType()).isF16() && fitPair(layout, tile) != layout;
  if (!op || depth == 0 || loses)
    return {};
  bool isLoad = isa<tile::LoadOp>(op);
  if (!isLoad && !isa<arith::ConstantOp, tensor::SplatOp, tile::IotaOp, tile::BroadcastOp>(op) &&
      !OpTrait::hasElementwiseMappableTraits(op))
    return {};
  SmallVector<std::pair<unsigned, Value>> operands;
  for (OpOperand &operand : op->getOpOperands()) {
    if (!isSpreadTile(operand.get()))
      continue;
    std::optional<LaneLayout> wanted;
    forEachEdge(op, [&](TileEdge edge) {
      if (edge.from == tile && edge.to == operand.get() && edge.kind == TileEdge::Operand)
        wanted = fitPair(edge.map(layout), edge.to);
    });
    auto has = known(operand.get());
    Value again = has && wanted && *has == *wanted ? operand.get()
                  : wanted                         ? madeAgain(operand.get(), *wanted, depth - 1)
                                                   : Value();
    if (!again && isLoad && wanted)
      again = inLayout(operand.get(), *wanted);
    if (!again)
      return {};
    operands.push_back({operand.getOperandNumber(), again});
  }
  OpBuilder b(op);
  b.setInsertionPointAfter(op);
  Operation *clone = b.clone(*op);
  for (auto [number, value] : operands)
    clone->setOperand(number, value);
  layouts[clone->getResult(0)] = fitPair(layout, clone->getResult(0));
  return clone->getResult(0);
}

Value Assigner::inLayout(Value tile, LaneLayout layout) {
  constexpr int kMostOps = 8; // in a row
  bool isSwapped = isReadByRows(tile, layout) && isTransposition(layouts[tile], layout);
  if (Value again = isSwapped ? Value() : madeAgain(tile, layout, kMostOps))
    return again;
  // Halves that do not come in pairs are made again as single ones, which their lane pairs.
  if (LaneLayout single = fitPair(layout, tile); !isSwapped && single != layout && layouts[tile] != single)
    if (Value again = madeAgain(tile, single, kMostOps))
      tile = again;
  // Behind the tile and not before its user: a loop does not convert what stays the same.
  OpBuilder b(kernel.getContext());
  b.setInsertionPointAfterValue(tile);
  Value converted = tile::ConvertOp::create(b, tile.getLoc(), tile.getType(), tile);
  layouts[converted] = layout;
  return converted;
}

void Assigner::require(OpOperand &operand, LaneLayout layout) {
  if (!getElementTypeOrSelf(operand.get().getType()).isF16())
    layout.pair = TileBit();
  if (layouts[operand.get()] != layout)
    operand.set(inLayout(operand.get(), layout));
}

// What an op makes of its operands' layouts has another than its users were told: it is converted for them.
void Assigner::fixResult(Value result, LaneLayout natural) {
  LaneLayout told = layouts[result];
  natural = fitPair(natural, result);
  if (told == natural)
    return;
  layouts[result] = natural;
  // Before its first user, so that products which share an operation stand beside each other.
  Block *block = result.getParentBlock();
  Operation *first = block->getTerminator();
  for (Operation *user : result.getUsers())
    if (Operation *here = block->findAncestorOpInBlock(*user); here->isBeforeInBlock(first))
      first = here;
  OpBuilder b(first);
  auto converted = tile::ConvertOp::create(b, result.getLoc(), result.getType(), result);
  layouts[converted.getResult()] = told;
  result.replaceAllUsesExcept(converted, converted);
}

void Assigner::fixLoop(scf::ForOp op) {
  for (auto [i, result] : llvm::enumerate(op.getResults()))
    if (isSpreadTile(result)) {
      layouts[op.getRegionIterArg(i)] = layouts[result];
      require(op.getInitArgsMutable()[i], layouts[result]);
      require(op.getYieldedValuesMutable()->slice(i, 1)[0], layouts[result]);
    }
}

void Assigner::fixOp(Operation *op) {
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return fixLoop(loop);
  if (auto branch = dyn_cast<scf::IfOp>(op)) {
    for (Region *region : {&op->getRegion(0), &op->getRegion(1)})
      if (!region->empty())
        for (auto [operand, result] : llvm::zip(region->front().getTerminator()->getOpOperands(), op->getResults()))
          if (isSpreadTile(result))
            require(operand, layouts[result]);
    return;
  }
  if (auto found = words.find(op); found != words.end())
    require(cast<tile::StoreCodesOp>(op).getCodesMutable(), found->second);
  if (auto found = fragments.find(op); found != fragments.end()) {
    auto dot = cast<tile::DotOp>(op);
    fixResult(dot.getResult(), found->second.result());
    require(dot.getAccMutable(), layouts[dot.getResult()]);
    require(dot.getCoeffMutable(), found->second.coefficients(static_cast<int>(typeOf(dot.getCoeff()).getRank())));
    if (isSpreadTile(dot.getX()))
      require(dot.getXMutable(), found->second.values(static_cast<int>(dot.getContract())));
  }
  if (auto reduce = dyn_cast<tile::ReduceOp>(op); reduce && isSpreadTile(reduce.getResult()))
    fixResult(reduce.getResult(), tile::dropDim(layouts[reduce.getSource()], static_cast<int>(reduce.getDim())));
  // All else follows from what the op makes, or stores.
  SmallVector<std::pair<OpOperand *, LaneLayout>> wanted;
  for (OpOperand &operand : op->getOpOperands())
    forEachEdge(op, [&](TileEdge edge) {
      bool fromOp = edge.from.getDefiningOp() == op || (isa<tile::StoreOp>(op) && edge.from == op->getOperand(0));
      bool counts = edge.kind == TileEdge::Operand || edge.kind == TileEdge::Tie;
      if (edge.to == operand.get() && fromOp && counts && edge.to != edge.from)
        wanted.push_back({&operand, edge.map(layouts[edge.from])});
    });
  for (auto &[operand, layout] : wanted)
    require(*operand, layout);
}

void Assigner::setTypes() {
  auto set = [&](Value value) {
    if (isSpreadTile(value))
      value.setType(tile::withLanes(typeOf(value), layouts[value]));
  };
  kernel.walk([&](Operation *op) {
    for (Value result : op->getResults())
      set(result);
    for (Region &region : op->getRegions())
      if (op != kernel)
        for (BlockArgument argument : region.getArguments())
          set(argument);
    if (auto constant = dyn_cast<arith::ConstantOp>(op))
      if (auto elements = dyn_cast<DenseElementsAttr>(constant.getValue()))
        constant.setValueAttr(elements.reshape(cast<ShapedType>(constant.getType())));
  });
}

LogicalResult Assigner::run() {
  collect();
  if (failed(anchorCodes()))
    return failure();
  anchorValues();
  if (failed(anchorWords()))
    return failure();
  assignDefaults();
  for (Operation *op : ops)
    fixOp(op);
  setTypes();
  return success();
}

namespace {

struct AssignLayouts : mlir::kvq::nvptx::impl::AssignLayoutsPassBase<AssignLayouts> {
  void runOnOperation() override {
    for (auto func : getOperation().getOps<func::FuncOp>())
      if (func->hasAttr(tile::kKernelAttr) && failed(Assigner(func).run()))
        return signalPassFailure();
  }
};

} // namespace
