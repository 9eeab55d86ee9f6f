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

// Calls function(entry of the block table) for the pages that the part writes to but shares with another sequence: only
// those between the frontiers before and after it can be among them.
template <typename Function>
void Step::forSharedPages(const Cache &cache, const StepPart &part, const Function &function) {
  const int64_t page = cache.config_.pageTokens, firstPage = cache.sequences_[part.sequence].firstPage;
  const auto blocks = cache.tables_.of(part.sequence);
  const Frontier from = part.frontier, to = part.stateAt(cache.config_.format, part.end());
  const int64_t begin = std::min(from.k, from.v) / page - firstPage;
  const int64_t end = (std::max(to.k, to.v) + page - 1) / page - firstPage;
  for (int64_t entry = std::max<int64_t>(0, begin); entry < std::min<int64_t>(end, blocks.size()); ++entry) {
    const int64_t first = (firstPage + entry) * page;
    const bool written = overlaps(first, first + page, from.k, to.k) || overlaps(first, first + page, from.v, to.v);
    if (written && cache.pool_.isShared(blocks[entry]))
      function(entry);
  }
}

Step::Reservation Step::reservationOf(const Cache &cache, const StepPart &part) {
  const int64_t page = cache.config_.pageTokens;
  const Frontier to = part.stateAt(cache.config_.format, part.end());
  Reservation reservation;
  forSharedPages(cache, part, [&](int64_t) { ++reservation.copies; });
  reservation.begin =
      cache.sequences_[part.sequence].firstPage + static_cast<int64_t>(cache.tables_.of(part.sequence).size());
  reservation.end = std::max(reservation.begin, (std::max(to.k, to.v) + page - 1) / page);
  reservation.fresh = std::min(reservation.end - reservation.begin, cache.geometry_.windowPages);
  return reservation;
}

Result<int64_t> Step::blocksNeeded(const Cache &cache, const PlanDesc &desc) {
  std::vector<StepPart> parts;
  std::vector<char> seen;
  KVQ_RETURN_IF_ERROR(makeParts(cache, desc, parts, seen));
  int64_t needed = 0;
  for (const StepPart &part : parts)
    needed += reservationOf(cache, part).blocks();
  return needed;
}

Status Step::reserveBlocks() {
  int64_t missing = 0, copies = 0;
  for (const StepPart &part : parts_) {
    reservations_.push_back(reservationOf(cache_, part));
    missing += reservations_.back().blocks();
    copies += reservations_.back().copies;
  }
  const int64_t available = cache_.pool_.free();
  if (missing > available)
    return {Code::ResourceExhausted, "the step needs " + std::to_string(missing) + " more blocks but " +
                                         std::to_string(available) + " of " + std::to_string(cache_.config_.blocks) +
                                         " are free: " + std::to_string(missing - available) +
                                         " are missing, so remove sequences or kvq_cache_grow"};
  // All that takes memory comes before anything changes.
  reserved_.reserve(missing);
  copies_.reserve(copies);
  for (size_t p = 0; p < parts_.size(); ++p)
    KVQ_RETURN_IF_ERROR(cache_.tables_.reserve(parts_[p].sequence, reservations_[p].end - reservations_[p].begin));
  for (size_t p = 0; p < parts_.size(); ++p)
    takeBlocks(parts_[p], reservations_[p]);
  return Status::ok();
}

// Puts the blocks of the part's pages into its table, new ones behind its end. A page that takes the block of an
// earlier one does so only when no query of the step sees that one any more: the chunk that begins to write it has
// passed the window.
void Step::takeBlocks(StepPart &part, const Reservation &reservation) {
  const int64_t firstPage = cache_.sequences_[part.sequence].firstPage;
  BlockTables &tables = cache_.tables_;
  const auto blockBefore = [&](int64_t index) {
    return index > 0 ? tables.get(part.sequence, index - 1) : BlockPool::kNone;
  };
  part.tableBase = static_cast<int>(tables.begin(part.sequence) - firstPage);
  forSharedPages(cache_, part, [&](int64_t index) {
    int32_t &entry = tables.at(part.sequence, index);
    copies_.push_back({part.sequence, index, entry});
    reserved_.push_back(cache_.pool_.take(blockBefore(index)));
    cache_.copyBlock(entry, reserved_.back());
    entry = reserved_.back();
  });
  const size_t firstFresh = reserved_.size();
  for (int64_t i = 0; i < reservation.fresh; ++i) {
    reserved_.push_back(cache_.pool_.take(i > 0 ? reserved_.back() : blockBefore(reservation.begin - firstPage)));
    cache_.clearBlock(reserved_.back());
  }
  for (int64_t page = reservation.begin; page < reservation.end; ++page)
    tables.at(part.sequence, page - firstPage) = reserved_[firstFresh + (page - reservation.begin) % reservation.fresh];
}

// Every block of the part's table gets its owner or goes back.
void Step::commitPart(const StepPart &part, const Reservation &reservation) {
  SequenceState &state = cache_.sequences_[part.sequence];
  BlockTables &tables = cache_.tables_;
  const auto blockOf = [&](int64_t page) { return tables.get(part.sequence, page - state.firstPage); };
  BlockPool &pool = cache_.pool_;
  state.length += part.newTokens;
  state.frontier = part.stateAt(cache_.config_.format, part.end());
  const int64_t body = std::max<int64_t>(0, part.end());
  for (bool isK : {true, false}) {
    int64_t &ring = isK ? state.ring.k : state.ring.v;
    ring = std::max<int64_t>(ring, body - cache_.geometry_.cap);
  }
  // Pages before `first` are dropped. Of the new pages the last ones are left, each in a block of its own.
  const int64_t first = std::max(state.firstPage, cache_.geometry_.firstPage(body, state.frontier));
  for (int64_t page = state.firstPage; page < std::min(first, reservation.begin); ++page)
    pool.release(blockOf(page));
  const int64_t kept = std::max(reservation.begin, first);
  for (int64_t i = 0; i < reservation.fresh; ++i) {
    const int64_t last = reservation.end - reservation.fresh + i; // pages last, last - fresh, .. had this block
    if (last < kept)
      pool.release(blockOf(last));
  }
  tables.resize(part.sequence, reservation.end - state.firstPage);
  tables.dropFront(part.sequence, first - state.firstPage);
  state.firstPage = first;
}

} // namespace kvq
