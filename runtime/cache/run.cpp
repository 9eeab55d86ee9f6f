// SPDX-License-Identifier: Apache-2.0
//
// What a step runs: the kernels of one chunk after another, in one layer.
#include "runtime/cache/step.h"

#include <algorithm>
#include <bit>

namespace kvq {

// Below so much work a launch stays on the caller's thread: waking another one costs some tens of microseconds.
static constexpr int64_t kSerialKeys = 4096;           // keys times programs
static constexpr int64_t kSerialQuantizeTokens = 1024; // tokens times heads
static constexpr int64_t kSerialAppendElements = 1 << 18;

static Spread spread(int64_t work, int64_t limit) { return work < limit ? Spread::Serial : Spread::Parallel; }

int64_t Step::offset(const Tensor &tensor, int query) const {
  const int part = chunk_.part[query];
  return part * tensor.batchStride +
         (parts_[part].firstToken(tensor.tokens) + chunk_.token[query]) * tensor.tokenStride;
}

// Of each query.
Status Step::fillOffsets(const Tensor &tensor, int list, std::vector<int64_t> &offsets) {
  offsets.resize(chunk_.queries());
  for (int i = 0; i < chunk_.queries(); ++i)
    offsets[i] = offset(tensor, i);
  return show(list, offsets);
}

// Brings them to where status_ is: they are there when an accelerator's stream was waited for.
Status Step::countBadValues() {
  if (!cache_.memory_.isHost())
    cache_.memory_.copyOut(status_.data(), lists_.address(LaunchLists::Status_),
                           static_cast<int64_t>(status_.size() * sizeof(status_[0])));
  return cache_.memory_.wait();
}

Status Step::appendChunk(int layer, const Tensor &k, const Tensor &v) {
  for (int i = 0; i < chunk_.queries(); ++i) {
    chunk_.append[i].k_offset = offset(k, i);
    chunk_.append[i].v_offset = offset(v, i);
  }
  KVQ_RETURN_IF_ERROR(show(LaunchLists::Append, chunk_.append));
  const CacheConfig &config = cache_.config_;
  uint64_t args[KVQ_APPEND_ARGS];
  args[KVQ_APPEND_ITEMS] = seen(LaunchLists::Append, chunk_.append);
  args[KVQ_APPEND_K] = word(k.data);
  args[KVQ_APPEND_K_HEAD_STRIDE] = word(k.headStride);
  args[KVQ_APPEND_V] = word(v.data);
  args[KVQ_APPEND_V_HEAD_STRIDE] = word(v.headStride);
  args[KVQ_APPEND_TAIL_K] = cache_.tailK(layer);
  args[KVQ_APPEND_TAIL_V] = cache_.tailV(layer);
  args[KVQ_APPEND_TAIL_CAP] = word(int64_t(cache_.geometry_.cap));
  args[KVQ_APPEND_TAIL_ROWS] = word(int64_t(cache_.geometry_.rows));
  args[KVQ_APPEND_HEADS] = word(int64_t(config.kvHeads));
  args[KVQ_APPEND_STATUS] = seen(LaunchLists::Status_, status_);
  const int64_t elements = int64_t(chunk_.queries()) * config.kvHeads * (config.dk + config.dv);
  KVQ_RETURN_IF_ERROR(
      launch(kernel(CacheKernel::Append), args, chunk_.queries(), spread(elements, kSerialAppendElements)));
  KVQ_RETURN_IF_ERROR(countBadValues());
  const bool clean = std::all_of(status_.begin(), status_.end(), [](int32_t bad) { return bad == 0; });
  return clean ? quantizeChunk(layer) : badValue(k, v);
}

Status Step::quantizeChunk(int layer) {
  const Spread how = spread(chunk_.quantizeTokens, kSerialQuantizeTokens);
  for (bool isK : {true, false}) {
    const auto &items = isK ? chunk_.quantizeK : chunk_.quantizeV;
    if (items.empty())
      continue;
    uint64_t args[KVQ_QUANTIZE_ARGS];
    args[KVQ_QUANTIZE_ITEMS] = seen(isK ? LaunchLists::QuantizeK : LaunchLists::QuantizeV, items);
    args[KVQ_QUANTIZE_PAGES] = cache_.pages(layer);
    args[KVQ_QUANTIZE_BLOCK_STRIDE] = word(cache_.geometry_.blockStride);
    args[KVQ_QUANTIZE_HEAD_STRIDE] = word(cache_.geometry_.headStride);
    args[KVQ_QUANTIZE_TAIL] = isK ? cache_.tailK(layer) : cache_.tailV(layer);
    args[KVQ_QUANTIZE_TAIL_CAP] = word(int64_t(cache_.geometry_.cap));
    args[KVQ_QUANTIZE_TAIL_ROWS] = word(int64_t(cache_.geometry_.rows));
    args[KVQ_QUANTIZE_HEADS] = word(int64_t(cache_.config_.kvHeads));
    KVQ_RETURN_IF_ERROR(launch(kernel(isK ? CacheKernel::QuantizeK : CacheKernel::QuantizeV), args,
                               static_cast<int64_t>(items.size()), how));
  }
  return Status::ok();
}

// Appends chunk by chunk, so that how a prompt is cut into steps shows nowhere (prefill_c1); what must see a chunk
// before the next one overwrites it runs in between. After an error the ring is as it was: the layer may try again, and
// quantizes from it rows that a failed attempt has overwritten.
template <typename AfterChunk>
Status Step::appendChunks(int layer, const Tensor &k, const Tensor &v, const AfterChunk &afterChunk) {
  KVQ_RETURN_IF_ERROR(undo_.save(layer, cache_.tailK(layer), cache_.tailV(layer)));
  for (int index = 0; index < chunks_; ++index) {
    Status status = loadChunk(index);
    if (status.isOk())
      status = appendChunk(layer, k, v);
    if (status.isOk())
      status = afterChunk();
    if (!status.isOk()) {
      undo_.clearWritten(index, cache_.tailK(layer), cache_.tailV(layer));
      undo_.restore(layer, cache_.tailK(layer), cache_.tailV(layer));
      return status;
    }
  }
  appended_[layer] = 1;
  return Status::ok();
}

Status Step::append(int layer, const Tensor &k, const Tensor &v) {
  KVQ_RETURN_IF_ERROR(checkAppends(layer));
  return appendChunks(layer, k, v, [] { return Status::ok(); });
}

Status Step::attendChunk(int layer, const Tensor &q, float scale, const AttendBuffers &buffers, const Tensor &out) {
  // All before the first launch, so that one copy takes them along.
  KVQ_RETURN_IF_ERROR(fillOffsets(q, LaunchLists::QOffsets, qOffsets_));
  KVQ_RETURN_IF_ERROR(fillOffsets(out, LaunchLists::OutOffsets, outOffsets_));
  const auto o = reinterpret_cast<DeviceAddress>(buffers.workspace);
  uint64_t args[KVQ_ATTEND_ARGS];
  args[KVQ_ATTEND_Q] = word(q.data);
  args[KVQ_ATTEND_Q_OFFSETS] = seen(LaunchLists::QOffsets, qOffsets_);
  args[KVQ_ATTEND_Q_HEAD_STRIDE] = word(q.headStride);
  args[KVQ_ATTEND_PAGES] = cache_.pages(layer);
  args[KVQ_ATTEND_BLOCK_STRIDE] = word(cache_.geometry_.blockStride);
  args[KVQ_ATTEND_HEAD_STRIDE] = word(cache_.geometry_.headStride);
  args[KVQ_ATTEND_BLOCK_TABLE] = cache_.tablesSeen();
  args[KVQ_ATTEND_TAIL_K] = cache_.tailK(layer);
  args[KVQ_ATTEND_TAIL_V] = cache_.tailV(layer);
  args[KVQ_ATTEND_TAIL_CAP] = word(int64_t(cache_.geometry_.cap));
  args[KVQ_ATTEND_TAIL_ROWS] = word(int64_t(cache_.geometry_.rows));
  args[KVQ_ATTEND_KV_HEADS] = word(int64_t(cache_.config_.kvHeads));
  args[KVQ_ATTEND_K_FRONTIER] = seen(LaunchLists::KFrontier, chunk_.kFrontier);
  args[KVQ_ATTEND_V_FRONTIER] = seen(LaunchLists::VFrontier, chunk_.vFrontier);
  args[KVQ_ATTEND_POSITIONS] = seen(LaunchLists::Positions, chunk_.positions);
  args[KVQ_ATTEND_SCALE] = std::bit_cast<uint32_t>(scale);
  args[KVQ_ATTEND_WINDOW] = word(std::max<int64_t>(1, cache_.config_.attentionWindow));
  args[KVQ_ATTEND_SCORE_CAP] = std::bit_cast<uint32_t>(cache_.config_.scoreCap);
  args[KVQ_ATTEND_PARTIAL_O] = o;
  args[KVQ_ATTEND_PARTIAL_LSE] = o + oBytes_;
  args[KVQ_ATTEND_QUERIES] = word(int64_t(chunk_.queries()));
  const Spread how = spread(chunk_.attendKeys, kSerialKeys);
  for (int which = 0; which < AttendRows::kMost; ++which) {
    const auto &items = chunk_.attend[which];
    args[KVQ_ATTEND_ITEMS] = seen(LaunchLists::Attend + which, items);
    if (!items.empty())
      KVQ_RETURN_IF_ERROR(launch(kernel(attendKernel(which)), args, static_cast<int64_t>(items.size()), how));
  }
  return mergeChunk(layer, buffers, out);
}

// One warp would be long about all heads of a query, one thread of a host is not.
Status Step::mergeChunk(int layer, const AttendBuffers &buffers, const Tensor &out) {
  const int64_t heads = cache_.config_.qHeads, together = cache_.config_.onAccelerator ? 1 : heads;
  const int64_t grid[3] = {chunk_.queries(), heads / together, 1};
  const auto o = reinterpret_cast<DeviceAddress>(buffers.workspace), lse = o + oBytes_ + lseBytes_;
  uint64_t args[KVQ_MERGE_ARGS];
  args[KVQ_MERGE_PARTIAL_O] = o;
  args[KVQ_MERGE_PARTIAL_LSE] = o + oBytes_;
  args[KVQ_MERGE_QUERIES] = word(grid[0]);
  args[KVQ_MERGE_HEADS] = word(heads);
  args[KVQ_MERGE_SPLITS] = seen(LaunchLists::Splits, chunk_.splits);
  args[KVQ_MERGE_OUT] = word(out.data);
  args[KVQ_MERGE_OUT_OFFSETS] = seen(LaunchLists::OutOffsets, outOffsets_);
  args[KVQ_MERGE_OUT_HEAD_STRIDE] = word(out.headStride);
  args[KVQ_MERGE_LSE] = lse;
  args[KVQ_MERGE_SINKS] = cache_.sinksSeen(layer);
  args[KVQ_MERGE_PROGRAM_HEADS] = word(together);
  const int64_t work = grid[0] * heads * chunk_.maxSplits;
  KVQ_RETURN_IF_ERROR(launch(kernel(CacheKernel::Merge), args, grid, spread(work, kSerialKeys)));
  return buffers.lse.data ? copyLse(lse, buffers.lse) : Status::ok();
}

// From [queries][heads].
Status Step::copyLse(DeviceAddress lse, const Tensor &out) {
  constexpr int64_t kSize = sizeof(float);
  const int heads = cache_.config_.qHeads;
  for (int i = 0; i < chunk_.queries(); ++i)
    KVQ_RETURN_IF_ERROR(cache_.memory_.copyRowsOut(out.address(offset(out, i)), out.headStride * kSize,
                                                   lse + i * heads * kSize, kSize, kSize, heads));
  return Status::ok();
}

// What the queries look at does not change while the layer has not appended.
Status Step::attendChunks(int layer, const Tensor &q, float scale, const AttendBuffers &buffers, const Tensor &out) {
  for (int index = 0; index < chunks_; ++index) {
    KVQ_RETURN_IF_ERROR(loadChunk(index));
    KVQ_RETURN_IF_ERROR(attendChunk(layer, q, scale, buffers, out));
  }
  return Status::ok();
}

Status Step::attend(int layer, const Tensor &q, float scale, const AttendBuffers &buffers, const Tensor &out) {
  KVQ_RETURN_IF_ERROR(checkLayer(layer));
  const CacheMemory::OnStream on(cache_.memory_, buffers.stream);
  if (pastOnly_ && appended_[layer])
    return {Code::FailedPrecondition, "layer " + std::to_string(layer) +
                                          " has appended in this step, which attends to the tokens before it: call "
                                          "kvq_attend first"};
  if (pastOnly_)
    return attendChunks(layer, q, scale, buffers, out);
  if (!appended_[layer])
    return {Code::FailedPrecondition,
            "layer " + std::to_string(layer) + " has not appended in this step: call kvq_append first"};
  if (chunks_ > 1)
    return {Code::FailedPrecondition, "this step appends more than " + std::to_string(kChunkTokens) +
                                          " new tokens to a sequence, and what their first queries must see is "
                                          "no longer there after kvq_append: use kvq_forward"};
  if (chunks_ == 0)
    return Status::ok();
  return attendChunk(layer, q, scale, buffers, out);
}

Status Step::forward(int layer, const Tensor &q, const Tensor &k, const Tensor &v, float scale,
                     const AttendBuffers &buffers, const Tensor &out) {
  KVQ_RETURN_IF_ERROR(checkAppends(layer));
  const CacheMemory::OnStream on(cache_.memory_, buffers.stream);
  if (pastOnly_) {
    KVQ_RETURN_IF_ERROR(attendChunks(layer, q, scale, buffers, out));
    return append(layer, k, v);
  }
  return appendChunks(layer, k, v, [&] { return attendChunk(layer, q, scale, buffers, out); });
}

} // namespace kvq
