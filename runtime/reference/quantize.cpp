// SPDX-License-Identifier: Apache-2.0
//
// append, quantize_k, quantize_v, dequantize_k, dequantize_v, convert_k, convert_v: what goes into tail and pages,
// comes out again and is moved to pages of another profile.
#include "runtime/reference/page.h"
#include "runtime/reference/reference.h"

#include <kvq/kernel_abi.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace kvq {

// Every line is one operation of quantize_c2, in f32. Uses that the build forbids fusing (-ffp-contract=off) and that
// rintf rounds to nearest even, which is the rounding mode of every thread that has not changed it.
QuantizedGroup quantizeGroup(std::span<const float> values, int bits, std::span<uint8_t> codes) {
  const float q = static_cast<float>((1 << bits) - 1);
  const auto [least, greatest] = std::minmax_element(values.begin(), values.end());
  const float mn = *least + 0.0f;
  const float mx = *greatest + 0.0f;
  const float range = mx - mn; // at most 131008, and a third of it fits f16 (quantize_c5)
  const QuantizedGroup group{f16FromF32(range / q), f16FromF32(mn)};
  const float s = f32FromF16(group.scale);
  const float m = f32FromF16(group.minimum);
  // A constant group (quantize_c4), or a range whose scale underflows: all codes 0.
  const float inv = s == 0.0f ? 0.0f : 1.0f / s;
  for (size_t i = 0; i < values.size(); ++i) {
    const float offset = values[i] - m;
    codes[i] = static_cast<uint8_t>(std::clamp(std::rint(offset * inv), 0.0f, q));
  }
  return group;
}

