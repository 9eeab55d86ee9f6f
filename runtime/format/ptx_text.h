// SPDX-License-Identifier: Apache-2.0
//
// What can be said of a PTX module from its text, without understanding its instructions: what it is made for, and its
// kernels with their parameters.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvq {

// Target of a module, "sm_80" or "sm_90a", and its PTX version times ten, from the directives of the text; empty and 0
// where there are none.
struct PtxTarget {
  std::string name;
  int version = 0;
};
PtxTarget ptxTarget(std::string_view text);
// Whether a GPU of this compute capability runs code for the target: sm_80 runs anywhere from there on, sm_90a on 9.0
// alone.
bool runsPtx(int major, int minor, std::string_view target);

struct PtxEntry {
  struct Parameter {
    int64_t offset, size; // bytes in the parameter buffer
  };
  std::string name;
  std::vector<Parameter> parameters;
  int64_t parameterBytes = 0;
  uint32_t block[3] = {0, 0, 0}; // .reqntid; 0: none
};
// The kernels that the text defines, in its order. What it cannot read it leaves out: whether the text is right at all
// is for a compiler of PTX to say.
std::vector<PtxEntry> ptxEntries(std::string_view text);

} // namespace kvq
