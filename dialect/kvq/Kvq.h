// SPDX-License-Identifier: Apache-2.0
//
// The kvq dialect: what a program on a quantized KV cache computes. See KvqDialect.td. Conversions to and from the
// plain data of runtime/format are members of the attributes and types.
#pragma once

#include "dialect/tile/Tile.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "runtime/format/problem.h"

#include "dialect/kvq/KvqDialect.h.inc"
#include "dialect/kvq/KvqEnums.h.inc"
#define GET_ATTRDEF_CLASSES
#include "dialect/kvq/KvqAttrs.h.inc"
#define GET_TYPEDEF_CLASSES
#include "dialect/kvq/KvqTypes.h.inc"
#define GET_OP_CLASSES
#include "dialect/kvq/KvqOps.h.inc"

namespace mlir::kvq {

// Attribute that makes a function a kernel: the canonical text of its request. Attribute of a module: its target.
inline constexpr llvm::StringLiteral kKernelAttr = "kvq.kernel";
inline constexpr llvm::StringLiteral kTargetAttr = "kvq.target";

// The request of a kernel, or nothing where the function is none.
std::optional<::kvq::KernelRequest> getKernelRequest(func::FuncOp func);

// What a request of convert_k or convert_v makes of what: pages of one side in two profiles.
struct ConvertedPages {
  PackedType from, to;
};
ConvertedPages getConvertedPages(MLIRContext *context, const ::kvq::KernelRequest &request);

::kvq::Profile toFormat(Profile profile);
Profile fromFormat(::kvq::Profile profile);

} // namespace mlir::kvq
