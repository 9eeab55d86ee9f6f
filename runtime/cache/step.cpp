// SPDX-License-Identifier: Apache-2.0
//
// Planning, ending and checks of a step. What blocks it takes is in reserve.cpp, what it runs in run.cpp.
#include "runtime/cache/step.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace kvq {

static int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }
static Status invalid(const std::string &message) { return {Code::InvalidArgument, message}; }

// ---- planning ----

Step::Step(Cache &cache)
    : cache_(cache), planner_(cache.config_, cache.geometry_, cache.device_->parallel().stride()),
      undo_(cache.config_, cache.geometry_, cache.memory_), appended_(cache.config_.layers, 0), lists_(cache.memory_) {}

static std::string nameOf(int sequence) { return "sequence " + std::to_string(sequence); }

Result<StepPart> Step::makePart(const Cache &cache, const PlanDesc &desc, int index) {
  const int id = desc.sequences[index];
  const SequenceState &state = cache.sequences_[id];
  StepPart part{id, state.length - cache.config_.format.keep, state.frontier, state.ring, desc.newTokens[index], -1, 0};
  if (part.newTokens < 0)
    return invalid("new_tokens of " + nameOf(id) + " is " + std::to_string(part.newTokens) + " but must be at least 0");
  // Positions are 32 bits in the kernel ABI, and loops run up to a chunk beyond them.
  if (part.end() > std::numeric_limits<int32_t>::max() - 65536 * 2)
    return Status(Code::Unsupported, nameOf(id) + " would be longer than 2147352575 tokens, which positions of 32 "
                                                  "bits do not allow");
  // A query's position then says which kept tokens are there (planner.h), and cannot say where its window begins.
  const int64_t windowEnd = cache.config_.attentionWindow - cache.config_.format.keep;
  if (desc.pastOnly && cache.config_.attentionWindow > 0 && state.length > 0 && part.begin < 0 &&
      part.end() > windowEnd)
    return Status(Code::Unsupported, nameOf(id) + " has " + std::to_string(state.length) + " of the " +
                                         std::to_string(cache.config_.format.keep) +
                                         " tokens that it keeps in full precision, and a past_only step cannot take "
                                         "it from there beyond the attention window: append the missing ones in a "
                                         "step of their own");
  if (desc.firstTokens) {
    part.first = desc.firstTokens[index];
    if (part.first < 0)
      return invalid("first_tokens of " + nameOf(id) + " is " + std::to_string(part.first) + " but must be at least 0");
  }
  return part;
}

Status Step::makeParts(const Cache &cache, const PlanDesc &desc, std::vector<StepPart> &parts,
                       std::vector<char> &seen) {
  parts.clear();
  seen.assign(cache.config_.sequences, 0);
  for (int i = 0; i < desc.count; ++i) {
    const int id = desc.sequences[i];
    KVQ_RETURN_IF_ERROR(cache.checkSequence(id));
    if (seen[id]++)
      return invalid(nameOf(id) + " stands twice in the plan: each takes part once");
    auto part = makePart(cache, desc, i);
    if (!part.isOk())
      return part.status();
    parts.push_back(part.value());
  }
  return Status::ok();
}

Status Step::plan(const PlanDesc &desc) {
  if (open_)
    return {Code::FailedPrecondition, "a step of this cache is already open: commit or abort it first"};
  KVQ_RETURN_IF_ERROR(cache_.memory_.state());
  KVQ_RETURN_IF_ERROR(makeParts(cache_, desc, parts_, seen_));
  open_ = true;
  // Memory may end at any line from here on.
  struct AbortUnlessDone {
    ~AbortUnlessDone() {
      if (!done)
        step.abort();
    }
    Step &step;
    bool done = false;
  } guard{*this};
  Status status = prepare(desc.pastOnly);
  guard.done = status.isOk();
  return status;
}

Status Step::prepare(bool pastOnly) {
  reservations_.clear();
  copies_.clear();
  reserved_.clear();
  undo_.begin(parts_);
  std::fill(appended_.begin(), appended_.end(), 0);
  pastOnly_ = pastOnly;
  planner_.setPastOnly(pastOnly);
  chunks_ = 0;
  for (const StepPart &part : parts_)
    chunks_ = std::max(chunks_, chunkCount(part.newTokens));
  KVQ_RETURN_IF_ERROR(openKernels());
  KVQ_RETURN_IF_ERROR(reserveBlocks());
  KVQ_RETURN_IF_ERROR(cache_.showTables(parts_));
  sizeWorkspace();
  chunk_.index = -1;
  return chunks_ > 0 ? loadChunk(0) : Status::ok();
}

