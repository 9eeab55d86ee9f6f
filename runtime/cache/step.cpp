// SPDX-License-Identifier: Apache-2.0
//
// Planning, appending, attending and committing of a step.
#include "runtime/cache/step.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace kvq {

// Below so much work a launch stays on the caller's thread: waking another one costs some tens of microseconds.
static constexpr int64_t kSerialKeys = 4096;           // keys times programs
static constexpr int64_t kSerialQuantizeTokens = 1024; // tokens times heads
static constexpr int64_t kSerialAppendElements = 1 << 18;

static Spread spread(int64_t work, int64_t limit) { return work < limit ? Spread::Serial : Spread::Parallel; }
static int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }
static Status invalid(const std::string &message) { return {Code::InvalidArgument, message}; }

// ---- planning ----

Step::Step(Cache &cache, std::vector<StepPart> parts)
    : cache_(cache), parts_(std::move(parts)), planner_(cache.config_, cache.geometry_),
      undo_(cache.config_, cache.geometry_, parts_), appended_(cache.config_.layers, 0) {
  for (const StepPart &part : parts_)
    chunks_ = std::max(chunks_, chunkCount(part.newTokens));
}

Result<std::vector<StepPart>> Step::makeParts(const Cache &cache, const PlanDesc &desc) {
  std::vector<StepPart> parts;
  std::vector<char> seen(cache.config_.sequences, 0);
  for (int i = 0; i < desc.count; ++i) {
    const int id = desc.sequences[i];
    KVQ_RETURN_IF_ERROR(cache.checkSequence(id));
    const std::string name = "sequence " + std::to_string(id);
    if (seen[id]++)
      return invalid(name + " stands twice in the plan: each takes part once");
    StepPart part{id, cache.sequences_[id].length, desc.newTokens[i], -1, 0};
    if (part.newTokens < 0)
      return invalid("new_tokens of " + name + " is " + std::to_string(part.newTokens) + " but must be at least 0");
    // Positions are 32 bits in the kernel ABI, and loops run up to a chunk beyond them.
    if (part.oldLength + part.newTokens > std::numeric_limits<int32_t>::max() - 65536 * 2)
      return Status(Code::Unsupported, name + " would be longer than 2147352575 tokens, which positions of 32 bits do "
                                              "not allow");
    if (desc.firstTokens) {
      part.first = desc.firstTokens[i];
      if (part.first < 0)
        return invalid("first_tokens of " + name + " is " + std::to_string(part.first) + " but must be at least 0");
    }
    parts.push_back(part);
  }
  return parts;
}

Result<std::unique_ptr<Step>> Step::plan(Cache &cache, const PlanDesc &desc) {
  if (cache.open_)
    return Status(Code::FailedPrecondition, "a step of this cache is already open: commit or abort it first");
  auto parts = makeParts(cache, desc);
  if (!parts.isOk())
    return parts.status();
  std::unique_ptr<Step> step(new Step(cache, std::move(parts.value())));
  KVQ_RETURN_IF_ERROR(step->openKernels());
  KVQ_RETURN_IF_ERROR(step->reserveBlocks());
  step->sizeWorkspace();
  if (step->chunks_ > 0)
    step->loadChunk(0);
  cache.open_ = step.get();
  return step;
}

// All kernels come up here: whatever can be missing is missing before anything is written.
Status Step::openKernels() {
  bool decode = false, chunk = false, quantizeK = false, quantizeV = false;
  for (const StepPart &part : parts_) {
    decode |= part.newTokens % kChunkTokens == 1;
    chunk |= part.newTokens > 1;
    const Frontier from = frontier(cache_.config_.format, part.oldLength);
    const Frontier to = frontier(cache_.config_.format, part.oldLength + part.newTokens);
    quantizeK |= to.k > from.k;
    quantizeV |= to.v > from.v;
  }
  const bool any = chunks_ > 0;
  const std::pair<CacheKernel, bool> needed[] = {
      {CacheKernel::Append, any},    {CacheKernel::QuantizeK, quantizeK}, {CacheKernel::QuantizeV, quantizeV},
      {CacheKernel::Decode, decode}, {CacheKernel::Chunk, chunk},         {CacheKernel::Merge, any}};
  for (const auto &[which, isNeeded] : needed)
    if (isNeeded)
      KVQ_RETURN_IF_ERROR(cache_.kernel(which).status());
  return Status::ok();
}

