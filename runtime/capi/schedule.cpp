// SPDX-License-Identifier: Apache-2.0
//
// kvq_schedule_*, kvq_kernel_open_scheduled: how kernels run.
#include "runtime/capi/targets.h"

#include "runtime/format/text.h"

#include <algorithm>

using namespace kvq;
using namespace kvq::capi;

namespace {

// A request with its score function and schedule, NULL for none, as texts of the caller's say it; `score` keeps the
// function.
Result<KernelText> textOf(const char *request, const kvq_score_function *given, const char *schedule,
                          std::shared_ptr<const ScoreFunction> &score) {
  auto parsed = parseKernelRequest(request);
  if (!parsed.isOk())
    return parsed.status();
  if (given) {
    auto function = toScore(given);
    if (!function.isOk())
      return function.status();
    score = function.value();
  }
  KVQ_RETURN_IF_ERROR(checkScored(parsed.value(), score.get()));
  KernelText text{toText(parsed.value()), false, score.get()};
  if (schedule) {
    KVQ_RETURN_IF_ERROR(parseSchedule(schedule).status());
    text.schedule = schedule;
  }
  return text;
}

// Whether it is one line and says that target, its last key: a choice for anything else would never be found.
Status checkMachine(std::string_view machine, std::string_view target) {
  const std::string end = "\"target\":\"" + std::string(target) + "\"}";
  const bool isLine = std::all_of(machine.begin(), machine.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (isLine && machine.starts_with("{") && machine.ends_with(end))
    return Status::ok();
  return {Code::InvalidArgument, "the machine " + text::quote(machine) + " is none of target " + text::quote(target) +
                                     ": pass what kvq_context_machine says there"};
}

} // namespace

extern "C" {

kvq_error *kvq_schedule_space(kvq_context *context, const char *request, size_t capacity, char *text, size_t *bytes) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(request);
    KVQ_REQUIRE(bytes);
    if (capacity)
      KVQ_REQUIRE(text);
    std::shared_ptr<const ScoreFunction> none;
    auto what = textOf(request, nullptr, nullptr, none);
    if (!what.isOk())
      return what.status();
    auto kernels = context->device->compiledKernels();
    if (!kernels.isOk())
      return kernels.status();
    auto space = kernels.value()->schedules(what.value().text);
    if (!space.isOk())
      return space.status();
    const std::string list = toText(space.value());
    *bytes = list.size() + 1;
    if (list.size() < capacity)
      std::memcpy(text, list.c_str(), list.size() + 1);
    return Status::ok();
  });
}

kvq_error *kvq_schedule_set(kvq_context *context, const char *request, const kvq_score_function *score,
                            const char *schedule) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(request);
    std::shared_ptr<const ScoreFunction> kept;
    auto what = textOf(request, score, schedule, kept);
    if (!what.isOk())
      return what.status();
    auto kernels = context->device->compiledKernels();
    return kernels.isOk() ? kernels.value()->choose(what.value()) : kernels.status();
  });
}

kvq_error *kvq_schedule_prepare(kvq_context *context, const char *target, const char *machine, const char *request,
                                const kvq_score_function *score, const char *schedule, kvq_kernel_visitor progress,
                                void *user_data) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(target);
    KVQ_REQUIRE(machine);
    KVQ_REQUIRE(request);
    KVQ_REQUIRE(schedule);
    std::shared_ptr<const ScoreFunction> kept;
    auto what = textOf(request, score, schedule, kept);
    if (!what.isOk())
      return what.status();
    KVQ_RETURN_IF_ERROR(checkMachine(machine, target));
    auto kernels = targetKernels(*context, target, machine);
    if (!kernels.isOk())
      return kernels.status();
    auto prepared = kernels.value().front()->prepareChosen(what.value());
    if (!prepared.isOk())
      return prepared.status();
    tell(progress, user_data, prepared.value().kernel);
    if (prepared.value().cubin)
      tell(progress, user_data, *prepared.value().cubin);
    return Status::ok();
  });
}

kvq_error *kvq_kernel_open_scheduled(kvq_context *context, const char *request, const kvq_score_function *score,
                                     const char *schedule, kvq_kernel **kernel) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(request);
    KVQ_REQUIRE(schedule);
    KVQ_REQUIRE(kernel);
    std::shared_ptr<const ScoreFunction> kept;
    auto what = textOf(request, score, schedule, kept);
    if (!what.isOk())
      return what.status();
    auto kernels = context->device->compiledKernels();
    if (!kernels.isOk())
      return kernels.status();
    auto opened = kernels.value()->obtain(what.value());
    if (!opened.isOk())
      return opened.status();
    *kernel = makeKernel(context->device, opened.value());
    return Status::ok();
  });
}

} // extern "C"
