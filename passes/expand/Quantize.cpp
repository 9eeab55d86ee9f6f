// SPDX-License-Identifier: Apache-2.0
//
// The quantize_k and quantize_v kernels: rows of the tail into codes, scales and minima of one page, by the exact
// sequence of format-spec quantize_c2. Bad values were found by append.
//
// Both ways work on tiles that stay in the first cache and read each value of the tail once: per channel a group of
// tokens by a strip of channels, whose minima and maxima are those of columns; per token a few tokens by a group of
// channels. A strip's rows lie too far apart for the processor to see where the next ones are: what the next step or
// the next program reads is prefetched while this one packs (measured from memory, 16-bit values: twice the rate).

#include "passes/expand/CacheTiles.h"
#include "passes/expand/Kernels.h"
#include <kvq/kernel_abi.h>

using namespace mlir;
using namespace mlir::kvq;

namespace {

// What a group is stored and coded with.
struct Params {
  Value scale, min;       // f16
  Value wideMin, inverse; // f32
};

class QuantizeEmitter : KernelBuilder {
public:
  QuantizeEmitter(func::FuncOp kernel, const ::kvq::KernelRequest &request, bool prefetches)
      : KernelBuilder(kernel, request), prefetches(prefetches),
        section(*this, request.op == ::kvq::KernelOp::QuantizeK ? ::kvq::Side::K : ::kvq::Side::V) {}

  void emit() {
    loadItem();
    if (section.format.perChannel())
      perChannel();
    else
      perToken();
  }

private:
  void loadItem();
  void perChannel();
  void perToken();
  int64_t stripChannels() const;
  // Brings in the share of `tokens` rows of the ring from `token` on, all channels, that [first channel, + channels)
  // is. From `end` on they are those of the next KV head from `begin` on: most likely the next program's.
  void prefetchRows(Value token, Value begin, Value end, int64_t tokens, Value firstChannel, int64_t channels);
  // Values of rows of the ring whose first elements stand at `offsets`, [first channel, + channels), as f32.
  Value loadRows(Value offsets, Value firstChannel, int64_t channels);
  Params params(Value min, Value max);
  Value codes(Value x, Value wideMin, Value inverse);

