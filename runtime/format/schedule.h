// SPDX-License-Identifier: Apache-2.0
//
// How a kernel runs, as plain data with one canonical text: "tile_tokens=64,rows=8,vectors=8,prefetch=1", and behind it
// ",blocks=3" where that is not 0 and ",warps=4" where that is not 1. Changing it never changes an answer beyond the
// accuracy class. Which schedules a request can have on a target the compiler says (codegen/ScheduleSpace.h); the
// runtime hands their texts on.
#pragma once

#include "runtime/format/status.h"

#include <string>
#include <string_view>
#include <vector>

namespace kvq {

struct Schedule {
  int tileTokens = 64; // tokens of one step of the key loop
  int rows = 8;        // a register tile of a product has at most so many rows of coefficients
  int vectors = 8;     // and so many vectors of results
  int prefetch = 1;    // pages fetched ahead of the one in work; 0: none
  int blocks = 0;      // blocks for which a multiprocessor of a GPU has registers, at least; 0: the compiler chooses
  int warps = 1;       // warps of a program on a GPU, to which its tiles are dealt in turn
  bool operator==(const Schedule &) const = default;
};

std::string toText(const Schedule &);
// All knobs in their order, each once, without blocks=0 and warps=1. InvalidArgument: which knob is wrong. Whether a
// kernel can have the values is not looked at.
Result<Schedule> parseSchedule(std::string_view text);

// The schedules that are legal for one request on one target, each once; the default is one of them.
struct ScheduleSpace {
  Schedule standard;
  std::vector<Schedule> schedules;
};

// One schedule a line, " (default)" behind the default one; and back. InvalidArgument: a line is no schedule, or not
// exactly one is the default.
std::string toText(const ScheduleSpace &);
Result<ScheduleSpace> parseScheduleSpace(std::string_view text);

// InvalidArgument where a schedule is not among the legal ones: which knob, its value, the values there are, and the
// nearest legal schedule.
Status checkSchedule(const ScheduleSpace &space, const Schedule &schedule);

} // namespace kvq
