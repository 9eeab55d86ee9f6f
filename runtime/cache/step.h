// SPDX-License-Identifier: Apache-2.0
//
// A step: the transaction by which tokens enter a cache (format-spec step_c1). Planning reserves everything; appending
// writes where no committed state looks, except ring rows, which are undone; committing only advances lengths and
// cannot fail halfway. A cache has one step, which is opened again and again in the same memory: a step like an earlier
// one allocates nothing, and does no work that grows with the context but the list of attention's programs.
#pragma once

#include "runtime/cache/cache.h"
#include "runtime/cache/launch_lists.h"
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

// Where attention writes besides its output. lse may have data NULL. On an accelerator all of it is done behind the
// stream's work; NULL is the device's own stream.
struct AttendBuffers {
  void *workspace = nullptr;
  size_t workspaceBytes = 0;
  Stream *stream = nullptr;
  Tensor lse; // [batch, heads, tokens]: the channel is not there
};

class Step {
public:
  explicit Step(Cache &cache); // of which nothing is used yet
  // Opens the step. On an error it is as if it had not been called.
  Status plan(const PlanDesc &desc);
  // Blocks that plan would take from the pool.
  static Result<int64_t> blocksNeeded(const Cache &cache, const PlanDesc &desc);
  bool isOpen() const { return open_; }
  void abort(); // nothing happens if the step is not open
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
    int64_t copies = 0;
    int64_t begin = 0, end = 0; // new pages
    int64_t fresh = 0;          // blocks for them: under an attention window they take turns (window_c2)
    int64_t blocks() const { return copies + fresh; }
  };
  // An entry of a block table that names a copy while the step is open.
  struct Copy {
    int sequence;
    int64_t entry;
    int32_t original;
  };

  static Result<StepPart> makePart(const Cache &cache, const PlanDesc &desc, int index);
  static Status makeParts(const Cache &cache, const PlanDesc &desc, std::vector<StepPart> &parts,
                          std::vector<char> &seen);
  template <typename Function>
  static void forSharedPages(const Cache &cache, const StepPart &part, const Function &function);
  static Reservation reservationOf(const Cache &cache, const StepPart &part);
  Status prepare(bool pastOnly);
  Status openKernels();
  Status reserveBlocks();
  void takeBlocks(StepPart &part, const Reservation &reservation);
  void commitPart(const StepPart &part, const Reservation &reservation);
  Status openAttendKernels(int tokens);
  void sizeWorkspace();
  Status loadChunk(int index);
  Status showChunk();
  Status checkOpen() const;
  Status checkLayer(int layer) const;
  Status checkAppends(int layer) const;
  template <typename AfterChunk>
  Status appendChunks(int layer, const Tensor &k, const Tensor &v, const AfterChunk &afterChunk);
  Status appendChunk(int layer, const Tensor &k, const Tensor &v);
  Status quantizeChunk(int layer);
  Status attendChunk(int layer, const Tensor &q, float scale, const AttendBuffers &buffers, const Tensor &out);
  Status attendChunks(int layer, const Tensor &q, float scale, const AttendBuffers &buffers, const Tensor &out);
  Status mergeChunk(int layer, const AttendBuffers &buffers, const Tensor &out);
  Status countBadValues();
  Status badValue(const Tensor &k, const Tensor &v);
  Status badValueOf(int query, const Tensor &tensor, bool isK);
  Status copyLse(DeviceAddress lse, const Tensor &out);
  Status fillOffsets(const Tensor &tensor, int list, std::vector<int64_t> &offsets);
  // Brings what kernels see of a list up to date.
  template <typename Item> Status show(int list, const std::vector<Item> &items) {
    return cache_.memory_.isHost() ? Status::ok()
                                   : lists_.set(list, items.data(), static_cast<int64_t>(items.size() * sizeof(Item)));
  }
  // Where they see it.
  template <typename Item> uint64_t seen(int list, const std::vector<Item> &items) const {
    return cache_.memory_.isHost() ? word(items.data()) : lists_.address(list);
  }
  Status launch(const Kernel &kernel, std::span<const uint64_t> args, const int64_t grid[3], Spread spread) {
    lists_.send();
    return cache_.memory_.launch(*cache_.device_, kernel, args, grid, spread);
  }
  Status launch(const Kernel &kernel, std::span<const uint64_t> args, int64_t programs, Spread spread) {
    const int64_t grid[3] = {programs, 1, 1};
    return launch(kernel, args, grid, spread);
  }
  const Kernel &kernel(int which) const { return *cache_.kernels_[which]; }
  const Kernel &kernel(CacheKernel which) const { return kernel(static_cast<int>(which)); }
  int64_t offset(const Tensor &tensor, int query) const;

  Cache &cache_;
  std::vector<StepPart> parts_;
  std::vector<char> seen_; // per sequence; scratch of makeParts
  Planner planner_;
  TailUndo undo_;
  int chunks_ = 0;
  std::vector<Reservation> reservations_; // per part
  std::vector<Copy> copies_;
  std::vector<int32_t> reserved_; // all blocks taken from the pool
  bool pastOnly_ = false;
  std::vector<char> appended_; // per layer
  Chunk chunk_;                // the one that is loaded
  LaunchLists lists_;          // of it
  std::vector<int32_t> status_;
  std::vector<int64_t> qOffsets_, outOffsets_;
  int64_t oBytes_ = 0, lseBytes_ = 0, outLseBytes_ = 0;
  bool open_ = false;
};

} // namespace kvq
