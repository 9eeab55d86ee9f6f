// SPDX-License-Identifier: Apache-2.0
//
// The parts of addMatrix.
#pragma once

#include "runtime/ptxsim/decode/registry.h"

namespace kvq::ptxsim::mma {

void addFloatProducts(Table &table);   // mma.cpp
void addDoubleProducts(Table &table);  // mma_double.cpp
void addBitProducts(Table &table);     // mma_bit.cpp
void addIntegerProducts(Table &table); // mma_integer.cpp
void addTranspose(Table &table);       // movmatrix.cpp

} // namespace kvq::ptxsim::mma