// Those of the programs that a chunk of so many new tokens has.
Status Step::openAttendKernels(int tokens) {
  const AttendRows kernels(cache_.config_);
  for (int rows = tokens * cache_.config_.ratio(); rows > 0; rows -= kernels.most())
    KVQ_RETURN_IF_ERROR(cache_.kernel(attendKernel(kernels.kernelFor(std::min(rows, kernels.most())))).status());
  return Status::ok();
}

// All kernels come up here: whatever can be missing is missing before anything is written.
Status Step::openKernels() {
  bool quantizeK = false, quantizeV = false;
  for (const StepPart &part : parts_) {
    const Frontier from = part.frontier, to = part.stateAt(cache_.config_.format, part.end());
    quantizeK |= to.k > from.k;
    quantizeV |= to.v > from.v;
  }
  const bool any = chunks_ > 0;
  const std::pair<CacheKernel, bool> needed[] = {{CacheKernel::Append, any},
                                                 {CacheKernel::QuantizeK, quantizeK},
                                                 {CacheKernel::QuantizeV, quantizeV},
                                                 {CacheKernel::Merge, any}};
  for (const auto &[which, isNeeded] : needed)
    if (isNeeded)
      KVQ_RETURN_IF_ERROR(cache_.kernel(which).status());
  for (const StepPart &part : parts_)
    for (int tokens : {std::min(part.newTokens, kChunkTokens), part.newTokens % kChunkTokens})
      KVQ_RETURN_IF_ERROR(openAttendKernels(tokens));
  return Status::ok();
}

void Step::sizeWorkspace() {
  oBytes_ = lseBytes_ = outLseBytes_ = 0;
  for (int index = 0; index < chunks_; ++index) {
    int64_t queries, splits;
    planner_.size(parts_, index, queries, splits);
    const int64_t rows = queries * cache_.config_.qHeads * static_cast<int64_t>(sizeof(float));
    oBytes_ = std::max(oBytes_, align64(rows * splits * cache_.config_.dv));
    lseBytes_ = std::max(lseBytes_, align64(rows * splits));
    outLseBytes_ = std::max(outLseBytes_, align64(rows));
  }
}

Status Step::loadChunk(int index) {
  if (chunk_.index == index)
    return Status::ok();
  planner_.plan(parts_, cache_.tables_.data(), index, chunk_);
  status_.resize(chunk_.append.size());
  return cache_.memory_.isHost() ? Status::ok() : showChunk();
}

// Offsets follow when their tensors are known.
Status Step::showChunk() {
  using Lists = LaunchLists;
  qOffsets_.resize(chunk_.queries());
  outOffsets_.resize(chunk_.queries());
  std::array<int64_t, Lists::kLists> bytes{};
  const auto forAll = [this](const auto &function) {
    function(Lists::QuantizeK, chunk_.quantizeK);
    function(Lists::QuantizeV, chunk_.quantizeV);
    function(Lists::Positions, chunk_.positions);
    function(Lists::KFrontier, chunk_.kFrontier);
    function(Lists::VFrontier, chunk_.vFrontier);
    function(Lists::Splits, chunk_.splits);
    for (int kernel = 0; kernel < AttendRows::kMost; ++kernel)
      function(Lists::Attend + kernel, chunk_.attend[kernel]);
  };
  const auto size = [&](int list, const auto &items) {
    bytes[list] = static_cast<int64_t>(items.size() * sizeof(items[0]));
  };
  forAll(size);
  size(Lists::Append, chunk_.append);
  size(Lists::QOffsets, qOffsets_);
  size(Lists::OutOffsets, outOffsets_);
  size(Lists::Status_, status_);
  Status status = lists_.place(bytes);
  forAll([&](int list, const auto &items) {
    if (status.isOk())
      status = show(list, items);
  });
  if (!status.isOk())
    chunk_.index = -1; // it is not loaded
  return status;
}

// ---- ending ----

