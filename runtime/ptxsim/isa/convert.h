// SPDX-License-Identifier: Apache-2.0
//
// The parts of addConvert, by subject.
#pragma once

#include "runtime/ptxsim/decode/registry.h"

namespace kvq::ptxsim {

void addIntegerConversions(Table &); // between integers; cvt.pack
void addNumberConversions(Table &);  // between floats, and between floats and integers
void addPackedConversions(Table &);  // f16x2, bf16x2, tf32 and numbers of eight bits and fewer

} // namespace kvq::ptxsim
