// SPDX-License-Identifier: Apache-2.0
//
// Pools, sequences, growing and byte counts of the paged cache.
#include "runtime/cache/cache.h"

#include "runtime/cache/step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>

namespace kvq {

static Status checkMemory(const Geometry &geometry, const void *memory, size_t bytes) {
  if (!memory)
    return {Code::InvalidArgument, "memory is NULL: pass " + std::to_string(geometry.bytes) + " bytes aligned to 64"};
  if (bytes < static_cast<uint64_t>(geometry.bytes))
    return {Code::InvalidArgument, "memory of " + std::to_string(bytes) + " bytes is too small: the cache needs " +
                                       std::to_string(geometry.bytes) + " (kvq_cache_memory_bytes)"};
  if (reinterpret_cast<uintptr_t>(memory) % 64 != 0)
    return {Code::InvalidArgument, "memory is not aligned to 64 bytes: allocate it with aligned_alloc(64, ...)"};
  return Status::ok();
}

Cache::Cache(std::shared_ptr<Device> device, const CacheConfig &config, void *memory)
    : device_(std::move(device)), config_(config), geometry_(config), memory_(static_cast<uint8_t *>(memory)),
      sequences_(config.sequences), pool_(config.blocks, geometry_.runBlocks, config.kvHeads),
      tables_(config.blocks, config.sequences),
      sinks_(int64_t(config.layers) * config.qHeads, -std::numeric_limits<float>::infinity()),
      step_(std::make_unique<Step>(*this)) {}

Cache::~Cache() = default;

Result<std::unique_ptr<Cache>> Cache::create(std::shared_ptr<Device> device, const CacheConfig &config, void *memory,
                                             size_t bytes) {
  KVQ_RETURN_IF_ERROR(checkConfig(config));
  if (device->accelerator()) {
    KVQ_RETURN_IF_ERROR(device->available(kernelRequest(config, static_cast<int>(CacheKernel::Append))));
    return Status(Code::Unsupported, "a cache lies in the host's memory, which kernels of this context's device do not "
                                     "see: create it in a context on device \"cpu\"");
  }
  KVQ_RETURN_IF_ERROR(checkMemory(Geometry(config), memory, bytes));
  return std::unique_ptr<Cache>(new Cache(std::move(device), config, memory));
}

void Cache::clearBlock(int32_t block) {
  for (int layer = 0; layer < config_.layers; ++layer)
    for (int head = 0; head < config_.kvHeads; ++head)
      std::memset(page(layer, block, head), 0, geometry_.pageBytes);
}

void Cache::copyBlock(int32_t from, int32_t to) {
  for (int layer = 0; layer < config_.layers; ++layer)
    for (int head = 0; head < config_.kvHeads; ++head)
      std::memcpy(page(layer, to, head), page(layer, from, head), geometry_.pageBytes);
}

void Cache::clearTail(int slot) {
  for (int layer = 0; layer < config_.layers; ++layer) {
    std::memset(tailSlot(layer, true, slot), 0, geometry_.tailKBytes);
    std::memset(tailSlot(layer, false, slot), 0, geometry_.tailVBytes);
  }
}

Status Cache::grow(int64_t blocks, int sequences, void *memory, size_t bytes) {
  if (step_->isOpen())
    return {Code::FailedPrecondition, "the cache cannot grow while a step is open: commit or abort it first"};
  if (blocks < config_.blocks || sequences < config_.sequences)
    return {Code::InvalidArgument, "a cache of " + std::to_string(config_.blocks) + " blocks and " +
                                       std::to_string(config_.sequences) + " sequences cannot become one of " +
                                       std::to_string(blocks) + " and " + std::to_string(sequences) +
                                       ": neither may shrink"};
  CacheConfig config = config_;
  config.blocks = blocks;
  config.sequences = sequences;
  KVQ_RETURN_IF_ERROR(checkConfig(config));
  const Geometry larger(config, geometry_.runBlocks);
  KVQ_RETURN_IF_ERROR(checkMemory(larger, memory, bytes));
  auto *target = static_cast<uint8_t *>(memory);
  if (target < memory_ + geometry_.bytes && memory_ < target + larger.bytes)
    return {Code::InvalidArgument, "the new memory overlaps the cache's present memory: allocate it separately"};
  sequences_.resize(sequences);
  pool_.grow(blocks);
  tables_.grow(blocks, sequences);
  // Only what is in use: memory that was never touched costs its owner nothing.
  for (int layer = 0; layer < config_.layers; ++layer) {
    for (int64_t index = 0; index < config_.blocks; ++index)
      if (const int32_t block = pool_.numberOf(index); pool_.isUsed(block))
        for (int head = 0; head < config_.kvHeads; ++head)
          std::memcpy(target + larger.pageOffset(layer) + larger.pageOffset(block, head), page(layer, block, head),
                      geometry_.pageBytes);
    for (int slot = 0; slot < config_.sequences; ++slot) {
      if (!sequences_[slot].live)
        continue;
      std::memcpy(target + larger.tailKOffset(layer) + slot * larger.tailKBytes, tailSlot(layer, true, slot),
                  geometry_.tailKBytes);
      std::memcpy(target + larger.tailVOffset(layer) + slot * larger.tailVBytes, tailSlot(layer, false, slot),
                  geometry_.tailVBytes);
    }
  }
  config_ = config;
  geometry_ = larger;
  memory_ = target;
  return Status::ok();
}

Result<const Kernel *> Cache::kernel(int which) {
  KernelRef &slot = kernels_[which];
  if (!slot) {
    auto opened = device_->open(kernelRequest(config_, which));
    if (!opened.isOk())
      return opened.status();
    slot = opened.value();
  }
  return slot.get();
}

Status Cache::prepare(const std::function<void(const KernelInfo &)> &progress) {
  struct Job {
    Cache &cache;
    const std::function<void(const KernelInfo &)> &progress;
    std::mutex mutex;
    Status status;
  } job{*this, progress, {}, {}};
  device_->parallel().run(
      cacheKernels(config_),
      [](void *data, int64_t index) {
        auto &job = *static_cast<Job *>(data);
        auto kernel = job.cache.kernel(static_cast<int>(index));
        std::lock_guard<std::mutex> lock(job.mutex);
        if (!kernel.isOk())
          job.status = kernel.status();
        else if (job.progress)
          job.progress(kernel.value()->info());
      },
      &job);
  return job.status;
}

Status Cache::checkSequence(int sequence) const {
  if (sequence < 0 || sequence >= config_.sequences || !sequences_[sequence].live)
    return {Code::InvalidArgument,
            "sequence " + std::to_string(sequence) + " does not exist: use a number that kvq_sequence_add gave"};
  return Status::ok();
}

Status Cache::checkChangeable(int sequence) const {
  KVQ_RETURN_IF_ERROR(checkSequence(sequence));
  if (step_->takesPart(sequence))
    return {Code::FailedPrecondition,
            "sequence " + std::to_string(sequence) + " takes part in the open step: commit or abort it first"};
  return Status::ok();
}

Result<int> Cache::freeSlot() const {
  for (int id = 0; id < config_.sequences; ++id)
    if (!sequences_[id].live)
      return id;
  return Status(Code::ResourceExhausted,
                "all " + std::to_string(config_.sequences) + " sequences are in use: remove one or kvq_cache_grow");
}

void Cache::occupy(int slot, const SequenceState &state) {
  static_cast<SequenceState &>(sequences_[slot]) = state;
  sequences_[slot].live = true;
  slotsTouched_ = std::max(slotsTouched_, slot + 1);
}

Result<int> Cache::addSequence() {
  auto id = freeSlot();
  if (!id.isOk())
    return id;
  clearTail(id.value());
  occupy(id.value(), {});
  return id;
}

Status Cache::removeSequence(int sequence) {
  KVQ_RETURN_IF_ERROR(checkChangeable(sequence));
  const auto blocks = tables_.of(sequence);
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block)
    pool_.release(*block);
  tables_.resize(sequence, 0);
  sequences_[sequence] = Sequence{};
  return Status::ok();
}

