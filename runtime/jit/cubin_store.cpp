// SPDX-License-Identifier: Apache-2.0
#include "runtime/jit/cubin_store.h"

#include "runtime/jit/late_nvrtc.h"
#include "runtime/jit/ptx_wrapper.h"

#include <chrono>

namespace kvq {

namespace {

struct CubinText {
  std::string_view ptx;
  const std::string &entry, &arch;
};

// The key covers what NVRTC gets rather than the PTX: it tells how the PTX was wrapped as well. `by`: the compiler
// whose code is wanted.
Result<std::string> cubinKey(const CubinText &text, const CubinOptions &options, std::string_view by) {
  auto wrapped = wrapPtx(text.ptx, text.entry, options.maxRegisters);
  if (!wrapped.isOk())
    return wrapped.status();
  return kernelKey({"cubin", wrapped.value().source, wrapped.value().target, text.entry, text.arch,
                    "registers " + std::to_string(wrapped.value().maxRegisters), by});
}

constexpr std::string_view kAnyNvrtc = "any NVRTC";

Result<CompiledKernel> obtain(const KernelStore &store, const Nvrtc &nvrtc, const CubinText &text,
                              const CubinOptions &options, std::string_view by, bool &compiled) {
  compiled = false;
  auto key = cubinKey(text, options, by);
  if (!key.isOk())
    return key.status();
  const auto compile = [&]() -> Result<CompiledKernel> {
    const auto begin = std::chrono::steady_clock::now();
    auto cubin = nvrtc.compilePtx(text.ptx, text.entry, text.arch, options);
    if (!cubin.isOk())
      return cubin.status();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    return CompiledKernel{std::move(cubin.value().bytes), text.entry, "", took.count(), std::move(cubin.value().log)};
  };
  return store.readOrCompile(key.value(), compile, compiled);
}

} // namespace

Result<CompiledKernel> obtainCubin(const KernelStore &store, const Nvrtc &nvrtc, std::string_view ptx,
                                   const std::string &entry, const std::string &arch, const CubinOptions &options,
                                   bool &compiled) {
  return obtain(store, nvrtc, {ptx, entry, arch}, options, nvrtc.identity(), compiled);
}

Result<CompiledKernel> prepareCubin(const KernelStore &store, const Nvrtc &nvrtc, std::string_view ptx,
                                    const std::string &entry, const std::string &arch, bool &compiled) {
  return obtain(store, nvrtc, {ptx, entry, arch}, {}, kAnyNvrtc, compiled);
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

CubinFunction cubinFunction(KernelStore store, bool frozen, CudaLibrarySearch search) {
  return [store = std::move(store), frozen, late = std::make_shared<LateNvrtc>(std::move(search))](
             std::string_view ptx, const std::string &entry, const std::string &arch) -> Result<std::vector<uint8_t>> {
    auto key = cubinKey({ptx, entry, arch}, {}, kAnyNvrtc);
    if (!key.isOk())
      return key.status();
    if (auto prepared = store.read(key.value()); prepared.isOk())
      return std::move(prepared.value().object);
    else if (frozen)
      return prepared.status();
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
