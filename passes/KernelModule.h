// SPDX-License-Identifier: Apache-2.0
//
// The plain program of a built-in kernel, in kvq ops: where compiling a kernel request begins. It is written to be
// read beside docs/format-spec.md; making it fast is the passes' job.
#pragma once

#include "dialect/kvq/Kvq.h"

#include "mlir/IR/OwningOpRef.h"

namespace mlir::kvq {

// Adds the function to a module. The dialects kvq and func are loaded.
void buildKernel(ModuleOp module, const ::kvq::KernelRequest &request);

// A module with one function, named like the request's operation, with the attribute kvq.kernel. Loads the dialects it
// needs into the context. The request must be legal, as parseKernelRequest gives it.
OwningOpRef<ModuleOp> buildKernelModule(MLIRContext *context, const ::kvq::KernelRequest &request);

} // namespace mlir::kvq
