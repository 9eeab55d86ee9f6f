// SPDX-License-Identifier: Apache-2.0
//
// The shape of a cache and what follows from it: sizes, where things lie in the caller's memory, which kernels are
// needed. Plain data and arithmetic; owns no memory and runs nothing.
#pragma once

#include "runtime/format/problem.h"

#include <cstddef>
#include <vector>

namespace kvq {

struct CacheConfig {
  CacheFormat format;
  int layers = 1, qHeads = 1, kvHeads = 1, dk = 64, dv = 64;
  ElementType type = ElementType::F32;
  int pageTokens = 64;
  int64_t blocks = 1;
  int sequences = 1;
  int64_t attentionWindow = 0;          // window_c1; 0: a query sees all tokens before it
  float scoreCap = 0;                   // attention_c11; 0: none
  Accuracy accuracy = kDefaultAccuracy; // of attention; what is stored does not depend on it
  int ratio() const { return qHeads / kvHeads; }
};

// InvalidArgument or Unsupported with the name of the field.
Status checkConfig(const CacheConfig &config);

// Sizes and places. The caller's memory holds the page pools of all layers, then the tails of all layers, each K before
// V (format-spec tail_c1, tail_c2).
struct Geometry {
  explicit Geometry(const CacheConfig &config);
  int64_t pageBytes, blockStride, poolBytes; // poolBytes: one layer's pages
  int cap, rows;                             // of the ring; of a tail, with kept tokens (tail_c1)
  int64_t tailKBytes, tailVBytes;            // of one slot in one layer
  int64_t layerTailKBytes, layerTailVBytes;  // of all slots
  int64_t bytes;                             // in all
  int64_t splitTokens;                       // packed tokens of one work item; a multiple of the page
  int64_t windowPages; // pages that a sequence needs at once under an attention window (window_c2); else no limit

  int64_t pageOffset(int layer) const { return layer * poolBytes; }
  int64_t tailKOffset(int layer) const { return layers * poolBytes + layer * (layerTailKBytes + layerTailVBytes); }
  int64_t tailVOffset(int layer) const { return tailKOffset(layer) + layerTailKBytes; }
  // Row of a body token in its head's part of a tail; a negative one is kept (tail_c1).
  int64_t tailRow(int64_t position) const { return position < 0 ? rows + position : position % cap; }
  // The first page that a sequence of so many body tokens still needs (window_c2).
  int64_t firstPage(int64_t bodyTokens, const Frontier &packed) const;

private:
  int layers, pageTokens;
  int64_t attentionWindow;
};

// Rows of the attend kernel for chunks of more than one query. Eight: enough that a packed row is read once for several
// queries, few enough that the accumulators of one program stay in the first-level cache at any head size.
inline constexpr int kChunkRows = 8;

// The kernels of a cache. Decode is the attend kernel of single queries: its rows are the query heads of a KV head.
enum class CacheKernel { Append, QuantizeK, QuantizeV, Decode, Chunk, Merge, DequantizeK, DequantizeV };
inline constexpr int kCacheKernels = 8;
KernelRequest kernelRequest(const CacheConfig &config, CacheKernel kernel);

} // namespace kvq
