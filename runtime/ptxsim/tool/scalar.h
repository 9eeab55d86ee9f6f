// SPDX-License-Identifier: Apache-2.0
//
// Element types of arrays and of scalar parameters, and one value of them from its text.
#pragma once

#include "runtime/format/status.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvq::ptxsim {

struct ScalarType {
  const char *name; // NumPy's; "" where NumPy has none
  const char *ptx;  // as a scalar parameter: "s32"; "" where there is none
  char kind;        // as NumPy's: 'b' bool, 'i', 'u', 'f'; 'e': bfloat16
  int bytes;
};

const ScalarType *numpyType(std::string_view name); // "float32"; null: none
const ScalarType *numpyType(char kind, int bytes);  // 'f', 4; null: none
const ScalarType *ptxType(std::string_view name);   // "f32"; null: none
std::string numpyNames();                           // for messages
std::string ptxNames();

// The bytes of a value, little end first. Integers: decimal or 0x.., in range (0x.. also as the bits of a signed one).
// Floats: decimal, inf, nan, hexadecimal with an exponent (0x1.8p3), or the bits as 0x.. without one. Rounded to
// nearest, ties to even; a finite value that would become infinite is an error.
Result<std::vector<uint8_t>> encode(const ScalarType &type, const std::string &text);

} // namespace kvq::ptxsim
