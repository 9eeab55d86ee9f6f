// SPDX-License-Identifier: Apache-2.0
//
// Verifiers of the tile ops. Each check names its label from TileOps.td.

#include "dialect/tile/Tile.h"

#include "mlir/IR/Builders.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace mlir::kvq::tile;

#define GET_OP_CLASSES
#include "dialect/tile/TileOps.cpp.inc"

namespace {

RankedTensorType tileType(Value value) { return cast<RankedTensorType>(value.getType()); }
Type elementOf(Type type) { return getElementTypeOrSelf(type); }
ArrayRef<int64_t> shapeOf(Type type) {
  auto shaped = dyn_cast<ShapedType>(type);
  return shaped ? shaped.getShape() : ArrayRef<int64_t>();
}

// An extent of 0, which a type may have, divides nothing.
bool divides(int64_t part, int64_t whole) { return part > 0 && whole % part == 0; }

// What load and store share: element types, shapes of value, offset and mask.
LogicalResult verifyAccess(Operation *op, Type value, PtrType ptr, Type offset, Value mask) {
  // load_c1, store_c1
  if (elementOf(value) != ptr.getElementType())
    return op->emitOpError("moves elements of ")
           << elementOf(value) << " through a pointer to " << ptr.getElementType() << "; convert the value with arith";
  // load_c2, store_c2
  ArrayRef<int64_t> shape = shapeOf(value), offsets = shapeOf(offset);
  bool same = shape == offsets;
  bool runs = shape.size() == offsets.size() + 1 && shape.drop_back() == offsets;
  if (!same && !runs)
    return op->emitOpError("value of type ") << value << " does not fit offsets of type " << offset
                                             << "; it has their shape, or their shape and one more dimension";
  // load_c3, store_c3
  if (mask && shapeOf(mask.getType()) != offsets)
    return op->emitOpError("mask of type ") << mask.getType() << " does not have the shape of the offsets, " << offset;
  return success();
}

} // namespace

LogicalResult ReducePartsOp::verify() { // reduce_parts_c1
  if (isa<FunctionOpInterface>((*this)->getParentOp()))
    return success();
  return emitOpError("stands in a loop or a branch, which some parts might not take");
}

LogicalResult ProgramIdOp::verify() { // program_id_c1
  if (getDimension() > 2)
    return emitOpError("dimension is ") << getDimension() << "; a grid has dimensions 0, 1 and 2";
  return success();
}

LogicalResult PageOp::verify() { // page_c1
  if (!getTable().getType().getElementType().isInteger(32))
    return emitOpError("page table holds ") << getTable().getType().getElementType() << "; it must hold i32";
  if (getResult().getType() != getPool().getType())
    return emitOpError("result has type ") << getResult().getType() << "; it is the pool's, " << getPool().getType();
  return success();
}

LogicalResult LoadOp::verify() {
  return verifyAccess(*this, getResult().getType(), getPtr().getType(), getOffset().getType(), getMask());
}

LogicalResult StoreOp::verify() {
  return verifyAccess(*this, getValue().getType(), getPtr().getType(), getOffset().getType(), getMask());
}

LogicalResult CodesOp::verify() {
  auto type = tileType(getResult());
  LayoutAttr attr = getLayout(type);
  if (type.getRank() != 2 || !attr) // codes_c1
    return emitOpError("result must be a 2-d tile [tokens, channels] with a #kvq_tile.layout encoding");
  if (auto why = whyNotPlanes(attr, type.getElementTypeBitWidth())) // codes_c3
    return emitOpError() << *why;
  ::kvq::SectionLayout layout = parseSectionAttr(attr, type.getElementTypeBitWidth());
  int64_t tokens = layout.extent(::kvq::Dim::Token), channels = layout.extent(::kvq::Dim::Channel);
  if (!divides(type.getDimSize(0), tokens) || !divides(type.getDimSize(1), channels)) // codes_c2
    return emitOpError("a rectangle of ")
           << type.getDimSize(0) << " tokens and " << type.getDimSize(1) << " channels does not tile a layout of "
           << tokens << " tokens and " << channels << " channels";
  return success();
}

