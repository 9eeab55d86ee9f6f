// SPDX-License-Identifier: Apache-2.0
//
// How a kernel runs, as plain data with one canonical text, so that the runtime can carry what the compiler chooses
// among. What is legal for a request and a target the compiler says (passes/ScheduleSpace.h). Example:
//   tile_tokens=64,rows=8,vectors=8,prefetch=1
#pragma once

#include "runtime/format/status.h"

#include <string>
#include <string_view>

namespace kvq {

// The fields of #kvq_tile.schedule, with its limits.
struct Schedule {
  int tileTokens = 64; // tokens of one step of the key loop
  int rows = 8;        // at most, of a register tile of products
  int vectors = 8;
  int prefetch = 1; // pages fetched ahead
  bool operator==(const Schedule &) const = default;
};

std::string toText(const Schedule &);
Result<Schedule> parseSchedule(std::string_view text);

} // namespace kvq
