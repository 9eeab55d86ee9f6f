// SPDX-License-Identifier: Apache-2.0
//
// Pools, sequences, growing and byte counts of the paged cache.
#include "runtime/cache/cache.h"

#include "runtime/cache/step.h"

#include <cstring>
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
      sequences_(config.sequences) {
  freeBlocks_.reserve(config.blocks);
  for (int64_t block = config.blocks - 1; block >= 0; --block)
    freeBlocks_.push_back(static_cast<int32_t>(block));
}

Result<std::unique_ptr<Cache>> Cache::create(std::shared_ptr<Device> device, const CacheConfig &config, void *memory,
                                             size_t bytes) {
  KVQ_RETURN_IF_ERROR(checkConfig(config));
  KVQ_RETURN_IF_ERROR(checkMemory(Geometry(config), memory, bytes));
  return std::unique_ptr<Cache>(new Cache(std::move(device), config, memory));
}

void Cache::clearBlock(int32_t block) {
  for (int layer = 0; layer < config_.layers; ++layer)
    std::memset(pages(layer) + block * geometry_.blockStride, 0, geometry_.blockStride);
}

void Cache::clearTail(int slot) {
  for (int layer = 0; layer < config_.layers; ++layer) {
    std::memset(tailK(layer) + slot * geometry_.tailKBytes, 0, geometry_.tailKBytes);
    std::memset(tailV(layer) + slot * geometry_.tailVBytes, 0, geometry_.tailVBytes);
  }
}

Status Cache::grow(int64_t blocks, int sequences, void *memory, size_t bytes) {
  if (open_)
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
  const Geometry larger(config);
  KVQ_RETURN_IF_ERROR(checkMemory(larger, memory, bytes));
  auto *target = static_cast<uint8_t *>(memory);
  if (target < memory_ + geometry_.bytes && memory_ < target + larger.bytes)
    return {Code::InvalidArgument, "the new memory overlaps the cache's present memory: allocate it separately"};
  std::vector<int32_t> added;
  for (int64_t block = blocks - 1; block >= config_.blocks; --block)
    added.push_back(static_cast<int32_t>(block));
  sequences_.resize(sequences);
  freeBlocks_.reserve(blocks); // so that giving blocks back needs no memory
  for (int layer = 0; layer < config_.layers; ++layer) {
    std::memcpy(target + larger.pageOffset(layer), pages(layer), geometry_.poolBytes);
    std::memcpy(target + larger.tailKOffset(layer), tailK(layer), geometry_.layerTailKBytes);
    std::memcpy(target + larger.tailVOffset(layer), tailV(layer), geometry_.layerTailVBytes);
  }
  freeBlocks_.insert(freeBlocks_.begin(), added.begin(), added.end());
  config_ = config;
  geometry_ = larger;
  memory_ = target;
  return Status::ok();
}

Result<const Kernel *> Cache::kernel(CacheKernel which) {
  KernelRef &slot = kernels_[static_cast<int>(which)];
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
      kCacheKernels,
      [](void *data, int64_t index) {
        auto &job = *static_cast<Job *>(data);
        auto kernel = job.cache.kernel(static_cast<CacheKernel>(index));
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

Result<int> Cache::addSequence() {
  for (int id = 0; id < config_.sequences; ++id) {
    if (sequences_[id].live)
      continue;
    clearTail(id);
    sequences_[id] = Sequence{true, 0, {}};
    return id;
  }
  return Status(Code::ResourceExhausted,
                "all " + std::to_string(config_.sequences) + " sequences are in use: remove one or kvq_cache_grow");
}

Status Cache::removeSequence(int sequence) {
  KVQ_RETURN_IF_ERROR(checkSequence(sequence));
  if (open_ && open_->takesPart(sequence))
    return {Code::FailedPrecondition,
            "sequence " + std::to_string(sequence) + " takes part in the open step: commit or abort it first"};
  Sequence &removed = sequences_[sequence];
  freeBlocks_.insert(freeBlocks_.end(), removed.blocks.rbegin(), removed.blocks.rend());
  removed = Sequence{};
  return Status::ok();
}

Result<std::vector<int32_t>> Cache::blocks(int sequence) const {
  KVQ_RETURN_IF_ERROR(checkSequence(sequence));
  return sequences_[sequence].blocks;
}

Result<int64_t> Cache::length(int sequence) const {
  KVQ_RETURN_IF_ERROR(checkSequence(sequence));
  return sequences_[sequence].length;
}

CacheReport Cache::report() const {
  CacheReport report;
  for (const Sequence &sequence : sequences_) {
    report.sequences += sequence.live;
    report.tokens += sequence.length;
  }
  report.blocksCapacity = config_.blocks;
  report.blocksUsed = config_.blocks - static_cast<int64_t>(freeBlocks_.size());
  report.pageBytesUsed = report.blocksUsed * config_.layers * geometry_.blockStride;
  report.tailBytesUsed = report.sequences * config_.layers * (geometry_.tailKBytes + geometry_.tailVBytes);
  report.bytesReserved = geometry_.bytes;
  if (report.tokens > 0) {
    const double elements =
        static_cast<double>(report.tokens) * config_.layers * config_.kvHeads * (config_.dk + config_.dv);
    report.bitsPerElement = 8.0 * static_cast<double>(report.pageBytesUsed + report.tailBytesUsed) / elements;
  }
  return report;
}

} // namespace kvq
