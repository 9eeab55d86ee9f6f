// SPDX-License-Identifier: Apache-2.0
//
// Types of the kvq dialect: verifiers and conversions.

#include "dialect/kvq/Kvq.h"

#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::kvq;

// `64x80` or `?x80`.
static ParseResult parseMatrix(AsmParser &parser, int64_t &tokens, int64_t &channels) {
  SmallVector<int64_t, 2> dims;
  SMLoc loc = parser.getCurrentLocation();
  if (parser.parseDimensionList(dims, /*allowDynamic=*/true, /*withTrailingX=*/false))
    return failure();
  if (dims.size() != 2)
    return parser.emitError(loc, "a packed matrix has 2 dimensions, tokens x channels, not ") << dims.size();
  tokens = dims[0];
  channels = dims[1];
  return success();
}

static void printMatrix(AsmPrinter &printer, int64_t tokens, int64_t channels) {
  printer.printDimensionList({tokens, channels});
}

#define GET_TYPEDEF_CLASSES
#include "dialect/kvq/KvqTypes.cpp.inc"

void KvqDialect::registerTypes() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "dialect/kvq/KvqTypes.cpp.inc"
      >();
}

LogicalResult PackedType::verify(function_ref<InFlightDiagnostic()> emitError, int64_t tokens, int64_t channels,
                                 SideAttr side, tile::LayoutAttr layoutAttr) {
  if (auto why = tile::whyNotPlanes(layoutAttr, side.getBits())) // packed_c3
    return emitError() << *why;
  ::kvq::SectionLayout layout = tile::parseSectionAttr(layoutAttr, side.getBits());
  int64_t pageTokens = layout.extent(::kvq::Dim::Token), pageChannels = layout.extent(::kvq::Dim::Channel);
  bool wholePages = ShapedType::isDynamic(tokens) || (tokens > 0 && tokens % pageTokens == 0);
  if (channels != pageChannels || !wholePages) // packed_c1
    return emitError() << "a layout of " << pageTokens << " tokens x " << pageChannels
                       << " channels does not make up the packed matrix; give it " << pageChannels
                       << " channels and a multiple of " << pageTokens << " tokens, or change the layout";
  int64_t grouped = side.isPerChannel() ? pageTokens : pageChannels;
  if (grouped % side.getGroup() != 0) // packed_c2
    return emitError() << "group " << side.getGroup() << " of " << side.toText() << " does not divide the page's "
                       << grouped << (side.isPerChannel() ? " tokens" : " channels") << "; use a group that does";
  return success();
}

CacheType CacheType::get(MLIRContext *context, const ::kvq::KernelRequest &request) {
  return get(context, FormatAttr::get(context, request.pair), ProblemAttr::get(context, request),
             fromFormat(request.profile));
}

// cache_c1
LogicalResult CacheType::verify(function_ref<InFlightDiagnostic()> emitError, FormatAttr format, ProblemAttr problem,
                                Profile profile) {
  auto status = ::kvq::checkShape(format.toFormat(), problem.getDk(), problem.getDv(), problem.getPageTokens());
  if (status.isOk()) // cache_c2
    status = ::kvq::checkProfile(toFormat(profile), format.toFormat());
  if (!status.isOk())
    return emitError() << status.message();
  return success();
}

::kvq::KernelRequest CacheType::toRequest(::kvq::KernelOp op) const {
  ProblemAttr problem = getProblem();
  ::kvq::KernelRequest request;
  request.op = op;
  request.pair = getFormat().toFormat();
  request.profile = toFormat(getProfile());
  request.pageTokens = problem.getPageTokens();
  request.dk = problem.getDk();
  request.dv = problem.getDv();
  request.ratio = problem.getRatio();
  request.type = *tile::toElementType(problem.getType());
  request.rows = problem.getRows();
  request.lag = problem.getLag();
  request.window = problem.getWindow();
  request.scoreCap = problem.getScoreCap();
  request.accuracy = static_cast<::kvq::Accuracy>(problem.getAccuracy());
  return request;
}

tile::LayoutAttr CacheType::getLayout(KvSide side) const {
  ::kvq::SectionLayout layout = ::kvq::makeSectionLayout(
      toFormat(getProfile()), side == KvSide::K ? ::kvq::Side::K : ::kvq::Side::V, getFormat().get(side).getBits(),
      getProblem().getPageTokens(), getProblem().getHeadDim(side));
  return tile::LayoutAttr::get(getContext(), layout.toText());
}

ConvertedPages mlir::kvq::getConvertedPages(MLIRContext *context, const ::kvq::KernelRequest &request) {
  ::kvq::KernelRequest before = request;
  before.profile = *request.from;
  KvSide side = request.op == ::kvq::KernelOp::ConvertK ? KvSide::K : KvSide::V;
  return {CacheType::get(context, before).getPageType(side), CacheType::get(context, request).getPageType(side)};
}

PackedType CacheType::getPageType(KvSide side) const {
  return PackedType::get(getContext(), getProblem().getPageTokens(), getProblem().getHeadDim(side),
                         getFormat().get(side), getLayout(side));
}
