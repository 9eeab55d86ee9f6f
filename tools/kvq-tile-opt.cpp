// SPDX-License-Identifier: Apache-2.0
//
// kvq-tile-opt: like kvq-opt for tile programs and what is below them. The kvq dialect is not registered: an upper op
// that is left over after expansion is a parse error here.

#include "tools/opt.h"

int main(int argc, char **argv) {
  mlir::DialectRegistry registry;
  mlir::kvq::registerTileLayer(registry);
  return mlir::asMainReturnCode(mlir::MlirOptMain(argc, argv, "kvq: tile programs\n", registry));
}
