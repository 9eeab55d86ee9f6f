// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/target_kernels.h"

#include "runtime/format/text.h"
#include "runtime/jit/cubin_store.h"

#include <algorithm>

namespace kvq {

namespace {

std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> all;
  std::string word;
  for (char c : std::string(text) + " ") {
    if (c != ' ' && c != ',')
      word += c;
    else if (!word.empty())
      all.push_back(std::exchange(word, ""));
  }
  return all;
}

// A kernel of the store, with its code, that this process does not run.
class StoredKernel : public Kernel {
public:
  StoredKernel(KernelInfo info, CompiledKernel compiled) : Kernel(std::move(info)), compiled(std::move(compiled)) {}
  int32_t run(const uint64_t *, const int64_t *) const override { return -1; }
  const CompiledKernel compiled;
};

} // namespace

Result<std::vector<std::string>> parseTargets(const Compiler &compiler, std::string_view targets) {
  const std::vector<std::string> known = words(compiler.targets()), asked = words(targets);
  if (asked.empty())
    return Status(Code::InvalidArgument, "no target is named: use some of " + compiler.targets());
  for (const std::string &target : asked)
    if (std::find(known.begin(), known.end(), target) == known.end())
      return Status(Code::InvalidArgument, "target " + text::quote(target) +
                                               " is none that the compiler makes code for: use some of " +
                                               compiler.targets());
  return asked;
}

Result<std::unique_ptr<TargetKernels>> TargetKernels::open(std::shared_ptr<const Compiler> compiler, std::string target,
                                                           const char *storeDir, std::string machine) {
  auto store = KernelStore::open(storeDir, KernelStore::Access::ReadWrite);
  if (!store.isOk())
    return store.status();
  if (store.value().directory().empty())
    return Status(Code::InvalidArgument, "there is no kernel store to put kernels of other targets into: give "
                                         "store_dir a folder");
  std::unique_ptr<TargetKernels> made(new TargetKernels(std::move(target), std::move(store.value())));
  KernelSourceSettings settings{std::move(compiler), made->target_, storeDir, false};
  settings.machine = std::move(machine);
  if (isAcceleratorTarget(made->target_)) {
    settings.refusal = Code::Unsupported;
    settings.addHook = scoreHookFunction();
    if (auto nvrtc = Nvrtc::load(); nvrtc.isOk())
      made->nvrtc_ = nvrtc.value();
  }
  auto source = KernelSource::open(std::move(settings), [](const CompiledKernel &compiled, KernelInfo info) {
    return Result<KernelRef>(std::make_shared<StoredKernel>(std::move(info), compiled));
  });
  if (!source.isOk())
    return source.status();
  made->source_ = std::move(source.value());
  return made;
}

Result<std::optional<KernelInfo>> TargetKernels::prepareCubin(const CompiledKernel &compiled,
                                                              const KernelInfo &kernel) const {
  bool isFresh = false;
  const std::string_view ptx(reinterpret_cast<const char *>(compiled.object.data()), compiled.object.size());
  auto cubin =
      kvq::prepareCubin(store_, *nvrtc_, ptx, compiled.entry, target_.substr(kAcceleratorTargets.size()), isFresh);
  // An NVRTC that is older than the target, or newer: the driver there compiles the PTX.
  if (!cubin.isOk() && cubin.status().code() == Code::Unsupported)
    return std::optional<KernelInfo>();
  if (!cubin.isOk())
    return cubin.status();
  return std::optional(KernelInfo{"cubin of " + kernel.name, isFresh ? "compiled" : "store", "", kernel.signature,
                                  cubin.value().compileMs, static_cast<int64_t>(cubin.value().object.size())});
}

Result<TargetKernels::Prepared> TargetKernels::prepare(const KernelRequest &request, const ScoreFunction *score) {
  return obtain({toText(request), false, score});
}

// The kernel first: a choice without one would be passed over.
Result<TargetKernels::Prepared> TargetKernels::prepareChosen(const KernelText &what) {
  auto prepared = obtain(what);
  if (prepared.isOk())
    KVQ_RETURN_IF_ERROR(source_->choose(what));
  return prepared;
}

Result<TargetKernels::Prepared> TargetKernels::obtain(const KernelText &what) {
  auto kernel = source_->obtain(what);
  if (!kernel.isOk())
    return kernel.status();
  Prepared prepared{kernel.value()->info(), std::nullopt};
  if (nvrtc_) {
    auto cubin = prepareCubin(static_cast<const StoredKernel &>(*kernel.value()).compiled, prepared.kernel);
    if (!cubin.isOk())
      return cubin.status();
    prepared.cubin = std::move(cubin.value());
  }
  return prepared;
}

} // namespace kvq
