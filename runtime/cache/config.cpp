// SPDX-License-Identifier: Apache-2.0
//
// Checks and sizes of a cache configuration.
#include "runtime/cache/config.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace kvq {

static constexpr int kMaxRatio = 64; // of a kernel request

CacheConfig onDevice(CacheConfig config, const Device &device) {
  config.onAccelerator = device.accelerator() != nullptr;
  if (config.onAccelerator)
    config.profile = device.profile();
  return config;
}

CacheConfig onTarget(CacheConfig config, std::string_view target) {
  config.onAccelerator = isAcceleratorTarget(target);
  if (config.onAccelerator)
    config.profile = kAcceleratorProfile;
  return config;
}

// On a host a thousand tokens are some tens of microseconds of work, and 128 programs two for each of 64 threads; more
// would cost more in the merge, which one thread does for a query, than they gain in balance. Few heads need more
// splits for as many programs, up to 64. On an accelerator a program is four warps, and some 100 multiprocessors have
// two each at once. Of 1024 tokens of 4 bits and 128 channels, with 4 query heads a KV head, partial results are
// written and read again, 3 % of what the codes have in bytes; shorter splits would pay more.
static SplitPolicy defaultSplits(bool onAccelerator) {
  return onAccelerator ? SplitPolicy{1024, 256, 4, 128} : SplitPolicy{1024, 128, 16, 64};
}

SplitPolicy splitPolicy(const CacheConfig &config) {
  return config.splits.value_or(defaultSplits(config.onAccelerator));
}

static Status invalid(const std::string &message) { return {Code::InvalidArgument, message}; }

static Status atLeastOne(const char *name, int64_t value) {
  if (value >= 1)
    return Status::ok();
  return invalid(std::string(name) + " is " + std::to_string(value) + " but must be at least 1");
}

// A head's pages lie together in runs of so many blocks (page_c4). Measured on a Zen 5 core, pages of one head that
// follow each other are read at 40 GB/s from memory, pages between those of other heads at 27; 135 KB in a row already
// get 36. A power of two: with more blocks it is a multiple of what it is with fewer, so that a cache that has grown
// and kept its runs fits the memory of a new one. Under an attention window a run is no longer than what a sequence
// holds at once, or it would touch far more memory than that on its way through the runs.
static constexpr int64_t kMostRunBlocks = 16;

static int64_t windowPagesOf(const CacheConfig &config) {
  if (config.attentionWindow == 0)
    return std::numeric_limits<int32_t>::max();
  // The window, what may be taken back and one chunk; or the pages between V's frontier and K's where that is more.
  const int64_t tokens = std::max<int64_t>(config.attentionWindow, tailCapacity(config.format)) + 2 * kChunkTokens - 1;
  return (tokens + config.pageTokens - 1) / config.pageTokens + 1;
}

static int64_t runBlocksOf(const CacheConfig &config) {
  const int64_t most = std::min({kMostRunBlocks, config.blocks, windowPagesOf(config)});
  return static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(most)));
}

static int64_t wholeRuns(int64_t blocks, int64_t runBlocks) { return (blocks + runBlocks - 1) / runBlocks * runBlocks; }

// Sizes are products of numbers that a caller chooses; one that does not fit in 62 bits is refused before any is used.
static Status checkSize(const CacheConfig &config) {
  const Geometry one([&] {
    CacheConfig single = config;
    single.blocks = 1, single.sequences = 1, single.layers = 1;
    return single;
  }());
  const long double bytes = (static_cast<long double>(wholeRuns(config.blocks, runBlocksOf(config))) * one.blockBytes +
                             static_cast<long double>(config.sequences) * (one.tailKBytes + one.tailVBytes)) *
                            config.layers;
  if (bytes < static_cast<long double>(int64_t(1) << 62))
    return Status::ok();
  return invalid("a cache of " + std::to_string(config.blocks) + " blocks and " + std::to_string(config.sequences) +
                 " sequences needs more memory than can be addressed: use fewer");
}

Status checkConfig(const CacheConfig &config) {
  KVQ_RETURN_IF_ERROR(atLeastOne("layers", config.layers));
  KVQ_RETURN_IF_ERROR(atLeastOne("q_heads", config.qHeads));
  KVQ_RETURN_IF_ERROR(atLeastOne("kv_heads", config.kvHeads));
  KVQ_RETURN_IF_ERROR(atLeastOne("blocks", config.blocks));
  KVQ_RETURN_IF_ERROR(atLeastOne("sequences", config.sequences));
  if (config.qHeads % config.kvHeads != 0)
    return invalid("q_heads " + std::to_string(config.qHeads) + " is not a multiple of kv_heads " +
                   std::to_string(config.kvHeads));
  if (config.ratio() > kMaxRatio)
    return {Code::Unsupported, std::to_string(config.ratio()) + " query heads per KV head are not supported: at most " +
                                   std::to_string(kMaxRatio)};
  if (config.kvHeads > kMostKvHeads || config.layers > 65536)
    return invalid("layers " + std::to_string(config.layers) + " and kv_heads " + std::to_string(config.kvHeads) +
                   " must be at most 65536");
  // Block numbers go up to the pages of a layer (page_c4) and have 32 bits; whole runs of any length fit this.
  const int64_t most = std::numeric_limits<int32_t>::max() / config.kvHeads / kMostRunBlocks * kMostRunBlocks;
  if (config.blocks > most)
    return invalid("blocks " + std::to_string(config.blocks) + " is too large: at most " + std::to_string(most) +
                   " with " + std::to_string(config.kvHeads) + " kv_heads, as block numbers have 32 bits");
  if (config.attentionWindow < 0 || config.attentionWindow > std::numeric_limits<int32_t>::max())
    return invalid("attention_window is " + std::to_string(config.attentionWindow) +
                   " but must be 0 (none) to 2147483647 tokens");
  if (!(config.scoreCap >= 0) || config.scoreCap > std::numeric_limits<float>::max())
    return invalid("score_cap is " + std::to_string(config.scoreCap) + " but must be 0 (none) or positive and finite");
  KVQ_RETURN_IF_ERROR(checkProfile(config.profile, config.format.pair));
  KVQ_RETURN_IF_ERROR(checkShape(config.format.pair, config.dk, config.dv, config.pageTokens));
  return checkSize(config);
}

