// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/decode/registry.h"

namespace kvq::ptxsim {

void addApproximate(Table &) {}
void addHalf(Table &) {}
void addConvert(Table &) {}
void addMatrix(Table &) {}

} // namespace kvq::ptxsim
