// SPDX-License-Identifier: Apache-2.0
//
// Saving and restoring of ring rows.
#include "runtime/cache/tail.h"

#include <algorithm>
#include <cstring>

namespace kvq {

void TailUndo::begin(std::span<const StepPart> parts) {
  parts_ = parts;
  std::fill(saved_.begin(), saved_.end(), 0);
  rowsK_.clear();
  rowsV_.clear();
  for (const StepPart &part : parts_) {
    // Body token p overwrites token p - cap. Rows that no query needs are saved too: taking tokens back may.
    const int64_t overwritten = std::min(part.begin, part.end() - geometry_.cap);
    for (int64_t token = part.ring.k; token < overwritten; ++token)
      rowsK_.push_back({part.sequence, token});
    for (int64_t token = part.ring.v; token < overwritten; ++token)
      rowsV_.push_back({part.sequence, token});
  }
}

int64_t TailUndo::place(const Row &row, int head, bool isK) const {
  return ((int64_t(row.slot) * config_.kvHeads + head) * geometry_.rows + geometry_.tailRow(row.token)) * rowBytes(isK);
}

void TailUndo::save(int layer, const uint8_t *ringK, const uint8_t *ringV) {
  if (saved_[layer] || layerBytes() == 0)
    return;
  if (const int64_t bytes = config_.layers * layerBytes(); bytes > static_cast<int64_t>(rowsOfLayers_.size()))
    rowsOfLayers_.resize(bytes);
  saved_[layer] = 1;
  uint8_t *to = rowsOfLayers_.data() + layer * layerBytes();
  for (bool isK : {true, false})
    for (const Row &row : rows(isK))
      for (int head = 0; head < config_.kvHeads; ++head, to += rowBytes(isK))
        std::memcpy(to, (isK ? ringK : ringV) + place(row, head, isK), rowBytes(isK));
}

void TailUndo::restore(int layer, uint8_t *ringK, uint8_t *ringV) {
  if (!saved_[layer])
    return;
  saved_[layer] = 0;
  const uint8_t *from = rowsOfLayers_.data() + layer * layerBytes();
  for (bool isK : {true, false})
    for (const Row &row : rows(isK))
      for (int head = 0; head < config_.kvHeads; ++head, from += rowBytes(isK))
        std::memcpy((isK ? ringK : ringV) + place(row, head, isK), from, rowBytes(isK));
}

void TailUndo::clearWritten(int index, uint8_t *ringK, uint8_t *ringV) const {
  for (const StepPart &part : parts_) {
    const int64_t written = std::min<int64_t>(part.newTokens, (index + 1) * kChunkTokens);
    // Kept tokens, and of the ring one round.
    const int64_t end = std::min<int64_t>(part.begin + written, std::max<int64_t>(part.begin, 0) + geometry_.cap);
    for (int64_t token = part.begin; token < end; ++token)
      for (int head = 0; head < config_.kvHeads; ++head) {
        const Row row{part.sequence, token};
        std::memset(ringK + place(row, head, true), 0, rowBytes(true));
        std::memset(ringV + place(row, head, false), 0, rowBytes(false));
      }
  }
}

} // namespace kvq
