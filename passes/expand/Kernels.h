// SPDX-License-Identifier: Apache-2.0
//
// The built-in kernels as tile programs. Each builder fills the body of a function whose arguments are those of
// kernel_abi.h; what the kernel computes is in docs/format-spec.md. The programs are written once for all targets.
#pragma once

#include "dialect/tile/Tile.h"
#include "passes/DefaultSchedule.h"
#include "passes/Passes.h"
#include "runtime/format/problem.h"

namespace mlir::kvq {

// Types of a kernel's arguments, in the order of kernel_abi.h. Captures of a score region are not among them.
SmallVector<Type> getKernelArgumentTypes(MLIRContext *context, const ::kvq::KernelRequest &request);

// A power of two that divides an argument, by the contract of kernel_abi.h: of an address in bytes.
int64_t getArgumentMultiple(::kvq::KernelOp op, unsigned argument);

// The schedule that a kernel gets where nobody chose one.
tile::ScheduleAttr getDefaultSchedule(MLIRContext *context, const ::kvq::KernelRequest &request,
                                      const TargetModel &target);
tile::ScheduleAttr toAttr(MLIRContext *context, const ::kvq::Schedule &schedule);

// Fills the body of `kernel`, which has one empty block with the arguments above. `score` is the score region of an
// attend kernel or null: arguments score, batch, head, query, key and captures, terminated by one yielded value. Fails
// with a diagnostic at the kernel where a schedule or a region cannot be had.
LogicalResult buildKernelBody(func::FuncOp kernel, const ::kvq::KernelRequest &request, tile::ScheduleAttr schedule,
                              Region *score, const TargetModel &target);

// The bodies behind buildKernelBody.
void buildAppend(func::FuncOp kernel, const ::kvq::KernelRequest &request);
void buildQuantize(func::FuncOp kernel, const ::kvq::KernelRequest &request, tile::ScheduleAttr schedule);
void buildDequantize(func::FuncOp kernel, const ::kvq::KernelRequest &request);
void buildConvert(func::FuncOp kernel, const ::kvq::KernelRequest &request);
void buildMerge(func::FuncOp kernel, const ::kvq::KernelRequest &request);
LogicalResult buildAttend(func::FuncOp kernel, const ::kvq::KernelRequest &request, tile::ScheduleAttr schedule,
                          Region *score, const TargetModel &target);

} // namespace mlir::kvq
