// SPDX-License-Identifier: Apache-2.0
//
// Verifiers and folds of the kvq ops. Each check names its label from KvqOps.td.

#include "dialect/kvq/Kvq.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace mlir::kvq;

// Scale and minimum are of one type, written once.
static ParseResult parseSameType(OpAsmParser &parser, Type &scale, Type &min) {
  if (parser.parseType(scale))
    return failure();
  min = scale;
  return success();
}

static void printSameType(OpAsmPrinter &printer, Operation *, Type scale, Type) { printer << scale; }

#define GET_OP_CLASSES
#include "dialect/kvq/KvqOps.cpp.inc"

namespace {

ShapedType shaped(Value value) { return cast<ShapedType>(value.getType()); }

// Whether two extents may be the same at run time.
bool agree(int64_t a, int64_t b) { return ShapedType::isDynamic(a) || ShapedType::isDynamic(b) || a == b; }
bool agree(ArrayRef<int64_t> a, ArrayRef<int64_t> b) {
  return a.size() == b.size() && llvm::all_of_zip(a, b, [](int64_t x, int64_t y) { return agree(x, y); });
}

// What quantize and dequantize share: a matrix [tokens, channels], or its codes, and their scales and minima.
LogicalResult verifyGroups(Operation *op, ShapedType matrix, SideAttr side, ShapedType scale, ShapedType min) {
  int64_t grouped = matrix.getDimSize(side.isPerChannel() ? 0 : 1),
          kept = matrix.getDimSize(side.isPerChannel() ? 1 : 0);
  StringRef along = side.isPerChannel() ? "tokens" : "channels";
  bool known = !ShapedType::isDynamic(grouped);
  if (known && grouped % side.getGroup() != 0) // quantize_c3, dequantize_c5
    return op->emitOpError("group ") << side.getGroup() << " of " << side.toText() << " does not divide " << grouped
                                     << " " << along << "; use a group that does, or whole groups of " << along;
  int64_t groups = known ? grouped / side.getGroup() : ShapedType::kDynamic;
  if (scale != min || !scale.hasRank() || !agree(scale.getShape(), {groups, kept})) // quantize_c7, dequantize_c5
    return op->emitOpError("scale of type ")
           << scale << " and min of type " << min << " do not fit; per " << (side.isPerChannel() ? "channel" : "token")
           << " both are [" << along << " / " << side.getGroup() << ", "
           << (side.isPerChannel() ? "channels" : "tokens") << "] of " << matrix;
  return success();
}

// What pack and unpack share.
LogicalResult verifySection(Operation *op, ShapedType codes, ShapedType bytes, int64_t bits, tile::LayoutAttr attr) {
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) // pack_c2, unpack_c2
    return op->emitOpError("bits is ") << bits << "; use 2, 3, 4 or 8";
  if (auto why = tile::whyNotPlanes(attr, bits)) // pack_c2, unpack_c2
    return op->emitOpError() << *why;
  ::kvq::SectionLayout layout = tile::parseSectionAttr(attr, bits);
  int64_t tokens = layout.extent(::kvq::Dim::Token), channels = layout.extent(::kvq::Dim::Channel);
  if (!codes.hasRank() || codes.getShape() != ArrayRef<int64_t>({tokens, channels})) // pack_c1, unpack_c1
    return op->emitOpError("codes of type ") << codes << " are not what the layout covers; make them " << tokens
                                             << " tokens x " << channels << " channels, or change the layout";
  int64_t expected = tokens * channels * bits / 8;
  if (!bytes.hasRank() || bytes.getShape() != ArrayRef<int64_t>({expected})) // pack_c3, unpack_c3
    return op->emitOpError("bytes of type ")
           << bytes << " are not the section of these codes; use tensor<" << expected << "xi8>";
  return success();
}

} // namespace

LogicalResult QuantizeOp::verify() {
  ShapedType values = shaped(getValues()), codes = shaped(getCodes());
  if (!values.hasRank() || values.getRank() != 2 || !codes.hasRank() || codes.getShape() != values.getShape())
    return emitOpError("values of type ") << values << " and codes of type " << codes // quantize_c6
                                          << " do not fit; both are 2-d [tokens, channels] of one shape";
  return verifyGroups(*this, values, getSide(), shaped(getScale()), shaped(getMin()));
}

