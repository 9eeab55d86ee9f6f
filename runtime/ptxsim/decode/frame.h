// SPDX-License-Identifier: Apache-2.0
//
// The register frame of a warp while it is laid out: registers, constants and special registers get places in it.
#pragma once

#include "runtime/ptxsim/decode/program.h"

#include <map>
#include <tuple>

namespace kvq::ptxsim {

// Gives out slots with provisional places; finish() lays them out. Registers that are never live at the same time share
// a place, which keeps the frames of a block in the caches: the PTX of a compiler is in single-assignment form and
// names ten times as many registers as are live. Each keeps a mask of written lanes of its own, and a result never
// shares a place with a source of the same operation, so that a handler may write before it has read everything.
class FrameBuilder {
public:
  // Lanes of bytesOf(type) each; predicates are one mask of 4 bytes.
  Slot place(Type type) { return newSlot(type, false); }
  Slot constant(Type type, uint64_t bits);
  Slot special(Special special, Type type);
  Slot sink() { return sink_.written ? sink_ : sink_ = newSlot(Type::B64, true); }
  // Fills in the kernel's frame and turns the places in its slots into offsets. Needs the targets of branches.
  void finish(Kernel &kernel);

private:
  struct Place {
    uint32_t bytes = 0;            // multiple of 64, or 4 of a predicate
    bool pinned = false;           // has contents from the start, or is a sink
    uint32_t begin = ~0u, end = 0; // operations between which it is live
    uint32_t offset = 0;
  };
  Slot newSlot(Type type, bool pinned);
  void findLifetimes(const Kernel &kernel);
  void extendOverBlocks(const Kernel &kernel);
  uint32_t layOut(uint32_t offset);

  std::vector<Place> places_; // Slot::lanes is an index of it until finish()
  uint32_t written_ = 4;      // offset 0 is nobody's, see sink()
  Slot sink_;
  std::map<std::tuple<int, uint64_t>, Constant> constants_;
  std::map<std::tuple<Special, int>, SpecialUse> specials_;
};

} // namespace kvq::ptxsim
