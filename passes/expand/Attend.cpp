// SPDX-License-Identifier: Apache-2.0
//
// The attend kernel: one online softmax over the packed pages and the tail (format-spec section 7, kernel_abi.h
// kvq_attend_arg). It multiplies dequantized tiles; that no element is ever dequantized is the work of
// kvq-tile-fold-scales. Ranges of an item may be generous: every key is masked by the frontiers and positions of the
// row that looks at it.

#include "passes/expand/CacheTiles.h"
#include "passes/expand/HalfRange.h"
#include "passes/expand/Kernels.h"
#include "passes/expand/ScoreRegion.h"
#include <kvq/kernel_abi.h>

#include <limits>
#include <numeric>

using namespace mlir;
using namespace mlir::kvq;

namespace {

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
// The running maximum starts above the score of a masked key, so that such a key gets exp2(-3e38 + 1e30) = 0.
constexpr float kFirstMax = -1e30f, kMasked = -3e38f;
// Of one step over the tail, in memory and in registers; every ring is longer (tail_c1).
constexpr int64_t kRawTokens = 32, kRawTokensOfLanes = 16;
// A row that does not exist stands before every token, and sees none.
constexpr int32_t kNowhere = std::numeric_limits<int32_t>::min();
// No window is longer: position - window stays an i32.
constexpr int64_t kLongestWindow = int64_t(1) << 30;

// The online softmax of all rows: maximum [R], sum [R] ([R, 1] with halves) and unnormalised output [R, Dv]. unit: the
// power of two that the output is to be multiplied by, where tiles are scaled; else null.
struct Softmax {
  Value max, sum, out, unit;
  SmallVector<Value> values() const {
    return unit ? SmallVector<Value>{max, sum, out, unit} : SmallVector<Value>{max, sum, out};
  }
  static Softmax from(ValueRange v) { return {v[0], v[1], v[2], v.size() > 3 ? v[3] : Value()}; }
};

class AttendEmitter : KernelBuilder {
public:
  AttendEmitter(func::FuncOp kernel, const ::kvq::KernelRequest &request, tile::ScheduleAttr schedule, Region *score,
                const TargetModel &target)
      : KernelBuilder(kernel, request), schedule(schedule), region(score), halves(areHalves(target.coefficients)),
        scalesTiles(halves && (target.coefficients == Coefficients::NormalF16 ||
                               request.type == ::kvq::ElementType::F32 || request.accuracy == ::kvq::Accuracy::Full)),
        rawCounts(request.type == ::kvq::ElementType::F16 && target.coefficients == Coefficients::F16),
        k(*this, ::kvq::Side::K), v(*this, ::kvq::Side::V), rows(request.rows), tokens(schedule.getTileTokens()),
        parts(schedule.getWarps()), rawTokens(target.laneRegisters > 0 ? kRawTokensOfLanes : kRawTokens) {}

