// SPDX-License-Identifier: Apache-2.0
//
// The work lists of one chunk (format-spec tail_c1: up to 32 new tokens of each sequence): what to append, what to
// quantize, which programs attend. Lists depend on lengths only, so every layer uses the same; they hold no pointers.
#pragma once

#include "runtime/cache/config.h"

#include <kvq/kernel_abi.h>

#include <span>
#include <vector>

namespace kvq {

// What one sequence does in a step.
struct StepPart {
  int sequence = 0; // its number, which is also its tail slot
  int64_t oldLength = 0;
  int newTokens = 0;
  int64_t first = -1; // where its new tokens begin along T; -1: they are the last ones
  int tableBase = 0;  // of its block table in the step's table
  int64_t firstToken(int64_t tokens) const { return first >= 0 ? first : tokens - newTokens; }
};

struct Chunk {
  int index = -1;
  // Per new token, in the order of sequences. Offsets of the append items are the tensors' and are filled later.
  std::vector<kvq_append_item> append;
  std::vector<int32_t> part, token; // index of its StepPart, and of the token among the part's new tokens
  std::vector<int32_t> positions, kFrontier, vFrontier, splits;
  int maxSplits = 0;
  std::vector<kvq_quantize_item> quantizeK, quantizeV; // brings the packed part to the state after the chunk
  std::vector<kvq_attend_item> decode, chunk;          // programs of the two attend kernels
  int64_t quantizeTokens = 0, attendKeys = 0;          // tokens times heads, keys times programs: how much work it is

  int queries() const { return static_cast<int>(positions.size()); }
};

class Planner {
public:
  Planner(const CacheConfig &config, const Geometry &geometry) : config_(config), geometry_(geometry) {}
  // Fills `chunk` with chunk `index` of the step. `table` holds the block tables of all parts.
  void plan(std::span<const StepPart> parts, std::span<const int32_t> table, int index, Chunk &chunk) const;
  // Queries and partial results per query of that chunk, without its lists.
  void size(std::span<const StepPart> parts, int index, int64_t &queries, int64_t &splits) const;

private:
  struct Splits {
    int packed, raw; // splits over packed keys, and over kept ones where those are too many for the last packed one
    int64_t rawBegin;
    int total() const { return packed + raw > 0 ? packed + raw : 1; }
  };
  Splits splitsOf(int64_t firstPosition, int64_t lastPosition) const;
  void planQuantize(const StepPart &part, std::span<const int32_t> table, int64_t from, int64_t to,
                    std::vector<kvq_quantize_item> &items) const;
  void planAttend(const StepPart &part, int64_t firstPosition, int count, int queryBase, Chunk &chunk) const;

  const CacheConfig &config_;
  const Geometry &geometry_;
};

inline int chunkCount(int64_t newTokens) { return static_cast<int>((newTokens + kChunkTokens - 1) / kChunkTokens); }

} // namespace kvq
