// SPDX-License-Identifier: Apache-2.0
//
// Control flow and barriers (PTX ISA, "Control Flow Instructions" and "Parallel Synchronization and Communication
// Instructions: bar, barrier"). bra, brx and call are the decoder's; what the executor does by itself has no handler.
#include "runtime/ptxsim/decode/registry.h"
#include "runtime/ptxsim/exec/barrier.h"
#include "runtime/ptxsim/exec/warp.h"

namespace kvq::ptxsim {

namespace {
void nothing(Warp &, const Op &, uint32_t) {}
constexpr Handler kNone = nullptr;
} // namespace

void addControl(Table &table) {
  table.add("ret[.uni]", "=", OpClass::Branch, kNone).flow(Flow::Exit);
  table.add("exit", "=", OpClass::Branch, kNone).flow(Flow::Exit);
  table.add("trap", "=", OpClass::Branch, kNone).flow(Flow::Trap);
  table.add("brkpt", "=", OpClass::Branch, kNone).flow(Flow::Trap);
  table.add("nanosleep.u32", "= u32", OpClass::Barrier, nothing);

  auto barrier = [&](const char *pattern, const char *operands, BarrierKind kind) {
    table.add(pattern, operands, OpClass::Barrier, kNone).flow(Flow::Barrier).tag(int(kind));
  };
  barrier("{bar|barrier}[.cta].sync[.aligned]", "= b32 b32?", BarrierKind::Sync);
  barrier("{bar|barrier}[.cta].arrive[.aligned]", "= b32 b32", BarrierKind::Arrive);
  for (const char *operands : {"u32 = b32 pred", "u32 = b32 b32 pred"})
    barrier("{bar|barrier}[.cta].red.popc[.aligned].u32", operands, BarrierKind::Popc);
  for (const char *operands : {"pred = b32 pred", "pred = b32 b32 pred"}) {
    barrier("{bar|barrier}[.cta].red.and[.aligned].pred", operands, BarrierKind::And);
    barrier("{bar|barrier}[.cta].red.or[.aligned].pred", operands, BarrierKind::Or);
  }
}

} // namespace kvq::ptxsim
