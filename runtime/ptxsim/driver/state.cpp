// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/driver/state.h"

#include <cstdio>

using namespace kvq::ptxsim;

CUctx_st::CUctx_st(const Settings &settings) : gpu(settings), perThread(gpu.queue().createStream(true)) {
  gpu.onReport([](const Report &report) {
    const std::string message = failureOf(report).message;
    if (!report.clean() && lookalike::driver().printed.insert(message).second)
      std::fprintf(stderr, "ptxsim: %s\n%s", message.c_str(),
                   report.message.empty() ? "" : (report.message + "\n").c_str());
  });
}

namespace kvq::ptxsim::lookalike {

// Never destroyed: a program may call the driver while it exits.
Driver &driver() {
  static Driver *one = new Driver;
  return *one;
}

std::vector<CUcontext> &currentStack() {
  static thread_local std::vector<CUcontext> stack;
  return stack;
}

CUresult codeOf(const Failure &failure) {
  switch (failure.kind) {
  case Failure::Kind::None:
    return CUDA_SUCCESS;
  case Failure::Kind::IllegalAddress:
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  case Failure::Kind::Misaligned:
    return CUDA_ERROR_MISALIGNED_ADDRESS;
  case Failure::Kind::LaunchFailure:
    return CUDA_ERROR_LAUNCH_FAILED;
  case Failure::Kind::Timeout:
    return CUDA_ERROR_LAUNCH_TIMEOUT;
  }
  return CUDA_ERROR_UNKNOWN;
}

CUresult codeOf(const Status &status) {
  switch (status.code()) {
  case Code::Ok:
    return CUDA_SUCCESS;
  case Code::ResourceExhausted:
    return CUDA_ERROR_OUT_OF_MEMORY;
  default:
    return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult current(CUcontext &context) {
  if (currentStack().empty() || !currentStack().back())
    return CUDA_ERROR_INVALID_CONTEXT;
  context = currentStack().back();
  return driver().contexts.count(context) ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

bool findStream(CUcontext context, CUstream stream, StreamId &id) {
  const auto number = reinterpret_cast<uintptr_t>(stream);
  if (number <= kPerThreadStream) {
    id = number == kPerThreadStream ? context->perThread : WorkQueue::kDefaultStream;
    return true;
  }
  const auto found = context->streams.find(stream);
  if (found != context->streams.end())
    id = found->second->id;
  return found != context->streams.end();
}

CUmodule findModule(CUmodule module) {
  for (const auto &[handle, context] : driver().contexts)
    if (context->modules.count(module))
      return module;
  return nullptr;
}

CUfunction findFunction(CUfunction function) {
  for (const auto &[handle, context] : driver().contexts)
    for (const auto &[name, module] : context->modules)
      for (const auto &[entry, known] : module->functions)
        if (known.get() == function)
          return function;
  return nullptr;
}

CUevent findEvent(CUcontext context, CUevent event) { return context->events.count(event) ? event : nullptr; }

void destroyContext(CUcontext context) {
  // Work that nobody waited for is done all the same: its findings must be seen.
  if (context->gpu.failure().kind == Failure::Kind::None)
    (void)context->gpu.synchronizeAll();
  driver().contexts.erase(context);
}

} // namespace kvq::ptxsim::lookalike