Status Step::reserveBlocks() {
  const int64_t page = cache_.config_.pageTokens;
  int64_t missing = 0, entries = 0;
  for (const StepPart &part : parts_) {
    const Frontier end = frontier(cache_.config_.format, part.oldLength + part.newTokens);
    const int64_t blocks = (std::max(end.k, end.v) + page - 1) / page; // step_c3
    const auto owned = static_cast<int64_t>(cache_.sequences_[part.sequence].blocks.size());
    reservedCount_.push_back(static_cast<int>(blocks - owned));
    missing += blocks - owned;
    entries += blocks;
  }
  std::vector<int32_t> &free = cache_.freeBlocks_;
  const auto available = static_cast<int64_t>(free.size());
  if (missing > available)
    return {Code::ResourceExhausted, "the step needs " + std::to_string(missing) + " more blocks but " +
                                         std::to_string(available) + " of " + std::to_string(cache_.config_.blocks) +
                                         " are free: " + std::to_string(missing - available) +
                                         " are missing, so remove sequences or kvq_cache_grow"};
  reserved_.reserve(missing);
  table_.reserve(entries);
  for (size_t p = 0; p < parts_.size(); ++p) {
    parts_[p].tableBase = static_cast<int>(table_.size());
    std::vector<int32_t> &owned = cache_.sequences_[parts_[p].sequence].blocks;
    // Committing must not run out of memory halfway.
    if (const size_t total = owned.size() + reservedCount_[p]; total > owned.capacity())
      owned.reserve(std::max(total, 2 * owned.capacity()));
    table_.insert(table_.end(), owned.begin(), owned.end());
    for (int i = 0; i < reservedCount_[p]; ++i) {
      reserved_.push_back(free.back());
      table_.push_back(free.back());
      free.pop_back();
      cache_.clearBlock(reserved_.back());
    }
  }
  return Status::ok();
}

void Step::sizeWorkspace() {
  for (int index = 0; index < chunks_; ++index) {
    int64_t queries, splits;
    planner_.size(parts_, index, queries, splits);
    const int64_t rows = queries * cache_.config_.qHeads * static_cast<int64_t>(sizeof(float));
    oBytes_ = std::max(oBytes_, align64(rows * splits * cache_.config_.dv));
    lseBytes_ = std::max(lseBytes_, align64(rows * splits));
    outLseBytes_ = std::max(outLseBytes_, align64(rows));
  }
}

void Step::loadChunk(int index) {
  if (chunk_.index == index)
    return;
  planner_.plan(parts_, table_, index, chunk_);
  status_.resize(chunk_.append.size());
}

// ---- ending ----

Step::~Step() {
  if (!open_)
    return;
  for (int layer = 0; layer < cache_.config_.layers; ++layer)
    undo_.restore(layer, cache_.tailK(layer), cache_.tailV(layer));
  cache_.freeBlocks_.insert(cache_.freeBlocks_.end(), reserved_.rbegin(), reserved_.rend());
  if (cache_.open_ == this)
    cache_.open_ = nullptr;
}

Status Step::commit() {
  for (int layer = 0; layer < cache_.config_.layers && chunks_ > 0; ++layer)
    if (!appended_[layer])
      return {Code::FailedPrecondition,
              "layer " + std::to_string(layer) + " has not appended: call kvq_append or kvq_forward for it, or abort"};
  auto next = reserved_.begin();
  for (size_t p = 0; p < parts_.size(); ++p) {
    std::vector<int32_t> &blocks = cache_.sequences_[parts_[p].sequence].blocks;
    blocks.insert(blocks.end(), next, next + reservedCount_[p]);
    next += reservedCount_[p];
    cache_.sequences_[parts_[p].sequence].length += parts_[p].newTokens;
  }
  cache_.open_ = nullptr;
  open_ = false;
  return Status::ok();
}

bool Step::takesPart(int sequence) const {
  return std::any_of(parts_.begin(), parts_.end(), [&](const StepPart &part) { return part.sequence == sequence; });
}

// ---- checks ----

Status Step::checkTokens(const char *name, int64_t tokens) const {
  for (const StepPart &part : parts_) {
    const int64_t needed = std::max<int64_t>(part.first, 0) + part.newTokens;
    if (tokens < needed)
      return invalid(std::string(name) + " holds " + std::to_string(tokens) + " tokens, but sequence " +
                     std::to_string(part.sequence) + " of the plan needs " + std::to_string(needed));
  }
  return Status::ok();
}

Status Step::checkLayer(int layer, bool appends) const {
  if (layer < 0 || layer >= cache_.config_.layers)
    return invalid("layer " + std::to_string(layer) + " does not exist: the cache has " +
                   std::to_string(cache_.config_.layers));
  if (appends && appended_[layer])
    return {Code::FailedPrecondition,
            "layer " + std::to_string(layer) + " has already appended in this step: each layer appends once"};
  if (!appends && !appended_[layer])
    return {Code::FailedPrecondition,
            "layer " + std::to_string(layer) + " has not appended in this step: call kvq_append first"};
  return Status::ok();
}

