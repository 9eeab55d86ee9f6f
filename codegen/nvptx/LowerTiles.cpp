// SPDX-License-Identifier: Apache-2.0
//
// kvq-nvptx-lower-tiles: a tile program to the registers of lanes.

#include "codegen/nvptx/Passes.h"

namespace mlir::kvq::nvptx {
#define GEN_PASS_DEF_LOWERTILESPASS
#include "codegen/nvptx/Passes.h.inc"
} // namespace mlir::kvq::nvptx

using namespace mlir;

namespace {

struct LowerTiles : mlir::kvq::nvptx::impl::LowerTilesPassBase<LowerTiles> {
  using LowerTilesPassBase::LowerTilesPassBase;

  void runOnOperation() override {
    getOperation().emitError("tile programs have no lowering to sm_")
        << std::to_string(sm) << " yet; compile for a CPU level";
    signalPassFailure();
  }
};

} // namespace
