// SPDX-License-Identifier: Apache-2.0
//
// The quantize_k and quantize_v kernels: rows of the tail into codes, scales and minima of one page, by the exact
// sequence of format-spec quantize_c2. Bad values were found by append.

#include "passes/expand/CacheTiles.h"
#include "passes/expand/Kernels.h"
#include <kvq/kernel_abi.h>

using namespace mlir;
using namespace mlir::kvq;

namespace {

constexpr int64_t kTokens = 16; // per token: tokens of one step; the codes of 16 tokens share no word with others

// What a group is stored and coded with.
struct Params {
  Value scale, min;       // f16
  Value wideMin, inverse; // f32
};

class QuantizeEmitter : KernelBuilder {
public:
  QuantizeEmitter(func::FuncOp kernel, const ::kvq::KernelRequest &request)
      : KernelBuilder(kernel, request),
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
  // x values of `count` rows of the ring from token on, [first channel, + channels), as f32.
  Value loadRows(Value token, int64_t count, Value firstChannel, int64_t channels, Value mask = {});
  Params params(Value min, Value max);
  Value codes(Value x, Value wideMin, Value inverse);
  void storeCodes(Value codes, Value inPage, Value begin, Value end);

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
  Value bytes = add(mul(block, indexArg(KVQ_QUANTIZE_BLOCK_STRIDE)), mul(head, index(pages.bytes)));
  page = advance(arg(KVQ_QUANTIZE_PAGES), bytes, getI8Type());
  tail = {
      arg(KVQ_QUANTIZE_TAIL),           slot,       indexArg(KVQ_QUANTIZE_HEADS), head, indexArg(KVQ_QUANTIZE_TAIL_CAP),
      indexArg(KVQ_QUANTIZE_TAIL_ROWS), section.dim};
}

Value QuantizeEmitter::loadRows(Value token, int64_t count, Value firstChannel, int64_t channels, Value mask) {
  Value offsets = add(tailOffsets(*this, tail, token, count), firstChannel);
  return toF32(load(tail.ptr, offsets, {count, channels}, mask));
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

// quantize_c2, the last line.
Value QuantizeEmitter::codes(Value x, Value wideMin, Value inverse) {
  Value q = roundEven(mul(sub(x, wideMin), inverse));
  q = min(max(q, f32(0)), f32(static_cast<float>(section.format.levels())));
  Type type = tile(cast<RankedTensorType>(q.getType()).getShape(), getI32Type());
  return arith::FPToSIOp::create(*this, type, q);
}

void QuantizeEmitter::storeCodes(Value codes, Value inPage, Value begin, Value end) {
  tile::StoreCodesOp::create(*this, codes, section.codePtr(page), inPage, begin, end, /*channel=*/Value(),
                             getI64IntegerAttr(section.format.bits),
                             tile::LayoutAttr::get(getContext(), section.layout.toText()));
}

void QuantizeEmitter::perChannel() {
  int64_t group = section.format.group, channels = section.dim;
  loop(index(0), count, group, {}, [&](Value done, ValueRange) -> SmallVector<Value> {
    Value x = loadRows(add(position, done), group, index(0), channels);
    Params p = params(reduce(tile::ReduceKind::Min, x, 0), reduce(tile::ReduceKind::Max, x, 0));
    Value row = add(inPage, done), offset = mul(div(row, index(group)), index(channels));
    store(p.scale, section.scalePtr(page), offset);
    store(p.min, section.minPtr(page), offset);
    auto spread = [&](Value v) { return broadcast(v, {group, channels}, {1}); };
    storeCodes(codes(x, spread(p.wideMin), spread(p.inverse)), row, index(0), index(group));
    return {};
  });
}

// Steps of 16 tokens of the page that hold at least one of the item's. A group's parameters are found from its own
// channels and spread over the whole rows, group by group.
void QuantizeEmitter::perToken() {
  int64_t group = section.format.group, channels = section.dim;
  Value end = add(inPage, count), firstOfPage = sub(position, inPage);
  loop(alignDown(inPage, kTokens), end, kTokens, {}, [&](Value step, ValueRange) -> SmallVector<Value> {
    Value token = add(firstOfPage, step), rows = iota(kTokens, getIndexType());
    Value begin = max(sub(inPage, step), index(0)), stop = min(sub(end, step), index(kTokens));
    Value mask = bitAnd(lessEqual(begin, rows), less(rows, stop));
    Value channel = iota(channels, getI32Type());
    Value none = constantTile({kTokens, channels}, 0);
    SmallVector<Value> spread =
        loop(index(0), index(channels), group, {none, none}, [&](Value first, ValueRange carried) {
          Value x = loadRows(token, kTokens, first, group, mask);
          Params p = params(reduce(tile::ReduceKind::Min, x, 1), reduce(tile::ReduceKind::Max, x, 1));
          Value offsets = add(add(rows, step), mul(div(first, index(group)), index(request.pageTokens)));
          store(p.scale, section.scalePtr(page), offsets, mask);
          store(p.min, section.minPtr(page), offsets, mask);
          // Later groups overwrite what lies right of their first channel.
          Value mine = broadcast(lessEqual(toI32(first), channel), {kTokens, channels}, {1});
          auto put = [&](Value v, Value into) { return select(mine, broadcast(v, {kTokens, channels}, {0}), into); };
          return SmallVector<Value>{put(p.wideMin, carried[0]), put(p.inverse, carried[1])};
        });
    Value x = loadRows(token, kTokens, index(0), channels, mask);
    storeCodes(codes(x, spread[0], spread[1]), step, begin, stop);
    return {};
  });
}

} // namespace

void mlir::kvq::buildQuantize(func::FuncOp kernel, const ::kvq::KernelRequest &request) {
  QuantizeEmitter(kernel, request).emit();
}
