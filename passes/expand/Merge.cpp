// SPDX-License-Identifier: Apache-2.0
//
// The merge kernel: partial results of some heads of one query into one (format-spec merge_c1, attention_c12). One pass
// with a running maximum, as in attend; base 2 inside.

#include "passes/expand/CacheTiles.h"
#include "passes/expand/Kernels.h"
#include <kvq/kernel_abi.h>

#include <limits>

using namespace mlir;
using namespace mlir::kvq;

static constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
// Below every real lse and above that of a part that saw no key, so that such a part weighs exp2(-3e38 + 1e30) = 0.
static constexpr float kFirstMax = -1e30f, kNoKey = -3e38f;

void mlir::kvq::buildMerge(func::FuncOp kernel, const ::kvq::KernelRequest &request) {
  KernelBuilder b(kernel, request);
  int64_t dv = request.dv;
  Value query = tile::ProgramIdOp::create(b, b.getIndexType(), 0);
  Value queries = b.indexArg(KVQ_MERGE_QUERIES), heads = b.indexArg(KVQ_MERGE_HEADS);
  Value splits = b.toIndex(b.load(b.arg(KVQ_MERGE_SPLITS), query));
  Value outOffset = b.toIndex(b.load(b.arg(KVQ_MERGE_OUT_OFFSETS), query));

  Value together = b.indexArg(KVQ_MERGE_PROGRAM_HEADS);
  Value begin = b.mul(tile::ProgramIdOp::create(b, b.getIndexType(), 1), together);
  Value end = b.min(b.add(begin, together), heads);
  b.loop(begin, end, 1, {}, [&](Value head, ValueRange) -> SmallVector<Value> {
    // An lse is a tile of one element: scalar transcendental functions are not worth having.
    auto loadLse = [&](unsigned from, Value place) {
      return b.max(b.mul(b.load(b.arg(from), place, {1}), b.f32(kLog2e)), b.f32(kNoKey));
    };
    // The sink logit is where the sum begins: a part without a value (attention_c12).
    Value sink = loadLse(KVQ_MERGE_SINKS, head), first = b.max(sink, b.f32(kFirstMax));
    SmallVector<Value> inits = {first, b.exp2(b.sub(sink, first)), b.constantTile({dv}, 0)};
    SmallVector<Value> all = b.loop(b.index(0), splits, 1, inits, [&](Value split, ValueRange carried) {
      Value place = b.add(b.mul(b.add(b.mul(split, queries), query), heads), head);
      Value lse = loadLse(KVQ_MERGE_PARTIAL_LSE, place);
      Value part = b.load(b.arg(KVQ_MERGE_PARTIAL_O), b.mul(place, b.index(dv)), {dv});
      Value max = b.max(carried[0], lse);
      Value shrink = b.exp2(b.sub(carried[0], max)), weight = b.exp2(b.sub(lse, max));
      Value sum = b.add(b.mul(carried[1], shrink), weight);
      Value out = b.add(b.mul(carried[2], b.broadcast(shrink, {dv}, {0})), b.mul(part, b.broadcast(weight, {dv}, {0})));
      return SmallVector<Value>{max, sum, out};
    });
    Value some = b.compare(arith::CmpFPredicate::OGT, all[1], b.f32(0));
    Value inverse = b.select(some, b.div(b.f32(1), all[1]), b.f32(0));
    Value out = b.mul(all[2], b.broadcast(inverse, {dv}, {0}));
    Value lse = b.mul(b.add(all[0], b.log2(all[1])), b.f32(kLn2));
    lse = b.select(some, lse, b.f32(-std::numeric_limits<float>::infinity()));
    Value to = b.add(outOffset, b.mul(head, b.indexArg(KVQ_MERGE_OUT_HEAD_STRIDE)));
    b.store(b.fromF32(out, b.dataType()), b.arg(KVQ_MERGE_OUT), to);
    b.store(lse, b.arg(KVQ_MERGE_LSE), b.add(b.mul(query, heads), head));
    return {};
  });
}
