// SPDX-License-Identifier: Apache-2.0
//
// The tile dialect: kernels as tile programs. See TileDialect.td for what a program is.
#pragma once

#include "dialect/tile/Lanes.h"

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/TensorEncoding.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "runtime/format/problem.h"

#include "dialect/tile/TileDialect.h.inc"
#include "dialect/tile/TileEnums.h.inc"
#define GET_ATTRDEF_CLASSES
#include "dialect/tile/TileAttrs.h.inc"
#define GET_TYPEDEF_CLASSES
#include "dialect/tile/TileTypes.h.inc"
#define GET_OP_CLASSES
#include "dialect/tile/TileOps.h.inc"

namespace mlir::kvq::tile {

// Unit attribute that makes a function a kernel; attribute that carries its schedule.
inline constexpr llvm::StringLiteral kKernelAttr = "kvq_tile.kernel";
inline constexpr llvm::StringLiteral kScheduleAttr = "kvq_tile.schedule";
// Of an argument of a kernel: a power of two that divides it, an address in bytes or an integer.
inline constexpr llvm::StringLiteral kMultipleAttr = "kvq_tile.multiple";

// The lane layout of a tile's type, if it has one; the same type with another.
std::optional<LaneLayout> getLanes(Type type);
RankedTensorType withLanes(RankedTensorType type, const LaneLayout &layout);
// The layout of a packed tile's type, or null.
LayoutAttr getLayout(RankedTensorType packed);
// The parsed layout; the attribute's verifier has accepted it. bits: of a code, of which verifiers have made sure.
::kvq::SectionLayout parseSectionAttr(LayoutAttr layout, int64_t bits);
// The map of a layout of one plane; of several an empty map, in which a lowering that takes one plane finds no words.
::kvq::Layout parseLayoutAttr(LayoutAttr layout);
// Whether codes of so many bits have that layout: the sentence for a verifier where not (layout_c5).
std::optional<std::string> whyNotPlanes(LayoutAttr layout, int64_t bits);
// The type of a kernel's elements in the IR, and back; empty for a type that no kernel has.
Type toType(MLIRContext *context, ::kvq::ElementType type);
std::optional<::kvq::ElementType> toElementType(Type type);
// A packed tile of tokens x channels.
RankedTensorType getPackedType(MLIRContext *context, int64_t tokens, int64_t channels, int bits,
                               const ::kvq::SectionLayout &layout);

} // namespace mlir::kvq::tile
