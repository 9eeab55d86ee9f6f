// SPDX-License-Identifier: Apache-2.0
//
// What the race checks remember of a piece of memory: a list of accesses, each a kind and a segment. A segment is a
// stretch of one agent (a warp for shared memory, a block for global memory) between two of its releases, so that one
// vector clock answers for all of it. Lists are interned: a cell of shadow memory holds the number of its list, bytes
// that were accessed alike hold the same number, and a step from one list to the next is looked up once and remembered.
//
// The check is exact with respect to `ordered`: an access is compared with every access that it could conflict with. A
// write drops the list before it; what comes later is ordered after those through the write or conflicts with the
// write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvq::ptxsim {

enum class AccessKind : uint8_t { Read, Write, Atomic };

// Two accesses of different agents conflict unless both read or both are atomic.
constexpr bool conflicts(AccessKind a, AccessKind b) { return a != b || a == AccessKind::Write; }

class History {
public:
  static constexpr uint32_t kEmpty = 0;
  struct Node {
    uint32_t parent;
    uint32_t segment;
    AccessKind kind;
  };
  struct Step {
    uint32_t next = kEmpty;
    uint32_t conflict = kEmpty; // a list whose last access conflicts; kEmpty: none
  };

  History();
  // Forgets all lists. Their numbers are not used again, so that shadow memory need not be cleared, unless this returns
  // true: numbers have run out and every cell must be set to kEmpty.
  bool clear();
  // Cells that hold the number of a forgotten list are empty.
  uint32_t current(uint32_t cell) const { return cell < base_ ? kEmpty : cell; }
  uint32_t base() const { return base_; }
  const Node &node(uint32_t list) const { return nodes_[list - base_]; }

  // ordered(segment): all of the segment's accesses happen before this one; sameAgent(segment): of the same agent.
  template <typename Ordered, typename SameAgent>
  Step step(uint32_t list, AccessKind kind, uint32_t segment, Ordered ordered, SameAgent sameAgent) {
    Step result;
    bool present = false;
    for (uint32_t at = list; at != kEmpty; at = node(at).parent) {
      const Node &one = node(at);
      present |= one.kind == kind && one.segment == segment;
      if (result.conflict == kEmpty && conflicts(one.kind, kind) && !sameAgent(one.segment) && !ordered(one.segment))
        result.conflict = at;
    }
    if (kind == AccessKind::Write)
      result.next = present && node(list).parent == kEmpty ? list : intern(kEmpty, kind, segment);
    else if (present)
      result.next = list;
    else if (list != kEmpty && node(list).kind == kind && sameAgent(node(list).segment))
      result.next = intern(node(list).parent, kind, segment);
    else
      result.next = intern(list, kind, segment);
    return result;
  }

private:
  uint32_t intern(uint32_t parent, AccessKind kind, uint32_t segment);
  void grow();
  uint32_t base_ = 1;
  std::vector<Node> nodes_;       // of the lists base_, base_ + 1, ..
  std::vector<uint32_t> buckets_; // open addressing; a number below base_ is a free place
};

// Steps that were taken lately, so that a loop over memory does not search. `key` names everything that the step
// depends on besides the list: the segment, the kind, and what the agent had seen.
class StepCache {
public:
  struct Entry {
    uint64_t key = ~uint64_t(0);
    uint32_t list = 0;
    History::Step step;
  };
  Entry &entry(uint32_t list, uint64_t key) {
    return entries_[(list * 0x9e3779b1u ^ uint32_t(key) * 0x85ebca6bu) >> 24];
  }
  void clear() { entries_.assign(kEntries, {}); }

private:
  static constexpr size_t kEntries = 256;
  std::vector<Entry> entries_ = std::vector<Entry>(kEntries);
};

// Replaces each cell by the list after the access. lookUp(list) gives the Step. Returns the first conflict. Runs of
// equal cells are the rule.
template <typename LookUp> uint32_t stepCells(const History &history, uint32_t *cells, size_t count, LookUp lookUp) {
  const uint32_t base = history.base(), first = history.current(cells[0]);
  uint32_t differ = 0;
  for (size_t i = 0; i < count; ++i)
    differ |= (cells[i] < base ? History::kEmpty : cells[i]) ^ first;
  History::Step step = lookUp(first);
  if (!differ) {
    if (step.next != first)
      for (size_t i = 0; i < count; ++i)
        cells[i] = step.next;
    return step.conflict;
  }
  uint32_t conflict = History::kEmpty, last = first;
  for (size_t i = 0; i < count; ++i) {
    if (const uint32_t list = history.current(cells[i]); list != last) {
      last = list;
      if (conflict == History::kEmpty)
        conflict = step.conflict;
      step = lookUp(last);
    }
    cells[i] = step.next;
  }
  return conflict == History::kEmpty ? step.conflict : conflict;
}

} // namespace kvq::ptxsim
