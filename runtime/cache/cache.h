// SPDX-License-Identifier: Apache-2.0
//
// The paged cache: blocks and tail slots in the caller's memory, the host's or an accelerator's, and the sequences that
// own them. Tokens come in by a Step (step.h) only. Not thread-safe; one step may be open at a time.
#pragma once

#include "runtime/cache/block_pool.h"
#include "runtime/cache/block_tables.h"
#include "runtime/cache/cache_memory.h"
#include "runtime/cache/config.h"

#include <array>
#include <functional>
#include <span>

namespace kvq {

// A tensor of rows: [batch, heads, tokens, channels], strides in elements, channels contiguous. It lies where the cache
// does: in the host's memory or in the device's, where the host must not touch it.
struct Tensor {
  void *data = nullptr;
  DeviceAddress address(int64_t element = 0) const {
    return reinterpret_cast<DeviceAddress>(data) + element * byteSize(type);
  }
  ElementType type = ElementType::F32;
  int64_t tokens = 0;
  int64_t batchStride = 0, headStride = 0, tokenStride = 0;
};

struct CacheReport {
  int64_t tokens = 0, sequences = 0, blocksUsed = 0, blocksCapacity = 0;
  int64_t pageBytesUsed = 0, tailBytesUsed = 0, bytesReserved = 0, bytesTouched = 0;
  double bitsPerElement = 0;
};

// What a sequence holds (format-spec section 8). Its number is also its tail slot.
struct SequenceState {
  int64_t length = 0;    // tokens, the kept ones included
  Frontier frontier;     // FK, FV: body tokens that are quantized
  Frontier ring;         // rK, rV: the first body tokens whose rows are in the ring
  int64_t firstPage = 0; // of its block table (step_c3); pages before it were dropped (window_c2)
};

// crop_c4: the fewest tokens that the sequence can be taken back to, as the next query must find all that its window
// shows.
int64_t leastLength(const SequenceState &state, const CacheConfig &config);

class PageConversion;
class Step;
struct StepPart;

class Cache {
public:
  ~Cache();
  // `memory` of at least Geometry::bytes, aligned to 64, stays the caller's. On an accelerator it is an address there.
  static Result<std::unique_ptr<Cache>> create(std::shared_ptr<Device> device, const CacheConfig &config, void *memory,
                                               size_t bytes);
  Status grow(int64_t blocks, int sequences, void *memory, size_t bytes);
  // Compiles or loads all kernels, in parallel; `progress` is called by one thread at a time.
  Status prepare(const std::function<void(const KernelInfo &)> &progress);
  // Opens those that are open again, all or none: schedules may have been chosen. Not while a step is open.
  Status refreshKernels();
  Result<int> addSequence();
  Status removeSequence(int sequence);
  Result<SequenceState> state(int sequence) const;
  // The blocks of an existing sequence, of its pages firstPage .. on; until the cache changes.
  std::span<const int32_t> blocks(int sequence) const { return tables_.of(sequence); }
  CacheReport report() const;

  // fork_c1.
  Result<int> forkSequence(int sequence);
  // crop_c1 to crop_c4: takes the sequence back to `tokens` tokens, gives the number of thawed ones.
  Result<int64_t> cropSequence(int sequence, int64_t tokens);
  // snapshot_c1, snapshot_c2; pages of another profile are converted (snapshot_c3).
  Result<int64_t> snapshotBytes(int sequence) const;
  Status snapshot(int sequence, std::span<uint8_t> out);
  Result<int> restore(std::span<const uint8_t> data);

  // Tokens `first` .. length - 1 as rows; k and v have batchStride 0 and as many tokens.
  Status read(int sequence, int layer, int64_t first, const Tensor &k, const Tensor &v);
  // attention_c12: one logit per query head. Until then a layer has none.
  Status setSinks(int layer, std::span<const float> logits);

  // The cache's step, which plan opens: one at a time, and the next one uses its memory again.
  Step &step() { return *step_; }
  const Step &step() const { return *step_; }

  // The packed data itself: a layer's pages, and the one of a block and KV head.
  DeviceAddress pages(int layer) const { return base_ + geometry_.pageOffset(layer); }
  DeviceAddress page(int layer, int32_t block, int head) const {
    return pages(layer) + geometry_.pageOffset(block, head);
  }