Result<SequenceState> Cache::state(int sequence) const {
  KVQ_RETURN_IF_ERROR(checkSequence(sequence));
  return SequenceState(sequences_[sequence]);
}

Status Cache::setSinks(int layer, std::span<const float> logits) {
  if (step_->isOpen())
    return {Code::FailedPrecondition, "sink logits cannot change while a step is open: commit or abort it first"};
  for (size_t head = 0; head < logits.size(); ++head)
    if (std::isnan(logits[head]) || logits[head] == std::numeric_limits<float>::infinity())
      return {Code::InvalidArgument, "sink logit of head " + std::to_string(head) + " is " +
                                         std::to_string(logits[head]) + " but must be finite, or -infinity for none"};
  std::copy(logits.begin(), logits.end(), sinks_.begin() + int64_t(layer) * config_.qHeads);
  return Status::ok();
}

CacheReport Cache::report() const {
  CacheReport report;
  for (const Sequence &sequence : sequences_) {
    report.sequences += sequence.live;
    report.tokens += sequence.length;
  }
  report.blocksCapacity = config_.blocks;
  report.blocksUsed = pool_.used();
  report.pageBytesUsed = report.blocksUsed * config_.layers * geometry_.blockBytes;
  report.tailBytesUsed = report.sequences * config_.layers * (geometry_.tailKBytes + geometry_.tailVBytes);
  report.bytesReserved = geometry_.bytes;
  report.bytesTouched = config_.layers * (pool_.touched() * geometry_.blockBytes +
                                          slotsTouched_ * (geometry_.tailKBytes + geometry_.tailVBytes));
  if (report.tokens > 0) {
    const double elements =
        static_cast<double>(report.tokens) * config_.layers * config_.kvHeads * (config_.dk + config_.dv);
    report.bitsPerElement = 8.0 * static_cast<double>(report.pageBytesUsed + report.tailBytesUsed) / elements;
  }
  return report;
}

} // namespace kvq
