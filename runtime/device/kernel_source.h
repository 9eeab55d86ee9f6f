// SPDX-License-Identifier: Apache-2.0
//
// Where compiled kernels come from: memory, the store or the compiler, in this order. Before that a schedule that was
// chosen for a request is looked up (choice_store.h). What a compiled kernel becomes, a function of the host or of an
// accelerator, is for the device to say.
#pragma once

#include "runtime/device/device.h"
#include "runtime/jit/choice_store.h"
#include "runtime/jit/kernel_store.h"
#include "runtime/jit/score_hook.h"

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>

namespace kvq {

struct KernelSourceSettings {
  std::shared_ptr<const Compiler> compiler;
  std::string level;
  const char *storeDir = nullptr; // as KernelStore::open takes it
  bool frozen = false;            // never compile
  // The code of a built-in kernel that the compiler refuses. On a host every request has its kernel.
  Code refusal = Code::Internal;
  std::string machine = {};       // Device::machine(), of which schedules are looked up; "": of none
  ScoreHookFunction addHook = {}; // what puts CUDA C++ into a kernel; none on a host
};

// What a kernel is made of: a request's text, with a score function or without, or an IR module.
struct KernelText {
  std::string text;
  bool isSource = false;
  const ScoreFunction *score = nullptr;
  std::string schedule = {}; // of a request: exactly this one; "": the chosen one, else the default
};

// All calls are thread-safe.
class KernelSource {
public:
  using Load = std::function<Result<KernelRef>(const CompiledKernel &, KernelInfo)>;
  static Result<std::unique_ptr<KernelSource>> open(KernelSourceSettings settings, Load load);

  // Of all threads one makes it. A chosen schedule with which there is no kernel, as it is not legal or not in the
  // store of a frozen context, is passed over.
  Result<KernelRef> obtain(const KernelText &what);
  // Whether obtain() of a request could succeed, without compiling anything.
  Status available(const KernelText &what) const;
  // The one kernel of an IR module, which has that name unless it is "".
  Result<KernelRef> obtainSource(const std::string &source, const std::string &entry);
  std::vector<KernelRef> kernels() const; // made so far

  // The schedules that a request can have here. InvalidArgument in the compiler's words.
  Result<ScheduleSpace> schedules(const std::string &request) const;
  // Chooses a schedule for a request, what.schedule, or forgets the choice where that is "": for kernels that are
  // obtained from now on, here and wherever the store's folder is used on such a machine. InvalidArgument: it is not
  // legal; FailedPrecondition: there is no store, or the context is frozen.
  Status choose(const KernelText &what);

  // The split policy that was chosen for what policies depend on (runtime/cache/split_choice.h), "": none. And choosing
  // one, or forgetting the choice: FailedPrecondition as choose() has it. Whether the texts are legal is the caller's
  // business.
  std::string chosenSplits(const std::string &request) const;
  Status chooseSplits(const std::string &request, const std::string &policy);

private:
  KernelSource(KernelSourceSettings settings, KernelStore store, Load load)
      : settings_(std::move(settings)), store_(std::move(store)), schedules_(ChoiceStore::schedules(store_)),
        splits_(ChoiceStore::splits(store_)), load_(std::move(load)) {}
  std::string key(const KernelText &what) const;
  ChoiceKey choiceKey(const KernelText &what) const;
  Status choose(const ChoiceStore &among, const ChoiceKey &key, const std::string &choice) const;
  KernelText withChosenSchedule(const KernelText &what) const;
  Result<KernelRef> obtainExactly(const KernelText &what);
  Status isThere(const KernelText &what) const;
  Result<CompiledKernel> compile(const KernelText &what) const;
  Result<CompiledKernel> compileScored(const KernelText &what) const;
  Result<KernelRef> make(const std::string &key, const KernelText &what) const;
  Status checkScore(const ScoreFunction *score) const;
  Status notInStore(const KernelText &what, const Status &why) const;

  KernelSourceSettings settings_;
  KernelStore store_;
  ChoiceStore schedules_, splits_; // that were chosen
  Load load_;
  mutable std::mutex mutex_;
  std::condition_variable made_;
  std::map<std::string, KernelRef> kernels_; // by key; null while one thread makes it
};

} // namespace kvq