LogicalResult DequantizeOp::verify() {
  PackedType packed = getPackedType();
  bool given = getScale() && getMin() && getSide();
  if (packed ? (getScale() || getMin() || getSide()) : !given) // dequantize_c3
    return packed ? emitOpError("has a packed matrix, which has its own scale, min and side; leave them out")
                  : emitOpError("has codes, which need their scale, min and side; add them");
  ShapedType values = shaped(getValues());
  ShapedType codes = packed ? ShapedType() : shaped(getSource());
  SmallVector<int64_t, 2> shape;
  if (packed)
    shape = {packed.getTokens(), packed.getChannels()};
  else if (codes.hasRank())
    shape.assign(codes.getShape().begin(), codes.getShape().end());
  if (!values.hasRank() || shape.size() != 2 || values.getShape() != ArrayRef<int64_t>(shape)) // dequantize_c4
    return emitOpError("values of type ") << values << " do not have the shape of " << getSource().getType()
                                          << "; both are 2-d [tokens, channels] of one shape";
  return packed ? success() : verifyGroups(*this, codes, *getSide(), shaped(getScale()), shaped(getMin()));
}

LogicalResult PackOp::verify() {
  return verifySection(*this, shaped(getCodes()), shaped(getBytes()), getBits(), getLayout());
}

LogicalResult UnpackOp::verify() {
  return verifySection(*this, shaped(getCodes()), shaped(getBytes()), getBits(), getLayout());
}

// layout_c3: the two are inverses of each other.
OpFoldResult PackOp::fold(FoldAdaptor) {
  auto unpack = getCodes().getDefiningOp<UnpackOp>();
  return unpack && unpack.getLayout() == getLayout() && unpack.getBits() == getBits() ? unpack.getBytes() : Value();
}

OpFoldResult UnpackOp::fold(FoldAdaptor) {
  auto pack = getBytes().getDefiningOp<PackOp>();
  bool inverse = pack && pack.getLayout() == getLayout() && pack.getBits() == getBits() &&
                 pack.getCodes().getType() == getCodes().getType();
  return inverse ? pack.getCodes() : Value();
}

LogicalResult AppendOp::verify() {
  ShapedType k = shaped(getK()), v = shaped(getV()), bad = shaped(getBad());
  ProblemAttr problem = getCache().getType().getProblem();
  auto fits = [&](ShapedType type, int headDim) {
    return type.hasRank() && type.getRank() == 3 && type.getDimSize(2) == headDim &&
           type.getElementType() == problem.getType();
  };
  if (!fits(k, problem.getDk()) || !fits(v, problem.getDv()) ||
      !agree(k.getShape().drop_back(), v.getShape().drop_back())) // append_c1
    return emitOpError("k of type ") << k << " and v of type " << v << " do not fit the cache; use [tokens, KV heads, "
                                     << problem.getDk() << "] and [tokens, KV heads, " << problem.getDv() << "] of "
                                     << problem.getType();
  if (!bad.hasRank() || bad.getRank() != 1 || !agree(bad.getDimSize(0), k.getDimSize(0))) // append_c2
    return emitOpError("bad of type ") << bad << " does not count by token; use one i32 for each token of " << k;
  return success();
}

void ReadOp::build(OpBuilder &builder, OperationState &state, Value cache) {
  ProblemAttr problem = cast<CacheType>(cache.getType()).getProblem();
  auto type = [&](int headDim) {
    constexpr int64_t any = ShapedType::kDynamic;
    return RankedTensorType::get({any, any, any, headDim}, builder.getF32Type());
  };
  build(builder, state, type(problem.getDk()), type(problem.getDv()), cache);
}

LogicalResult ReadOp::verify() {
  ProblemAttr problem = getCache().getType().getProblem();
  for (auto [value, headDim] : {std::pair(getK(), problem.getDk()), std::pair(getV(), problem.getDv())}) {
    ShapedType type = shaped(value);
    if (!type.hasRank() || type.getRank() != 4 || type.getDimSize(3) != headDim) // read_c1
      return emitOpError("result has type ")
             << type << "; use f32 of shape [queries, tokens, KV heads, " << headDim << "]";
  }
  return success();
}

