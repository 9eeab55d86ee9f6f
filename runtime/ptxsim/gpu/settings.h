// SPDX-License-Identifier: Apache-2.0
//
// What kind of GPU is simulated, from the environment:
//   KVQ_PTXSIM_ARCH     sm_80 (default), sm_86, sm_89, sm_90, ..
//   KVQ_PTXSIM_MEMORY   bytes of its memory (default 8 GiB)
//   KVQ_PTXSIM_REPORT   a file to which the JSON report of every launch is appended
//   KVQ_PTXSIM_CHECKS, _SCHEDULE, _SEED, _MMA, _SUBNORMALS, _APPROX, _CP_ASYNC, _THREADS, _LIMIT, _MAX_FINDINGS
//                       as ptx-run's options of these names (gpu/option_text.h)
#pragma once

#include "runtime/format/status.h"
#include "runtime/ptxsim/gpu/arch.h"
#include "runtime/ptxsim/options.h"

namespace kvq::ptxsim {

struct Settings {
  const Arch *arch = findArch("sm_80");
  int64_t memoryBytes = int64_t(8) << 30;
  std::string reportFile;
  Options options;
};

// InvalidArgument names the variable.
Result<Settings> settingsFromEnvironment();

} // namespace kvq::ptxsim
