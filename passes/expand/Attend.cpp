// SPDX-License-Identifier: Apache-2.0
//
// The attend kernel: one online softmax over the packed pages and the tail (format-spec section 7, kernel_abi.h
// kvq_attend_arg). It multiplies dequantized tiles; that no element is ever dequantized is the work of
// kvq-tile-fold-scales. Ranges of an item may be generous: every key is masked by the frontiers and positions of the
// row that looks at it.

#include "passes/expand/CacheTiles.h"
#include "passes/expand/Kernels.h"
#include "passes/expand/ScoreRegion.h"
#include <kvq/kernel_abi.h>

#include <limits>

using namespace mlir;
using namespace mlir::kvq;

namespace {

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
// The running maximum starts above the score of a masked key, so that such a key gets exp2(-3e38 + 1e30) = 0.
constexpr float kFirstMax = -1e30f, kMasked = -3e38f;
constexpr int64_t kRawTokens = 32; // of one step over the tail; every ring is longer (tail_c1)
// A row that does not exist stands before every token, and sees none.
constexpr int32_t kNowhere = std::numeric_limits<int32_t>::min();
// No window is longer: position - window stays an i32.
constexpr int64_t kLongestWindow = int64_t(1) << 30;

// The online softmax of all rows: maximum [R], sum [R] ([R, 1] with halves) and unnormalised output [R, Dv].
struct Softmax {
  Value max, sum, out;
  SmallVector<Value> values() const { return {max, sum, out}; }
  static Softmax from(ValueRange v) { return {v[0], v[1], v[2]}; }
};

class AttendEmitter : KernelBuilder {
public:
  AttendEmitter(func::FuncOp kernel, const ::kvq::KernelRequest &request, tile::ScheduleAttr schedule, Region *score,
                Coefficients coefficients)
      : KernelBuilder(kernel, request), schedule(schedule), region(score), halves(coefficients == Coefficients::F16),
        k(*this, ::kvq::Side::K), v(*this, ::kvq::Side::V), rows(request.rows), tokens(schedule.getTileTokens()) {}

  void emit() {
    loadItem();
    loadRows();
    Value sum = halves ? constantTile({rows, 1}, 0) : constantTile({rows}, 0);
    Softmax state = {constantTile({rows}, kFirstMax), sum, constantTile({rows, v.dim}, 0)};
    state = visitPages(state);
    state = visitTail(state);
    storeResults(state);
  }

private:
  void loadItem();
  void loadRows();
  void loadQuery(Value offset);
  Value normalized(Value values, Value scale);
  Softmax visitPages(Softmax state);
  Softmax visitPackedTiles(Value begin, Value end, bool whole, Softmax state);
  Softmax visitPackedTile(Value page, Value inPage, Value token, bool whole, Softmax state);
  Value addLaggingV(Value token, Value weights, Value out);
  Softmax visitTail(Softmax state);
  Softmax visitRawTile(Value step, Softmax state);
  void prefetchPart(Value entry, Value page, Value inPage);
  Value pageAt(Value entry, Value head);
  std::pair<Value, Value> committedParams(Value page, Value inPage, Value token, bool whole);
  Value withinWindow(Value visible, Value number, int64_t count);
  Value maskedScores(Value scores, Value visible, Value token);
  TypeAttr queryRounding();
  TypeAttr weightRounding();
  Value advanceSoftmax(Value scores, Softmax &state);
  Value advanceHalves(Value scores, Softmax &state);
  // Otherwise a score cap or a region asks for scores in natural units.
  bool scalesInSoftmax() const { return !request.scoreCap && !region; }
  void storeResults(const Softmax &state);

  // Token numbers token .. token + count - 1 as i32: half the registers of index.
  Value tokenTile(Value token, int64_t count) { return add(iota(count, getI32Type()), toI32(token)); }
  Value perRow(Value tile, int64_t count) { return broadcast(tile, {rows, count}, {0}); }
  Value perToken(Value tile, int64_t count) { return broadcast(tile, {rows, count}, {1}); }
  Tail tail(unsigned argument, int64_t dim) {
    return {arg(argument),
            tailSlot,
            indexArg(KVQ_ATTEND_KV_HEADS),
            kvHead,
            indexArg(KVQ_ATTEND_TAIL_CAP),
            indexArg(KVQ_ATTEND_TAIL_ROWS),
            dim};
  }

