// SPDX-License-Identifier: Apache-2.0
#include "runtime/capi/targets.h"

namespace kvq::capi {

Result<std::vector<std::unique_ptr<TargetKernels>>> targetKernels(const kvq_context &context, const char *targets,
                                                                  const std::string &machine) {
  if (context.frozen)
    return Status(Code::FailedPrecondition,
                  "this context is frozen and compiles nothing: prepare kernels in one that is not");
  auto compiler = Compiler::load(context.compiler ? context.compiler->c_str() : nullptr);
  if (!compiler.isOk())
    return compiler.status();
  auto names = parseTargets(*compiler.value(), targets);
  if (!names.isOk())
    return names.status();
  std::vector<std::unique_ptr<TargetKernels>> all;
  for (const std::string &name : names.value()) {
    auto kernels =
        TargetKernels::open(compiler.value(), name, context.storeDir ? context.storeDir->c_str() : nullptr, machine);
    if (!kernels.isOk())
      return kernels.status();
    all.push_back(std::move(kernels.value()));
  }
  return all;
}

} // namespace kvq::capi
