// SPDX-License-Identifier: Apache-2.0
//
// Pools, sequences, growing and byte counts of the paged cache.
#include "runtime/cache/cache.h"

#include "runtime/cache/split_choice.h"
#include "runtime/cache/step.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

namespace kvq {

Status Cache::checkMemory(const Geometry &geometry, const void *memory, size_t bytes) {
  if (!memory)
    return {Code::InvalidArgument, "memory is NULL: pass " + std::to_string(geometry.bytes) + " bytes aligned to 64"};
  if (bytes < static_cast<uint64_t>(geometry.bytes))
    return {Code::InvalidArgument, "memory of " + std::to_string(bytes) + " bytes is too small: the cache needs " +
                                       std::to_string(geometry.bytes) + " (kvq_cache_memory_bytes)"};
  if (reinterpret_cast<uintptr_t>(memory) % 64 != 0)
    return {Code::InvalidArgument, "memory is not aligned to 64 bytes: allocate it with aligned_alloc(64, ...)"};
  if (memory_.isHost())
    return Status::ok();
  // A device knows its own addresses: both ends must be among them.
  Stream &stream = memory_.accelerator()->defaultStream();
  const auto address = reinterpret_cast<DeviceAddress>(memory);
  for (DeviceAddress end : {address, address + geometry.bytes - 1})
    if (Status status = stream.fill(end, 1, 0); !status.isOk())
      return {status.code(), "memory of " + std::to_string(geometry.bytes) +
                                 " bytes is not in the memory of the context's device (" + status.message() +
                                 "): pass the address of a buffer of kvq_buffer_create"};
  return stream.synchronize();
}

Cache::Cache(std::shared_ptr<Device> device, const CacheConfig &config, DeviceAddress memory)
    : device_(std::move(device)), config_(config), geometry_(config), memory_(device_->accelerator()), base_(memory),
      sequences_(config.sequences), pool_(config.blocks, geometry_.runBlocks, config.kvHeads),
      tables_(config.blocks, config.sequences),
      sinks_(int64_t(config.layers) * config.qHeads, -std::numeric_limits<float>::infinity()),
      step_(std::make_unique<Step>(*this)) {}

Cache::~Cache() = default;

Result<std::unique_ptr<Cache>> Cache::create(std::shared_ptr<Device> device, const CacheConfig &config, void *memory,
                                             size_t bytes) {
  KVQ_RETURN_IF_ERROR(checkConfig(config));
  CacheConfig here = onDevice(config, *device);
  KVQ_RETURN_IF_ERROR(checkProfile(here.profile, here.format.pair));
  if (here.onAccelerator) // a device without kernels says so before memory is looked at
    KVQ_RETURN_IF_ERROR(device->available(kernelRequest(here, static_cast<int>(CacheKernel::Append))));
  if (!here.splits)
    here.splits = chosenSplits(*device, here);
  std::unique_ptr<Cache> cache(new Cache(std::move(device), here, reinterpret_cast<DeviceAddress>(memory)));
  KVQ_RETURN_IF_ERROR(cache->checkMemory(cache->geometry_, memory, bytes));
  KVQ_RETURN_IF_ERROR(cache->showSinks());
  if (here.score)
    KVQ_RETURN_IF_ERROR(cache->checkScore());
  return cache;
}

// What is wrong with a user's score function shows before any token is appended.
Status Cache::checkScore() {
  auto attend = kernel(attendKernel(0));
  if (!attend.isOk())
    return attend.status();
  const std::string &signature = attend.value()->info().signature;
  const auto captures = std::count(signature.begin(), signature.end(), ' ') + 1 - KVQ_ATTEND_ARGS;
  if (captures > 0)
    return {Code::InvalidArgument, "score function '" + config_.score->name + "' takes " + std::to_string(captures) +
                                       " arguments behind score, batch, head, query and key, for which a cache has no "
                                       "values: write them as constants into its text"};
  return Status::ok();
}

void Cache::clearBlock(int32_t block) {
  for (int layer = 0; layer < config_.layers; ++layer)
    memory_.clearRows(page(layer, block, 0), geometry_.headStride, geometry_.pageBytes, config_.kvHeads);
}

void Cache::copyBlock(int32_t from, int32_t to) {
  for (int layer = 0; layer < config_.layers; ++layer)
    memory_.copyRows(page(layer, to, 0), geometry_.headStride, page(layer, from, 0), geometry_.headStride,
                     geometry_.pageBytes, config_.kvHeads);
}

void Cache::clearTail(int slot) {
  for (bool isK : {true, false})
    memory_.clearRows(tailSlot(0, isK, slot), geometry_.tailStride(), isK ? geometry_.tailKBytes : geometry_.tailVBytes,
                      config_.layers);
}

// ---- what kernels of an accelerator see ----

Status Cache::showTables(std::span<const StepPart> parts) {
  if (memory_.isHost())
    return Status::ok();
  constexpr int64_t kEntry = sizeof(int32_t);
  if (const int64_t bytes = tables_.capacity() * kEntry; bytes > tablesSeen_.bytes()) {
    KVQ_RETURN_IF_ERROR(tablesSeen_.reserve(bytes));
    tables_.markAll();
  }
  bool any = false;
  for (const StepPart &part : parts) {
    const auto [begin, end] = tables_.takeChanged(part.sequence);
    if (begin < end)
      memory_.copyIn(tablesSeen_.address() + begin * kEntry, tables_.data() + begin, (end - begin) * kEntry);
    any |= begin < end;
  }
  return any ? memory_.wait() : Status::ok(); // tables move and change whenever a sequence does
}

Status Cache::showSinks() {
  if (memory_.isHost())
    return Status::ok();
  const auto bytes = static_cast<int64_t>(sinks_.size() * sizeof(float));
  KVQ_RETURN_IF_ERROR(sinksSeen_.reserve(bytes));
  memory_.copyIn(sinksSeen_.address(), sinks_.data(), bytes);
  return memory_.wait();
}

bool Cache::hasSinks(int layer) const {
  const auto first = sinks_.begin() + int64_t(layer) * config_.qHeads;
  return std::any_of(first, first + config_.qHeads, [](float logit) { return std::isfinite(logit); });
}

// ---- growing ----

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
  const auto target = reinterpret_cast<DeviceAddress>(memory);
  if (target < base_ + geometry_.bytes && base_ < target + larger.bytes)
    return {Code::InvalidArgument, "the new memory overlaps the cache's present memory: allocate it separately"};
  sequences_.resize(sequences);
  pool_.grow(blocks);
  tables_.grow(blocks, sequences);
  // Only what is in use: memory that was never touched costs its owner nothing.
  for (int layer = 0; layer < config_.layers; ++layer) {
    for (int64_t index = 0; index < config_.blocks; ++index)
      if (const int32_t block = pool_.numberOf(index); pool_.isUsed(block))
        memory_.copyRows(target + larger.pageOffset(layer) + larger.pageOffset(block, 0), larger.headStride,
                         page(layer, block, 0), geometry_.headStride, geometry_.pageBytes, config_.kvHeads);
    for (int slot = 0; slot < config_.sequences; ++slot) {
      if (!sequences_[slot].live)
        continue;
      memory_.copy(target + larger.tailKOffset(layer) + slot * larger.tailKBytes, tailSlot(layer, true, slot),
                   geometry_.tailKBytes);
      memory_.copy(target + larger.tailVOffset(layer) + slot * larger.tailVBytes, tailSlot(layer, false, slot),
                   geometry_.tailVBytes);
    }
  }
  KVQ_RETURN_IF_ERROR(memory_.wait()); // the old memory may go when this returns
  config_ = config;
  geometry_ = larger;
  base_ = target;
  return Status::ok();
}

