// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/memory/touched_bytes.h"

#include <bit>
#include <set>

namespace kvq::ptxsim {

void TouchedBytes::lanes(Way way, uint64_t base, uint32_t mask, const uint64_t *offsets, uint32_t bytes) {
  Pages &pages = of(base);
  uint64_t last = ~uint64_t(0);
  uint64_t *bits = nullptr;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const uint64_t offset = offsets[std::countr_zero(rest)];
    if ((offset & (kPage - 1)) + bytes > kPage) {
      range(way, base, offset, bytes);
      continue;
    }
    if (offset >> kPageBits != last) {
      last = offset >> kPageBits;
      bits = page(pages, last).bits[way];
    }
    set(bits, uint32_t(offset & (kPage - 1)), bytes);
  }
}

std::pair<uint64_t, uint64_t> TouchedBytes::count(std::span<const TouchedBytes *const> all) {
  uint64_t total[2] = {0, 0};
  std::set<uint64_t> bases;
  for (const TouchedBytes *one : all)
    for (const auto &[base, pages] : one->pages_)
      bases.insert(base);
  for (uint64_t base : bases) {
    std::vector<const Pages *> parts;
    size_t most = 0;
    for (const TouchedBytes *one : all)
      if (const auto found = one->pages_.find(base); found != one->pages_.end()) {
        parts.push_back(&found->second);
        most = std::max(most, found->second.size());
      }
    for (size_t index = 0; index < most; ++index)
      for (int way = 0; way < 2; ++way)
        for (size_t word = 0; word < kPage / 64; ++word) {
          uint64_t bits = 0;
          for (const Pages *part : parts)
            if (index < part->size() && (*part)[index])
              bits |= (*part)[index]->bits[way][word];
          total[way] += uint64_t(std::popcount(bits));
        }
  }
  return {total[kRead], total[kWritten]};
}

void TouchedBytes::clear() {
  pages_.clear();
  for (auto &one : recent_)
    one = {};
}

} // namespace kvq::ptxsim