// The first bad value of the chunk, which the append kernel has counted.
Status Step::badValue(const Tensor &k, const Tensor &v) const {
  const auto at = [](const Tensor &tensor, int64_t index) {
    if (tensor.type == ElementType::F32)
      return static_cast<const float *>(tensor.data)[index];
    return std::bit_cast<float>(uint32_t(static_cast<const uint16_t *>(tensor.data)[index]) << 16);
  };
  for (int i = 0; i < chunk_.queries(); ++i) {
    if (status_[i] == 0)
      continue;
    for (const Tensor *tensor : {&k, &v})
      for (int head = 0; head < cache_.config_.kvHeads; ++head)
        for (int c = 0; c < (tensor == &k ? cache_.config_.dk : cache_.config_.dv); ++c) {
          const float value = at(*tensor, offset(*tensor, i) + head * tensor->headStride + c);
          if (std::fabs(value) <= 65504.0f)
            continue;
          return {Code::BadValue, std::string(tensor == &k ? "K" : "V") + " of sequence " +
                                      std::to_string(parts_[chunk_.part[i]].sequence) + ", token " +
                                      std::to_string(chunk_.positions[i]) + ", head " + std::to_string(head) +
                                      ", channel " + std::to_string(c) + " is " + std::to_string(value) +
                                      ": values must be finite and at most 65504 in magnitude"};
        }
  }
  return {Code::Internal, "a kernel counted bad values that are not there: please report it"};
}

// ---- running ----

int64_t Step::offset(const Tensor &tensor, int query) const {
  const int part = chunk_.part[query];
  return part * tensor.batchStride +
         (parts_[part].firstToken(tensor.tokens) + chunk_.token[query]) * tensor.tokenStride;
}

void Step::fillOffsets(const Tensor &tensor, std::vector<int64_t> &offsets) const {
  offsets.resize(chunk_.queries());
  for (int i = 0; i < chunk_.queries(); ++i)
    offsets[i] = offset(tensor, i);
}

Status Step::appendChunk(int layer, const Tensor &k, const Tensor &v) {
  for (int i = 0; i < chunk_.queries(); ++i) {
    chunk_.append[i].k_offset = offset(k, i);
    chunk_.append[i].v_offset = offset(v, i);
  }
  const CacheConfig &config = cache_.config_;
  uint64_t args[KVQ_APPEND_ARGS];
  args[KVQ_APPEND_ITEMS] = word(chunk_.append.data());
  args[KVQ_APPEND_K] = word(k.data);
  args[KVQ_APPEND_K_HEAD_STRIDE] = word(k.headStride);
  args[KVQ_APPEND_V] = word(v.data);
  args[KVQ_APPEND_V_HEAD_STRIDE] = word(v.headStride);
  args[KVQ_APPEND_TAIL_K] = word(cache_.tailK(layer));
  args[KVQ_APPEND_TAIL_V] = word(cache_.tailV(layer));
  args[KVQ_APPEND_TAIL_CAP] = word(int64_t(cache_.geometry_.cap));
  args[KVQ_APPEND_HEADS] = word(int64_t(config.kvHeads));
  args[KVQ_APPEND_STATUS] = word(status_.data());
  const int64_t elements = int64_t(chunk_.queries()) * config.kvHeads * (config.dk + config.dv);
  KVQ_RETURN_IF_ERROR(cache_.device_->launch(kernel(CacheKernel::Append), args, chunk_.queries(),
                                             spread(elements, kSerialAppendElements)));
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
    args[KVQ_QUANTIZE_ITEMS] = word(items.data());
    args[KVQ_QUANTIZE_PAGES] = word(cache_.pages(layer));
    args[KVQ_QUANTIZE_BLOCK_STRIDE] = word(cache_.geometry_.blockStride);
    args[KVQ_QUANTIZE_TAIL] = word(isK ? cache_.tailK(layer) : cache_.tailV(layer));
    args[KVQ_QUANTIZE_TAIL_CAP] = word(int64_t(cache_.geometry_.cap));
    args[KVQ_QUANTIZE_HEADS] = word(int64_t(cache_.config_.kvHeads));
    KVQ_RETURN_IF_ERROR(cache_.device_->launch(kernel(isK ? CacheKernel::QuantizeK : CacheKernel::QuantizeV), args,
                                               static_cast<int64_t>(items.size()), how));
  }
  return Status::ok();
}