namespace reference {

// Copies one row and counts its bad values.
static int32_t appendRow(const void *from, int64_t fromIndex, void *to, int64_t toIndex, int count, ElementType type) {
  const int64_t size = byteSize(type);
  std::memcpy(static_cast<char *>(to) + toIndex * size, static_cast<const char *>(from) + fromIndex * size,
              count * size);
  int32_t bad = 0;
  for (int c = 0; c < count; ++c)
    bad += isBadValue(loadElement(from, fromIndex + c, type));
  return bad;
}

int32_t append(const KernelRequest &request, const uint64_t *args, const int64_t *programId) {
  const kvq_append_item &item = pointer<const kvq_append_item>(args, KVQ_APPEND_ITEMS)[programId[0]];
  const int64_t heads = integer(args, KVQ_APPEND_HEADS);
  const TailView tailK{heads, integer(args, KVQ_APPEND_TAIL_CAP), integer(args, KVQ_APPEND_TAIL_ROWS), request.dk};
  TailView tailV = tailK;
  tailV.headDim = request.dv;
  int32_t bad = 0;
  for (int64_t head = 0; head < heads; ++head) {
    bad += appendRow(pointer<const void>(args, KVQ_APPEND_K),
                     item.k_offset + head * integer(args, KVQ_APPEND_K_HEAD_STRIDE),
                     pointer<void>(args, KVQ_APPEND_TAIL_K), tailK.row(item.tail_slot, head, item.position), request.dk,
                     request.type);
    bad += appendRow(pointer<const void>(args, KVQ_APPEND_V),
                     item.v_offset + head * integer(args, KVQ_APPEND_V_HEAD_STRIDE),
                     pointer<void>(args, KVQ_APPEND_TAIL_V), tailV.row(item.tail_slot, head, item.position), request.dv,
                     request.type);
  }
  pointer<int32_t>(args, KVQ_APPEND_STATUS)[programId[0]] = bad;
  return 0;
}

int32_t quantize(const KernelRequest &request, Side side, const uint64_t *args, const int64_t *programId) {
  const kvq_quantize_item &item = pointer<const kvq_quantize_item>(args, KVQ_QUANTIZE_ITEMS)[programId[0]];
  const SideView view(request, side);
  uint8_t *page = view.page(pointer<uint8_t>(args, KVQ_QUANTIZE_PAGES), integer(args, KVQ_QUANTIZE_BLOCK_STRIDE),
                            integer(args, KVQ_QUANTIZE_HEAD_STRIDE), item.block, item.kv_head);
  const TailView tail{integer(args, KVQ_QUANTIZE_HEADS), integer(args, KVQ_QUANTIZE_TAIL_CAP),
                      integer(args, KVQ_QUANTIZE_TAIL_ROWS), view.headDim};
  const bool perChannel = view.format.perChannel();
  const int tokenStep = perChannel ? view.format.group : 1;
  const int channelStep = perChannel ? 1 : view.format.group;
  std::vector<float> values(view.format.group);
  std::vector<uint8_t> codes(view.format.group);
  for (int t = 0; t < item.count; t += tokenStep)
    for (int c = 0; c < view.headDim; c += channelStep) {
      auto tokenOf = [&](int i) { return perChannel ? t + i : t; };
      auto channelOf = [&](int i) { return perChannel ? c : c + i; };
      for (int i = 0; i < view.format.group; ++i) {
        const int64_t row = tail.row(item.tail_slot, item.kv_head, int64_t{item.position} + tokenOf(i));
        values[i] = loadElement(pointer<const void>(args, KVQ_QUANTIZE_TAIL), row + channelOf(i), request.type);
      }
      const QuantizedGroup group = quantizeGroup(values, view.format.bits, codes);
      const int64_t first = item.position % view.pageTokens;
      for (int i = 0; i < view.format.group; ++i)
        view.setCode(page, first + tokenOf(i), channelOf(i), codes[i]);
      view.setHalf(page, view.scales, first + t, c, group.scale);
      view.setHalf(page, view.minima, first + t, c, group.minimum);
    }
  return 0;
}

int32_t dequantize(const KernelRequest &request, Side side, const uint64_t *args, const int64_t *programId) {
  const kvq_dequantize_item &item = pointer<const kvq_dequantize_item>(args, KVQ_DEQUANTIZE_ITEMS)[programId[0]];
  const SideView view(request, side);
  const uint8_t *page =
      view.page(pointer<uint8_t>(args, KVQ_DEQUANTIZE_PAGES), integer(args, KVQ_DEQUANTIZE_BLOCK_STRIDE),
                integer(args, KVQ_DEQUANTIZE_HEAD_STRIDE), item.block, item.kv_head);
  const int64_t stride = integer(args, KVQ_DEQUANTIZE_OUT_TOKEN_STRIDE);
  for (int t = 0; t < item.count; ++t)
    for (int c = 0; c < view.headDim; ++c)
      storeElement(pointer<void>(args, KVQ_DEQUANTIZE_OUT), item.out_offset + t * stride + c, request.type,
                   view.value(page, item.first + t, c));
  return 0;
}

// layout_c9.
int32_t convert(const KernelRequest &request, Side side, const uint64_t *args, const int64_t *programId) {
  const kvq_convert_item &item = pointer<const kvq_convert_item>(args, KVQ_CONVERT_ITEMS)[programId[0]];
  const SideView from(request, side, *request.from), to(request, side);
  const uint8_t *source =
      SideView::page(pointer<uint8_t>(args, KVQ_CONVERT_SOURCE), integer(args, KVQ_CONVERT_SOURCE_BLOCK_STRIDE),
                     integer(args, KVQ_CONVERT_SOURCE_HEAD_STRIDE), item.source_block, item.kv_head);
  uint8_t *page = SideView::page(pointer<uint8_t>(args, KVQ_CONVERT_PAGES), integer(args, KVQ_CONVERT_BLOCK_STRIDE),
                                 integer(args, KVQ_CONVERT_HEAD_STRIDE), item.block, item.kv_head);
  for (int t = 0; t < to.pageTokens; ++t)
    for (int c = 0; c < to.headDim; ++c) {
      to.setCode(page, t, c, from.code(source, t, c));
      to.setHalf(page, to.scales, t, c, from.half(source, from.scales, t, c));
      to.setHalf(page, to.minima, t, c, from.half(source, from.minima, t, c));
    }
  return 0;
}

} // namespace reference
} // namespace kvq
