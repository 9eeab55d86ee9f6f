// SPDX-License-Identifier: Apache-2.0
//
// What a launch found and counted. Equal launches give equal reports.
#pragma once

#include "runtime/ptxsim/options.h"

#include <cstdint>
#include <string>
#include <vector>

namespace kvq::ptxsim {

struct Finding {
  Check check;
  std::string kernel;
  int line = 0;
  uint32_t block[3] = {0, 0, 0};
  uint64_t blockNumber = 0; // x + grid.x * (y + grid.y * z)
  int warp = 0, lane = 0;
  std::string space; // "global", "shared", ...; empty: no address
  uint64_t address = 0;
  std::string allocation; // name of the buffer, region or variable; empty: none
  std::string message;    // one sentence
};

// Classes of instructions, for counters.
enum class OpClass : uint8_t {
  Alu,
  Fp32,
  Fp64,
  Half,
  Convert,
  Special,
  Logic,
  Move,
  Predicate,
  Branch,
  Barrier,
  Warp,
  Global,
  Shared,
  Local,
  Param,
  Const,
  Generic,
  Atomic,
  AsyncCopy,
  Matrix,
  MatrixLoad
};
inline constexpr int kOpClasses = 22;
const char *nameOf(OpClass opClass);
const char *nameOf(Check check); // as ptx-run's --checks spells it

struct Counters {
  uint64_t warpInstructions = 0, threadInstructions = 0;
  uint64_t branches = 0, divergentBranches = 0, barriers = 0;
  uint64_t globalRequests = 0, globalSectors = 0; // sectors of 32 bytes
  uint64_t globalBytes = 0; // that lanes asked for, each once a request: what is used of the sectors
  uint64_t sharedRequests = 0, sharedWavefronts = 0,
           bankConflicts = 0; // conflicts: wavefronts beyond the least possible
  uint64_t localRequests = 0;
  uint64_t uniqueGlobalBytesRead = 0, uniqueGlobalBytesWritten = 0;
  uint64_t classes[kOpClasses] = {}; // warp instructions
  void add(const Counters &other);
};

struct LineCount {
  int line;
  uint64_t warps, threads; // executions
};

struct Report {
  enum class End : uint8_t { Ok, Deadlock, Limit, Trap } end = End::Ok;
  std::string kernel;
  std::string message; // Deadlock, Limit: where every warp stands; Trap: who trapped
  std::vector<Finding> findings;
  uint64_t findingsTotal = 0; // with those beyond maxFindings and repeated ones
  Counters counters;
  std::vector<LineCount> lines; // every line of the kernel with an instruction, in order; warps == 0: not covered
  bool clean() const { return end == End::Ok && findings.empty(); }
};

std::string toJson(const Report &report);
std::string toTable(const Report &report);
// The PTX text with executions beside each line.
std::string annotate(const Report &report, std::string_view text);

} // namespace kvq::ptxsim