// Appends chunk by chunk; what must see a chunk before the next one overwrites it runs in between. After an error the
// ring is as it was: the layer may try again, and quantizes from it rows that a failed attempt has overwritten.
template <typename AfterChunk>
Status Step::appendChunks(int layer, const Tensor &k, const Tensor &v, const AfterChunk &afterChunk) {
  undo_.save(layer, cache_.tailK(layer), cache_.tailV(layer));
  for (int index = 0; index < chunks_; ++index) {
    loadChunk(index);
    Status status = appendChunk(layer, k, v);
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
  KVQ_RETURN_IF_ERROR(checkLayer(layer, true));
  return appendChunks(layer, k, v, [] { return Status::ok(); });
}

Status Step::attendChunk(int layer, const Tensor &q, float scale, const AttendBuffers &buffers, const Tensor &out) {
  fillOffsets(q, qOffsets_);
  auto *o = static_cast<uint8_t *>(buffers.workspace);
  uint64_t args[KVQ_ATTEND_ARGS];
  args[KVQ_ATTEND_Q] = word(q.data);
  args[KVQ_ATTEND_Q_OFFSETS] = word(qOffsets_.data());
  args[KVQ_ATTEND_Q_HEAD_STRIDE] = word(q.headStride);
  args[KVQ_ATTEND_PAGES] = word(cache_.pages(layer));
  args[KVQ_ATTEND_BLOCK_STRIDE] = word(cache_.geometry_.blockStride);
  args[KVQ_ATTEND_BLOCK_TABLE] = word(table_.data());
  args[KVQ_ATTEND_TAIL_K] = word(cache_.tailK(layer));
  args[KVQ_ATTEND_TAIL_V] = word(cache_.tailV(layer));
  args[KVQ_ATTEND_TAIL_CAP] = word(int64_t(cache_.geometry_.cap));
  args[KVQ_ATTEND_KV_HEADS] = word(int64_t(cache_.config_.kvHeads));
  args[KVQ_ATTEND_K_FRONTIER] = word(chunk_.kFrontier.data());
  args[KVQ_ATTEND_V_FRONTIER] = word(chunk_.vFrontier.data());
  args[KVQ_ATTEND_POSITIONS] = word(chunk_.positions.data());
  args[KVQ_ATTEND_SCALE] = std::bit_cast<uint32_t>(scale);
  args[KVQ_ATTEND_PARTIAL_O] = word(o);
  args[KVQ_ATTEND_PARTIAL_LSE] = word(o + oBytes_);
  args[KVQ_ATTEND_QUERIES] = word(int64_t(chunk_.queries()));
  const Spread how = spread(chunk_.attendKeys, kSerialKeys);
  for (CacheKernel which : {CacheKernel::Decode, CacheKernel::Chunk}) {
    const auto &items = which == CacheKernel::Decode ? chunk_.decode : chunk_.chunk;
    args[KVQ_ATTEND_ITEMS] = word(items.data());
    if (!items.empty())
      KVQ_RETURN_IF_ERROR(cache_.device_->launch(kernel(which), args, static_cast<int64_t>(items.size()), how));
  }
  return mergeChunk(buffers, out);
}

Status Step::mergeChunk(const AttendBuffers &buffers, const Tensor &out) {
  const int heads = cache_.config_.qHeads;
  fillOffsets(out, outOffsets_);
  auto *o = static_cast<uint8_t *>(buffers.workspace);
  auto *lse = reinterpret_cast<float *>(o + oBytes_ + lseBytes_);
  uint64_t args[KVQ_MERGE_ARGS];
  args[KVQ_MERGE_PARTIAL_O] = word(o);
  args[KVQ_MERGE_PARTIAL_LSE] = word(o + oBytes_);
  args[KVQ_MERGE_QUERIES] = word(int64_t(chunk_.queries()));
  args[KVQ_MERGE_HEADS] = word(int64_t(heads));
  args[KVQ_MERGE_SPLITS] = word(chunk_.splits.data());
  args[KVQ_MERGE_OUT] = word(out.data);
  args[KVQ_MERGE_OUT_OFFSETS] = word(outOffsets_.data());
  args[KVQ_MERGE_OUT_HEAD_STRIDE] = word(out.headStride);
  args[KVQ_MERGE_LSE] = word(lse);
  const int64_t work = int64_t(chunk_.queries()) * heads * chunk_.maxSplits;
  KVQ_RETURN_IF_ERROR(
      cache_.device_->launch(kernel(CacheKernel::Merge), args, chunk_.queries(), spread(work, kSerialKeys)));
  if (!buffers.lse.data)
    return Status::ok();
  for (int i = 0; i < chunk_.queries(); ++i)
    for (int head = 0; head < heads; ++head)
      static_cast<float *>(buffers.lse.data)[offset(buffers.lse, i) + head * buffers.lse.headStride] =
          lse[i * heads + head];
  return Status::ok();
}

Status Step::attend(int layer, const Tensor &q, float scale, const AttendBuffers &buffers, const Tensor &out) {
  KVQ_RETURN_IF_ERROR(checkLayer(layer, false));
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
  KVQ_RETURN_IF_ERROR(checkLayer(layer, true));
  return appendChunks(layer, k, v, [&] { return attendChunk(layer, q, scale, buffers, out); });
}

} // namespace kvq
