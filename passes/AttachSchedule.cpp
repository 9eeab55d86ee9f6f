// SPDX-License-Identifier: Apache-2.0
//
// kvq-attach-schedule: gives every kernel that has none a schedule. The choice is getDefaultSchedule's.

#include "dialect/kvq/Kvq.h"
#include "passes/Passes.h"
#include "passes/expand/Kernels.h"

namespace mlir::kvq {
#define GEN_PASS_DEF_KVQATTACHSCHEDULE
#include "passes/Passes.h.inc"
} // namespace mlir::kvq

using namespace mlir;
using namespace mlir::kvq;

namespace {

struct AttachSchedule : mlir::kvq::impl::KvqAttachScheduleBase<AttachSchedule> {
  using KvqAttachScheduleBase::KvqAttachScheduleBase;
  void runOnOperation() override {
    TargetModel target;
    target.laneRegisters = laneRegisters;
    target.bitsAhead = bitsAhead;
    target.warps = warps;
    getOperation()->walk([&](func::FuncOp func) {
      std::optional<::kvq::KernelRequest> request = getKernelRequest(func);
      if (request && !func->hasAttr(tile::kScheduleAttr))
        func->setAttr(tile::kScheduleAttr, getDefaultSchedule(&getContext(), *request, target));
    });
  }
};

} // namespace