  const bool prefetches;
  Section section;
  Value page, position, count, inPage; // inPage: row of the first token
  Tail tail;
};

void QuantizeEmitter::loadItem() {
  Value at = item(KVQ_QUANTIZE_ITEMS, sizeof(kvq_quantize_item));
  Value block = member(at, offsetof(kvq_quantize_item, block));
  Value head = member(at, offsetof(kvq_quantize_item, kv_head));
  Value slot = member(at, offsetof(kvq_quantize_item, tail_slot));
  position = member(at, offsetof(kvq_quantize_item, position));
  count = member(at, offsetof(kvq_quantize_item, count));
  inPage = rem(position, index(request.pageTokens));
  page = pageOf(KVQ_QUANTIZE_PAGES, KVQ_QUANTIZE_BLOCK_STRIDE, KVQ_QUANTIZE_HEAD_STRIDE, block, head);
  tail = {
      arg(KVQ_QUANTIZE_TAIL),           slot,       indexArg(KVQ_QUANTIZE_HEADS), head, indexArg(KVQ_QUANTIZE_TAIL_CAP),
      indexArg(KVQ_QUANTIZE_TAIL_ROWS), section.dim};
}

Value QuantizeEmitter::loadRows(Value offsets, Value firstChannel, int64_t channels) {
  int64_t rows = cast<RankedTensorType>(offsets.getType()).getDimSize(0);
  Value strip = advance(tail.ptr, mul(firstChannel, index(::kvq::byteSize(request.type))), dataType());
  return toF32(load(strip, offsets, {rows, channels}));
}

void QuantizeEmitter::prefetchRows(Value token, Value begin, Value end, int64_t tokens, Value firstChannel,
                                   int64_t channels) {
  if (!prefetches)
    return;
  int64_t size = ::kvq::byteSize(request.type);
  Value here = less(token, end);
  Tail next = tail;
  next.head = select(here, tail.head, add(tail.head, index(1)));
  Value offset = tailOffset(*this, next, select(here, token, begin));
  Value bytes = add(mul(offset, index(size)), mul(firstChannel, index(tokens * size)));
  tile::PrefetchOp::create(*this, advance(tail.ptr, bytes, getI8Type()), tokens * channels * size);
}

// quantize_c2 up to `inv`.
Params QuantizeEmitter::params(Value min, Value max) {
  min = add(min, f32(0));
  max = add(max, f32(0));
  Params p;
  p.scale = fromF32(div(sub(max, min), f32(static_cast<float>(section.format.levels()))), getF16Type());
  p.min = fromF32(min, getF16Type());
  p.wideMin = toF32(p.min);
  Value wideScale = toF32(p.scale);
  p.inverse = select(compare(arith::CmpFPredicate::OEQ, wideScale, f32(0)), f32(0), div(f32(1), wideScale));
  return p;
}

// quantize_c2, the last line. To clamp first gives the same, the bounds being integers, and leaves rounding and
// conversion side by side, which targets have as one instruction.
Value QuantizeEmitter::codes(Value x, Value wideMin, Value inverse) {
  Value q = mul(sub(x, wideMin), inverse);
  q = min(max(q, f32(0)), f32(static_cast<float>(section.format.levels())));
  Type type = tile(cast<RankedTensorType>(q.getType()).getShape(), getI32Type());
  return arith::FPToSIOp::create(*this, type, roundEven(q));
}

// Channels of one step: a tile of a group and them fits registers also where it is not looped over.
int64_t QuantizeEmitter::stripChannels() const {
  return section.dim % 32 == 0 && section.format.group <= 128 ? 32 : 16;
}

void QuantizeEmitter::perChannel() {
  int64_t group = section.format.group, channels = section.dim, strip = stripChannels();
  loop(index(0), count, group, {}, [&](Value done, ValueRange) -> SmallVector<Value> {
    Value offsets = tailOffsets(*this, tail, add(position, done), group), row = add(inPage, done);
    Value groupOffset = mul(div(row, index(group)), index(channels));
    loop(index(0), index(channels), strip, {}, [&](Value first, ValueRange) -> SmallVector<Value> {
      Value next = add(add(position, done), index(group));
      prefetchRows(next, position, add(position, count), group, first, strip);
      Value x = loadRows(offsets, first, strip);
      Params p = params(reduce(tile::ReduceKind::Min, x, 0), reduce(tile::ReduceKind::Max, x, 0));
      store(p.scale, section.scalePtr(page), add(groupOffset, first));
      store(p.min, section.minPtr(page), add(groupOffset, first));
      auto spread = [&](Value v) { return broadcast(v, {group, strip}, {1}); };
      section.storeCodes(codes(x, spread(p.wideMin), spread(p.inverse)), page, row, first, index(0), index(group));
      return {};
    });
    return {};
  });
}

// Steps of the page that hold at least one of the item's tokens. Of other tokens of a step the ring has something else,
// which is read and not stored. Most steps are whole: they store without asking for each token.
void QuantizeEmitter::perToken() {
  int64_t group = section.format.group, channels = section.dim, tokens = section.tokensOfWords();
  Value end = add(inPage, count), firstOfPage = sub(position, inPage), zero = index(0), all = index(tokens);
  loop(alignDown(inPage, tokens), end, tokens, {}, [&](Value step, ValueRange) -> SmallVector<Value> {
    Value offsets = tailOffsets(*this, tail, add(firstOfPage, step), tokens);
    Value begin = max(sub(inPage, step), zero), stop = min(sub(end, step), all);
    Value whole = bitAnd(lessEqual(begin, zero), lessEqual(all, stop));
    loop(zero, index(channels), group, {}, [&](Value first, ValueRange) -> SmallVector<Value> {
      Value x = loadRows(offsets, first, group);
      Params p = params(reduce(tile::ReduceKind::Min, x, 1), reduce(tile::ReduceKind::Max, x, 1));
      Value place = add(step, mul(div(first, index(group)), index(request.pageTokens)));
      auto storeAll = [&](Value places, Value mask, Value from, Value to) {
        store(p.scale, section.scalePtr(page), places, mask);
        store(p.min, section.minPtr(page), places, mask);
        Value next = add(add(firstOfPage, step), all), begin = add(firstOfPage, alignDown(inPage, tokens));
        prefetchRows(next, begin, add(position, count), tokens, first, group);
        auto spread = [&](Value v) { return broadcast(v, {tokens, group}, {0}); };
        section.storeCodes(codes(x, spread(p.wideMin), spread(p.inverse)), page, step, first, from, to);
      };
      branch(
          whole, [&] { storeAll(place, {}, zero, all); },
          [&] {
            Value rows = iota(tokens, getIndexType());
            storeAll(add(rows, place), bitAnd(lessEqual(begin, rows), less(rows, stop)), begin, stop);
          });
      return {};
    });
    return {};
  });
}

} // namespace

void mlir::kvq::buildQuantize(func::FuncOp kernel, const ::kvq::KernelRequest &request, tile::ScheduleAttr schedule) {
  QuantizeEmitter(kernel, request, schedule.getPrefetch() > 0).emit();
}
