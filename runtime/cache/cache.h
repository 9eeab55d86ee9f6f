// SPDX-License-Identifier: Apache-2.0
//
// The paged cache: blocks and tail slots in the caller's memory, and the sequences that own them. Tokens come in by a
// Step (step.h) only. Not thread-safe; one step may be open at a time.
#pragma once

#include "runtime/cache/config.h"
#include "runtime/device/device.h"

#include <array>
#include <functional>

namespace kvq {

// A tensor of rows: [batch, heads, tokens, channels], strides in elements, channels contiguous.
struct Tensor {
  void *data = nullptr;
  ElementType type = ElementType::F32;
  int64_t tokens = 0;
  int64_t batchStride = 0, headStride = 0, tokenStride = 0;
};

struct CacheReport {
  int64_t tokens = 0, sequences = 0, blocksUsed = 0, blocksCapacity = 0;
  int64_t pageBytesUsed = 0, tailBytesUsed = 0, bytesReserved = 0;
  double bitsPerElement = 0;
};

class Cache {
public:
  // `memory` of at least Geometry::bytes, aligned to 64, stays the caller's.
  static Result<std::unique_ptr<Cache>> create(std::shared_ptr<Device> device, const CacheConfig &config, void *memory,
                                               size_t bytes);
  Status grow(int64_t blocks, int sequences, void *memory, size_t bytes);
  // Compiles or loads all kernels, in parallel; `progress` is called by one thread at a time.
  Status prepare(const std::function<void(const KernelInfo &)> &progress);
  Result<int> addSequence();
  Status removeSequence(int sequence);
  Result<int64_t> length(int sequence) const;
  CacheReport report() const;
  // All tokens as rows; k and v have batchStride 0 and tokens == length.
  Status read(int sequence, int layer, const Tensor &k, const Tensor &v);

  // The packed data itself: blocks of a layer, numbers of the blocks of a sequence.
  uint8_t *pages(int layer) const { return memory_ + geometry_.pageOffset(layer); }
  Result<std::vector<int32_t>> blocks(int sequence) const;

  const CacheConfig &config() const { return config_; }
  const Geometry &geometry() const { return geometry_; }

private:
  friend class Step;
  struct Sequence {
    bool live = false;
    int64_t length = 0;
    std::vector<int32_t> blocks; // format-spec step_c3
  };

  Cache(std::shared_ptr<Device> device, const CacheConfig &config, void *memory);
  Status checkSequence(int sequence) const;
  Result<const Kernel *> kernel(CacheKernel which);
  uint8_t *tailK(int layer) const { return memory_ + geometry_.tailKOffset(layer); }
  uint8_t *tailV(int layer) const { return memory_ + geometry_.tailVOffset(layer); }
  // Kernels may load what they then mask out. Cleared memory keeps such loads finite.
  void clearBlock(int32_t block);
  void clearTail(int slot);
  void copyTail(int slot, int64_t from, int64_t to, bool isK, int layer, const Tensor &out) const;
  Status dequantize(const Sequence &sequence, int64_t tokens, bool isK, int layer, const Tensor &out);

  std::shared_ptr<Device> device_;
  CacheConfig config_;
  Geometry geometry_;
  uint8_t *memory_;
  std::array<KernelRef, kCacheKernels> kernels_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> freeBlocks_; // the next one to use is the last
  const class Step *open_ = nullptr;
};

// Arguments of a kernel (kernel_abi.h).
inline uint64_t word(const void *pointer) { return reinterpret_cast<uint64_t>(pointer); }
inline uint64_t word(int64_t value) { return static_cast<uint64_t>(value); }

} // namespace kvq
