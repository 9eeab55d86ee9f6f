// SPDX-License-Identifier: Apache-2.0
//
// Reading a sequence back as dense rows: quantized tokens by the dequantize kernels, the others from the tail.
#include "runtime/cache/cache.h"

#include <kvq/kernel_abi.h>

#include <algorithm>
#include <cstring>

namespace kvq {

Status Cache::dequantize(const Sequence &sequence, int64_t tokens, bool isK, int layer, const Tensor &out) {
  const int64_t page = config_.pageTokens;
  std::vector<kvq_dequantize_item> items;
  for (int64_t begin = 0; begin < tokens; begin += page)
    for (int head = 0; head < config_.kvHeads; ++head)
      items.push_back({head * out.headStride + begin * out.tokenStride, sequence.blocks[begin / page], head, 0,
                       static_cast<int32_t>(std::min(page, tokens - begin))});
  if (items.empty())
    return Status::ok();
  auto found = kernel(isK ? CacheKernel::DequantizeK : CacheKernel::DequantizeV);
  if (!found.isOk())
    return found.status();
  uint64_t args[KVQ_DEQUANTIZE_ARGS];
  args[KVQ_DEQUANTIZE_ITEMS] = word(items.data());
  args[KVQ_DEQUANTIZE_PAGES] = word(pages(layer));
  args[KVQ_DEQUANTIZE_BLOCK_STRIDE] = word(geometry_.blockStride);
  args[KVQ_DEQUANTIZE_OUT] = word(out.data);
  args[KVQ_DEQUANTIZE_OUT_TOKEN_STRIDE] = word(out.tokenStride);
  return device_->launch(*found.value(), args, static_cast<int64_t>(items.size()), Spread::Parallel);
}

void Cache::copyTail(int slot, int64_t from, int64_t to, bool isK, int layer, const Tensor &out) const {
  const int64_t element = byteSize(config_.type), row = element * (isK ? config_.dk : config_.dv);
  const uint8_t *ring = isK ? tailK(layer) + slot * geometry_.tailKBytes : tailV(layer) + slot * geometry_.tailVBytes;
  auto *target = static_cast<uint8_t *>(out.data);
  for (int64_t head = 0; head < config_.kvHeads; ++head)
    for (int64_t token = from; token < to; ++token)
      std::memcpy(target + (head * out.headStride + token * out.tokenStride) * element,
                  ring + (head * geometry_.cap + token % geometry_.cap) * row, row);
}

Status Cache::read(int sequence, int layer, const Tensor &k, const Tensor &v) {
  KVQ_RETURN_IF_ERROR(checkSequence(sequence));
  if (open_)
    return {Code::FailedPrecondition, "the cache cannot be read while a step is open: commit or abort it first"};
  const Sequence &of = sequences_[sequence];
  const Frontier packed = frontier(config_.format, of.length);
  KVQ_RETURN_IF_ERROR(dequantize(of, packed.k, true, layer, k));
  KVQ_RETURN_IF_ERROR(dequantize(of, packed.v, false, layer, v));
  copyTail(sequence, packed.k, of.length, true, layer, k);
  copyTail(sequence, packed.v, of.length, false, layer, v);
  return Status::ok();
}

} // namespace kvq
