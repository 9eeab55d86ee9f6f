// SPDX-License-Identifier: Apache-2.0
//
// The work lists of one chunk (format-spec tail_c1: up to 32 new tokens of each sequence): what to append, what to
// quantize, which programs attend. Lists depend on lengths only, so every layer uses the same; they hold no pointers.
#pragma once

#include "runtime/cache/config.h"

#include <kvq/kernel_abi.h>

#include <algorithm>
#include <span>
#include <vector>

namespace kvq {

// What one sequence does in a step. Positions are body indices, as in the kernel ABI.
struct StepPart {
  int sequence = 0;        // its number, which is also its tail slot
  int64_t begin = 0;       // position of its first new token
  Frontier frontier, ring; // of the sequence before the step
  int newTokens = 0;
  int64_t first = -1; // where its new tokens begin along T; -1: they are the last ones
  int tableBase = 0;  // index that page 0 has in the block tables, which may hold later pages only
  int64_t end() const { return begin + newTokens; }
  int64_t firstToken(int64_t tokens) const { return first >= 0 ? first : tokens - newTokens; }
  // The state of a position (attention_c1), or of the sequence once it has so many body tokens.
  Frontier stateAt(const CacheFormat &format, int64_t position) const {
    const Frontier rule = bodyFrontier(format, position);
    return {std::max(frontier.k, rule.k), std::max(frontier.v, rule.v)};
  }
};

struct Chunk {
  int index = -1;
  // Per new token, in the order of sequences. Offsets of the append items are the tensors' and are filled later.
  std::vector<kvq_append_item> append;
  std::vector<int32_t> part, token; // index of its StepPart, and of the token among the part's new tokens
  std::vector<int32_t> positions, kFrontier, vFrontier, splits; // of the queries
  int maxSplits = 0;
  std::vector<kvq_quantize_item> quantizeK, quantizeV;    // brings the packed part to the state after the chunk
  std::vector<kvq_attend_item> attend[AttendRows::kMost]; // programs of each attend kernel, the longest first
  int64_t quantizeTokens = 0, attendKeys = 0; // tokens times heads, keys times programs: how much work it is

  int queries() const { return static_cast<int>(positions.size()); }

  struct Group { // programs that differ in their KV head alone
    kvq_attend_item item;
    int64_t cost;
    int kernel;
  };
  std::vector<Group> groups; // scratch of the planner
};

class Planner {
public:
  // pastOnly: queries see the tokens before the step alone, in the state at its begin (prefill_c2).
  // stride: of the device's ParallelFor.
  Planner(const CacheConfig &config, const Geometry &geometry, int stride)
      : config_(config), geometry_(geometry), kernels_(config), stride_(stride) {}
  void setPastOnly(bool pastOnly) { pastOnly_ = pastOnly; }
  // Fills `chunk` with chunk `index` of the step. `table` holds the block tables of all parts.
  void plan(std::span<const StepPart> parts, const int32_t *table, int index, Chunk &chunk) const;
  // Queries and partial results per query of that chunk, without its lists.
  void size(std::span<const StepPart> parts, int index, int64_t &queries, int64_t &splits) const;

private:
  struct Splits {
    int packed, raw; // splits over packed keys, and over ring rows where those are too many for the last packed one
    int64_t packedBegin, rawBegin;
    int64_t length; // keys of one split
    int total() const { return packed + raw > 0 ? packed + raw : 1; }
  };
  // What the queries of a chunk look at: the position and the state of query i.
  struct Queries {
    const Planner &planner;
    const StepPart &part;
    int64_t first;
    int count;
    // While kept tokens are still to come, the position alone keeps a query of a past-only step from seeing them.
    int64_t position(int i) const { return planner.pastOnly_ && part.begin < 0 ? part.begin - 1 : first + i; }
    // Behind the last body token that query i may see.
    int64_t keysEnd(int i) const { return std::max<int64_t>(0, planner.pastOnly_ ? part.begin : position(i) + 1); }
    Frontier state(int i) const {
      return planner.pastOnly_ ? part.frontier : part.stateAt(planner.config_.format, first + i);
    }
    int64_t lowest(int i) const { return planner.lowestKey(position(i)); }
  };
  // The first body token that a query at this position may see (window_c1); kept tokens count as 0.
  int64_t lowestKey(int64_t position) const {
    return config_.attentionWindow > 0 ? std::max<int64_t>(0, position - config_.attentionWindow + 1) : 0;
  }
  int64_t mostSplits() const;
  Splits splitsOf(const Queries &queries) const;
  void planQuantize(const StepPart &part, const int32_t *table, int64_t from, int64_t to,
                    std::vector<kvq_quantize_item> &items) const;
  void planAttend(const Queries &queries, int queryBase, Chunk &chunk) const;
  kvq_attend_item attendItem(const Queries &queries, const Splits &splits, int row, int rowCount, int split) const;
  void reservePrograms(std::span<const StepPart> parts, int index, Chunk &chunk) const;
  void listPrograms(Chunk &chunk) const;
  void linkPrograms(std::vector<kvq_attend_item> &items) const;

  const CacheConfig &config_;
  const Geometry &geometry_;
  const AttendRows kernels_;
  const int stride_;
  bool pastOnly_ = false;
};

inline int chunkCount(int64_t newTokens) { return static_cast<int>((newTokens + kChunkTokens - 1) / kChunkTokens); }

} // namespace kvq
