// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/kernel_source.h"

#include "runtime/format/text.h"

namespace kvq {

namespace {

// The score function of a kernel whose own is CUDA C++: a call of it.
constexpr const char *kCallHook = R"(func.func @hook(%score: f32, %b: index, %h: index, %q: index, %k: index) -> f32 {
  %batch = arith.index_cast %b : index to i32
  %head = arith.index_cast %h : index to i32
  %query = arith.index_cast %q : index to i32
  %key = arith.index_cast %k : index to i32
  %result = kvq_tile.score_hook %score, %batch, %head, %query, %key : f32, i32
  return %result : f32
})";

std::string nameOf(const KernelText &what) {
  return what.score ? what.text + " with score function " + text::quote(what.score->name) : what.text;
}

std::string_view kindOf(const ScoreFunction &score) {
  return score.language == ScoreLanguage::Cuda ? "request with CUDA" : "request with IR";
}

} // namespace

Result<std::unique_ptr<KernelSource>> KernelSource::open(KernelSourceSettings settings, Load load) {
  auto store = KernelStore::open(settings.storeDir,
                                 settings.frozen ? KernelStore::Access::ReadOnly : KernelStore::Access::ReadWrite);
  if (!store.isOk())
    return store.status();
  settings.storeDir = nullptr; // borrowed for this call
  return std::unique_ptr<KernelSource>(
      new KernelSource(std::move(settings), std::move(store.value()), std::move(load)));
}

// The name of a score function is not part of its code. Neither is the NVRTC that compiles one: a store may be filled
// where there is one and used where there is none.
std::string KernelSource::key(const KernelText &what) const {
  const std::string &hash = settings_.compiler->hash();
  if (!what.score)
    return kernelKey(what.text, what.isSource, settings_.level, hash, what.schedule);
  const std::string_view parts[] = {kindOf(*what.score), what.text,    settings_.level, hash,
                                    what.score->text,    what.schedule};
  return kernelKey(std::span(parts).first(what.schedule.empty() ? 5 : 6));
}

ChoiceKey KernelSource::choiceKey(const KernelText &what) const {
  const std::string score = what.score ? kernelKey({kindOf(*what.score), what.score->text}) : "";
  return {what.text, score, settings_.level, settings_.compiler->hash(), settings_.machine};
}

KernelText KernelSource::withChosenSchedule(const KernelText &what) const {
  KernelText chosen = what;
  if (!what.isSource && what.schedule.empty() && !settings_.machine.empty())
    chosen.schedule = schedules_.read(choiceKey(what));
  return chosen;
}

Result<ScheduleSpace> KernelSource::schedules(const std::string &request) const {
  return settings_.compiler->schedules(request, settings_.level);
}

Status KernelSource::choose(const ChoiceStore &among, const ChoiceKey &key, const std::string &choice) const {
  if (settings_.frozen)
    return {Code::FailedPrecondition, "this context is frozen and keeps what is chosen: choose in one that is not"};
  return choice.empty() ? among.forget(key) : among.write(key, choice);
}

Status KernelSource::choose(const KernelText &what) {
  if (!settings_.frozen && !what.schedule.empty())
    KVQ_RETURN_IF_ERROR(settings_.compiler->checkSchedule(what.text, settings_.level, what.schedule));
  return choose(schedules_, choiceKey(what), what.schedule);
}

std::string KernelSource::chosenSplits(const std::string &request) const {
  return settings_.machine.empty() ? "" : splits_.read(choiceKey({request}));
}

Status KernelSource::chooseSplits(const std::string &request, const std::string &policy) {
  return choose(splits_, choiceKey({request}), policy);
}

Status KernelSource::notInStore(const KernelText &what, const Status &why) const {
  if (why.code() == Code::Corrupt)
    return why;
  return {Code::Unsupported,
          "kernel " + (what.isSource ? "of this text" : nameOf(what)) + " for level " + settings_.level +
              " is not in the kernel store " + store_.directory() +
              " and this context is frozen: run kvq_cache_prepare in a context that is not, or kvq_prepare_targets on "
              "another machine"};
}

Status KernelSource::checkScore(const ScoreFunction *score) const {
  if (!score || score->language != ScoreLanguage::Cuda || settings_.addHook)
    return Status::ok();
  return {Code::Unsupported, "score function " + text::quote(score->name) +
                                 " is CUDA C++, which a CPU cannot run: write it as a score region in IR, which runs "
                                 "on every device, or use device cuda or ptxsim"};
}

