// SPDX-License-Identifier: Apache-2.0
//
// The schedules that a kernel may have on a target: those that make different code, and why another is none of them.
// One of them is the default.
#pragma once

#include "passes/TargetModel.h"
#include "runtime/format/problem.h"
#include "runtime/format/schedule.h"

#include <string>
#include <vector>

namespace mlir::kvq {

// The schedule that a kernel gets where nobody chose one.
::kvq::Schedule defaultSchedule(const ::kvq::KernelRequest &request, const TargetModel &target);
// All of them, the default first.
std::vector<::kvq::Schedule> legalSchedules(const ::kvq::KernelRequest &request, const TargetModel &target);
// Empty for one of them; else one sentence: which limit, which value, and what fits.
std::string whyNotLegal(const ::kvq::Schedule &schedule, const ::kvq::KernelRequest &request,
                        const TargetModel &target);
// Whether a tile of so many tokens cuts the page into equal parts, and each part into whole groups or a group into
// whole parts (expand_c7).
bool dividesPage(int64_t tokens, const ::kvq::KernelRequest &request);

} // namespace mlir::kvq
