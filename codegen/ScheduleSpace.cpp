// SPDX-License-Identifier: Apache-2.0

#include "codegen/ScheduleSpace.h"

#include "passes/DefaultSchedule.h"

#include <tuple>

using namespace mlir;
using namespace mlir::kvq;
using ::kvq::Schedule;

static constexpr int kMostTokens = 256; // schedule_c1

::kvq::Result<::kvq::ScheduleSpace> mlir::kvq::getScheduleSpace(const ::kvq::KernelRequest &request,
                                                                const Target &target) {
  KVQ_RETURN_IF_ERROR(target.checkRequest(request));
  ::kvq::ScheduleSpace space;
  const TargetModel model = target.model();
  space.standard = defaultSchedule(request, model);
  if (request.op != ::kvq::KernelOp::Attend) {
    space.schedules = {space.standard};
    return space;
  }
  for (int tokens = 16; tokens <= kMostTokens; tokens += 16) {
    if (tokens != space.standard.tileTokens && !(dividesPage(tokens, request) && takesTile(tokens, request, model)))
      continue;
    Schedule schedule = space.standard;
    schedule.tileTokens = tokens;
    llvm::append_range(space.schedules, target.scheduleVariants(request, schedule));
  }
  auto knobs = [](const Schedule &s) {
    return std::tuple(s.tileTokens, s.rows, s.vectors, s.prefetch, s.blocks, s.warps);
  };
  llvm::sort(space.schedules, [&](const Schedule &a, const Schedule &b) { return knobs(a) < knobs(b); });
  return space;
}
