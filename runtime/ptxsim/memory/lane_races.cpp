// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/memory/lane_races.h"

#include <bit>

namespace kvq::ptxsim {

int LaneRaces::access(int warp, int lane, AccessKind kind, uint32_t offset, uint32_t bytes) {
  int other = -1;
  if (kind == AccessKind::Atomic)
    return other;
  for (uint32_t at = offset; at < offset + bytes && at < cells_.size(); ++at) {
    Cell &cell = cells_[at];
    if (cell.warp != warp || cell.epoch != epochs_[size_t(warp)])
      cell = {epochs_[size_t(warp)], int8_t(warp), -1, 0, 0};
    const bool sameInstruction = cell.instruction == instruction_;
    if (!sameInstruction && cell.writer >= 0 && cell.writer != lane)
      other = cell.writer;
    const uint32_t otherReaders = cell.readers & ~(1u << lane);
    if (kind == AccessKind::Write && !sameInstruction && otherReaders)
      other = std::countr_zero(otherReaders);
    if (kind == AccessKind::Write) {
      cell.writer = int8_t(lane);
      cell.readers = 0;
    } else {
      cell.readers |= 1u << lane;
    }
    cell.instruction = instruction_;
  }
  return other;
}

} // namespace kvq::ptxsim
