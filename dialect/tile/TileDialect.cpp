// SPDX-License-Identifier: Apache-2.0
//
// Registration, types and attributes of the tile dialect.

#include "dialect/tile/Tile.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::kvq::tile;

#include "dialect/tile/TileDialect.cpp.inc"
#include "dialect/tile/TileEnums.cpp.inc"
#define GET_ATTRDEF_CLASSES
#include "dialect/tile/TileAttrs.cpp.inc"
#define GET_TYPEDEF_CLASSES
#include "dialect/tile/TileTypes.cpp.inc"

void KvqTileDialect::initialize() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dialect/tile/TileAttrs.cpp.inc"
      >();
  addTypes<
#define GET_TYPEDEF_LIST
#include "dialect/tile/TileTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "dialect/tile/TileOps.cpp.inc"
      >();
}

// kernel_c1: a kernel takes pointers, i64, i32 and f32 and returns nothing.
static LogicalResult verifyKernel(Operation *op) {
  auto func = dyn_cast<func::FuncOp>(op);
  if (!func)
    return op->emitOpError("has '") << kKernelAttr << "', which belongs on a func.func";
  for (auto [i, type] : llvm::enumerate(func.getArgumentTypes()))
    if (!isa<PtrType>(type) && !type.isF32() && !type.isInteger(32) && !type.isInteger(64))
      return func.emitError("argument ") << i << " of a kernel has type " << type
                                         << "; use !kvq_tile.ptr<...>, i64, i32 or f32";
  if (func.getNumResults() != 0)
    return func.emitError("a kernel returns nothing; write results through a pointer argument");
  return success();
}

LogicalResult KvqTileDialect::verifyOperationAttribute(Operation *op, NamedAttribute attribute) {
  if (attribute.getName() == kKernelAttr)
    return verifyKernel(op);
  if (attribute.getName() == kScheduleAttr && !isa<ScheduleAttr>(attribute.getValue()))
    return op->emitOpError("'") << kScheduleAttr << "' must be a #kvq_tile.schedule";
  return success();
}

// ptr_c1
LogicalResult PtrType::verify(function_ref<InFlightDiagnostic()> emitError, Type element) {
  if (element.isF32() || element.isF16() || element.isBF16() || element.isInteger(64) || element.isInteger(32) ||
      element.isInteger(8))
    return success();
  return emitError() << "a pointer to " << element << " is not supported; use f32, bf16, f16, i64, i32 or i8";
}

// layout_c1
LogicalResult LayoutAttr::verify(function_ref<InFlightDiagnostic()> emitError, StringRef map) {
  auto layout = ::kvq::parseSectionLayout(std::string_view(map.data(), map.size()));
  if (!layout.isOk())
    return emitError() << layout.status().message();
  auto status = layout.value().checkBijective(layout.value().extent(::kvq::Dim::Token),
                                              layout.value().extent(::kvq::Dim::Channel));
  if (!status.isOk())
    return emitError() << status.message();
  return success();
}

// lanes_c1
LogicalResult LanesAttr::verify(function_ref<InFlightDiagnostic()> emitError, StringRef text) {
  std::string why;
  return LaneLayout::parse(text, why) ? success() : LogicalResult(emitError() << why);
}

// lanes_c2
LogicalResult LanesAttr::verifyEncoding(ArrayRef<int64_t> shape, Type,
                                        function_ref<InFlightDiagnostic()> emitError) const {
  std::string why, whyNot = LaneLayout::parse(getText(), why)->whyNot(shape);
  return whyNot.empty() ? success() : LogicalResult(emitError() << whyNot);
}

// schedule_c1
LogicalResult ScheduleAttr::verify(function_ref<InFlightDiagnostic()> emitError, int64_t tileTokens, int64_t rows,
                                   int64_t vectors, int64_t prefetch, int64_t blocks, int64_t warps) {
  if (tileTokens < 16 || tileTokens % 16 != 0 || tileTokens > 256)
    return emitError() << "tile_tokens is " << tileTokens << "; use a multiple of 16 from 16 to 256";
  if (rows < 1 || rows > 16)
    return emitError() << "rows is " << rows << "; use 1 to 16";
  if (vectors < 1 || vectors > 16)
    return emitError() << "vectors is " << vectors << "; use 1 to 16";
  if (prefetch < 0 || prefetch > 8)
    return emitError() << "prefetch is " << prefetch << "; use 0 to 8";
  if (blocks < 0 || blocks > 16)
    return emitError() << "blocks is " << blocks << "; use 0 to 16";
  if (warps != 1 && warps != 2 && warps != 4)
    return emitError() << "warps is " << warps << "; use 1, 2 or 4";
  return success();
}

std::optional<LaneLayout> mlir::kvq::tile::getLanes(Type type) {
  auto tile = dyn_cast<RankedTensorType>(type);
  auto attr = tile ? dyn_cast_if_present<LanesAttr>(tile.getEncoding()) : LanesAttr();
  std::string why;
  return attr ? LaneLayout::parse(attr.getText(), why) : std::nullopt;
}

RankedTensorType mlir::kvq::tile::withLanes(RankedTensorType type, const LaneLayout &layout) {
  return RankedTensorType::get(type.getShape(), type.getElementType(),
                               LanesAttr::get(type.getContext(), layout.toText()));
}

LayoutAttr mlir::kvq::tile::getLayout(RankedTensorType packed) {
  return dyn_cast_if_present<LayoutAttr>(packed.getEncoding());
}

static ::kvq::Result<::kvq::SectionLayout> parseText(LayoutAttr layout, int64_t bits) {
  StringRef map = layout.getMap();
  return ::kvq::parseSectionLayout(std::string_view(map.data(), map.size()), static_cast<int>(bits));
}

::kvq::SectionLayout mlir::kvq::tile::parseSectionAttr(LayoutAttr layout, int64_t bits) {
  return parseText(layout, bits).value();
}

::kvq::Layout mlir::kvq::tile::parseLayoutAttr(LayoutAttr layout) {
  ::kvq::SectionLayout section = parseText(layout, 0).value();
  return section.planes.size() == 1 ? section.planes.front().map : ::kvq::Layout();
}

std::optional<std::string> mlir::kvq::tile::whyNotPlanes(LayoutAttr layout, int64_t bits) {
  auto parsed = parseText(layout, bits);
  return parsed.isOk() ? std::nullopt : std::optional(parsed.status().message());
}

Type mlir::kvq::tile::toType(MLIRContext *context, ::kvq::ElementType type) {
  switch (type) {
  case ::kvq::ElementType::F32:
    return Float32Type::get(context);
  case ::kvq::ElementType::BF16:
    return BFloat16Type::get(context);
  case ::kvq::ElementType::F16:
    return Float16Type::get(context);
  }
  llvm_unreachable("all element types are handled");
}

std::optional<::kvq::ElementType> mlir::kvq::tile::toElementType(Type type) {
  for (::kvq::ElementType element : {::kvq::ElementType::F32, ::kvq::ElementType::BF16, ::kvq::ElementType::F16})
    if (type == toType(type.getContext(), element))
      return element;
  return std::nullopt;
}

RankedTensorType mlir::kvq::tile::getPackedType(MLIRContext *context, int64_t tokens, int64_t channels, int bits,
                                                const ::kvq::SectionLayout &layout) {
  return RankedTensorType::get({tokens, channels}, IntegerType::get(context, bits),
                               LayoutAttr::get(context, layout.toText()));
}