Status KernelSource::available(const KernelText &what) const {
  KVQ_RETURN_IF_ERROR(checkScore(what.score));
  if (!settings_.frozen)
    return Status::ok();
  const KernelText chosen = withChosenSchedule(what);
  if (!chosen.schedule.empty() && isThere(chosen).isOk())
    return Status::ok();
  return isThere(what);
}

Status KernelSource::isThere(const KernelText &what) const {
  const std::string name = key(what);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (auto found = kernels_.find(name); found != kernels_.end() && found->second)
      return Status::ok();
  }
  auto stored = store_.read(name);
  return stored.isOk() ? Status::ok() : notInStore(what, stored.status());
}

Result<CompiledKernel> KernelSource::compileScored(const KernelText &what) const {
  const ScoreFunction &score = *what.score;
  const bool isCuda = score.language == ScoreLanguage::Cuda;
  auto compiled =
      settings_.compiler->compile(what.text, false, isCuda ? kCallHook : score.text, settings_.level, what.schedule);
  if (!compiled.isOk() && compiled.status().code() == Code::InvalidArgument)
    return Status(Code::InvalidArgument,
                  "score function " + text::quote(score.name) + ": " + compiled.status().message());
  if (!compiled.isOk() || !isCuda)
    return compiled;
  std::vector<uint8_t> &object = compiled.value().object;
  const std::string arch = settings_.level.substr(settings_.level.find(':') + 1);
  auto linked =
      settings_.addHook({reinterpret_cast<const char *>(object.data()), object.size()}, score.text, score.name, arch);
  if (!linked.isOk())
    return linked.status();
  object.assign(linked.value().begin(), linked.value().end());
  return compiled;
}

Result<CompiledKernel> KernelSource::compile(const KernelText &what) const {
  auto compiled = what.score
                      ? compileScored(what)
                      : settings_.compiler->compile(what.text, what.isSource, "", settings_.level, what.schedule);
  if (!compiled.isOk() && compiled.status().code() == Code::Internal)
    return Status(settings_.refusal, compiled.status().message());
  return compiled;
}

Result<KernelRef> KernelSource::make(const std::string &key, const KernelText &what) const {
  KVQ_RETURN_IF_ERROR(checkScore(what.score));
  bool compiled = false;
  auto stored =
      settings_.frozen ? store_.read(key) : store_.readOrCompile(key, [&] { return compile(what); }, compiled);
  if (!stored.isOk())
    return settings_.frozen ? notInStore(what, stored.status()) : stored.status();
  const CompiledKernel &kernel = stored.value();
  return load_(kernel, {what.isSource ? kernel.entry : nameOf(what), compiled ? "compiled" : "store", key,
                        kernel.signature, kernel.compileMs, static_cast<int64_t>(kernel.object.size()), what.schedule});
}

Result<KernelRef> KernelSource::obtain(const KernelText &what) {
  if (!what.schedule.empty()) {
    KVQ_RETURN_IF_ERROR(settings_.compiler->checkSchedule(what.text, settings_.level, what.schedule));
    return obtainExactly(what);
  }
  const KernelText chosen = withChosenSchedule(what);
  if (!chosen.schedule.empty())
    if (auto kernel = obtainExactly(chosen); kernel.isOk())
      return kernel;
  return obtainExactly(what);
}

Result<KernelRef> KernelSource::obtainExactly(const KernelText &what) {
  const std::string name = key(what);
  std::unique_lock<std::mutex> lock(mutex_);
  for (auto found = kernels_.find(name); found != kernels_.end(); found = kernels_.find(name)) {
    if (found->second)
      return found->second;
    made_.wait(lock);
  }
  kernels_[name] = nullptr;
  lock.unlock();
  auto kernel = make(name, what);
  lock.lock();
  if (kernel.isOk())
    kernels_[name] = kernel.value();
  else
    kernels_.erase(name); // whoever waits for it tries again and gets the reason itself
  made_.notify_all();
  return kernel;
}

Result<KernelRef> KernelSource::obtainSource(const std::string &source, const std::string &entry) {
  auto kernel = obtain({source, true});
  if (kernel.isOk() && !entry.empty() && kernel.value()->info().name != entry)
    return Status(Code::InvalidArgument,
                  "the module has no kernel '" + entry + "': its one kernel is " + kernel.value()->info().name);
  return kernel;
}

std::vector<KernelRef> KernelSource::kernels() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<KernelRef> all;
  for (const auto &[name, kernel] : kernels_)
    if (kernel)
      all.push_back(kernel);
  return all;
}

} // namespace kvq
