// SPDX-License-Identifier: Apache-2.0
//
// Registration of the kvq dialect, names by which its attributes and types are printed, and the attributes that it puts
// on ops of other dialects.

#include "dialect/kvq/Kvq.h"

#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::kvq;

#include "dialect/kvq/KvqDialect.cpp.inc"

namespace {

// A cache's type is some three hundred characters long; it is printed once, under a name made of its format.
struct KvqAsmInterface : OpAsmDialectInterface {
  using OpAsmDialectInterface::OpAsmDialectInterface;

  AliasResult getAlias(Type type, raw_ostream &os) const override {
    auto cache = dyn_cast<CacheType>(type);
    if (!cache)
      return AliasResult::NoAlias;
    std::string text = cache.getFormat().toText();
    std::replace(text.begin(), text.end(), '-', '_');
    os << "cache_" << text;
    return AliasResult::FinalAlias;
  }
};

} // namespace

void KvqDialect::initialize() {
  registerAttributes();
  registerTypes();
  addOperations<
#define GET_OP_LIST
#include "dialect/kvq/KvqOps.cpp.inc"
      >();
  addInterfaces<KvqAsmInterface>();
}

// kernel_c1, kernel_c2
static LogicalResult verifyKernel(Operation *op, Attribute value) {
  auto func = dyn_cast<func::FuncOp>(op);
  auto text = dyn_cast<StringAttr>(value);
  if (!func || !text) // kernel_c1
    return op->emitOpError("has '") << kKernelAttr << "', which is the text of a kernel request on a func.func";
  auto request = ::kvq::parseKernelRequest(std::string_view(text.getValue()));
  if (!request.isOk()) // kernel_c1
    return func.emitOpError("has an illegal '") << kKernelAttr << "': " << request.status().message();
  auto cache = CacheType::get(op->getContext(), request.value());
  for (auto [i, type] : llvm::enumerate(func.getArgumentTypes()))
    if (isa<CacheType>(type) && type != cache) // kernel_c2
      return func.emitOpError("argument ") << i << " is another cache than the one of \"" << text.getValue()
                                           << "\"; change the request, or give the argument type " << cache;
  return success();
}

LogicalResult KvqDialect::verifyOperationAttribute(Operation *op, NamedAttribute attribute) {
  if (attribute.getName() == kKernelAttr)
    return verifyKernel(op, attribute.getValue());
  if (attribute.getName() == kTargetAttr && !isa<TargetAttr>(attribute.getValue())) // target_c2
    return op->emitOpError("'") << kTargetAttr << "' is " << attribute.getValue()
                                << "; use a #kvq.target, as in #kvq.target<\"x86-64\">";
  return success();
}

std::optional<::kvq::KernelRequest> mlir::kvq::getKernelRequest(func::FuncOp func) {
  auto text = func->getAttrOfType<StringAttr>(kKernelAttr);
  if (!text)
    return std::nullopt;
  auto request = ::kvq::parseKernelRequest(std::string_view(text.getValue()));
  if (!request.isOk())
    return std::nullopt;
  return request.value();
}