LogicalResult StoreCodesOp::verify() {
  auto type = tileType(getCodes());
  if (getBits() != 2 && getBits() != 3 && getBits() != 4 && getBits() != 8) // store_codes_c2
    return emitOpError("bits is ") << getBits() << "; use 2, 3, 4 or 8";
  if (auto why = whyNotPlanes(getLayout(), getBits())) // store_codes_c2
    return emitOpError() << *why;
  ::kvq::SectionLayout layout = parseSectionAttr(getLayout(), getBits());
  int64_t channels = layout.extent(::kvq::Dim::Channel);
  bool fits =
      type.getRank() == 2 && (getChannel() ? divides(type.getDimSize(1), channels) : type.getDimSize(1) == channels);
  if (!fits) // store_codes_c1
    return emitOpError("codes of type ") << type << " do not "
                                         << (getChannel() ? "divide the layout's " : "have the layout's ") << channels
                                         << " channels";
  if (!divides(type.getDimSize(0), layout.extent(::kvq::Dim::Token))) // store_codes_c3
    return emitOpError("codes of ") << type.getDimSize(0) << " tokens do not tile a layout of "
                                    << layout.extent(::kvq::Dim::Token) << " tokens";
  return success();
}

LogicalResult UnpackOp::verify() { // unpack_c1
  if (tileType(getCodes()).getShape() != tileType(getResult()).getShape())
    return emitOpError("result has another shape than the codes");
  return success();
}

LogicalResult DequantizeOp::verify() {
  auto codes = tileType(getCodes()), scale = tileType(getScale());
  bool perChannel = getAxis() == "channel";
  if (!perChannel && getAxis() != "token") // dequantize_c3
    return emitOpError("axis is \"") << getAxis() << "\"; use \"channel\" (per channel) or \"token\" (per token)";
  if (codes.getRank() != 2 || scale.getRank() != 2 || scale != getMin().getType() ||
      tileType(getResult()).getShape() != codes.getShape()) // dequantize_c2
    return emitOpError(
        "codes, scale, min and result must be 2-d, scale and min of one type, result of the codes' shape");
  int64_t grouped = codes.getDimSize(perChannel ? 0 : 1), kept = codes.getDimSize(perChannel ? 1 : 0);
  if (scale.getDimSize(1) != kept || !divides(scale.getDimSize(0), grouped)) // dequantize_c2
    return emitOpError("scale of shape [")
           << scale.getDimSize(0) << ", " << scale.getDimSize(1) << "] does not fit; per " << getAxis()
           << " it is [groups along " << (perChannel ? "tokens" : "channels") << ", " << kept
           << "] with groups dividing " << grouped;
  return success();
}

static LogicalResult verifyRounding(Operation *op, std::optional<Type> round) { // coeff_c2, dot_c4
  auto integer = round ? dyn_cast<IntegerType>(*round) : IntegerType();
  if (!round || round->isF16() ||
      (integer && !integer.isSignless() && llvm::is_contained({8u, 16u}, integer.getWidth())))
    return success();
  return op->emitOpError("rounds coefficients to ") << *round << "; use si8, si16, ui8, ui16 or f16";
}

LogicalResult CoeffOp::verify() { // coeff_c1
  auto values = tileType(getValues()), result = tileType(getResult());
  int64_t sets = 1;
  if (values.getRank() == 2 && getScale()) {
    auto scale = tileType(getScale());
    sets = scale.getRank() == 2 && scale.getDimSize(1) == values.getDimSize(1) ? scale.getDimSize(0) : -1;
  }
  Type element = values.getElementType();
  bool oneElement = result.getElementType() == element && (!getScale() || elementOf(getScale().getType()) == element);
  if (values.getRank() != 2 || !oneElement ||
      result.getShape() != ArrayRef<int64_t>({sets, values.getDimSize(0), values.getDimSize(1)})) {
    InFlightDiagnostic error = emitOpError("values [R, C], scale [S, C] and result [S, R, C] do not agree: ") << values;
    if (getScale())
      error << ", " << tileType(getScale());
    return error << ", " << result;
  }
  return verifyRounding(*this, getRound());
}

