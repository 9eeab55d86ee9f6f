// SPDX-License-Identifier: Apache-2.0
//
// kvq-opt: reads IR text of any layer, runs passes on it, prints it. All dialects and passes of the project.

#include "dialect/kvq/Kvq.h"
#include "tools/opt.h"

int main(int argc, char **argv) {
  mlir::DialectRegistry registry;
  registry.insert<mlir::kvq::KvqDialect>();
  mlir::kvq::registerTileLayer(registry);
  mlir::kvq::registerKvqPasses();
  return mlir::asMainReturnCode(mlir::MlirOptMain(argc, argv, "kvq: quantized KV cache programs\n", registry));
}