  const CacheConfig &config() const { return config_; }
  const Geometry &geometry() const { return geometry_; }
  const Device &device() const { return *device_; }

private:
  friend class Step;
  struct Sequence : SequenceState {
    bool live = false;
  };

  Cache(std::shared_ptr<Device> device, const CacheConfig &config, DeviceAddress memory);
  Status checkMemory(const Geometry &geometry, const void *memory, size_t bytes);
  Status checkScore();
  Status checkSequence(int sequence) const;
  Status checkChangeable(int sequence) const; // it exists and takes no part in an open step
  Result<const Kernel *> kernel(int which);
  Result<const Kernel *> kernel(CacheKernel which) { return kernel(static_cast<int>(which)); }
  DeviceAddress tailK(int layer) const { return base_ + geometry_.tailKOffset(layer); }
  DeviceAddress tailV(int layer) const { return base_ + geometry_.tailVOffset(layer); }
  // One sequence's rows of K or V in a layer.
  DeviceAddress tailSlot(int layer, bool isK, int slot) const {
    return isK ? tailK(layer) + slot * geometry_.tailKBytes : tailV(layer) + slot * geometry_.tailVBytes;
  }
  int64_t rowBytes(bool isK) const { return int64_t(byteSize(config_.type)) * (isK ? config_.dk : config_.dv); }
  // Kernels may load what they then mask out. Cleared memory keeps such loads finite.
  void clearBlock(int32_t block);
  void clearTail(int slot);
  void copyBlock(int32_t from, int32_t to);
  Result<int> freeSlot() const;
  void release(int slot, int64_t pages);             // the blocks of its table beyond so many
  void occupy(int slot, const SequenceState &state); // nothing can fail any more
  // Brings what kernels see of the tables of these sequences up to date.
  Status showTables(std::span<const StepPart> parts);
  DeviceAddress tablesSeen() const {
    return memory_.isHost() ? reinterpret_cast<DeviceAddress>(tables_.data()) : tablesSeen_.address();
  }
  Status showSinks();
  bool hasSinks(int layer) const;
  DeviceAddress sinksSeen(int layer) const {
    const int64_t first = int64_t(layer) * config_.qHeads;
    return memory_.isHost() ? reinterpret_cast<DeviceAddress>(sinks_.data() + first)
                            : sinksSeen_.address() + first * static_cast<int64_t>(sizeof(float));
  }
  Status copyTail(int slot, int64_t from, int64_t to, bool isK, int layer, const Tensor &out);
  Status dequantize(int sequence, int64_t from, int64_t to, bool isK, int layer, const Tensor &out);
  Status reserveDequantize(int64_t tokens); // so that dequantizing so many tokens takes no more memory of the device
  Status thaw(int sequence, int64_t from, int64_t to, bool isK, const Scratch &dense);
  std::string snapshotText(Profile profile) const; // of a cache that is like this one but for its profile
  Result<Profile> snapshotProfile(std::string_view text) const;
  Status restoreLayers(int slot, const uint8_t *from, PageConversion *conversion);
  int64_t snapshotPayload(std::string_view text, size_t blocks) const;

  std::shared_ptr<Device> device_;
  CacheConfig config_;
  Geometry geometry_;
  CacheMemory memory_; // how the host works on what begins at base_, and on what the cache takes itself
  DeviceAddress base_;
  std::array<KernelRef, kMostCacheKernels> kernels_;
  std::vector<Sequence> sequences_;
  BlockPool pool_;
  BlockTables tables_;
  std::vector<float> sinks_; // [layers][qHeads]
  // On an accelerator, what its kernels see: the block tables, the sink logits, the work items of dequantizing.
  Scratch tablesSeen_{memory_, "block tables of a cache"}, sinksSeen_{memory_, "sink logits of a cache"},
      itemsSeen_{memory_, "work items of a cache"};
  int slotsTouched_ = 0; // tail slots 0 .. slotsTouched_ - 1 have been used at some time
  std::unique_ptr<Step> step_;
};

// Arguments of a kernel (kernel_abi.h).
inline uint64_t word(const void *pointer) { return reinterpret_cast<uint64_t>(pointer); }
inline uint64_t word(int64_t value) { return static_cast<uint64_t>(value); }

} // namespace kvq
