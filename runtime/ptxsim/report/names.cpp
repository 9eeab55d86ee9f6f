// SPDX-License-Identifier: Apache-2.0
//
// Names of checks and of classes of instructions, as reports and command lines spell them.
#include "runtime/ptxsim/report/report.h"

#include <iterator>

namespace kvq::ptxsim {

static constexpr const char *kCheckNames[] = {"bounds",      "align",     "uninit-register", "uninit-memory",
                                              "shared-race", "warp-race", "global-race",     "in-flight",
                                              "barrier",     "mask",      "collective"};
static_assert(std::size(kCheckNames) == kChecks);

static constexpr const char *kClassNames[] = {"alu",    "fp32",       "fp64",      "half",       "convert", "special",
                                              "logic",  "move",       "predicate", "branch",     "barrier", "warp",
                                              "global", "shared",     "local",     "param",      "const",   "generic",
                                              "atomic", "async_copy", "mma",       "matrix_load"};
static_assert(std::size(kClassNames) == kOpClasses);

const char *nameOf(Check check) {
  const auto index = static_cast<size_t>(check);
  return index < std::size(kCheckNames) ? kCheckNames[index] : "unknown";
}

const char *nameOf(OpClass opClass) {
  const auto index = static_cast<size_t>(opClass);
  return index < std::size(kClassNames) ? kClassNames[index] : "unknown";
}

} // namespace kvq::ptxsim
