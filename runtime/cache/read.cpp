// SPDX-License-Identifier: Apache-2.0
//
// Reading a sequence back as dense rows: quantized tokens by the dequantize kernels, the others from the tail.
#include "runtime/cache/step.h"

#include <kvq/kernel_abi.h>

#include <algorithm>

namespace kvq {

Status Cache::reserveDequantize(int64_t tokens) {
  const int64_t pages = tokens / config_.pageTokens + 2; // the first and the last one in part
  return memory_.isHost() ? Status::ok()
                          : itemsSeen_.reserve(pages * config_.kvHeads * int64_t(sizeof(kvq_dequantize_item)));
}

// Body tokens [from, to) as the rows 0 .. of `out`.
Status Cache::dequantize(int sequence, int64_t from, int64_t to, bool isK, int layer, const Tensor &out) {
  const int64_t page = config_.pageTokens, firstPage = sequences_[sequence].firstPage;
  const auto blocks = tables_.of(sequence);
  std::vector<kvq_dequantize_item> items;
  for (int64_t begin = from, end; begin < to; begin = end) {
    end = std::min(to, (begin / page + 1) * page);
    for (int head = 0; head < config_.kvHeads; ++head)
      items.push_back({head * out.headStride + (begin - from) * out.tokenStride, blocks[begin / page - firstPage], head,
                       static_cast<int32_t>(begin % page), static_cast<int32_t>(end - begin)});
  }
  if (items.empty())
    return Status::ok();
  auto found = kernel(isK ? CacheKernel::DequantizeK : CacheKernel::DequantizeV);
  if (!found.isOk())
    return found.status();
  KVQ_RETURN_IF_ERROR(reserveDequantize(to - from));
  if (!memory_.isHost())
    memory_.copyIn(itemsSeen_.address(), items.data(), static_cast<int64_t>(items.size() * sizeof(items[0])));
  uint64_t args[KVQ_DEQUANTIZE_ARGS];
  args[KVQ_DEQUANTIZE_ITEMS] = memory_.isHost() ? word(items.data()) : itemsSeen_.address();
  args[KVQ_DEQUANTIZE_PAGES] = pages(layer);
  args[KVQ_DEQUANTIZE_BLOCK_STRIDE] = word(geometry_.blockStride);
  args[KVQ_DEQUANTIZE_HEAD_STRIDE] = word(geometry_.headStride);
  args[KVQ_DEQUANTIZE_OUT] = word(out.data);
  args[KVQ_DEQUANTIZE_OUT_TOKEN_STRIDE] = word(out.tokenStride);
  const Status launched =
      memory_.launch(*device_, *found.value(), args, static_cast<int64_t>(items.size()), Spread::Parallel);
  const Status done = memory_.wait(); // the items go
  return launched.isOk() ? done : launched;
}

// Body positions [from, to), negative ones being kept tokens, as the rows 0 .. of `out`.
Status Cache::copyTail(int slot, int64_t from, int64_t to, bool isK, int layer, const Tensor &out) {
  const int64_t row = rowBytes(isK);
  Status status;
  for (int64_t head = 0; head < config_.kvHeads; ++head)
    geometry_.forTailRuns(from, to, [&](int64_t position, int64_t tokens) {
      if (status.isOk())
        status = memory_.copyRowsOut(
            out.address(head * out.headStride + (position - from) * out.tokenStride),
            out.tokenStride * byteSize(out.type),
            tailSlot(layer, isK, slot) + (head * geometry_.rows + geometry_.tailRow(position)) * row, row, row, tokens);
    });
  return status;
}

Status Cache::read(int sequence, int layer, int64_t first, const Tensor &k, const Tensor &v) {
  KVQ_RETURN_IF_ERROR(checkSequence(sequence));
  if (step_->isOpen())
    return {Code::FailedPrecondition, "the cache cannot be read while a step is open: commit or abort it first"};
  const Sequence &of = sequences_[sequence];
  if (first < 0 || first > of.length)
    return {Code::InvalidArgument, "first is " + std::to_string(first) + " but must be 0 to the " +
                                       std::to_string(of.length) + " tokens of sequence " + std::to_string(sequence)};
  const int64_t begin = first - config_.format.keep, end = of.length - config_.format.keep;
  const int64_t left = of.firstPage * config_.pageTokens; // the body tokens before it were dropped
  if (left > 0 && begin < left)
    return {Code::FailedPrecondition, "tokens before " + std::to_string(left + config_.format.keep) + " of sequence " +
                                          std::to_string(sequence) +
                                          " were dropped behind the attention window: read from there on"};
  const auto rowsFrom = [](const Tensor &tensor, int64_t row) {
    Tensor rest = tensor;
    rest.data = reinterpret_cast<void *>(tensor.address(row * tensor.tokenStride));
    return rest;
  };
  for (bool isK : {true, false}) {
    const Tensor &out = isK ? k : v;
    // Kept tokens, then packed ones, then the ring's.
    const int64_t packedBegin = std::clamp<int64_t>(0, begin, end);
    const int64_t packedEnd = std::clamp(isK ? of.frontier.k : of.frontier.v, packedBegin, end);
    KVQ_RETURN_IF_ERROR(copyTail(sequence, begin, packedBegin, isK, layer, out));
    KVQ_RETURN_IF_ERROR(dequantize(sequence, packedBegin, packedEnd, isK, layer, rowsFrom(out, packedBegin - begin)));
    KVQ_RETURN_IF_ERROR(copyTail(sequence, packedEnd, end, isK, layer, rowsFrom(out, packedEnd - begin)));
  }
  return memory_.wait();
}

} // namespace kvq
