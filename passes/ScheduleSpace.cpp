// SPDX-License-Identifier: Apache-2.0
//
// Which schedules there are. Only attention's tile program depends on one.

#include "passes/ScheduleSpace.h"

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

// Registers of a lane in which it has its part of the output and of the query, and of a tile's scores.
static int64_t registersOf(const KernelRequest &request, int64_t tokens) {
  return request.rows * request.dv / 32 + request.rows * request.dk / 64 + request.rows * tokens / 32;
}

// Fewer tokens than these are not made into words of one lane each.
static int shortestTile(const KernelRequest &request, const TargetModel &target) {
  if (target.laneRegisters == 0)
    return 16;
  return std::min(request.pageTokens, request.profile == ::kvq::Profile::Mma ? 32 : 64);
}

// What is done once a tile (coefficients, the output's rescaling) costs less the longer it is. In memory, with many
// rows, their scores ask for a shorter one, or leave the cache. In registers, output, query and scores may fill three
// eighths of them, or ptxas spills (measured).
static int64_t longestTile(const KernelRequest &request, const TargetModel &target) {
  if (target.laneRegisters == 0)
    return request.rows > 32 ? 64 : 128;
  int64_t tokens = 128;
  while (tokens > shortestTile(request, target) && registersOf(request, tokens) * 8 > target.laneRegisters * 3)
    tokens /= 2;
  return tokens;
}

Schedule mlir::kvq::defaultSchedule(const KernelRequest &request, const TargetModel &target) {
  Schedule schedule;
  if (target.laneRegisters > 0)
    schedule.rows = schedule.vectors = 1, schedule.prefetch = 0; // they have no meaning there
  int64_t tokens = std::min<int64_t>(request.pageTokens, longestTile(request, target));
  while (tokens > 16 && !dividesPage(tokens, request))
    tokens -= 16;
  schedule.tileTokens = static_cast<int>(tokens);
  return schedule;
}

// Lengths that products of a target take, longest first.
static std::vector<int> tileLengths(const KernelRequest &request, const TargetModel &target) {
  std::vector<int> lengths;
  for (int tokens = 256; tokens >= shortestTile(request, target); tokens -= 16) {
    bool isTaken = target.laneRegisters == 0 || tokens == 128 || tokens == 64 || tokens == 32;
    if (isTaken && dividesPage(tokens, request))
      lengths.push_back(tokens);
  }
  return lengths;
}

std::vector<Schedule> mlir::kvq::legalSchedules(const KernelRequest &request, const TargetModel &target) {
  const Schedule standard = defaultSchedule(request, target);
  std::vector<Schedule> all = {standard};
  if (request.op != ::kvq::KernelOp::Attend)
    return all;
  auto add = [&](const Schedule &schedule) {
    if (std::find(all.begin(), all.end(), schedule) == all.end())
      all.push_back(schedule);
  };
  for (int tokens : tileLengths(request, target)) {
    if (target.laneRegisters > 0) {
      add({tokens, standard.rows, standard.vectors, standard.prefetch});
      continue;
    }
    for (int prefetch = 0; prefetch <= 2; ++prefetch) {
      // The limits of the default leave the shape to the target; others force one that divides the rows.
      add({tokens, standard.rows, standard.vectors, prefetch});
      for (int rows = 1; rows <= std::min<int64_t>({request.rows, target.accumulators, 16}); ++rows)
        for (int vectors = 1; request.rows % rows == 0 && rows * vectors <= target.accumulators && vectors <= 8;
             vectors *= 2)
          add({tokens, rows, vectors, prefetch});
    }
  }
  return all;
}

namespace {

// What is asked for, what it would take, and the nearest that there is.
class Refusal {
public:
  Refusal(const Schedule &schedule, const KernelRequest &request, const TargetModel &target)
      : schedule(schedule), request(request), target(target), all(legalSchedules(request, target)) {}

  std::string why() const {
    if (std::find(all.begin(), all.end(), schedule) != all.end())
      return "";
    if (!has(&Schedule::tileTokens))
      return say("tile_tokens", &Schedule::tileTokens,
                 dividesPage(schedule.tileTokens, request)
                     ? "a kernel of this request does not take on this target"
                     : "which does not divide a page of " + std::to_string(request.pageTokens) +
                           " tokens into whole groups");
    if (!has(&Schedule::prefetch))
      return say("prefetch", &Schedule::prefetch,
                 isChosen() ? "and at most 2 pages are fetched ahead" : "which changes nothing in this kernel");
    if (!isChosen())
      return say(schedule.rows != all.front().rows ? "rows" : "vectors",
                 schedule.rows != all.front().rows ? &Schedule::rows : &Schedule::vectors,
                 "which changes nothing in this kernel");
    if (request.rows % schedule.rows != 0)
      return say("rows", &Schedule::rows, "which does not divide the " + std::to_string(request.rows) + " rows");
    return "rows=" + std::to_string(schedule.rows) + " and vectors=" + std::to_string(schedule.vectors) + " are " +
           std::to_string(schedule.rows * schedule.vectors) + " results in registers, of which the target has " +
           std::to_string(target.accumulators) + " and takes 1, 2, 4 or 8 vectors; use " + nearest();
  }

private:
  bool isChosen() const { return request.op == ::kvq::KernelOp::Attend && target.laneRegisters == 0; }
  bool has(int Schedule::*field) const {
    return std::any_of(all.begin(), all.end(), [&](const Schedule &s) { return s.*field == schedule.*field; });
  }
  std::string say(std::string_view name, int Schedule::*field, const std::string &what) const {
    int best = all.front().*field;
    for (const Schedule &s : all)
      if (std::abs(s.*field - schedule.*field) < std::abs(best - schedule.*field))
        best = s.*field;
    return std::string(name) + " is " + std::to_string(schedule.*field) + ", " + what + "; use " + std::to_string(best);
  }
  // The legal shape whose rows and vectors differ least.
  std::string nearest() const {
    auto distance = [&](const Schedule &s) {
      return std::abs(s.rows - schedule.rows) + std::abs(s.vectors - schedule.vectors);
    };
    const Schedule &best = *std::min_element(
        all.begin(), all.end(), [&](const Schedule &a, const Schedule &b) { return distance(a) < distance(b); });
    return "rows=" + std::to_string(best.rows) + " and vectors=" + std::to_string(best.vectors);
  }

  const Schedule &schedule;
  const KernelRequest &request;
  const TargetModel &target;
  const std::vector<Schedule> all;
};

} // namespace

std::string mlir::kvq::whyNotLegal(const Schedule &schedule, const KernelRequest &request, const TargetModel &target) {
  return Refusal(schedule, request, target).why();
}
