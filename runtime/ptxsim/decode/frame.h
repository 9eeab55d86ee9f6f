// SPDX-License-Identifier: Apache-2.0
//
// The register frame of a warp while it is laid out: registers, constants and special registers get places in it.
#pragma once

#include "runtime/ptxsim/decode/program.h"

#include <map>

namespace kvq::ptxsim {

class FrameBuilder {
public:
  // Lanes of `bytes` each; predicates are one mask of 4 bytes.
  Slot place(Type type) { return type == Type::Pred ? placePredicate() : placeLanes(bytesOf(type)); }
  Slot constant(Type type, uint64_t bits);
  Slot special(Special special, Type type);
  Slot sink() { return sink_.lanes ? sink_ : sink_ = placeLanes(8); }
  // Moves what was collected to the kernel. Offsets are final only now: masks of written lanes come first.
  void finish(Kernel &kernel);

private:
  Slot placeLanes(int bytes);
  Slot placePredicate();

  // While slots are given out, `lanes` counts from 64 in its own area; finish() adds the size of the area of masks.
  uint32_t lanes_ = 64, written_ = 0;
  uint32_t predicates_ = 0, predicatesLeft_ = 0; // a line of 16 predicates that is being filled
  Slot sink_;
  std::map<std::tuple<int, uint64_t>, Constant> constants_;
  std::map<std::tuple<Special, int>, SpecialUse> specials_;
};

} // namespace kvq::ptxsim
