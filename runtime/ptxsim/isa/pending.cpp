// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/decode/registry.h"

namespace kvq::ptxsim {

void addMatrix(Table &) {}

} // namespace kvq::ptxsim
