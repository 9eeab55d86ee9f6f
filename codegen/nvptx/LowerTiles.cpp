// SPDX-License-Identifier: Apache-2.0
//
// kvq-nvptx-lower-tiles: a tile program to the registers of lanes.

#include "codegen/nvptx/LaneEmitter.h"
#include "codegen/nvptx/Passes.h"

namespace mlir::kvq::nvptx {
#define GEN_PASS_DEF_LOWERTILESPASS
#include "codegen/nvptx/Passes.h.inc"
} // namespace mlir::kvq::nvptx

using namespace mlir;
using namespace mlir::kvq;

namespace {

struct LowerTiles : mlir::kvq::nvptx::impl::LowerTilesPassBase<LowerTiles> {
  using LowerTilesPassBase::LowerTilesPassBase;

  void runOnOperation() override {
    SmallVector<func::FuncOp> kernels;
    for (auto func : getOperation().getOps<func::FuncOp>())
      if (func->hasAttr(tile::kKernelAttr))
        kernels.push_back(func);
    if (kernels.size() != 1) {
      getOperation().emitError("a module must hold one kernel, this one holds ")
          << kernels.size() << "; mark a func.func with the attribute kvq_tile.kernel";
      return signalPassFailure();
    }
    if (!kernels[0].getBody().hasOneBlock()) {
      kernels[0].emitError("a kernel has one block; write loops and branches with scf");
      return signalPassFailure();
    }
    if (failed(mlir::kvq::nvptx::LaneEmitter(kernels[0], unpack).emit()))
      return signalPassFailure();
    kernels[0].erase();
  }
};

} // namespace
