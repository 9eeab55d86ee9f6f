// SPDX-License-Identifier: Apache-2.0
//
// The blocks that a step takes and what becomes of them when it commits: new pages, copies of shared ones, pages that
// leave the attention window (format-spec step_c3, fork_c1, window_c2).
#include "runtime/cache/step.h"

#include <algorithm>

namespace kvq {

static bool overlaps(int64_t begin, int64_t end, int64_t from, int64_t to) {
  return from < to && begin < to && from < end;
}

Step::Reservation Step::reservationOf(const Cache &cache, const StepPart &part) {
  const SequenceState &state = cache.sequences_[part.sequence];
  const int64_t page = cache.config_.pageTokens;
  const Frontier from = part.frontier, to = part.stateAt(cache.config_.format, part.end());
  Reservation reservation;
  reservation.begin = state.firstPage + static_cast<int64_t>(state.blocks.size());
  for (size_t i = 0; i < state.blocks.size(); ++i) {
    const int64_t number = state.firstPage + static_cast<int64_t>(i), first = number * page;
    const bool written = overlaps(first, first + page, from.k, to.k) || overlaps(first, first + page, from.v, to.v);
    if (written && cache.pool_.isShared(state.blocks[i]))
      reservation.copiedPages.push_back(static_cast<int32_t>(number));
  }
  reservation.end = std::max(reservation.begin, (std::max(to.k, to.v) + page - 1) / page);
  reservation.fresh = std::min(reservation.end - reservation.begin, cache.geometry_.windowPages);
  return reservation;
}

Result<int64_t> Step::blocksNeeded(const Cache &cache, const PlanDesc &desc) {
  auto parts = makeParts(cache, desc);
  if (!parts.isOk())
    return parts.status();
  int64_t needed = 0;
  for (const StepPart &part : parts.value())
    needed += reservationOf(cache, part).blocks();
  return needed;
}

Status Step::reserveBlocks() {
  int64_t missing = 0;
  for (const StepPart &part : parts_) {
    reservations_.push_back(reservationOf(cache_, part));
    missing += reservations_.back().blocks();
  }
  const int64_t available = cache_.pool_.free();
  if (missing > available)
    return {Code::ResourceExhausted, "the step needs " + std::to_string(missing) + " more blocks but " +
                                         std::to_string(available) + " of " + std::to_string(cache_.config_.blocks) +
                                         " are free: " + std::to_string(missing - available) +
                                         " are missing, so remove sequences or kvq_cache_grow"};
  reserved_.reserve(missing);
  for (size_t p = 0; p < parts_.size(); ++p)
    takeBlocks(parts_[p], reservations_[p]);
  return Status::ok();
}

// Appends the part's pages to the table. A page that takes the block of an earlier one does so only when no query of
// the step sees that one any more: the chunk that begins to write it has passed the window.
void Step::takeBlocks(StepPart &part, const Reservation &reservation) {
  SequenceState &state = cache_.sequences_[part.sequence];
  // Committing must not run out of memory halfway.
  if (const size_t total = state.blocks.size() + reservation.fresh; total > state.blocks.capacity())
    state.blocks.reserve(std::max(total, 2 * state.blocks.capacity()));
  const size_t base = table_.size();
  part.tableBase = static_cast<int>(static_cast<int64_t>(base) - state.firstPage);
  table_.insert(table_.end(), state.blocks.begin(), state.blocks.end());
  for (int32_t page : reservation.copiedPages) {
    int32_t &entry = table_[base + page - state.firstPage];
    reserved_.push_back(cache_.pool_.take());
    cache_.copyBlock(entry, reserved_.back());
    entry = reserved_.back();
  }
  const size_t firstFresh = reserved_.size();
  for (int64_t i = 0; i < reservation.fresh; ++i) {
    reserved_.push_back(cache_.pool_.take());
    cache_.clearBlock(reserved_.back());
  }
  for (int64_t page = reservation.begin; page < reservation.end; ++page)
    table_.push_back(reserved_[firstFresh + (page - reservation.begin) % reservation.fresh]);
}

// Every block of the part's table gets its owner or goes back.
void Step::commitPart(const StepPart &part, const Reservation &reservation) {
  SequenceState &state = cache_.sequences_[part.sequence];
  const auto blockOf = [&](int64_t page) { return table_[part.tableBase + page]; };
  BlockPool &pool = cache_.pool_;
  for (int32_t page : reservation.copiedPages) {
    pool.release(state.blocks[page - state.firstPage]);
    state.blocks[page - state.firstPage] = blockOf(page);
  }
  state.length += part.newTokens;
  state.frontier = part.stateAt(cache_.config_.format, part.end());
  const int64_t body = std::max<int64_t>(0, part.end());
  for (bool isK : {true, false}) {
    int64_t &ring = isK ? state.ring.k : state.ring.v;
    ring = std::max<int64_t>(ring, body - cache_.geometry_.cap);
  }
  // Pages before `first` are dropped. Of the new pages the last ones are left, each in a block of its own.
  const int64_t first = std::max(state.firstPage, cache_.geometry_.firstPage(body, state.frontier));
  const int64_t oldLeft = std::max<int64_t>(0, reservation.begin - first);
  const auto dropped = state.blocks.end() - std::min<int64_t>(oldLeft, state.blocks.size());
  std::for_each(state.blocks.begin(), dropped, [&](int32_t block) { pool.release(block); });
  state.blocks.erase(state.blocks.begin(), dropped);
  const int64_t kept = std::max(reservation.begin, first);
  for (int64_t i = 0; i < reservation.fresh; ++i) {
    const int64_t last = reservation.end - reservation.fresh + i; // pages last, last - fresh, .. had this block
    if (last < kept)
      pool.release(blockOf(last));
  }
  for (int64_t page = kept; page < reservation.end; ++page)
    state.blocks.push_back(blockOf(page));
  state.firstPage = first;
}

} // namespace kvq
