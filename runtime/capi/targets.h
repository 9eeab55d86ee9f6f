// SPDX-License-Identifier: Apache-2.0
//
// Kernels for machines that are not here.
#pragma once

#include "runtime/capi/handles.h"

#include "runtime/device/target_kernels.h"

#include <vector>

namespace kvq::capi {

// Of each target of a text (parseTargets), by the context's compiler, into its store. `machine` is as
// TargetKernels::open takes it. FailedPrecondition: the context is frozen.
Result<std::vector<std::unique_ptr<TargetKernels>>> targetKernels(const kvq_context &context, const char *targets,
                                                                  const std::string &machine = {});

} // namespace kvq::capi