void AttentionOp::getEffects(SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>> &effects) {
  if (getCacheType())
    effects.emplace_back(MemoryEffects::Read::get(), &getKeyMutable());
}

namespace {

// K or V of attention in one shape: its tokens, KV heads (or unknown) and channels.
struct KeyShape {
  int64_t tokens, heads, channels;
};

// attention_c6: what a dense tensor or a packed matrix holds; nothing for any other rank.
std::optional<KeyShape> keyShape(Type type) {
  if (auto packed = dyn_cast<PackedType>(type))
    return KeyShape{packed.getTokens(), 1, packed.getChannels()};
  auto tensor = cast<ShapedType>(type);
  if (!tensor.hasRank() || tensor.getRank() < 2 || tensor.getRank() > 4)
    return std::nullopt;
  ArrayRef<int64_t> shape = tensor.getShape();
  if (shape.size() == 2)
    return KeyShape{shape[0], 1, shape[1]};
  ArrayRef<int64_t> last = shape.take_back(3);
  return KeyShape{last[0], last[1], last[2]};
}

// attention_c5: shapes of the query and of the results.
LogicalResult verifyRows(AttentionOp op) {
  ShapedType q = shaped(op.getQ()), o = shaped(op.getO()), lse = shaped(op.getLse());
  bool ranks = q.hasRank() && q.getRank() == 3 && o.hasRank() && o.getRank() == 3 && lse.hasRank();
  if (!ranks || o.getShape().drop_back() != q.getShape().drop_back() || lse.getShape() != q.getShape().drop_back())
    return op.emitOpError("q of type ")
           << q << ", o of type " << o << " and lse of type " << lse
           << " do not agree; use [queries, heads, Dk], [queries, heads, Dv] and [queries, "
              "heads]";
  if (o.getElementType() != q.getElementType() && !o.getElementType().isF32())
    return op.emitOpError("o has elements of ")
           << o.getElementType() << "; use q's type, " << q.getElementType() << ", or f32";
  return success();
}

// attention_c6, attention_c7, attention_c8: keys and values that are not a cache.
LogicalResult verifyKeys(AttentionOp op) {
  Value key = op.getKey(), value = op.getValue();
  if (!value || isa<PackedType>(key.getType()) != isa<PackedType>(value.getType())) // attention_c6
    return op.emitOpError("K and V must be two tensors or two packed matrices; only a cache stands without V");
  std::optional<KeyShape> k = keyShape(key.getType()), v = keyShape(value.getType());
  bool packed = isa<PackedType>(key.getType());
  if (!k || !v || (!packed && shaped(key).getRank() != shaped(value).getRank())) // attention_c6
    return op.emitOpError("K of type ") << key.getType() << " and V of type " << value.getType()
                                        << " must have one rank of 2, 3 or 4: [queries, keys, KV heads, channels] or "
                                           "the end of it";
  ShapedType q = shaped(op.getQ()), o = shaped(op.getO());
  if (!agree(k->channels, q.getDimSize(2)) || !agree(v->channels, o.getDimSize(2)) || !agree(k->tokens, v->tokens) ||
      !agree(k->heads, v->heads)) // attention_c7
    return op.emitOpError("K of type ") << key.getType() << " and V of type " << value.getType()
                                        << " do not fit; K has q's channels, " << q.getDimSize(2) << ", V has o's, "
                                        << o.getDimSize(2) << ", and both have as many tokens and heads";
  int64_t heads = q.getDimSize(1);
  if (!ShapedType::isDynamic(heads) && !ShapedType::isDynamic(k->heads) && (k->heads == 0 || heads % k->heads != 0))
    return op.emitOpError("has ") << heads << " query heads for " << k->heads // attention_c8
                                  << " KV heads; use a multiple of them";
  return success();
}

// The same for a cache, which fixes head sizes and type.
LogicalResult verifyCache(AttentionOp op, CacheType cache) {
  if (op.getValue()) // attention_c6
    return op.emitOpError("has a cache and a V; a cache holds both, leave V out");
  ShapedType q = shaped(op.getQ()), o = shaped(op.getO());
  ProblemAttr problem = cache.getProblem();
  if (!agree(q.getDimSize(2), problem.getDk()) || !agree(o.getDimSize(2), problem.getDv())) // attention_c7
    return op.emitOpError("q of type ") << q << " and o of type " << o << " do not fit the cache; use head sizes "
                                        << problem.getDk() << " and " << problem.getDv();
  int64_t heads = q.getDimSize(1);
  if (!ShapedType::isDynamic(heads) && heads % problem.getRatio() != 0) // attention_c8
    return op.emitOpError("has ") << heads << " query heads at " << problem.getRatio()
                                  << " for each KV head; use a multiple of the cache's ratio";
  if (q.getElementType() != problem.getType()) // attention_c10
    return op.emitOpError("has queries of ") << q.getElementType() << " for a cache of " << problem.getType()
                                             << "; convert the queries or change the problem";
  for (auto [name, given, wanted] : {std::tuple("window", bool(op.getWindow()), problem.getWindow()),
                                     std::tuple("cap", bool(op.getScoreCap()), problem.getScoreCap())})
    if (given != wanted) // attention_c13
      return op.emitOpError(given ? "has a " : "has no ")
             << name << ", but the problem of its cache " << (wanted ? "has one" : "has none")
             << (given ? "; leave it out, or change the problem" : "; add it, or change the problem");
  return success();
}

// attention_c9
LogicalResult verifyScore(AttentionOp op) {
  if (op.getScore().empty()) {
    if (!op.getCaptures().empty())
      return op.emitOpError("has ") << op.getCaptures().size() << " captures and no score region to take them";
    return success();
  }
  Builder builder(op.getContext());
  SmallVector<Type> expected{builder.getF32Type()};
  expected.append(4, builder.getIndexType());
  llvm::append_range(expected, op.getCaptures().getTypes());
  Block &block = op.getScore().front();
  if (block.getArgumentTypes() != TypeRange(expected))
    return op.emitOpError("score region takes (") << block.getArgumentTypes() << "); it must take (" << expected
                                                  << "): score, batch, head, query, key, captures";
  if (block.empty() || !isa<YieldOp>(block.back()))
    return op.emitOpError("score region must end in kvq.yield");
  for (Operation &inner : block.without_terminator())
    if (!isMemoryEffectFree(&inner))
      return op.emitOpError("score region has an op with side effects, '")
             << inner.getName() << "'; use arith and math";
  return success();
}

} // namespace

