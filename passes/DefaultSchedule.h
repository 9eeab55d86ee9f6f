// SPDX-License-Identifier: Apache-2.0
//
// The schedule that a kernel has where nobody chose one, and which tiles of tokens there are for a request.
#pragma once

#include "passes/TargetModel.h"
#include "runtime/format/problem.h"
#include "runtime/format/schedule.h"

namespace mlir::kvq {

::kvq::Schedule defaultSchedule(const ::kvq::KernelRequest &request, const TargetModel &target);
// Whether a tile of so many tokens cuts the page into equal parts, and each part into whole groups or a group into
// whole parts (expand_c7).
bool dividesPage(int64_t tokens, const ::kvq::KernelRequest &request);
// Whether attention by tiles of so many tokens finds room in so many registers of a lane.
bool fitsRegisters(int64_t tokens, const ::kvq::KernelRequest &request, int64_t registers);
// Whether the target has products of so many tokens.
bool takesTile(int64_t tokens, const ::kvq::KernelRequest &request, const TargetModel &target);

} // namespace mlir::kvq
