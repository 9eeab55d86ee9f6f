// SPDX-License-Identifier: Apache-2.0
//
// What a launch checks and which of several allowed behaviours it shows.
#pragma once

#include <cstdint>

namespace kvq::ptxsim {

enum class Check : uint8_t {
  Bounds,         // an access outside an allocation, a region or a space; a write to read-only memory
  Align,          // an address that is not a multiple of the access
  UninitRegister, // a register read in a lane that never wrote it
  UninitMemory,   // bytes read that nobody wrote
  SharedRace,     // two warps on the same shared bytes, one of them writing, no barrier between
  WarpRace,       // two lanes of a warp likewise, no bar.warp.sync or other convergence between
  GlobalRace,     // two blocks on the same global bytes, one of them writing, not ordered by atomics and fences
  InFlight,       // bytes of a cp.async that nobody waited for
  Barrier,        // bar.sync in divergent code, or with counts that do not agree
  Mask,           // a .sync member mask that names absent lanes or leaves out the executing one
  Collective,     // mma, ldmatrix and other .aligned instructions with inactive lanes
};
inline constexpr int kChecks = 11;

enum class Schedule : uint8_t { Reconverge, LowestPc };
enum class MmaMode : uint8_t { Exact, Sequential, Truncate };
enum class CpAsyncMode : uint8_t { Latest, Earliest, Random };

struct Options {
  uint32_t checks = ((1u << kChecks) - 1) & ~(1u << int(Check::WarpRace));
  Schedule schedule = Schedule::Reconverge;
  uint64_t seed = 0; // 0: natural order of blocks and warps
  MmaMode mma = MmaMode::Exact;
  bool flushSubnormals = false; // fp16 subnormal inputs of mma
  bool disturb = false;         // approximate functions moved by up to 2 ulp
  CpAsyncMode cpAsync = CpAsyncMode::Latest;
  int threads = 1;
  uint64_t limit = 10'000'000'000; // warp instructions
  int maxFindings = 20;
  bool has(Check check) const { return checks >> int(check) & 1; }
};

} // namespace kvq::ptxsim
