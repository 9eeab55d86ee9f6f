// SPDX-License-Identifier: Apache-2.0
//
// The shape of a cache and what follows from it: sizes, where things lie in the caller's memory, which kernels are
// needed. Plain data and arithmetic; owns no memory and runs nothing.
#pragma once

#include "runtime/device/device.h"
#include "runtime/format/problem.h"
#include "runtime/format/split_policy.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

namespace kvq {

struct CacheConfig {
  CacheFormat format;
  Profile profile = Profile::Vnni; // of the pages; on an accelerator the device's (onDevice)
  int layers = 1, qHeads = 1, kvHeads = 1, dk = 64, dv = 64;
  ElementType type = ElementType::F32;
  int pageTokens = 64;
  int64_t blocks = 1;
  int sequences = 1;
  int64_t attentionWindow = 0;                // window_c1; 0: a query sees all tokens before it
  float scoreCap = 0;                         // attention_c11; 0: none
  Accuracy accuracy = kDefaultAccuracy;       // of attention; what is stored does not depend on it
  std::shared_ptr<const ScoreFunction> score; // of attention; null: none
  std::optional<SplitPolicy> splits;          // none: the one that was chosen (split_choice.h), or the default one
  bool onAccelerator = false;                 // of the device (onDevice), which the caller does not choose here
  int ratio() const { return qHeads / kvHeads; }
};

// The same cache on that device: how its pages are laid out, which kernels attend, how the keys are split.
CacheConfig onDevice(CacheConfig config, const Device &device);
// The same on devices of that target, which need not be here.
CacheConfig onTarget(CacheConfig config, std::string_view target);

// InvalidArgument or Unsupported with the name of the field.
Status checkConfig(const CacheConfig &config);

inline constexpr int kMostKvHeads = 65536;

// How the keys of a sequence are split over programs: as the config says, or as its device has it by default. It stays
// as long as the cache does and depends on nothing else, so that a result depends neither on the number of threads nor
// on the other sequences of a step.
SplitPolicy splitPolicy(const CacheConfig &config);

// Sizes and places. The caller's memory holds the page pools of all layers, then the tails of all layers, each K before
// V (format-spec tail_c1, tail_c2).
struct Geometry {
  explicit Geometry(const CacheConfig &config);
  // Of a cache that grew to this config: its runs stay as long as they are.
  Geometry(const CacheConfig &config, int64_t runBlocks);
  int64_t runBlocks; // page_c4: E, a power of two
  int64_t pageBytes, blockStride, headStride;
  int64_t blockBytes, poolBytes;            // of a block's pages; of one layer's pages, whole runs
  int cap, rows;                            // of the ring; of a tail, with kept tokens (tail_c1)
  int64_t tailKBytes, tailVBytes;           // of one slot in one layer
  int64_t layerTailKBytes, layerTailVBytes; // of all slots
  int64_t bytes;                            // in all
  int64_t splitTokens;                      // packed tokens of the shortest work item; a multiple of the page
  int64_t windowPages; // pages that a sequence needs at once under an attention window (window_c2); else no limit

  int64_t pageOffset(int layer) const { return layer * poolBytes; }
  // Of the page of a block and KV head in its layer (page_c4).
  int64_t pageOffset(int32_t block, int head) const { return block * blockStride + head * headStride; }
  int64_t tailKOffset(int layer) const { return layers * poolBytes + layer * (layerTailKBytes + layerTailVBytes); }
  int64_t tailVOffset(int layer) const { return tailKOffset(layer) + layerTailKBytes; }
  // Row of a body token in its head's part of a tail; a negative one is kept (tail_c1).
  int64_t tailRow(int64_t position) const { return position < 0 ? rows + position : position % cap; }
  int64_t tailStride() const {
    return layerTailKBytes + layerTailVBytes;
  } // bytes from a layer's tail to the next one's
  // Calls function(position, count) for the body tokens [from, to) in pieces whose rows in a tail follow each other.
  template <typename Function> void forTailRuns(int64_t from, int64_t to, const Function &function) const {
    for (int64_t end; from < to; from = end) {
      end = std::min(to, from < 0 ? 0 : (from / cap + 1) * cap);
      function(from, end - from);
    }
  }
  // The first page that a sequence of so many body tokens still needs (window_c2).
  int64_t firstPage(int64_t bodyTokens, const Frontier &packed) const;

private:
  int layers, pageTokens;
  int64_t attentionWindow;
};

// The kernels of a cache: one of each operation, and attend kernels for programs of several sizes. A program reads and
// unpacks the keys of its range once for all its rows; a kernel computes all the rows that it is made for.
enum class CacheKernel { Append, QuantizeK, QuantizeV, Merge, DequantizeK, DequantizeV, Attend };

// How many rows the attend kernels of a cache have, ascending: those of one query, of each number of queries up to 8
// rows, where a row too many would cost most, and multiples of 4 up to 32. At 32 rows unpacking is a few hundredths of
// a program and the rows' scores still lie in the cache. On accelerators tiles of a matrix product have 8 or 16 rows,
// and rows that are too many cost nothing; of heads above 128, of f32 and in class full
// above 64, the registers of a warp hold 8.
class AttendRows {
public:
  static constexpr int kMost = 14;
  explicit AttendRows(int ratio);
  explicit AttendRows(const CacheConfig &config);
  int size() const { return size_; }
  int rows(int kernel) const { return rows_[kernel]; }
  int most() const { return rows_[size_ - 1]; }
  // The kernel for a program of so many rows, at most most().
  int kernelFor(int rows) const;

private:
  int rows_[kMost], size_ = 0;
};

// A kernel as a number: those of CacheKernel before Attend, then the attend kernels of AttendRows.
inline constexpr int kMostCacheKernels = static_cast<int>(CacheKernel::Attend) + AttendRows::kMost;
inline int attendKernel(int kernel) { return static_cast<int>(CacheKernel::Attend) + kernel; }
int cacheKernels(const CacheConfig &config); // how many there are
KernelRequest kernelRequest(const CacheConfig &config, int kernel);
// Of the kernels that make pages of this cache out of those of another profile. They are opened where one is converted.
KernelRequest convertRequest(const CacheConfig &config, bool isK, Profile from);
// The score function that such a kernel has, or NULL.
const ScoreFunction *kernelScore(const CacheConfig &config, int kernel);

} // namespace kvq