LogicalResult AttentionOp::verify() {
  if (failed(verifyRows(*this)))
    return failure();
  CacheType cache = getCacheType();
  return cache ? verifyCache(*this, cache) : verifyKeys(*this);
}

LogicalResult AttentionOp::verifyRegions() { return verifyScore(*this); }

LogicalResult MergeOp::verify() {
  ShapedType parts = shaped(getParts()), lses = shaped(getLses()), sinks = shaped(getSinks());
  ShapedType o = shaped(getO()), lse = shaped(getLse());
  bool ranks = parts.hasRank() && parts.getRank() == 4 && lses.hasRank() && o.hasRank() && lse.hasRank();
  if (!ranks || lses.getShape() != parts.getShape().drop_back() || o.getShape() != parts.getShape().drop_front() ||
      lse.getShape() != lses.getShape().drop_front()) // merge_c2
    return emitOpError("parts of type ")
           << parts << ", " << lses << " and results of type " << o << ", " << lse
           << " do not agree; use [parts, queries, heads, Dv] and [parts, queries, heads], "
              "and the same without parts";
  if (!sinks.hasRank() || sinks.getRank() != 1 || !agree(sinks.getDimSize(0), lses.getDimSize(2))) // merge_c3
    return emitOpError("sinks of type ") << sinks << " are not one logit for each head of " << lses;
  return success();
}

LogicalResult ConvertOp::verify() { // convert_c1
  PackedType from = getSource().getType(), to = getResult().getType();
  if (from.getTokens() != to.getTokens() || from.getChannels() != to.getChannels())
    return emitOpError("makes ") << to.getTokens() << " tokens x " << to.getChannels() << " channels of "
                                 << from.getTokens() << " x " << from.getChannels() << "; both must be the same";
  return success();
}

OpFoldResult ConvertOp::fold(FoldAdaptor) { return getSource().getType() == getType() ? getSource() : Value(); }
