// SPDX-License-Identifier: Apache-2.0
//
// The compiler as a plug-in of the runtime: kvq/compiler_plugin.h over compile().

#include "codegen/Compile.h"
#include "codegen/ScheduleSpace.h"
#include "codegen/cpu/Target.h"
#include "kvq/compiler_plugin.h"

#include "llvm/Config/llvm-config.h"

#include <memory>

using namespace mlir::kvq;

namespace {
struct Output : kvq_compile_output {
  CompileResult result;
  std::string text;
};

llvm::Expected<CompileResult> compileFor(llvm::StringRef target, CompileInput &input) {
  auto found = findTarget(target);
  if (!found)
    return found.takeError();
  input.target = *found;
  return compile(input);
}

std::unique_ptr<Output> emptyOutput() {
  auto output = std::make_unique<Output>();
  static_cast<kvq_compile_output &>(*output) = {nullptr, 0, kEntryName.data(), "", "", 0};
  return output;
}

kvq_compile_output *refused(std::unique_ptr<Output> output, std::string message) {
  output->text = std::move(message);
  output->message = output->text.c_str();
  return output.release();
}
} // namespace

#define KVQ_EXPORT extern "C" __attribute__((visibility("default")))

KVQ_EXPORT int32_t kvq_compiler_plugin_version(void) { return KVQ_COMPILER_PLUGIN_VERSION; }

KVQ_EXPORT const char *kvq_compiler_llvm_version(void) { return LLVM_VERSION_STRING; }

KVQ_EXPORT const char *kvq_compiler_hash(void) {
  static const std::string hash = compilerHash();
  return hash.c_str();
}

KVQ_EXPORT const char *kvq_compiler_host_levels(void) {
  static const std::string names = [] {
    std::string text;
    for (const cpu::CpuLevel *level : cpu::hostLevels())
      text += (text.empty() ? "" : " ") + level->name;
    return text;
  }();
  return names.c_str();
}

KVQ_EXPORT const char *kvq_compiler_targets(void) {
  static const std::string names = [] {
    std::string text;
    for (const Target *target : allTargets())
      text += (text.empty() ? "" : " ") + target->name();
    return text;
  }();
  return names.c_str();
}

KVQ_EXPORT kvq_compile_output *kvq_compiler_schedules(const kvq_compile_input *input) {
  auto output = emptyOutput();
  auto target = findTarget(input->level ? input->level : "");
  if (!target)
    return refused(std::move(output), llvm::toString(target.takeError()));
  auto request = ::kvq::parseKernelRequest(input->request ? input->request : "");
  if (!request.isOk())
    return refused(std::move(output), request.status().message());
  const auto space = getScheduleSpace(request.value(), **target);
  if (!space.isOk())
    return refused(std::move(output), space.status().message());
  if (input->schedule) {
    auto schedule = ::kvq::parseSchedule(input->schedule);
    ::kvq::Status legal = schedule.isOk() ? ::kvq::checkSchedule(space.value(), schedule.value()) : schedule.status();
    if (!legal.isOk())
      return refused(std::move(output), legal.message());
  }
  output->text = ::kvq::toText(space.value());
  output->object = output->text.data();
  output->object_bytes = output->text.size();
  return output.release();
}

KVQ_EXPORT kvq_compile_output *kvq_compiler_compile(const kvq_compile_input *input) {
  auto output = emptyOutput();
  CompileInput request;
  request.request = input->request ? input->request : "";
  request.source = input->source ? input->source : "";
  request.score = input->score ? input->score : "";
  request.schedule = input->schedule ? input->schedule : "";
  request.bundleDir = input->bundle_dir ? input->bundle_dir : "";
  auto result = compileFor(input->level ? input->level : "", request);
  if (!result)
    return refused(std::move(output), llvm::toString(result.takeError()));
  output->result = std::move(*result);
  output->object = output->result.output.data();
  output->object_bytes = output->result.output.size();
  output->signature = output->result.signature.c_str();
  output->compile_ms = output->result.milliseconds;
  return output.release();
}

KVQ_EXPORT void kvq_compiler_free(kvq_compile_output *output) { delete static_cast<Output *>(output); }
