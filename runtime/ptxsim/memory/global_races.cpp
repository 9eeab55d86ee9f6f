// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/memory/global_races.h"
#include "runtime/ptxsim/exec/warp.h"

#include <algorithm>

namespace kvq::ptxsim {

uint32_t PublishedLog::epochOf(uint64_t block, size_t count) const {
  const auto found = byBlock.find(block);
  if (found == byBlock.end())
    return 0;
  const std::vector<uint32_t> &positions = found->second;
  const auto end = std::lower_bound(positions.begin(), positions.end(), count);
  return end == positions.begin() ? 0 : entries[end[-1]].epoch;
}

void PublishedLog::add(uint64_t block, uint32_t epoch) {
  if (epoch <= epochOf(block, entries.size()))
    return;
  byBlock[block].push_back(uint32_t(entries.size()));
  entries.push_back({block, epoch});
}

namespace {

// Returns whether this added something.
bool addTo(std::vector<Acquired> &all, const Acquired &one) {
  if (one.count == 0)
    return false;
  for (Acquired &present : all)
    if (present.log == one.log) {
      const bool more = one.count > present.count;
      present.count = std::max(present.count, one.count);
      return more;
    }
  all.push_back(one);
  return true;
}

} // namespace

// Holds the page while its cells change, where several workers run.
class GlobalRaces::Locked {
public:
  Locked(Page &page, bool threaded) : page_(threaded ? &page : nullptr) {
    while (page_ && page_->busy.test_and_set(std::memory_order_acquire)) {
    }
  }
  ~Locked() {
    if (page_)
      page_->busy.clear(std::memory_order_release);
  }
  Locked(const Locked &) = delete;
  Locked &operator=(const Locked &) = delete;

private:
  Page *page_;
};

GlobalRaces::Pages::~Pages() {
  for (std::atomic<Page *> &page : at)
    delete page.load();
}

BlockClock &GlobalRaces::clockOf(Block &block) {
  if (!block.clock)
    block.clock = std::make_shared<BlockClock>();
  BlockClock &clock = *block.clock;
  if (clock.launch != this || clock.block != block.number) {
    const uint64_t version = clock.version + 1; // entries of its cache must not be taken for new ones
    clock.seen.clear();
    clock.pending.clear();
    clock.fenced.clear();
    clock.launch = this;
    clock.block = block.number;
    clock.epoch = 1;
    clock.segment = 0;
    clock.version = version;
    clock.fencedEpoch = 0;
    clock.anyFence = false;
  }
  if (!clock.segment) {
    std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
    if (threaded_)
      lock.lock();
    clock.segment = uint32_t(segments_.size());
    segments_.push_back({block.number, clock.epoch});
  }
  return clock;
}

GlobalRaces::Pages &GlobalRaces::pagesOf(const Allocation &allocation) {
  auto &recent = recent_[(allocation.base >> 32) % std::size(recent_)];
  if (!threaded_ && recent.first == allocation.base)
    return *recent.second;
  std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
  if (threaded_)
    lock.lock();
  std::unique_ptr<Pages> &pages = pages_[allocation.base];
  if (!pages)
    pages = std::make_unique<Pages>(size_t((uint64_t(allocation.size) + kPage - 1) >> kPageBits));
  if (!threaded_)
    recent = {allocation.base, pages.get()};
  return *pages;
}

GlobalRaces::Page &GlobalRaces::page(Pages &pages, uint64_t index) {
  Page *found = pages.at[index].load(std::memory_order_acquire);
  if (found)
    return *found;
  Page *made = new Page();
  if (pages.at[index].compare_exchange_strong(found, made))
    return *made;
  delete made;
  return *found;
}

bool GlobalRaces::isOrdered(const BlockClock &clock, uint32_t segment) const {
  const PublishedLog::Entry &entry = segments_[segment];
  for (const Acquired &one : clock.seen)
    if (one.log->epochOf(entry.block, one.count) >= entry.epoch)
      return true;
  return false;
}

History::Step GlobalRaces::look(BlockClock &clock, AccessKind kind, uint32_t list) {
  const uint64_t key = clock.version << 2 | uint64_t(kind);
  StepCache::Entry &entry = clock.cache.entry(list, key);
  if (entry.key == key && entry.list == list)
    return entry.step;
  std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
  if (threaded_)
    lock.lock();
  entry.step = history_.step(
      list, kind, clock.segment, [&](uint32_t segment) { return isOrdered(clock, segment); },
      [&](uint32_t segment) { return segments_[segment].block == clock.block; });
  entry.key = key;
  entry.list = list;
  return entry.step;
}

// A range within one page.
inline uint32_t GlobalRaces::step(BlockClock &clock, Page &page, AccessKind kind, uint32_t offset, uint32_t bytes) {
  const Locked locked(page, threaded_);
  if (!page.bytes && ((offset | bytes) & 3)) {
    page.cells.resize(kPage);
    for (int i = int(kPage) - 1; i >= 0; --i)
      page.cells[size_t(i)] = page.cells[size_t(i) / 4];
    page.bytes = true;
  }
  const uint32_t shift = page.bytes ? 0 : 2;
  return stepCells(history_, page.cells.data() + (offset >> shift), bytes >> shift,
                   [&](uint32_t list) { return look(clock, kind, list); });
}

GlobalRaces::Conflict GlobalRaces::conflict(uint32_t list, uint32_t lanes) {
  if (list == History::kEmpty)
    return {};
  std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
  if (threaded_)
    lock.lock();
  const History::Node &node = history_.node(list);
  return {lanes, segments_[node.segment].block, node.kind};
}

GlobalRaces::Conflict GlobalRaces::range(Block &block, const Allocation &allocation, AccessKind kind, uint64_t offset,
                                         uint64_t bytes) {
  BlockClock &clock = clockOf(block);
  Pages &pages = pagesOf(allocation);
  uint32_t found = History::kEmpty;
  while (bytes > 0) {
    const uint64_t now = std::min(bytes, kPage - (offset & (kPage - 1)));
    const uint32_t list =
        step(clock, page(pages, offset >> kPageBits), kind, uint32_t(offset & (kPage - 1)), uint32_t(now));
    if (found == History::kEmpty)
      found = list;
    offset += now;
    bytes -= now;
  }
  return conflict(found, ~0u);
}

GlobalRaces::Conflict GlobalRaces::lanes(Block &block, const Allocation &allocation, AccessKind kind, uint32_t mask,
                                         const uint64_t *offsets, uint32_t bytes) {
  BlockClock &clock = clockOf(block);
  Pages &pages = pagesOf(allocation);
  Conflict result;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    const uint64_t offset = offsets[lane];
    const uint32_t within = uint32_t(offset & (kPage - 1));
    Conflict one;
    if (within + bytes > kPage)
      one = range(block, allocation, kind, offset, bytes);
    else
      one = conflict(step(clock, page(pages, offset >> kPageBits), kind, within, bytes), ~0u);
    if (one.lanes)
      result = {result.lanes | 1u << lane, one.block, one.kind};
  }
  return result;
}

