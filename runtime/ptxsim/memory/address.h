// SPDX-License-Identifier: Apache-2.0
//
// The generic address space. Shared, local, constant and parameter memory have a window of 4 GiB each below the windows
// of global memory; inside the window the address is the one of the space.
#pragma once

#include "runtime/ptxsim/ptx/module.h"

#include <cstdint>

namespace kvq::ptxsim {

inline constexpr uint64_t kSharedWindow = 0x10, kLocalWindow = 0x11, kConstWindow = 0x12, kParamWindow = 0x13;

constexpr uint64_t genericBase(Space space) {
  switch (space) {
  case Space::Shared:
    return kSharedWindow << 32;
  case Space::Local:
    return kLocalWindow << 32;
  case Space::Const:
    return kConstWindow << 32;
  case Space::Param:
    return kParamWindow << 32;
  default:
    return 0;
  }
}

constexpr Space spaceOf(uint64_t generic) {
  switch (generic >> 32) {
  case kSharedWindow:
    return Space::Shared;
  case kLocalWindow:
    return Space::Local;
  case kConstWindow:
    return Space::Const;
  case kParamWindow:
    return Space::Param;
  default:
    return Space::Global;
  }
}

} // namespace kvq::ptxsim
