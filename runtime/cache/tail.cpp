// SPDX-License-Identifier: Apache-2.0
//
// Saving and restoring of ring rows.
#include "runtime/cache/tail.h"

#include <algorithm>

namespace kvq {

void TailUndo::begin(std::span<const StepPart> parts) {
  parts_ = parts;
  std::fill(saved_.begin(), saved_.end(), 0);
  layerBytes_ = 0;
  for (bool isK : {true, false}) {
    std::vector<Run> &runs = isK ? runsK_ : runsV_;
    runs.clear();
    runs.reserve(2 * parts.size()); // a ring's rows begin again once at most
    for (const StepPart &part : parts_) {
      // Body token p overwrites token p - cap. Rows that no query needs are saved too: taking tokens back may.
      const int64_t overwritten = std::min(part.begin, part.end() - geometry_.cap);
      geometry_.forTailRuns(isK ? part.ring.k : part.ring.v, overwritten, [&](int64_t token, int64_t count) {
        runs.push_back({part.sequence, token, count});
        layerBytes_ += config_.kvHeads * count * rowBytes(isK);
      });
    }
  }
}

int64_t TailUndo::place(const Run &run, bool isK) const {
  return (int64_t(run.slot) * config_.kvHeads * geometry_.rows + geometry_.tailRow(run.token)) * rowBytes(isK);
}

template <typename Function>
void TailUndo::forSaved(int layer, DeviceAddress ringK, DeviceAddress ringV, const Function &function) const {
  DeviceAddress saved = rowsOfLayers_.address() + layer * layerBytes_;
  for (bool isK : {true, false})
    for (const Run &run : isK ? runsK_ : runsV_) {
      const int64_t bytes = run.count * rowBytes(isK);
      function((isK ? ringK : ringV) + place(run, isK), saved, bytes, isK);
      saved += config_.kvHeads * bytes;
    }
}

Status TailUndo::save(int layer, DeviceAddress ringK, DeviceAddress ringV) {
  if (saved_[layer] || layerBytes_ == 0)
    return Status::ok();
  // Of the step's first layer, or enough already: nothing that was saved is lost.
  KVQ_RETURN_IF_ERROR(rowsOfLayers_.reserve(config_.layers * layerBytes_));
  saved_[layer] = 1;
  forSaved(layer, ringK, ringV, [&](DeviceAddress tail, DeviceAddress saved, int64_t bytes, bool isK) {
    memory_.copyRows(saved, bytes, tail, pitch(isK), bytes, config_.kvHeads);
  });
  return memory_.state();
}

void TailUndo::restore(int layer, DeviceAddress ringK, DeviceAddress ringV) {
  if (!saved_[layer])
    return;
  saved_[layer] = 0;
  forSaved(layer, ringK, ringV, [&](DeviceAddress tail, DeviceAddress saved, int64_t bytes, bool isK) {
    memory_.copyRows(tail, pitch(isK), saved, bytes, bytes, config_.kvHeads);
  });
}

void TailUndo::clearWritten(int index, DeviceAddress ringK, DeviceAddress ringV) {
  for (const StepPart &part : parts_) {
    const int64_t written = std::min<int64_t>(part.newTokens, (index + 1) * kChunkTokens);
    // Kept tokens, and of the ring one round.
    const int64_t end = std::min<int64_t>(part.begin + written, std::max<int64_t>(part.begin, 0) + geometry_.cap);
    geometry_.forTailRuns(part.begin, end, [&](int64_t token, int64_t count) {
      const Run run{part.sequence, token, count};
      for (bool isK : {true, false})
        memory_.clearRows((isK ? ringK : ringV) + place(run, isK), pitch(isK), count * rowBytes(isK), config_.kvHeads);
    });
  }
}

} // namespace kvq