  void emit() {
    loadItem();
    loadRows();
    Value sum = halves ? constantTile({rows, 1}, 0) : constantTile({rows}, 0);
    Softmax state = {constantTile({rows}, kFirstMax), sum, constantTile({rows, v.dim}, 0),
                     scalesTiles ? f32(1) : Value()};
    state = visitPages(state);
    state = visitTail(state);
    storeResults(parts > 1 ? mergeParts(state) : state);
  }

private:
  void loadItem();
  void loadTail();
  void loadRows();
  void loadQuery(Value offset);
  Value normalized(Value values, Value scale);
  int64_t shortTile() const;
  Softmax visitPages(Softmax state);
  // Tiles of which every row sees every key and has its V packed; of which rows see some such keys; of which rows see
  // some keys whose V is still in the tail.
  enum class Tokens { All, Packed, Lagging };
  Softmax visitPackedTiles(Value begin, Value end, Tokens which, Softmax state);
  Softmax visitPackedTile(Value page, Value inPage, Value token, Tokens which, Softmax state);
  Value visibleTokens(Value token, Tokens which);
  Value laggingV(Value token);
  void addRawV(Value raw, Value weights, Value shrink, Softmax &state);
  Softmax visitTail(Softmax state);
  Softmax visitRawTile(Value step, Softmax state);
  void prefetchPart(Value entry, Value page, Value inPage);
  Value pageAt(Value entry, Value head);
  struct Params { // of a tile
    Value scale, min;
    HalfRange range; // what they were brought to, where tiles are scaled; else null
  };
  Params committedParams(Section &side, Value committed, Value page, Value inPage, Value token, Tokens which);
  Params paramsOfK(Value page, Value inPage, Value token, Tokens which);
  Value largestOf(Value tile);
  HalfRange scaledTile(Value &raw);
  Value inRange(Value scores, const HalfRange &range) { return scalesTiles ? mul(scores, range.up) : scores; }
  int headroom(const Section &side) const;
  Value withinWindow(Value visible, Value number, int64_t count);
  Value maskedScores(Value scores, Value visible, Value token);
  TypeAttr queryRounding();
  TypeAttr weightRounding();
  struct Weights {
    Value ofKeys, shrink; // [R, tokens]; what the output is to be multiplied by, [R]
  };
  Weights advanceSoftmax(Value scores, Softmax &state);
  Weights advanceHalves(Value scores, Softmax &state);
  Value shrinkOfOutput(Softmax &state, Value shrink, const HalfRange &range);
  // Otherwise a score cap or a region asks for scores in natural units.
  bool scalesInSoftmax() const { return !request.scoreCap && !region; }
  Softmax mergeParts(const Softmax &state);
  void storeResults(const Softmax &state);

  // Over tiles of `step` tokens, which the parts of the program take in turn.
  Softmax tileLoop(Value begin, Value end, int64_t step, const Softmax &state,
                   function_ref<Softmax(Value, Softmax)> visit) {
    if (parts > 1)
      begin = add(begin, mul(part, index(step)));
    if (halves) // in registers of lanes an index takes two
      begin = toI32(begin), end = toI32(end);
    return Softmax::from(loop(begin, end, step * parts, state.values(), [&](Value token, ValueRange carried) {
      return visit(toIndex(token), Softmax::from(carried)).values();
    }));
  }
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
  bool halves, scalesTiles; // HalfRange.h
  bool rawCounts;           // a tile that is not packed is of halves, and they are operands
  Section k, v;
  int64_t rows, tokens, parts, rawTokens;

