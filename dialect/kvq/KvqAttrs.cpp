// SPDX-License-Identifier: Apache-2.0
//
// Attributes of the kvq dialect: verifiers and conversions. What is legal in a format is decided in runtime/format.

#include "dialect/kvq/Kvq.h"

#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::kvq;

#include "dialect/kvq/KvqEnums.cpp.inc"
#define GET_ATTRDEF_CLASSES
#include "dialect/kvq/KvqAttrs.cpp.inc"

void KvqDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dialect/kvq/KvqAttrs.cpp.inc"
      >();
}

// Both lists of profiles have the same order.
::kvq::Profile mlir::kvq::toFormat(Profile profile) { return static_cast<::kvq::Profile>(profile); }

Profile mlir::kvq::fromFormat(::kvq::Profile profile) { return static_cast<Profile>(profile); }

static ::kvq::SideFormat sideFormat(int bits, Axis axis, int group) {
  return {bits, axis == Axis::Channel ? ::kvq::Axis::Channel : ::kvq::Axis::Token, group};
}

::kvq::SideFormat SideAttr::toFormat() const { return sideFormat(getBits(), getAxis(), getGroup()); }

// side_c1
LogicalResult SideAttr::verify(function_ref<InFlightDiagnostic()> emitError, int bits, Axis axis, int group,
                               CodeMap map, ScaleType scale) {
  if (bits < 0 || group < 0)
    return emitError() << "bits is " << bits << " and group is " << group << "; neither is negative in a legal format";
  auto side = ::kvq::parseSide(::kvq::toText(sideFormat(bits, axis, group)));
  if (!side.isOk())
    return emitError() << side.status().message();
  return success();
}

ProblemAttr ProblemAttr::get(MLIRContext *context, const ::kvq::KernelRequest &request) {
  return get(context, request.pageTokens, request.dk, request.dv, request.ratio, tile::toType(context, request.type),
             request.rows, request.lag, request.window, request.scoreCap,
             static_cast<Accuracy>(request.accuracy)); // same order of classes
}

LogicalResult ProblemAttr::verify(function_ref<InFlightDiagnostic()> emitError, int pageTokens, int dk, int dv,
                                  int ratio, Type type, int rows, bool lag, bool window, bool scoreCap,
                                  Accuracy accuracy) {
  if (pageTokens < 32 || pageTokens > 256 || pageTokens % 32 != 0) // problem_c1
    return emitError() << "page_tokens is " << pageTokens << "; use a multiple of 32 from 32 to 256";
  for (auto [name, value] : {std::pair("dk", dk), std::pair("dv", dv)})
    if (value < 16 || value > 256 || value % 16 != 0) // problem_c2
      return emitError() << name << " is " << value << "; use a multiple of 16 from 16 to 256";
  for (auto [name, value] : {std::pair("ratio", ratio), std::pair("rows", rows)})
    if (value < 1 || value > 64) // problem_c3
      return emitError() << name << " is " << value << "; use 1 to 64";
  if (!tile::toElementType(type)) // problem_c4
    return emitError() << "type is " << type << "; use f32, bf16 or f16";
  return success();
}

// target_c1
LogicalResult TargetAttr::verify(function_ref<InFlightDiagnostic()> emitError, StringRef level) {
  if (level.empty() || !llvm::all_of(level, [](char c) { return llvm::isAlnum(c) || StringRef("-_.:@").contains(c); }))
    return emitError() << "target \"" << level
                       << "\" is not the name of a target; write one like \"x86-64-v4\" or \"nvptx:sm_80\"";
  return success();
}

LogicalResult BoundsAttr::verify(function_ref<InFlightDiagnostic()> emitError, bool causal, std::optional<int64_t> left,
                                 std::optional<int64_t> right, int64_t keepFirst) {
  for (auto [name, value] :
       {std::pair("left", left.value_or(0)), std::pair("right", right.value_or(0)), std::pair("keep_first", keepFirst)})
    if (value < 0) // bounds_c1
      return emitError() << name << " is " << value << "; give 0 or more tokens, or leave it out";
  if (causal && right) // bounds_c2
    return emitError() << "right is " << *right << " beside causal, which already is right = 0; leave one of them out";
  if (keepFirst > 0 && !left) // bounds_c3
    return emitError() << "keep_first is " << keepFirst << " without left, so that nothing is cut off; add left";
  return success();
}
