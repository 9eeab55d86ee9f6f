// SPDX-License-Identifier: Apache-2.0
#include "runtime/jit/cubin_store.h"

#include "runtime/jit/late_nvrtc.h"
#include "runtime/jit/ptx_wrapper.h"

#include <chrono>

namespace kvq {

Result<CompiledKernel> obtainCubin(const KernelStore &store, const Nvrtc &nvrtc, std::string_view ptx,
                                   const std::string &entry, const std::string &arch, const CubinOptions &options,
                                   bool &compiled) {
  compiled = false;
  // What NVRTC gets rather than the PTX: it tells how the PTX was wrapped as well.
  auto wrapped = wrapPtx(ptx, entry, options.maxRegisters);
  if (!wrapped.isOk())
    return wrapped.status();
  const std::string key = kernelKey({"cubin", wrapped.value().source, wrapped.value().target, entry, arch,
                                     "registers " + std::to_string(wrapped.value().maxRegisters), nvrtc.identity()});
  const auto compile = [&]() -> Result<CompiledKernel> {
    const auto begin = std::chrono::steady_clock::now();
    auto cubin = nvrtc.compilePtx(ptx, entry, arch, options);
    if (!cubin.isOk())
      return cubin.status();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    return CompiledKernel{std::move(cubin.value().bytes), entry, "", took.count(), std::move(cubin.value().log)};
  };
  return store.readOrCompile(key, compile, compiled);
}

namespace {

// A name that a user of the module looks up must be a global symbol, which NVRTC makes of kernels alone.
Status checkNames(std::string_view ptx) {
  auto module = PtxModule::parse(ptx);
  if (!module.isOk())
    return module.status();
  for (const PtxVariable &variable : module.value().variables)
    if (variable.isNamedOutside())
      return {Code::Unsupported, "NVRTC would hide the variable " + std::string(variable.name) +
                                     " of the PTX, which others can name: let the driver compile it"};
  return Status::ok();
}

} // namespace

CubinFunction cubinFunction(KernelStore store, CudaLibrarySearch search) {
  return [store = std::move(store), late = std::make_shared<LateNvrtc>(std::move(search))](
             std::string_view ptx, const std::string &entry, const std::string &arch) -> Result<std::vector<uint8_t>> {
    const auto &nvrtc = late->get();
    if (!nvrtc.isOk())
      return nvrtc.status();
    KVQ_RETURN_IF_ERROR(checkNames(ptx));
    bool compiled = false;
    auto cubin = obtainCubin(store, *nvrtc.value(), ptx, entry, arch, {}, compiled);
    if (!cubin.isOk())
      return cubin.status();
    return std::move(cubin.value().object);
  };
}

} // namespace kvq
