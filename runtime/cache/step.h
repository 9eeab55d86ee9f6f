// SPDX-License-Identifier: Apache-2.0
//
// A step: the transaction by which tokens enter a cache (format-spec step_c1). Planning reserves everything; appending
// writes where no committed state looks, except ring rows, which are undone; committing only advances lengths and
// cannot fail halfway. Calls of append and attend allocate nothing after the first layer.
#pragma once

#include "runtime/cache/cache.h"
#include "runtime/cache/planner.h"
#include "runtime/cache/tail.h"

namespace kvq {

struct PlanDesc {
  int count = 0;
  const int32_t *sequences = nullptr;
  const int32_t *newTokens = nullptr;
  const int32_t *firstTokens = nullptr; // NULL: the last tokens of the tensors
  bool pastOnly = false;                // attention sees the tokens before the step alone (prefill_c2)
};

// Where attention writes besides its output. lse may have data NULL.
struct AttendBuffers {
  void *workspace = nullptr;
  size_t workspaceBytes = 0;
  Tensor lse; // [batch, heads, tokens]: the channel is not there
};

class Step {
public:
  static Result<std::unique_ptr<Step>> plan(Cache &cache, const PlanDesc &desc);
  // Blocks that plan would take from the pool.
  static Result<int64_t> blocksNeeded(const Cache &cache, const PlanDesc &desc);
  ~Step(); // aborts if the step is still open
  Step(const Step &) = delete;
  Step &operator=(const Step &) = delete;

  int64_t workspaceBytes() const { return oBytes_ + lseBytes_ + outLseBytes_; }
  Status append(int layer, const Tensor &k, const Tensor &v);
  Status attend(int layer, const Tensor &q, float scale, const AttendBuffers &buffers, const Tensor &out);
  Status forward(int layer, const Tensor &q, const Tensor &k, const Tensor &v, float scale,
                 const AttendBuffers &buffers, const Tensor &out);
  Status commit();

  int count() const { return static_cast<int>(parts_.size()); }
  const Cache &cache() const { return cache_; }
  bool takesPart(int sequence) const;
  // InvalidArgument unless a tensor of so many tokens holds the new tokens of all sequences.
  Status checkTokens(const char *name, int64_t tokens) const;

private:
  // The pages of one part: those that it writes to but shares, copied; and new ones at the end.
  struct Reservation {
    std::vector<int32_t> copiedPages; // page numbers
    int64_t begin = 0, end = 0;       // new pages
    int64_t fresh = 0;                // blocks for them: under an attention window they take turns (window_c2)
    int64_t blocks() const { return static_cast<int64_t>(copiedPages.size()) + fresh; }
  };

  Step(Cache &cache, std::vector<StepPart> parts, bool pastOnly);
  static Result<std::vector<StepPart>> makeParts(const Cache &cache, const PlanDesc &desc);
  static Reservation reservationOf(const Cache &cache, const StepPart &part);
  Status openKernels();
  Status reserveBlocks();
  void takeBlocks(StepPart &part, const Reservation &reservation);
  void commitPart(const StepPart &part, const Reservation &reservation);
  void sizeWorkspace();
  void loadChunk(int index);
  Status checkLayer(int layer) const;
  Status checkAppends(int layer) const;
  template <typename AfterChunk>
  Status appendChunks(int layer, const Tensor &k, const Tensor &v, const AfterChunk &afterChunk);
  Status appendChunk(int layer, const Tensor &k, const Tensor &v);
  Status quantizeChunk(int layer);
  Status attendChunk(int layer, const Tensor &q, float scale, const AttendBuffers &buffers, const Tensor &out);
  Status attendChunks(int layer, const Tensor &q, float scale, const AttendBuffers &buffers, const Tensor &out);
  Status mergeChunk(int layer, const AttendBuffers &buffers, const Tensor &out);
  Status badValue(const Tensor &k, const Tensor &v) const;
  void fillOffsets(const Tensor &tensor, std::vector<int64_t> &offsets) const;
  const Kernel &kernel(CacheKernel which) const { return *cache_.kernels_[static_cast<int>(which)]; }
  int64_t offset(const Tensor &tensor, int query) const;

  Cache &cache_;
  std::vector<StepPart> parts_;
  Planner planner_;
  TailUndo undo_;
  int chunks_ = 0;
  std::vector<int32_t> table_; // block tables of all parts, the reserved blocks included
  std::vector<Reservation> reservations_;
  std::vector<int32_t> reserved_; // all blocks taken from the pool
  bool pastOnly_;
  std::vector<char> appended_; // per layer
  Chunk chunk_;                // the one that is loaded
  std::vector<int32_t> status_;
  std::vector<int64_t> qOffsets_, outOffsets_;
  int64_t oBytes_ = 0, lseBytes_ = 0, outLseBytes_ = 0;
  bool open_ = true;
};

} // namespace kvq