void Step::abort() {
  if (!open_)
    return;
  open_ = false;
  for (int layer = 0; layer < cache_.config_.layers; ++layer)
    undo_.restore(layer, cache_.tailK(layer), cache_.tailV(layer));
  for (const Copy &copy : copies_)
    cache_.tables_.at(copy.sequence, copy.entry) = copy.original;
  for (auto block = reserved_.rbegin(); block != reserved_.rend(); ++block)
    cache_.pool_.release(*block);
  for (const StepPart &part : parts_)
    cache_.tables_.resize(part.sequence, static_cast<int64_t>(cache_.tables_.of(part.sequence).size()));
}

Status Step::checkOpen() const {
  if (open_)
    return cache_.memory_.state();
  return {Code::FailedPrecondition, "this step has ended: open another one with kvq_plan"};
}

Status Step::commit() {
  KVQ_RETURN_IF_ERROR(checkOpen());
  for (int layer = 0; layer < cache_.config_.layers && chunks_ > 0; ++layer)
    if (!appended_[layer])
      return {Code::FailedPrecondition,
              "layer " + std::to_string(layer) + " has not appended: call kvq_append or kvq_forward for it, or abort"};
  for (size_t p = 0; p < parts_.size(); ++p)
    commitPart(parts_[p], reservations_[p]);
  for (const Copy &copy : copies_)
    cache_.pool_.release(copy.original);
  open_ = false;
  return Status::ok();
}

bool Step::takesPart(int sequence) const {
  return open_ &&
         std::any_of(parts_.begin(), parts_.end(), [&](const StepPart &part) { return part.sequence == sequence; });
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

Status Step::checkLayer(int layer) const {
  KVQ_RETURN_IF_ERROR(checkOpen());
  if (layer >= 0 && layer < cache_.config_.layers)
    return Status::ok();
  return invalid("layer " + std::to_string(layer) + " does not exist: the cache has " +
                 std::to_string(cache_.config_.layers));
}

Status Step::checkAppends(int layer) const {
  KVQ_RETURN_IF_ERROR(checkLayer(layer));
  if (!appended_[layer])
    return Status::ok();
  return {Code::FailedPrecondition,
          "layer " + std::to_string(layer) + " has already appended in this step: each layer appends once"};
}

static float valueOf(const uint8_t *row, int channel, ElementType type) {
  if (type == ElementType::F32) {
    float value;
    std::memcpy(&value, row + 4 * channel, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, row + 2 * channel, sizeof(bits));
  if (type == ElementType::BF16)
    return std::bit_cast<float>(uint32_t(bits) << 16);
  // Only NaN and infinity of f16 are bad, and these keep their kind when the mantissa is moved.
  return (bits & 0x7c00) == 0x7c00
             ? std::bit_cast<float>(uint32_t(bits & 0x8000) << 16 | 0x7f800000u | uint32_t(bits & 0x3ff) << 13)
             : 0.0f;
}

// The first bad value in K or V of a query's token; Ok if there is none.
Status Step::badValueOf(int query, const Tensor &tensor, bool isK) {
  const CacheConfig &config = cache_.config_;
  const int channels = isK ? config.dk : config.dv;
  std::vector<uint8_t> row(int64_t(channels) * byteSize(tensor.type));
  for (int head = 0; head < config.kvHeads; ++head) {
    cache_.memory_.copyOut(row.data(), tensor.address(offset(tensor, query) + head * tensor.headStride),
                           static_cast<int64_t>(row.size()));
    KVQ_RETURN_IF_ERROR(cache_.memory_.wait());
    for (int c = 0; c < channels; ++c) {
      const float value = valueOf(row.data(), c, tensor.type);
      if (!(std::fabs(value) <= 65504.0f))
        return {Code::BadValue, std::string(isK ? "K" : "V") + " of sequence " +
                                    std::to_string(parts_[chunk_.part[query]].sequence) + ", token " +
                                    std::to_string(chunk_.append[query].position + config.format.keep) + ", head " +
                                    std::to_string(head) + ", channel " + std::to_string(c) + " is " +
                                    std::to_string(value) + ": values must be finite and at most 65504 in magnitude"};
    }
  }
  return Status::ok();
}

// The first bad value of the chunk, which the append kernel has counted.
Status Step::badValue(const Tensor &k, const Tensor &v) {
  for (int i = 0; i < chunk_.queries(); ++i) {
    if (status_[i] == 0)
      continue;
    KVQ_RETURN_IF_ERROR(badValueOf(i, k, true));
    KVQ_RETURN_IF_ERROR(badValueOf(i, v, false));
  }
  return {Code::Internal, "a kernel counted bad values that are not there: please report it"};
}

} // namespace kvq