  // The item.
  Value kvHead, queryBase, rowBegin, rowCount, packedBegin, packedEnd, rawBegin, rawEnd, vRawBegin, tableBase, tailSlot,
      kept, nextEntry, nextHead, sequence;
  // Per row: does it exist, its head and place among a split's results (i32), its coefficients, its bounds (i32).
  Value valid, head, place, q, kFrontier, vFrontier, packedLimit, position, windowFirst;
  Value committedLimit; // packedLimit, but of keys whose V is packed as well
  Value part;           // of the program, where it has several
  Value rowScale;       // [R], with halves: what scores are multiplied by
  Value keptEnd;        // kept tokens below this body index exist for some row
  Value tailBegin;      // where the loop over kept tokens and the ring begins
  Value committedV;     // V of tokens below this index is packed
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
  tableBase = member(at, offsetof(kvq_attend_item, table_base));
  nextEntry = member(at, offsetof(kvq_attend_item, next_entry));
  nextHead = member(at, offsetof(kvq_attend_item, next_head));
  if (region) // the number of a sequence is that of its slot
    sequence = member(at, offsetof(kvq_attend_item, tail_slot));
  if (parts > 1)
    part = tile::PartIdOp::create(*this, getIndexType());
}

// What is needed only behind the pages is read there: registers are scarce in their loops.
void AttendEmitter::loadTail() {
  Value at = item(KVQ_ATTEND_ITEMS, sizeof(kvq_attend_item));
  rawBegin = member(at, offsetof(kvq_attend_item, raw_begin));
  rawEnd = member(at, offsetof(kvq_attend_item, raw_end));
  tailSlot = member(at, offsetof(kvq_attend_item, tail_slot));
  kept = member(at, offsetof(kvq_attend_item, kept));
}

void AttendEmitter::loadRows() {
  // Numbers of rows are i32: what lives as long as the kernel takes half of the registers.
  Value r = iota(rows, getI32Type()), ratio = i32(static_cast<int32_t>(request.ratio));
  valid = less(r, toI32(rowCount));
  Value row = add(r, toI32(rowBegin)), number = add(div(row, ratio), toI32(queryBase)), query = toIndex(number);
  head = add(rem(row, ratio), toI32(mul(kvHead, index(request.ratio))));
  Value heads = toI32(mul(indexArg(KVQ_ATTEND_KV_HEADS), index(request.ratio)));
  place = add(mul(number, heads), head);
  Value offset = toIndex(load(arg(KVQ_ATTEND_Q_OFFSETS), query, {}, valid));
  offset = add(offset, mul(toIndex(head), indexArg(KVQ_ATTEND_Q_HEAD_STRIDE)));
  loadQuery(offset);

  // Rows that do not exist load frontier 0.
  kFrontier = load(arg(KVQ_ATTEND_K_FRONTIER), query, {}, valid);
  vFrontier = request.lag ? load(arg(KVQ_ATTEND_V_FRONTIER), query, {}, valid) : kFrontier;
  position = select(valid, load(arg(KVQ_ATTEND_POSITIONS), query, {}, valid), i32(kNowhere));
  // What lies past every row's frontier or position may hold anything, also NaN: it is never visited.
  packedEnd = min(packedEnd, toIndex(reduce(tile::ReduceKind::Max, kFrontier, 0)));
  committedV = request.lag ? min(packedEnd, toIndex(reduce(tile::ReduceKind::Max, vFrontier, 0))) : packedEnd;
  packedLimit = min(min(kFrontier, add(position, i32(1))), toI32(packedEnd));
  committedLimit = request.lag ? min(packedLimit, vFrontier) : packedLimit;
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

// The power of two of what a side's scales meet: q, weights.
int AttendEmitter::headroom(const Section &side) const {
  bool meetsScales = side.format.perChannel() == (&side == &k);
  return meetsScales && !scalesTiles ? storedHeadroom(side.format.bits) : kHeadroom;
}

// Rows times a power of two and a sign, which bring them to the range of halves and make what is left of the scale
// positive: a maximum of scores is one before and after it. Sets rowScale.
Value AttendEmitter::normalized(Value values, Value scale) {
  Value largest = reduce(tile::ReduceKind::Max, math::AbsFOp::create(*this, values), 1);
  HalfRange range = HalfRange::of(*this, largest, headroom(k));
  Value negative = compare(arith::CmpFPredicate::OLT, scale, f32(0));
  rowScale = mul(range.up, select(negative, sub(f32(0), scale), scale));
  Value down = mul(range.down, select(negative, f32(-1), f32(1)));
  Value result = mul(values, perRow(down, k.dim));
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
  Value ahead = add(entry, index(schedule.getPrefetch() * parts)), isOwn = lessEqual(ahead, last);
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

// Tokens of a rare tile. Where registers hold a tile, it is short: masks take registers, and the code of a long one is
// long; there are 16 codes of V in a word, and lanes of four words in layouts that are not made for it. In memory the
// tile in which V's frontier lies is paid twice, and half empty both times (measured, 2 bits and 1,056 tokens: with
// tiles of 128 attention takes 8 % longer). It divides the schedule's tile, so that it begins where that does and lies
// in one page, and is no longer than a ring, which a lagging V's rows wrap around once (tail_c1: at least 64 rows).
int64_t AttendEmitter::shortTile() const {
  return std::gcd(tokens, halves && request.profile != ::kvq::Profile::Mma ? 64 : 32);
}

// First the tiles that every row sees whole, then the others: the common tile pays nothing for the rare one. Under a
// window either end may cut a tile, and all are taken as the rare one. Keys whose V is still in the tail come last: no
// tile holds V packed and V of the tail, and the few keys that some rows see in one way and some in the other are
// looked at twice, each time by the rows that they are for.
Softmax AttendEmitter::visitPages(Softmax state) {
  Value begin = packedBegin;
  if (!request.window) {
    Value seen = select(valid, committedLimit, i32(std::numeric_limits<int32_t>::max()));
    Value end = max(toIndex(reduce(tile::ReduceKind::Min, seen, 0)), packedBegin);
    begin = min(alignDown(end, tokens), packedEnd);
    state = visitPackedTiles(packedBegin, begin, Tokens::All, state);
  }
  // Under a window all tiles are taken as rare ones, and stay long.
  if ((halves || request.lag) && !request.window)
    tokens = shortTile();
  state = visitPackedTiles(begin, committedV, Tokens::Packed, state);
  if (!request.lag)
    return state;
  tokens = shortTile();
  Value at = item(KVQ_ATTEND_ITEMS, sizeof(kvq_attend_item));
  vRawBegin = member(at, offsetof(kvq_attend_item, v_raw_begin));
  tailSlot = member(at, offsetof(kvq_attend_item, tail_slot));
  return visitPackedTiles(max(alignDown(vRawBegin, tokens), packedBegin), packedEnd, Tokens::Lagging, state);
}

// Tiles of [begin, end), where begin is a multiple of the tile. A tile lies in one page.
Softmax AttendEmitter::visitPackedTiles(Value begin, Value end, Tokens which, Softmax state) {
  return tileLoop(begin, end, tokens, state, [&](Value token, Softmax carried) {
    Value entry = add(tableBase, div(token, index(request.pageTokens)));
    Value inPage = rem(token, index(request.pageTokens));
    Value page = pageAt(entry, kvHead);
    if (schedule.getPrefetch() > 0)
      prefetchPart(entry, page, inPage);
    return visitPackedTile(page, inPage, token, which, carried);
  });
}

// Scale and minimum for a tile. A probability of 0 must meet no NaN: parameters of groups that no commit has written
// yet are read as 0.
AttendEmitter::Params AttendEmitter::committedParams(Section &side, Value committed, Value page, Value inPage,
                                                     Value token, Tokens which) {
  Value scale = side.scales(page, inPage, tokens), min = side.minima(page, inPage, tokens);
  if (which != Tokens::All) {
    auto type = cast<RankedTensorType>(scale.getType());
    int64_t groups = type.getDimSize(0), step = tokens / groups;
    bool perChannel = side.format.perChannel();
    Value first = perChannel ? add(mul(iota(groups, getI32Type()), i32(step)), toI32(token)) : tokenTile(token, tokens);
    Value written = less(first, toI32(committed));
    written = broadcast(written, type.getShape(), {perChannel ? 0 : 1});
    scale = select(written, scale, f32(0));
    min = select(written, min, f32(0));
  }
  if (!scalesTiles)
    return {scale, min, {}};
  float most = static_cast<float>((1 << side.format.bits) - 1);
  Value size = max(mul(scale, f32(most)), math::AbsFOp::create(*this, min));
  HalfRange range = HalfRange::of(*this, largestOf(size), paramHeadroom(side.format.bits));
  auto scaled = [&](Value tile) { return toF32(fromF32(mul(tile, range.down), getF16Type())); };
  return {scaled(scale), scaled(min), range};
}

Value AttendEmitter::largestOf(Value tile) {
  return reduce(tile::ReduceKind::Max, reduce(tile::ReduceKind::Max, tile, 1), 0);
}

// K's need no such care unless all of a tile are looked at: its scores are chosen by the mask.
AttendEmitter::Params AttendEmitter::paramsOfK(Value page, Value inPage, Value token, Tokens which) {
  return committedParams(k, packedEnd, page, inPage, token, scalesTiles ? which : Tokens::All);
}

// A tile that is not packed, brought to the range of halves where tiles are scaled and their elements are none that
// count as they are.
HalfRange AttendEmitter::scaledTile(Value &raw) {
  if (!scalesTiles)
    return {};
  if (rawCounts)
    return {f32(1), f32(1)};
  HalfRange range = HalfRange::of(*this, largestOf(math::AbsFOp::create(*this, raw)), 0);
  raw = mul(raw, range.down);
  return range;
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
    indices.batch = splat(sequence, {rows, count});
    indices.head = perRow(toIndex(head), count);
    indices.query = perRow(toIndex(position), count);
    indices.key = perToken(add(iota(count, getIndexType()), toIndex(token)), count);
    scores = mul(inlineScoreRegion(*this, *region, scores, indices, kernel.getArguments().drop_front(KVQ_ATTEND_ARGS)),
                 f32(kLog2e));
    scores = max(scores, f32(kMasked)); // a region masks with -inf
  }
  return visible ? select(visible, scores, f32(kMasked)) : scores;
}

// The same with halves. Scores are multiplied where they become weights, in the same operation. Weights are rounded
// before they are added up: a rounded weight then counts as much in the sum as in the output. Both are times the power
// of two that headroom() says.
AttendEmitter::Weights AttendEmitter::advanceHalves(Value scores, Softmax &state) {
  int64_t count = cast<RankedTensorType>(scores.getType()).getDimSize(1);
  Value max = this->max(state.max, reduce(tile::ReduceKind::Max, scores, 1));
  Value scale = scalesInSoftmax() ? rowScale : splat(f32(1), {rows});
  Value shrink = exp2(mul(sub(state.max, max), scale), /*approximate=*/true);
  Value offset = fma(max, sub(f32(0), scale), f32(static_cast<float>(headroom(v))));
  Value weights = exp2(fma(scores, perRow(scale, count), perRow(offset, count)), /*approximate=*/true);
  if (request.accuracy != ::kvq::Accuracy::Full)
    weights = toF32(fromF32(weights, getF16Type()));
  state.max = max;
  Value sum = dot(constantTile({1, count}, 1), weights, constantTile({rows, 1}, 0), 1);
  state.sum = fma(state.sum, broadcast(shrink, {rows, 1}, {0}), sum);
  return {weights, shrink};
}

// What brings the output to the new maximum, and to the range of the tile of V that comes next.
Value AttendEmitter::shrinkOfOutput(Softmax &state, Value shrink, const HalfRange &range) {
  if (scalesTiles) {
    shrink = mul(shrink, mul(state.unit, range.down));
    state.unit = range.up;
  }
  return perRow(shrink, v.dim);
}

// Takes a tile of scores into maximum and sum; gives the weights of the tile's keys.
AttendEmitter::Weights AttendEmitter::advanceSoftmax(Value scores, Softmax &state) {
  if (halves)
    return advanceHalves(scores, state);
  int64_t count = cast<RankedTensorType>(scores.getType()).getDimSize(1);
  Value max = this->max(state.max, reduce(tile::ReduceKind::Max, scores, 1));
  // Weights are rounded to 16 bits or fewer anyway, except under `full`; errors of shrinking would add up over tiles.
  Value shrink = exp2(sub(state.max, max));
  Value weights = exp2(sub(scores, perRow(max, count)), request.accuracy != ::kvq::Accuracy::Full);
  state.max = max;
  state.sum = add(mul(state.sum, shrink), reduce(tile::ReduceKind::Add, weights, 1));
  return {weights, shrink};
}

// Which of a tile's tokens rows see, [R, tokens]; null: all.
Value AttendEmitter::visibleTokens(Value token, Tokens which) {
  if (which == Tokens::All)
    return {};
  Value number = perToken(tokenTile(token, tokens), tokens);
  Value limit = which == Tokens::Packed ? committedLimit : packedLimit;
  Value visible = withinWindow(less(number, perRow(limit, tokens)), number, tokens);
  return which == Tokens::Packed ? visible : bitAnd(visible, lessEqual(perRow(vFrontier, tokens), number));
}

Softmax AttendEmitter::visitPackedTile(Value page, Value inPage, Value token, Tokens which, Softmax state) {
  Value kCodes = k.codes(page, inPage, tokens);
  Params ofK = paramsOfK(page, inPage, token, which);
  Value kTile = k.dequantize(kCodes, ofK.scale, ofK.min);
  Value scores = inRange(dot(kTile, q, constantTile({rows, tokens}, 0), 1, queryRounding()), ofK.range);
  auto [weights, shrink] = advanceSoftmax(maskedScores(scores, visibleTokens(token, which), token), state);
  if (which == Tokens::Lagging) {
    addRawV(laggingV(token), weights, shrink, state);
    return state;
  }
  Params ofV = committedParams(v, committedV, page, inPage, token, which);
  Value vTile = v.dequantize(v.codes(page, inPage, tokens), ofV.scale, ofV.min);
  Value before = mul(state.out, shrinkOfOutput(state, shrink, ofV.range));
  state.out = dot(vTile, weights, before, 0, weightRounding());
  return state;
}

// A tile of V that is not packed. Sums of tensor cores begin at zero, and what is added to them is multiplied at once.
void AttendEmitter::addRawV(Value raw, Value weights, Value shrink, Softmax &state) {
  HalfRange range = scaledTile(raw);
  shrink = shrinkOfOutput(state, shrink, range);
  state.out = halves ? fma(state.out, shrink, dot(raw, weights, constantTile({rows, v.dim}, 0), 0))
                     : dot(raw, weights, mul(state.out, shrink), 0);
}

// V of keys whose K is packed and that is itself still in the tail.
Value AttendEmitter::laggingV(Value token) {
  Value number = tokenTile(token, tokens);
  Value inTail = bitAnd(less(sub(toI32(vRawBegin), i32(1)), number), less(number, toI32(packedEnd)));
  Value offsets = tailOffsets(*this, tail(KVQ_ATTEND_TAIL_V, v.dim), token, tokens);
  return toF32(load(arg(KVQ_ATTEND_TAIL_V), offsets, {tokens, v.dim}, inTail));
}

// A step of visitTail: kept tokens before rawBegin, tokens of the ring from there on. Either may reach past its end.
Softmax AttendEmitter::visitRawTile(Value step, Softmax state) {
  step = toI32(step);
  Value isKept = less(step, toI32(rawBegin));
  Value token = select(isKept, sub(step, toI32(add(tailBegin, kept))), step);
  Value end = select(isKept, toI32(keptEnd), toI32(rawEnd));
  Value number = tokenTile(token, rawTokens);
  Value present = less(number, end);
  auto load = [&](unsigned argument, int64_t dim) {
    Value offsets = tailOffsets(*this, tail(argument, dim), token, rawTokens, isKept);
    return toF32(TileBuilder::load(arg(argument), offsets, {rawTokens, dim}, present));
  };
  Value kTile = load(KVQ_ATTEND_TAIL_K, k.dim);
  HalfRange ofK = scaledTile(kTile);
  Value scores = inRange(dot(kTile, q, constantTile({rows, rawTokens}, 0), 1), ofK);
  number = perToken(number, rawTokens);
  // A row's frontier hides tokens of the ring only.
  Value first = select(isKept, i32(kNowhere), kFrontier), last = min(position, sub(end, i32(1)));
  Value visible = bitAnd(lessEqual(perRow(first, rawTokens), number), lessEqual(number, perRow(last, rawTokens)));
  scores = maskedScores(scores, withinWindow(visible, number, rawTokens), token);
  auto [weights, shrink] = advanceSoftmax(scores, state);
  addRawV(load(KVQ_ATTEND_TAIL_V, v.dim), weights, shrink, state);
  return state;
}

// One loop over kept tokens and ring: the steps over kept tokens stand before rawBegin.
Softmax AttendEmitter::visitTail(Softmax state) {
  loadTail();
  Value positionEnd = add(toIndex(reduce(tile::ReduceKind::Max, position, 0)), index(1));
  rawEnd = max(min(rawEnd, positionEnd), rawBegin); // the loop reaches the kept tokens in any case
  keptEnd = min(positionEnd, index(0));
  tailBegin = sub(rawBegin, alignDown(add(kept, index(rawTokens - 1)), rawTokens));
  return tileLoop(tailBegin, rawEnd, rawTokens, state,
                  [&](Value step, Softmax carried) { return visitRawTile(step, carried); });
}

// What the parts of the program have found, as one in all of them: the formula of the merge kernel.
Softmax AttendEmitter::mergeParts(const Softmax &state) {
  Value max = reduceParts(tile::ReduceKind::Max, state.max), below = sub(state.max, max);
  Value shrink = exp2(scalesInSoftmax() ? mul(below, rowScale) : below, /*approximate=*/true);
  Value sum = reduceParts(tile::ReduceKind::Add, mul(state.sum, broadcast(shrink, {rows, 1}, {0})));
  Value weight = scalesTiles ? mul(shrink, state.unit) : shrink;
  Value out = reduceParts(tile::ReduceKind::Add, mul(state.out, perRow(weight, v.dim)));
  return {max, sum, out, scalesTiles ? f32(1) : Value()};
}

void AttendEmitter::storeResults(const Softmax &state) {
  Value sum = halves ? reduce(tile::ReduceKind::Add, state.sum, 1) : state.sum;
  Value max = halves && scalesInSoftmax() ? mul(state.max, rowScale) : state.max;
  Value some = compare(arith::CmpFPredicate::OGT, sum, f32(0));
  Value inverse = select(some, div(f32(1), sum), f32(0));
  Value out = mul(state.out, perRow(scalesTiles ? mul(inverse, state.unit) : inverse, v.dim));
  float power = halves ? static_cast<float>(headroom(v)) : 0; // that sum and output have
  Value lse = mul(add(max, power != 0 ? sub(log2(sum), f32(power)) : log2(sum)), f32(kLn2));
  lse = select(some, lse, f32(-std::numeric_limits<float>::infinity()));
  Value split = member(item(KVQ_ATTEND_ITEMS, sizeof(kvq_attend_item)), offsetof(kvq_attend_item, split));
  Value heads = mul(indexArg(KVQ_ATTEND_KV_HEADS), index(request.ratio));
  Value to = add(toIndex(place), mul(mul(split, indexArg(KVQ_ATTEND_QUERIES)), heads));
  Value stored = part ? bitAnd(valid, compare(arith::CmpIPredicate::eq, part, index(0))) : valid;
  store(out, arg(KVQ_ATTEND_PARTIAL_O), mul(to, index(v.dim)), stored);
  store(lse, arg(KVQ_ATTEND_PARTIAL_LSE), to, stored);
}

} // namespace

LogicalResult mlir::kvq::buildAttend(func::FuncOp kernel, const ::kvq::KernelRequest &request,
                                     tile::ScheduleAttr schedule, Region *score, const TargetModel &target) {
  int64_t tokens = schedule.getTileTokens();
  if (!dividesPage(tokens, request)) // expand_c7
    return kernel.emitError("tile_tokens is ")
           << tokens << ", which does not divide a page of " << request.pageTokens << " tokens into whole groups; use "
           << defaultSchedule(request, target).tileTokens;
  if (schedule.getWarps() > 1 && !areHalves(target.coefficients))
    return kernel.emitError("warps is ") << schedule.getWarps() << ", and a program of this target has one";
  if (score && failed(verifyScoreRegion(*score)))
    return failure();
  AttendEmitter(kernel, request, schedule, score, target).emit();
  return success();
}
