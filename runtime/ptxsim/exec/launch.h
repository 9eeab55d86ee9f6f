// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "runtime/ptxsim/exec/loaded.h"

namespace kvq::ptxsim {

// Simulator::launch.
Result<Report> launch(const Loaded &module, const Launch &launch, const Options &options, GlobalMemory &memory);

} // namespace kvq::ptxsim
