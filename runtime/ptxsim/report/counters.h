// SPDX-License-Identifier: Apache-2.0
//
// The counters one by one, with the names that JSON gives them: what adds them up and what prints them agree by this
// list.
#pragma once

#include "runtime/ptxsim/report/report.h"

namespace kvq::ptxsim {

struct CounterField {
  const char *name;  // in JSON
  const char *title; // in the table
  uint64_t Counters::*value;
};

inline constexpr CounterField kCounterFields[] = {
    {"warp_instructions", "warp instructions", &Counters::warpInstructions},
    {"thread_instructions", "thread instructions", &Counters::threadInstructions},
    {"branches", "branches", &Counters::branches},
    {"divergent_branches", "divergent branches", &Counters::divergentBranches},
    {"barriers", "barriers", &Counters::barriers},
    {"global_requests", "global requests", &Counters::globalRequests},
    {"global_sectors", "global sectors", &Counters::globalSectors},
    {"global_bytes", "global bytes asked for", &Counters::globalBytes},
    {"shared_requests", "shared requests", &Counters::sharedRequests},
    {"shared_wavefronts", "shared wavefronts", &Counters::sharedWavefronts},
    {"bank_conflicts", "bank conflicts", &Counters::bankConflicts},
    {"local_requests", "local requests", &Counters::localRequests},
    {"unique_global_bytes_read", "unique global bytes read", &Counters::uniqueGlobalBytesRead},
    {"unique_global_bytes_written", "unique global bytes written", &Counters::uniqueGlobalBytesWritten},
};
// A counter that is added to the struct must be added to the list.
static_assert(sizeof(kCounterFields) / sizeof(CounterField) + kOpClasses == sizeof(Counters) / sizeof(uint64_t));

struct Coverage {
  size_t lines = 0, executed = 0;
  std::vector<int> missed;
};
Coverage coverageOf(const Report &report);

// "ok", "findings", "deadlock", "limit" or "trap".
const char *statusName(const Report &report);

} // namespace kvq::ptxsim
