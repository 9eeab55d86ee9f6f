// SPDX-License-Identifier: Apache-2.0
//
// Only attention's tile program depends on a schedule.

#include "passes/DefaultSchedule.h"

#include <algorithm>

using namespace mlir::kvq;
using ::kvq::KernelRequest;
using ::kvq::Schedule;

bool mlir::kvq::dividesPage(int64_t tokens, const KernelRequest &request) {
  auto fits = [&](const ::kvq::SideFormat &side) {
    return !side.perChannel() || side.group % tokens == 0 || tokens % side.group == 0;
  };
  return request.pageTokens % tokens == 0 && fits(request.pair.k) && fits(request.pair.v);
}

// Into how many groups V's channels make 32 neighbours, which have coefficients of their own.
static int64_t setsOf(const KernelRequest &request) {
  const ::kvq::SideFormat &v = request.pair.v;
  return v.perChannel() || v.group > 32 ? 0 : 32 / v.group;
}

// Registers for words of other profiles than mma: they are read before all of their codes are needed, those of a group
// for several rows, so that scales of K's groups and coefficients of V's wait as well.
static int64_t wordRegistersOf(const KernelRequest &request, int64_t tokens) {
  if (request.profile == ::kvq::Profile::Mma)
    return 0;
  const ::kvq::SideFormat &k = request.pair.k;
  return tokens * std::max(request.dk, request.dv) / 1024 + (k.perChannel() ? 0 : request.dk / k.group * tokens / 8) +
         setsOf(request) / 2 * request.rows * tokens / 32;
}

// Registers of a lane in which it has its part of the output and of the query, which leaves them where the output is
// large (codegen/nvptx/ParkValues.h), of a tile's scores, of the coefficients of groups of V that are short, or their
// scales, more of them where the output is large, and, where every tile is masked, of masks, of scores on their way
// to a cap, and, if keys follow whose V is not packed, as many as a part of V. Of f32 and of class full coefficients
// and query are two halves, which a turn makes of f32: those of the query also where it has left the registers.
static int64_t registersOf(const KernelRequest &request, int64_t tokens) {
  const ::kvq::SideFormat &v = request.pair.v;
  const bool isWide = request.type == ::kvq::ElementType::F32 || request.accuracy == ::kvq::Accuracy::Full;
  const int64_t out = request.rows * request.dv / 32;
  const int64_t query = out < 64 || isWide ? request.rows * request.dk / 64 : 0;
  const int64_t scales =
      v.perChannel() && v.group < tokens ? (tokens / v.group - 1) * request.dv / (out < 64 ? 64 : 8) : 0;
  const int64_t scores = request.rows * tokens / 32, coefficients = setsOf(request) * request.rows * tokens / 64;
  const int64_t masked =
      request.window ? scores / 2 + (request.scoreCap ? scores : 0) + (request.lag ? tokens * request.dv / 64 : 0) : 0;
  return out + (isWide ? 3 : 1) * query + (isWide ? 2 : 1) * scores + coefficients + scales +
         wordRegistersOf(request, tokens) + masked;
}

// Fewer tokens than these are not made into words of lanes.
static int shortestTile(const KernelRequest &request, const TargetModel &target) {
  if (target.laneRegisters == 0)
    return 16;
  return std::min(request.pageTokens, 32);
}

// What is counted may fill three eighths of them: of schedules with 128, 168 and 255 registers those spill that do not
// fit (measured).
bool mlir::kvq::fitsRegisters(int64_t tokens, const KernelRequest &request, int64_t registers) {
  return registersOf(request, tokens) * 8 <= (registers + 1) * 3;
}

// What is done once a tile (coefficients, the output's rescaling) costs less the longer it is. In memory, with many
// rows, their scores ask for a shorter one, or leave the cache. In registers, codes
// may be 768 a lane, 384 of other profiles than mma, or ptxas spills (measured).
static int64_t longestTile(const KernelRequest &request, const TargetModel &target) {
  if (target.laneRegisters == 0)
    return request.rows > 32 ? 64 : 128;
  const int64_t mostCodes = request.profile == ::kvq::Profile::Mma ? 768 : 384;
  auto fits = [&](int64_t tokens) {
    return fitsRegisters(tokens, request, target.laneRegisters) &&
           tokens * std::max(request.dk, request.dv) <= mostCodes * 32;
  };
  int64_t tokens = 128;
  while (tokens > shortestTile(request, target) && !fits(tokens))
    tokens /= 2;
  return tokens;
}

Schedule mlir::kvq::defaultSchedule(const KernelRequest &request, const TargetModel &target) {
  Schedule schedule;
  schedule.prefetch = 1;
  if (request.op == ::kvq::KernelOp::Attend)
    schedule.warps = static_cast<int>(target.warps);
  if (target.laneRegisters > 0) {
    schedule.rows = schedule.vectors = 1; // they have no meaning there
    // Loads of longer codes are enough bytes on their way (predicted), and registers are scarce.
    if (request.op != ::kvq::KernelOp::Attend || request.pair.k.bits + request.pair.v.bits > target.bitsAhead)
      schedule.prefetch = 0;
  }
  // The longest that fits; where none does, the shortest that there is.
  schedule.tileTokens = 16;
  const int64_t longest = longestTile(request, target);
  for (int tokens = 128, taken = 0; tokens >= 16 && (taken == 0 || taken > longest); tokens -= 16)
    if (takesTile(tokens, request, target) && dividesPage(tokens, request))
      schedule.tileTokens = taken = tokens;
  return schedule;
}

// Lanes take powers of two, and a page as a whole, if its parts begin anew in it.
bool mlir::kvq::takesTile(int64_t tokens, const KernelRequest &request, const TargetModel &target) {
  if (tokens < shortestTile(request, target) || tokens % 16 != 0 || tokens > 256)
    return false;
  bool isPage = tokens < 128 && tokens == request.pageTokens && request.profile == ::kvq::Profile::Mma;
  return target.laneRegisters == 0 || tokens == 128 || tokens == 64 || tokens == 32 || isPage;
}
