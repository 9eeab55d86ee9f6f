// SPDX-License-Identifier: Apache-2.0
//
// Saving and restoring of ring rows.
#include "runtime/cache/tail.h"

#include <algorithm>
#include <cstring>

namespace kvq {

TailUndo::TailUndo(const CacheConfig &config, const Geometry &geometry, std::span<const StepPart> parts)
    : config_(config), geometry_(geometry), parts_(parts.begin(), parts.end()), saved_(config.layers) {
  for (const StepPart &part : parts_) {
    const Frontier state = frontier(config_.format, part.oldLength);
    // Token t overwrites token t - cap.
    const int64_t overwritten = std::min(part.oldLength, part.oldLength + part.newTokens - geometry_.cap);
    for (int64_t token = state.k; token < overwritten; ++token)
      rowsK_.push_back({part.sequence, token});
    for (int64_t token = state.v; token < overwritten; ++token)
      rowsV_.push_back({part.sequence, token});
  }
}

int64_t TailUndo::place(const Row &row, int head, bool isK) const {
  return ((int64_t(row.slot) * config_.kvHeads + head) * geometry_.cap + row.token % geometry_.cap) * rowBytes(isK);
}

void TailUndo::save(int layer, const uint8_t *ringK, const uint8_t *ringV) {
  std::vector<uint8_t> &saved = saved_[layer];
  if (!saved.empty() || rowsK_.size() + rowsV_.size() == 0)
    return;
  saved.resize(config_.kvHeads * (rowsK_.size() * rowBytes(true) + rowsV_.size() * rowBytes(false)));
  uint8_t *to = saved.data();
  for (bool isK : {true, false})
    for (const Row &row : rows(isK))
      for (int head = 0; head < config_.kvHeads; ++head, to += rowBytes(isK))
        std::memcpy(to, (isK ? ringK : ringV) + place(row, head, isK), rowBytes(isK));
}

void TailUndo::restore(int layer, uint8_t *ringK, uint8_t *ringV) {
  std::vector<uint8_t> &saved = saved_[layer];
  if (saved.empty())
    return;
  const uint8_t *from = saved.data();
  for (bool isK : {true, false})
    for (const Row &row : rows(isK))
      for (int head = 0; head < config_.kvHeads; ++head, from += rowBytes(isK))
        std::memcpy((isK ? ringK : ringV) + place(row, head, isK), from, rowBytes(isK));
  saved = {};
}

void TailUndo::clearWritten(int index, uint8_t *ringK, uint8_t *ringV) const {
  for (const StepPart &part : parts_) {
    const int64_t written = std::min<int64_t>({part.newTokens, (index + 1) * kChunkTokens, geometry_.cap});
    for (int64_t token = part.oldLength; token < part.oldLength + written; ++token)
      for (int head = 0; head < config_.kvHeads; ++head) {
        const Row row{part.sequence, token};
        std::memset(ringK + place(row, head, true), 0, rowBytes(true));
        std::memset(ringV + place(row, head, false), 0, rowBytes(false));
      }
  }
}

} // namespace kvq