Geometry::Geometry(const CacheConfig &config) : Geometry(config, runBlocksOf(config)) {}

Geometry::Geometry(const CacheConfig &config, int64_t runBlocks)
    : runBlocks(runBlocks), layers(config.layers), pageTokens(config.pageTokens),
      attentionWindow(config.attentionWindow) {
  pageBytes = pageMap(config.format.pair, config.pageTokens, config.dk, config.dv).bytes;
  blockStride = pageBytes;
  headStride = runBlocks * pageBytes;
  blockBytes = config.kvHeads * pageBytes;
  poolBytes = wholeRuns(config.blocks, runBlocksOf(config)) * blockBytes; // as of a new cache: enough for shorter runs
  cap = tailCapacity(config.format);
  rows = tailRows(config.format);
  const int64_t slotRows = int64_t(config.kvHeads) * rows * byteSize(config.type);
  tailKBytes = slotRows * config.dk;
  tailVBytes = slotRows * config.dv;
  layerTailKBytes = config.sequences * tailKBytes; // as rows are, a multiple of 64
  layerTailVBytes = config.sequences * tailVBytes;
  bytes = config.layers * (poolBytes + layerTailKBytes + layerTailVBytes);
  splitTokens = std::max<int64_t>(1, splitPolicy(config).tokens / config.pageTokens) * config.pageTokens;
  windowPages = windowPagesOf(config);
}

int64_t Geometry::firstPage(int64_t bodyTokens, const Frontier &packed) const {
  if (attentionWindow == 0)
    return 0;
  const int64_t unseen = bodyTokens - kChunkTokens - attentionWindow + 1; // tokens below it
  return std::max<int64_t>(0, std::min({unseen, packed.k, packed.v}) / pageTokens);
}

AttendRows::AttendRows(int ratio) {
  for (int rows = ratio; rows <= std::max(8, ratio); rows += ratio)
    rows_[size_++] = rows;
  for (int rows : {12, 16, 20, 24, 28, 32})
    if (rows > rows_[size_ - 1])
      rows_[size_++] = rows;
}

AttendRows::AttendRows(const CacheConfig &config) : AttendRows(config.ratio()) {
  if (!config.onAccelerator)
    return;
  size_ = 0;
  rows_[size_++] = 8;
  const bool isWide = config.type == ElementType::F32 || config.accuracy == Accuracy::Full;
  if (std::max(config.dk, config.dv) <= (isWide ? 64 : 128))
    rows_[size_++] = 16;
}

int AttendRows::kernelFor(int rows) const {
  return static_cast<int>(std::lower_bound(rows_, rows_ + size_, rows) - rows_);
}

int cacheKernels(const CacheConfig &config) { return attendKernel(AttendRows(config).size()); }

// The fields that all kernels of a cache have.
static KernelRequest commonRequest(const CacheConfig &config) {
  KernelRequest request;
  request.pair = resolve(config.format.pair, config.dk, config.dv); // text_c9
  request.profile = config.profile;
  request.pageTokens = config.pageTokens;
  request.dk = config.dk;
  request.dv = config.dv;
  request.type = config.type;
  return request;
}

KernelRequest convertRequest(const CacheConfig &config, bool isK, Profile from) {
  KernelRequest request = commonRequest(config);
  request.op = isK ? KernelOp::ConvertK : KernelOp::ConvertV;
  request.from = from;
  request.type = ElementType::F32; // caches that differ in it share the kernel
  return request;
}

KernelRequest kernelRequest(const CacheConfig &config, int kernel) {
  KernelRequest request = commonRequest(config);
  // Fields that an operation does not depend on keep their defaults: caches that differ there share the kernel.
  switch (static_cast<CacheKernel>(std::min(kernel, attendKernel(0)))) {
  case CacheKernel::Append:
    request.op = KernelOp::Append;
    break;
  case CacheKernel::QuantizeK:
    request.op = KernelOp::QuantizeK;
    break;
  case CacheKernel::QuantizeV:
    request.op = KernelOp::QuantizeV;
    break;
  case CacheKernel::Attend:
    request.op = KernelOp::Attend;
    request.ratio = config.ratio();
    request.rows = AttendRows(config).rows(kernel - attendKernel(0));
    request.lag = config.format.rule == CommitRule::Sliding;
    request.window = config.attentionWindow > 0;
    request.scoreCap = config.scoreCap > 0;
    request.accuracy = config.accuracy;
    break;
  case CacheKernel::Merge:
    request.op = KernelOp::Merge;
    break;
  case CacheKernel::DequantizeK:
    request.op = KernelOp::DequantizeK;
    break;
  case CacheKernel::DequantizeV:
    request.op = KernelOp::DequantizeV;
    break;
  }
  return request;
}

const ScoreFunction *kernelScore(const CacheConfig &config, int kernel) {
  return kernel < attendKernel(0) ? nullptr : config.score.get();
}

} // namespace kvq
