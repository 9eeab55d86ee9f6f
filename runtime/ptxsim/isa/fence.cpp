// SPDX-License-Identifier: Apache-2.0
//
// Fences (PTX ISA, "membar / fence"), and the instructions that only say where data should be cached.
#include "runtime/ptxsim/isa/ordering.h"
#include "runtime/ptxsim/memory/address.h"
#include "runtime/ptxsim/memory/global_races.h"
#include "runtime/ptxsim/memory/shared_memory.h"

namespace kvq::ptxsim {

int orderingTag(const Form &form) {
  const bool both = form.has("acq_rel");
  const bool narrow = form.has("cta") && !form.has("sys") && !form.has("gpu") && !form.has("cluster");
  return (both || form.has("acquire") ? 1 : 0) | (both || form.has("release") ? 2 : 0) | (narrow ? 0 : 4);
}

void markStrong(Table::Added added) {
  added.each([](Form &form) {
    form.tag = orderingTag(form);
    form.ordersBlocks = (form.tag & 4) != 0 && form.space != Space::Shared;
  });
}

void orderStrong(Warp &warp, Space space, uint32_t mask, const Addresses &addresses, Ordering ordering, bool reads,
                 bool writes) {
  SharedMemory *shared = warp.block->shared;
  GlobalRaces *races = warp.worker->launch->races;
  uint64_t last = 0;
  bool any = false;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const uint64_t address = addresses[std::countr_zero(rest)] + genericBase(space);
    if (any && address == last)
      continue;
    last = address;
    any = true;
    const bool global = races && ordering.wide && spaceOf(address) == Space::Global;
    const bool replaces = !reads;
    if (writes && shared)
      shared->publish(warp.id, address, ordering.release, replaces);
    if (writes && global)
      races->publish(*warp.block, address, ordering.release, replaces);
    // An atomic acquires without a fence behind it: memory/global_races.h says why.
    const bool atOnce = ordering.acquire || writes;
    if (reads && shared)
      shared->observe(warp.id, address, atOnce);
    if (reads && global)
      races->observe(*warp.block, address, atOnce);
  }
}

void fence(Warp &warp, bool wide) {
  if (warp.block->shared)
    warp.block->shared->fence(warp.id);
  if (wide && warp.worker->launch->races)
    warp.worker->launch->races->fence(*warp.block);
}

namespace {

template <bool wide> void runFence(Warp &warp, const Op &, uint32_t) { fence(warp, wide); }
void nothing(Warp &, const Op &, uint32_t) {}
void makePolicy(Warp &warp, const Op &op, uint32_t mask) {
  uint64_t *policy = warp.at<uint64_t>(op.results[0]);
  forLanes(mask, [&](int lane) { policy[lane] = 0; });
}

} // namespace

void addFences(Table &table) {
  table.add("membar.cta", "=", OpClass::Barrier, runFence<false>);
  table.add("membar{.gl|.sys}", "=", OpClass::Barrier, runFence<true>).ordersBlocks();
  table.add("fence[.sc|.acq_rel|.acquire|.release].cta", "=", OpClass::Barrier, runFence<false>);
  table.add("fence[.sc|.acq_rel|.acquire|.release]{.cluster|.gpu|.sys}", "=", OpClass::Barrier, runFence<true>)
      .ordersBlocks();
  // Between the generic and the asynchronous proxy; the simulator has one path to memory.
  table.add("fence.proxy{.alias|.async}", "=", OpClass::Barrier, nothing);
  table.add("fence.proxy.async{.global|.shared::cta|.shared::cluster}", "=", OpClass::Barrier, nothing);
  table.add("fence.mbarrier_init.release.cluster", "=", OpClass::Barrier, runFence<false>);

  table.add("prefetch[.global|.local]{.L1|.L2|.L2::evict_last|.L2::evict_normal}", "= addr", OpClass::Global, nothing);
  table.add("prefetchu.L1", "= addr", OpClass::Global, nothing);
  table.add("discard[.global].L2", "= addr imm", OpClass::Global, nothing);
  table.add("applypriority[.global].L2::evict_normal", "= addr imm", OpClass::Global, nothing);
  const char *priorities = "{.L2::evict_last|.L2::evict_normal|.L2::evict_first|.L2::evict_unchanged}"
                           "[.L2::evict_first|.L2::evict_unchanged].b64";
  table.add((std::string("createpolicy.fractional") + priorities).c_str(), "b64 = f32?", OpClass::Move, makePolicy);
  table.add((std::string("createpolicy.range[.global]") + priorities).c_str(), "b64 = addr b32 b32", OpClass::Move,
            makePolicy);
  table.add("createpolicy.cvt.L2.b64", "b64 = b64", OpClass::Move, makePolicy);
}

} // namespace kvq::ptxsim
