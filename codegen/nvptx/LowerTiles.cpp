// SPDX-License-Identifier: Apache-2.0
//
// kvq-nvptx-lower-tiles: a tile program to the registers of lanes.

#include "codegen/TileKernel.h"
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
    FailureOr<func::FuncOp> kernel = findTileKernel(getOperation());
    if (failed(kernel))
      return signalPassFailure();
    if (failed(mlir::kvq::nvptx::LaneEmitter(*kernel, unpack).emit()))
      return signalPassFailure();
    kernel->erase();
  }
};

} // namespace