  tile::ScheduleAttr schedule;
  Region *region;
  bool halves;
  Section k, v;
  int64_t rows, tokens;

  // The item.
  Value kvHead, queryBase, rowBegin, rowCount, packedBegin, packedEnd, rawBegin, rawEnd, vRawBegin, tableBase, tailSlot,
      split, kept, nextEntry, nextHead;
  // Per row: does it exist, index of its query and head, its coefficients, its bounds (i32).
  Value valid, query, head, q, kFrontier, vFrontier, packedLimit, position, windowFirst;
  Value rowScale;   // [R], with halves: what scores are multiplied by
  Value keptEnd;    // kept tokens below this body index exist for some row
  Value tailBegin;  // where the loop over kept tokens and the ring begins
  Value committedV; // V of tokens below this index is packed
};

void AttendEmitter::loadItem() {
  Value at = item(KVQ_ATTEND_ITEMS, sizeof(kvq_attend_item));
  kvHead = member(at, offsetof(kvq_attend_item, kv_head));
  queryBase = member(at, offsetof(kvq_attend_item, query_base));
  rowBegin = member(at, offsetof(kvq_attend_item, row_begin));
  rowCount = member(at, offsetof(kvq_attend_item, row_count));
  // A multiple of the page, which addresses may then be known to be.
  packedBegin = alignDown(member(at, offsetof(kvq_attend_item, packed_begin)), request.pageTokens);
  packedEnd = member(at, offsetof(kvq_attend_item, packed_end));
  rawBegin = member(at, offsetof(kvq_attend_item, raw_begin));
  rawEnd = member(at, offsetof(kvq_attend_item, raw_end));
  vRawBegin = member(at, offsetof(kvq_attend_item, v_raw_begin));
  tableBase = member(at, offsetof(kvq_attend_item, table_base));
  tailSlot = member(at, offsetof(kvq_attend_item, tail_slot));
  split = member(at, offsetof(kvq_attend_item, split));
  kept = member(at, offsetof(kvq_attend_item, kept));
  nextEntry = member(at, offsetof(kvq_attend_item, next_entry));
  nextHead = member(at, offsetof(kvq_attend_item, next_head));
}

void AttendEmitter::loadRows() {
  Value r = iota(rows, getIndexType());
  valid = less(r, rowCount);
  Value row = add(r, rowBegin), ratio = index(request.ratio);
  query = add(div(row, ratio), queryBase);
  head = add(rem(row, ratio), mul(kvHead, ratio));
  Value offset = toIndex(load(arg(KVQ_ATTEND_Q_OFFSETS), query, {}, valid));
  offset = add(offset, mul(head, indexArg(KVQ_ATTEND_Q_HEAD_STRIDE)));
  loadQuery(offset);

  // Rows that do not exist load frontier 0.
  kFrontier = load(arg(KVQ_ATTEND_K_FRONTIER), query, {}, valid);
  vFrontier = request.lag ? load(arg(KVQ_ATTEND_V_FRONTIER), query, {}, valid) : kFrontier;
  position = select(valid, load(arg(KVQ_ATTEND_POSITIONS), query, {}, valid), i32(kNowhere));
  // What lies past every row's frontier or position may hold anything, also NaN: it is never visited.
  packedEnd = min(packedEnd, toIndex(reduce(tile::ReduceKind::Max, kFrontier, 0)));
  committedV = request.lag ? toIndex(reduce(tile::ReduceKind::Max, vFrontier, 0)) : packedEnd;
  Value positionEnd = add(toIndex(reduce(tile::ReduceKind::Max, position, 0)), index(1));
  rawEnd = max(min(rawEnd, positionEnd), rawBegin); // the loop over the tail reaches the kept tokens in any case
  keptEnd = min(positionEnd, index(0));
  packedLimit = min(min(kFrontier, add(position, i32(1))), toI32(packedEnd));
  if (request.window) {
    Value window = toI32(min(indexArg(KVQ_ATTEND_WINDOW), index(kLongestWindow)));
    windowFirst = add(sub(position, window), i32(1));
  }
}

// The coefficients of scores. With integers the scale is part of them. Halves have no room for it: they are the query
// as it came, which halves can hold, and scores are multiplied.
void AttendEmitter::loadQuery(Value offset) {
  Value loaded = toF32(load(arg(KVQ_ATTEND_Q), offset, {rows, k.dim}, valid));
  // attention_c11 works on scores divided by the cap, a score region on natural units; without either the change of
  // base is part of the scale.
  Value scale = arg(KVQ_ATTEND_SCALE);
  if (request.scoreCap)
    scale = div(scale, arg(KVQ_ATTEND_SCORE_CAP));
  scale = request.scoreCap || region ? scale : mul(scale, f32(kLog2e));
  q = halves ? normalized(loaded, scale) : mul(loaded, scale);
}

// Rows times a power of two and a sign, which make their largest magnitude 1/2 .. 1 and what is left of the scale
// positive: a maximum of scores is one before and after it. Sets rowScale.
Value AttendEmitter::normalized(Value values, Value scale) {
  constexpr int32_t kExponent = 0x7f800000, kOne = 1 << 23;
  Value largest = reduce(tile::ReduceKind::Max, math::AbsFOp::create(*this, values), 1);
  Value exponent = bitAnd(bitsOf(largest), i32(kExponent));
  exponent = min(max(exponent, i32(27 * kOne)), i32(227 * kOne)); // 2^-100 .. 2^100: a row of zeros has no power
  Value power = floatOf(add(exponent, i32(kOne))), inverse = floatOf(sub(i32(253 * kOne), exponent));
  Value negative = compare(arith::CmpFPredicate::OLT, scale, f32(0));
  rowScale = mul(power, select(negative, sub(f32(0), scale), scale));
  inverse = mul(inverse, select(negative, f32(-1), f32(1)));
  Value result = mul(values, perRow(inverse, k.dim));
  bool exact = request.type != ::kvq::ElementType::F32 && request.accuracy != ::kvq::Accuracy::Full;
  return exact ? toF32(fromF32(result, getF16Type())) : result;
}

// window_c1, and'ed to `visible`. number: tokens' numbers as a tile [rows, count].
Value AttendEmitter::withinWindow(Value visible, Value number, int64_t count) {
  return request.window ? bitAnd(visible, lessEqual(perRow(windowFirst, count), number)) : visible;
}

// What is brought in farther ahead than this is no longer in the first-level cache when it is needed; waiting for the
// second level then takes the line buffers that prefetches need (measured: 8 bits 12 % slower with 34 KB, 4 bits 7 %
// with 17; half as far is too late).
static constexpr int64_t kNearBytes = 16384;

// Brings in what the next tiles read: the share of the page `schedule.prefetch` entries ahead that the current tile is
// of its own page. Of a long page that is one tile, the lines kNearBytes ahead. Behind the last page comes the first
// one of the program that the thread is likely to run next (measured: a program that finds nothing takes 1.6 us
// longer).
void AttendEmitter::prefetchPart(Value entry, Value page, Value inPage) {
  Value last = add(tableBase, div(sub(packedEnd, index(1)), index(request.pageTokens)));
  Value ahead = add(entry, index(schedule.getPrefetch())), isOwn = lessEqual(ahead, last);
  // Where programs run beside each other, none comes next.
  Value nextPage = halves ? pageAt(select(isOwn, ahead, entry), kvHead)
                          : pageAt(select(isOwn, ahead, nextEntry), select(isOwn, kvHead, nextHead));
  int64_t tiles = request.pageTokens / tokens;
  if (!halves && tiles == 1 && schedule.getPrefetch() == 1 && pages.bytes > kNearBytes) {
    tile::PrefetchOp::create(*this, advance(page, index(kNearBytes), getI8Type()), pages.bytes - kNearBytes);
    tile::PrefetchOp::create(*this, nextPage, kNearBytes);
    return;
  }
  // Of lines that the tiles do not divide two neighbours share one; the last tile's end with the page.
  int64_t lines = pages.bytes / 64;
  Value begin = mul(div(mul(inPage, index(lines)), index(request.pageTokens)), index(64));
  tile::PrefetchOp::create(*this, advance(nextPage, begin, getI8Type()), llvm::divideCeil(lines, tiles) * 64);
}

Value AttendEmitter::pageAt(Value entry, Value head) {
  Value block = tile::PageOp::create(*this, arg(KVQ_ATTEND_PAGES), arg(KVQ_ATTEND_BLOCK_TABLE), entry,
                                     indexArg(KVQ_ATTEND_BLOCK_STRIDE));
  return advance(block, mul(head, indexArg(KVQ_ATTEND_HEAD_STRIDE)), getI8Type());
}

// First the tiles that every row sees whole and whose V is packed, then the others: the common tile pays nothing for
// the rare one. Under a window either end may cut a tile, and all are taken as the rare one.
Softmax AttendEmitter::visitPages(Softmax state) {
  if (request.window)
    return visitPackedTiles(packedBegin, packedEnd, /*whole=*/false, state);
  Value seen = select(valid, packedLimit, i32(std::numeric_limits<int32_t>::max()));
  Value end = max(toIndex(reduce(tile::ReduceKind::Min, seen, 0)), packedBegin);
  if (request.lag)
    end = max(min(end, vRawBegin), packedBegin);
  end = min(alignDown(end, tokens), packedEnd);
  state = visitPackedTiles(packedBegin, end, /*whole=*/true, state);
  // Where registers hold a tile, the rare ones are short: masks take registers, and the code of a long one is long.
  if (halves) // 16 codes of V in a word, and lanes of four words, in layouts that are not made for it
    tokens = std::min<int64_t>(tokens, request.profile == ::kvq::Profile::Mma ? 32 : 64);
  return visitPackedTiles(end, packedEnd, /*whole=*/false, state);
}

// Tiles of [begin, end), where begin is a multiple of the tile. A tile lies in one page.
Softmax AttendEmitter::visitPackedTiles(Value begin, Value end, bool whole, Softmax state) {
  return Softmax::from(loop(begin, end, tokens, state.values(), [&](Value token, ValueRange carried) {
    Value entry = add(tableBase, div(token, index(request.pageTokens)));
    Value inPage = rem(token, index(request.pageTokens));
    Value page = pageAt(entry, kvHead);
    if (schedule.getPrefetch() > 0)
      prefetchPart(entry, page, inPage);
    return visitPackedTile(page, inPage, token, whole, Softmax::from(carried)).values();
  }));
}

// Scale and minimum of V for a tile. A probability of 0 must meet no NaN: parameters of groups that no commit has
// written yet are read as 0. K needs no such care, its scores are chosen by the mask.
std::pair<Value, Value> AttendEmitter::committedParams(Value page, Value inPage, Value token, bool whole) {
  Value scale = v.scales(page, inPage, tokens), min = v.minima(page, inPage, tokens);
  if (whole)
    return {scale, min};
  auto type = cast<RankedTensorType>(scale.getType());
  int64_t groups = type.getDimSize(0), step = tokens / groups;
  Value first =
      v.format.perChannel() ? add(mul(iota(groups, getI32Type()), i32(step)), toI32(token)) : tokenTile(token, tokens);
  Value written = less(first, toI32(committedV));
  written = broadcast(written, type.getShape(), {v.format.perChannel() ? 0 : 1});
  return {select(written, scale, f32(0)), select(written, min, f32(0))};
}

// accuracy_c1: of q times K's scale; null for f32.
TypeAttr AttendEmitter::queryRounding() {
  if (request.accuracy == ::kvq::Accuracy::Full)
    return {};
  bool narrow = request.accuracy == ::kvq::Accuracy::Normal && k.format.bits <= 4;
  return rounding(request.accuracy == ::kvq::Accuracy::Fast || narrow ? 8 : 16, /*isSigned=*/true);
}

// accuracy_c1: of probabilities times V's scale.
TypeAttr AttendEmitter::weightRounding() {
  if (request.accuracy == ::kvq::Accuracy::Full)
    return {};
  return rounding(request.accuracy == ::kvq::Accuracy::Fast ? 8 : 16, /*isSigned=*/false);
}

// Scores in base 2, -3e38 where not visible; all are where `visible` is null.
Value AttendEmitter::maskedScores(Value scores, Value visible, Value token) {
  if (halves && !scalesInSoftmax())
    scores = mul(scores, perRow(rowScale, cast<RankedTensorType>(scores.getType()).getDimSize(1)));
  if (request.scoreCap) {
    Value cap = arg(KVQ_ATTEND_SCORE_CAP);
    scores = mul(tanh(scores), region ? cap : mul(cap, f32(kLog2e)));
  }
  if (region) {
    int64_t count = cast<RankedTensorType>(scores.getType()).getDimSize(1);
    ScoreIndices indices;
    indices.head = perRow(head, count);
    indices.query = perRow(toIndex(position), count);
    indices.key = perToken(add(iota(count, getIndexType()), token), count);
    scores = mul(inlineScoreRegion(*this, *region, scores, indices, kernel.getArguments().drop_front(KVQ_ATTEND_ARGS)),
                 f32(kLog2e));
    scores = max(scores, f32(kMasked)); // a region masks with -inf
  }
  return visible ? select(visible, scores, f32(kMasked)) : scores;
}

// The same with halves. Scores are multiplied where they become weights, in the same operation. Weights are rounded
// before they are added up: a rounded weight then counts as much in the sum as in the output.
Value AttendEmitter::advanceHalves(Value scores, Softmax &state) {
  int64_t count = cast<RankedTensorType>(scores.getType()).getDimSize(1);
  Value max = this->max(state.max, reduce(tile::ReduceKind::Max, scores, 1));
  Value scale = scalesInSoftmax() ? rowScale : splat(f32(1), {rows});
  Value shrink = exp2(mul(sub(state.max, max), scale), /*approximate=*/true);
  Value offset = sub(f32(0), mul(max, scale));
  Value weights =
      exp2(math::FmaOp::create(*this, scores, perRow(scale, count), perRow(offset, count)), /*approximate=*/true);
  if (request.accuracy != ::kvq::Accuracy::Full)
    weights = toF32(fromF32(weights, getF16Type()));
  state.max = max;
  state.sum = dot(constantTile({1, count}, 1), weights, mul(state.sum, broadcast(shrink, {rows, 1}, {0})), 1);
  state.out = mul(state.out, perRow(shrink, v.dim));
  return weights;
}

// Takes a tile of scores into maximum and sum, rescales the output; gives the weights of the tile's keys.
Value AttendEmitter::advanceSoftmax(Value scores, Softmax &state) {
  if (halves)
    return advanceHalves(scores, state);
  int64_t count = cast<RankedTensorType>(scores.getType()).getDimSize(1);
  Value max = this->max(state.max, reduce(tile::ReduceKind::Max, scores, 1));
  // Weights are rounded to 16 bits or fewer anyway, except under `full`; errors of shrinking would add up over tiles.
  Value shrink = exp2(sub(state.max, max));
  Value weights = exp2(sub(scores, perRow(max, count)), request.accuracy != ::kvq::Accuracy::Full);
  state.max = max;
  state.sum = add(mul(state.sum, shrink), reduce(tile::ReduceKind::Add, weights, 1));
  state.out = mul(state.out, perRow(shrink, v.dim));
  return weights;
}

Softmax AttendEmitter::visitPackedTile(Value page, Value inPage, Value token, bool whole, Softmax state) {
  Value kTile =
      k.dequantize(k.codes(page, inPage, tokens), k.scales(page, inPage, tokens), k.minima(page, inPage, tokens));
  Value scores = dot(kTile, q, constantTile({rows, tokens}, 0), 1, queryRounding());
  Value number = perToken(tokenTile(token, tokens), tokens), visible;
  if (!whole)
    visible = withinWindow(less(number, perRow(packedLimit, tokens)), number, tokens);
  Value weights = advanceSoftmax(maskedScores(scores, visible, token), state);

  auto [scale, min] = committedParams(page, inPage, token, whole);
  Value vTile = v.dequantize(v.codes(page, inPage, tokens), scale, min);
  bool lagging = !whole && request.lag;
  Value packed = lagging ? select(less(number, perRow(vFrontier, tokens)), weights, f32(0)) : weights;
  state.out = dot(vTile, packed, state.out, 0, weightRounding());
  if (lagging)
    state.out = addLaggingV(token, sub(weights, packed), state.out);
  return state;
}

// `weights` are those of keys whose K is packed and whose V is still in the tail.
Value AttendEmitter::addLaggingV(Value token, Value weights, Value out) {
  Value number = tokenTile(token, tokens);
  Value inTail = bitAnd(less(sub(toI32(vRawBegin), i32(1)), number), less(number, toI32(packedEnd)));
  Value offsets = tailOffsets(*this, tail(KVQ_ATTEND_TAIL_V, v.dim), token, tokens);
  Value raw = toF32(load(arg(KVQ_ATTEND_TAIL_V), offsets, {tokens, v.dim}, inTail));
  return dot(raw, weights, out, 0);
}

// A step of visitTail: kept tokens before rawBegin, tokens of the ring from there on. Either may reach past its end.
Softmax AttendEmitter::visitRawTile(Value step, Softmax state) {
  Value isKept = less(step, rawBegin), token = select(isKept, sub(sub(step, tailBegin), kept), step);
  Value end = toI32(select(isKept, keptEnd, rawEnd));
  Value number = tokenTile(token, kRawTokens);
  Value present = less(number, end);
  auto load = [&](unsigned argument, int64_t dim) {
    Value offsets = tailOffsets(*this, tail(argument, dim), token, kRawTokens, isKept);
    return toF32(TileBuilder::load(arg(argument), offsets, {kRawTokens, dim}, present));
  };
  Value scores = dot(load(KVQ_ATTEND_TAIL_K, k.dim), q, constantTile({rows, kRawTokens}, 0), 1);
  number = perToken(number, kRawTokens);
  // A row's frontier hides tokens of the ring only.
  Value first = select(isKept, i32(kNowhere), kFrontier), last = min(position, sub(end, i32(1)));
  Value visible = bitAnd(lessEqual(perRow(first, kRawTokens), number), lessEqual(number, perRow(last, kRawTokens)));
  Value weights = advanceSoftmax(maskedScores(scores, withinWindow(visible, number, kRawTokens), token), state);
  state.out = dot(load(KVQ_ATTEND_TAIL_V, v.dim), weights, state.out, 0);
  return state;
}

// One loop over kept tokens and ring: the steps over kept tokens stand before rawBegin.
Softmax AttendEmitter::visitTail(Softmax state) {
  tailBegin = sub(rawBegin, alignDown(add(kept, index(kRawTokens - 1)), kRawTokens));
  return Softmax::from(loop(tailBegin, rawEnd, kRawTokens, state.values(), [&](Value step, ValueRange carried) {
    return visitRawTile(step, Softmax::from(carried)).values();
  }));
}

void AttendEmitter::storeResults(const Softmax &state) {
  Value sum = halves ? reduce(tile::ReduceKind::Add, state.sum, 1) : state.sum;
  Value max = halves && scalesInSoftmax() ? mul(state.max, rowScale) : state.max;
  Value some = compare(arith::CmpFPredicate::OGT, sum, f32(0));
  Value inverse = select(some, div(f32(1), sum), f32(0));
  Value out = mul(state.out, perRow(inverse, v.dim));
  Value lse = mul(add(max, log2(sum)), f32(kLn2));
  lse = select(some, lse, f32(-std::numeric_limits<float>::infinity()));
  Value heads = mul(indexArg(KVQ_ATTEND_KV_HEADS), index(request.ratio));
  Value line = add(query, mul(split, indexArg(KVQ_ATTEND_QUERIES)));
  Value place = add(mul(line, heads), head);
  store(out, arg(KVQ_ATTEND_PARTIAL_O), mul(place, index(v.dim)), valid);
  store(lse, arg(KVQ_ATTEND_PARTIAL_LSE), place, valid);
}

} // namespace

LogicalResult mlir::kvq::buildAttend(func::FuncOp kernel, const ::kvq::KernelRequest &request,
                                     tile::ScheduleAttr schedule, Region *score, Coefficients coefficients) {
  int64_t tokens = schedule.getTileTokens();
  auto fits = [tokens](const ::kvq::SideFormat &side) {
    return !side.perChannel() || side.group % tokens == 0 || tokens % side.group == 0;
  };
  if (request.pageTokens % tokens != 0 || !fits(request.pair.k) || !fits(request.pair.v)) // expand_c7
    return kernel.emitError("tile_tokens is ")
           << tokens << ", which does not divide a page of " << request.pageTokens << " tokens into whole groups; use "
           << getDefaultSchedule(kernel.getContext(), request).getTileTokens();
  if (score && failed(verifyScoreRegion(*score)))
    return failure();
  AttendEmitter(kernel, request, schedule, score, coefficients).emit();
  return success();
}