Result<const Kernel *> Cache::kernel(int which) {
  KernelRef &slot = kernels_[which];
  if (!slot) {
    auto opened = device_->open(kernelRequest(config_, which), kernelScore(config_, which));
    if (!opened.isOk())
      return opened.status();
    slot = opened.value();
  }
  return slot.get();
}

Status Cache::refreshKernels() {
  if (step_->isOpen())
    return {Code::FailedPrecondition, "a step of this cache is open: refresh its kernels after it was committed or "
                                      "aborted"};
  std::array<KernelRef, kMostCacheKernels> fresh;
  for (int which = 0; which < cacheKernels(config_); ++which) {
    if (!kernels_[which])
      continue;
    auto opened = device_->open(kernelRequest(config_, which), kernelScore(config_, which));
    if (!opened.isOk())
      return opened.status();
    fresh[which] = opened.value();
  }
  kernels_ = std::move(fresh); // the device keeps the old ones, which may still run
  return Status::ok();
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
  KVQ_RETURN_IF_ERROR(memory_.state());
  occupy(id.value(), {});
  return id;
}

void Cache::release(int slot, int64_t pages) {
  const auto blocks = tables_.of(slot);
  for (auto block = blocks.rbegin(); block != blocks.rend() - pages; ++block)
    pool_.release(*block);
  tables_.resize(slot, pages);
}

Status Cache::removeSequence(int sequence) {
  KVQ_RETURN_IF_ERROR(checkChangeable(sequence));
  release(sequence, 0);
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
  return showSinks();
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
