// SPDX-License-Identifier: Apache-2.0
//
// The schedules that a kernel of a request can have on a target. Listed is what makes code of its own: a knob without
// effect there has its default's value alone.
#pragma once

#include "codegen/Target.h"

namespace mlir::kvq {

// Of an attend kernel: tiles of tokens that divide the page into whole groups and that the target takes, each with what
// the target varies (Target::scheduleVariants). Of all other kernels the default alone. Ascending, knob by knob. An
// error where the target has no kernel for the request.
::kvq::Result<::kvq::ScheduleSpace> getScheduleSpace(const ::kvq::KernelRequest &request, const Target &target);

} // namespace mlir::kvq
