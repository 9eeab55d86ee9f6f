// SPDX-License-Identifier: Apache-2.0
//
// The kernel of a module.

#include "codegen/TileKernel.h"

#include "dialect/tile/Tile.h"

using namespace mlir;

FailureOr<func::FuncOp> mlir::kvq::findTileKernel(ModuleOp module) {
  SmallVector<func::FuncOp> kernels;
  for (auto func : module.getOps<func::FuncOp>())
    if (func->hasAttr(tile::kKernelAttr))
      kernels.push_back(func);
  if (kernels.size() != 1) {
    module.emitError("a module must hold one kernel, this one holds ")
        << kernels.size() << "; mark a func.func with the attribute kvq_tile.kernel";
    return failure();
  }
  if (!kernels[0].getBody().hasOneBlock()) {
    kernels[0].emitError("a kernel has one block; write loops and branches with scf");
    return failure();
  }
  return kernels[0];
}