void GlobalRaces::fence(Block &block) {
  if (!checks_)
    return;
  BlockClock &clock = clockOf(block);
  for (const Acquired &one : clock.pending)
    addTo(clock.seen, one);
  clock.pending.clear();
  clock.fenced = clock.seen;
  clock.fencedEpoch = clock.epoch++;
  clock.segment = 0;
  clock.anyFence = true;
  ++clock.version;
}

void GlobalRaces::publish(Block &block, uint64_t address, bool isRelease, bool replaces) {
  if (!checks_)
    return;
  BlockClock &clock = clockOf(block);
  if (!isRelease && !clock.anyFence) {
    if (replaces)
      published_.erase(address);
    return;
  }
  std::shared_ptr<PublishedLog> &log = published_[address];
  if (!log || replaces)
    log = std::make_shared<PublishedLog>();
  const std::vector<Acquired> &known = isRelease ? clock.seen : clock.fenced;
  for (const Acquired &one : known)
    if (one.log != log)
      for (size_t i = 0; i < one.count; ++i)
        log->add(one.log->entries[i].block, one.log->entries[i].epoch);
  log->add(clock.block, isRelease ? clock.epoch : clock.fencedEpoch);
  if (isRelease) {
    ++clock.epoch;
    clock.segment = 0;
    ++clock.version;
  }
}

void GlobalRaces::observe(Block &block, uint64_t address, bool atOnce) {
  if (!checks_)
    return;
  const auto found = published_.find(address);
  if (found == published_.end())
    return;
  BlockClock &clock = clockOf(block);
  const Acquired one{found->second, found->second->entries.size()};
  if (!atOnce)
    addTo(clock.pending, one);
  else if (addTo(clock.seen, one))
    ++clock.version;
}

} // namespace kvq::ptxsim
