// SPDX-License-Identifier: Apache-2.0
//
// The simulated GPU as an Accelerator.
#pragma once

#include "runtime/device/accelerator.h"
#include "runtime/ptxsim/gpu/settings.h"

namespace kvq {

std::unique_ptr<Accelerator> makePtxsimAccelerator(const ptxsim::Settings &settings);

} // namespace kvq
