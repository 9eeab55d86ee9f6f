// SPDX-License-Identifier: Apache-2.0
//
// Lists of checks as text: ptx-run's --checks and KVQ_PTXSIM_CHECKS.
#pragma once

#include "runtime/format/status.h"
#include "runtime/ptxsim/options.h"

namespace kvq::ptxsim {

// "all" (those on by default), "none", names with commas between; a "-" in front leaves one out, of all if it comes
// first.
Result<uint32_t> parseChecks(const std::string &text);

} // namespace kvq::ptxsim
