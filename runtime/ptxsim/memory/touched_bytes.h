// SPDX-License-Identifier: Apache-2.0
//
// Which bytes of global memory one worker read and wrote: the unique bytes of a launch, a lower bound of what a device
// has to move.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace kvq::ptxsim {

class TouchedBytes {
public:
  enum Way { kRead, kWritten };
  // Bytes [offset, offset + bytes) of the allocation at `base`.
  void range(Way way, uint64_t base, uint64_t offset, uint64_t bytes) {
    for (Pages &pages = of(base); bytes > 0;) {
      const uint64_t now = std::min(bytes, kPage - (offset & (kPage - 1)));
      set(page(pages, offset >> kPageBits).bits[way], uint32_t(offset & (kPage - 1)), uint32_t(now));
      offset += now;
      bytes -= now;
    }
  }
  // One access of `bytes` (a power of two up to 32, or less where it is not aligned) at offsets[lane] of each lane.
  void lanes(Way way, uint64_t base, uint32_t mask, const uint64_t *offsets, uint32_t bytes);
  // Bytes read and bytes written by at least one of them.
  static std::pair<uint64_t, uint64_t> count(std::span<const TouchedBytes *const> all);
  void clear();

private:
  static constexpr int kPageBits = 16;
  static constexpr uint64_t kPage = uint64_t(1) << kPageBits;
  struct Page {
    uint64_t bits[2][kPage / 64] = {};
  };
  using Pages = std::vector<std::unique_ptr<Page>>;

  Pages &of(uint64_t base) {
    auto &[key, pages] = recent_[(base >> 32) % kRecent];
    if (key != base || !pages) {
      key = base;
      pages = &pages_[base];
    }
    return *pages;
  }
  Page &page(Pages &pages, uint64_t index) {
    if (index >= pages.size())
      pages.resize(index + 1);
    if (!pages[index])
      pages[index] = std::make_unique<Page>();
    return *pages[index];
  }
  static void set(uint64_t *bits, uint32_t at, uint32_t count) {
    while (count > 0) {
      const uint32_t shift = at & 63, now = std::min(count, 64 - shift);
      bits[at >> 6] |= (now == 64 ? ~uint64_t(0) : (uint64_t(1) << now) - 1) << shift;
      at += now;
      count -= now;
    }
  }

  static constexpr size_t kRecent = 16;
  std::pair<uint64_t, Pages *> recent_[kRecent] = {};
  std::unordered_map<uint64_t, Pages> pages_; // by base
};

} // namespace kvq::ptxsim