LogicalResult DotOp::verify() {
  auto x = tileType(getX()), coeff = tileType(getCoeff()), acc = tileType(getAcc());
  if (getContract() > 1) // dot_c2
    return emitOpError("contract is ") << getContract() << "; x has dimensions 0 and 1";
  if (x.getRank() != 2 || acc.getRank() != 2 || coeff.getRank() < 2 || coeff.getRank() > 3) // dot_c1
    return emitOpError("x and acc are 2-d, coeff is 2-d or 3-d");
  int64_t c = x.getDimSize(getContract()), n = x.getDimSize(1 - getContract());
  int64_t rows = coeff.getDimSize(coeff.getRank() - 2);
  if (coeff.getShape().back() != c) // dot_c1
    return emitOpError("contracts ") << c << " elements of x with " << coeff.getShape().back()
                                     << " coefficients; they must be as many";
  if (acc.getDimSize(0) != rows || acc.getDimSize(1) != n || getResult().getType() != acc) // dot_c1
    return emitOpError("acc and result must have shape [") << rows << ", " << n << "], acc is " << acc;
  if (coeff.getRank() == 3 && !divides(coeff.getDimSize(0), n)) // dot_c3
    return emitOpError("has ") << coeff.getDimSize(0) << " sets of coefficients, which do not divide " << n
                               << " results";
  if (Value scale = getScale()) {
    auto type = tileType(scale);
    if (type.getRank() != 2 || type.getDimSize(1) != n || !divides(type.getDimSize(0), c)) // dot_c3
      return emitOpError("scale of type ") << type << " is not [groups dividing " << c << ", " << n << "]";
  }
  return verifyRounding(*this, getRound());
}

LogicalResult BroadcastOp::verify() {
  auto source = tileType(getSource()), result = tileType(getResult());
  ArrayRef<int64_t> dims = getDims();
  if (static_cast<int64_t>(dims.size()) != source.getRank()) // broadcast_c1
    return emitOpError("dims has ") << dims.size() << " entries for a source of rank " << source.getRank();
  for (auto [i, dim] : llvm::enumerate(dims)) {
    if (dim < 0 || dim >= result.getRank() || (i > 0 && dims[i - 1] >= dim)) // broadcast_c1
      return emitOpError("dims must ascend inside the result's rank ") << result.getRank();
    if (!divides(source.getDimSize(i), result.getDimSize(dim))) // broadcast_c2
      return emitOpError("source extent ")
             << source.getDimSize(i) << " does not divide the result's " << result.getDimSize(dim);
  }
  if (source.getElementType() != result.getElementType())
    return emitOpError("source and result have different elements");
  return success();
}

LogicalResult ReduceOp::verify() {
  auto source = tileType(getSource());
  if (getDim() >= static_cast<uint64_t>(source.getRank())) // reduce_c2
    return emitOpError("dim is ") << static_cast<int64_t>(getDim()) << "; the source has rank " << source.getRank();
  SmallVector<int64_t> expected(source.getShape());
  expected.erase(expected.begin() + getDim());
  if (shapeOf(getResult().getType()) != ArrayRef<int64_t>(expected) ||
      elementOf(getResult().getType()) != source.getElementType()) // reduce_c1
    return emitOpError("result has type ")
           << getResult().getType() << "; it is the source without dimension " << getDim();
  return success();
}

LogicalResult ConvertOp::verify() { // convert_c1
  auto source = tileType(getSource()), result = tileType(getResult());
  if (source.getShape() != result.getShape() || source.getElementType() != result.getElementType() ||
      !isa_and_present<LanesAttr>(source.getEncoding()) || !isa_and_present<LanesAttr>(result.getEncoding()))
    return emitOpError("source and result must differ in their #kvq_tile.lanes alone: ") << source << ", " << result;
  return success();
}

LogicalResult PrefetchOp::verify() { // prefetch_c1
  if (static_cast<int64_t>(getBytes()) <= 0)
    return emitOpError("prefetches ") << getBytes() << " bytes; give a positive number";
  return success();
}
