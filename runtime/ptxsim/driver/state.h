// SPDX-License-Identifier: Apache-2.0
//
// What the driver look-alike knows: contexts with a simulated GPU each, handles, and the contexts of each thread. One
// lock around every call.
#pragma once

#include "runtime/format/ptx_text.h"
#include "runtime/ptxsim/driver/cuda_api.h"
#include "runtime/ptxsim/gpu/gpu.h"

#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>

struct CUfunc_st {
  CUmodule module;
  kvq::ptxsim::KernelAttributes attributes;
  int maxDynamicShared; // bytes that a launch may ask for
  int carveout = -1;
};
struct CUmod_st {
  CUcontext context;
  kvq::ptxsim::ModuleRef module;
  kvq::PtxTarget target;
  std::map<std::string, std::unique_ptr<CUfunc_st>> functions; // those that were asked for
};
struct CUstream_st {
  CUcontext context;
  kvq::ptxsim::StreamId id;
};
struct CUevent_st {
  CUcontext context;
  kvq::ptxsim::EventId id;
  unsigned flags;
};
// A context has a GPU of its own: a failure ends with it, as the driver's do.
struct CUctx_st {
  explicit CUctx_st(const kvq::ptxsim::Settings &settings);
  kvq::ptxsim::Gpu gpu;
  std::map<CUmodule, std::unique_ptr<CUmod_st>> modules;
  std::map<CUstream, std::unique_ptr<CUstream_st>> streams;
  std::map<CUevent, std::unique_ptr<CUevent_st>> events;
  std::map<const char *, std::unique_ptr<char[]>> pinned; // by address
  std::map<const char *, size_t> pinnedBytes;
  kvq::ptxsim::StreamId perThread; // one for all threads: what they hand in is in some order anyway
};

namespace kvq::ptxsim::lookalike {

struct Driver {
  std::mutex mutex;
  bool initialised = false;
  Settings settings;
  std::map<CUcontext, std::unique_ptr<CUctx_st>> contexts;
  CUcontext primary = nullptr;
  int primaryRetained = 0;
  std::set<std::string> printed; // findings that stderr has seen
};
Driver &driver();
std::vector<CUcontext> &currentStack(); // of this thread

// The code of a failure of the GPU; CUDA_SUCCESS: none.
CUresult codeOf(const Failure &failure);
// The code of a refused call.
CUresult codeOf(const Status &status);

// The result of work that was waited for.
inline CUresult result(CUcontext context, const Status &) { return codeOf(context->gpu.failure()); }

// Runs a function under the lock once cuInit was called.
template <typename Function> CUresult call(const Function &function) noexcept {
  try {
    std::lock_guard<std::mutex> lock(driver().mutex);
    return driver().initialised ? function() : CUDA_ERROR_NOT_INITIALIZED;
  } catch (const std::bad_alloc &) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  } catch (const std::exception &) {
    return CUDA_ERROR_UNKNOWN;
  }
}

// The context that is current in this thread: CUDA_ERROR_INVALID_CONTEXT without one.
CUresult current(CUcontext &context);

// The same with the current context, whose failure every call answers.
template <typename Function> CUresult inContext(const Function &function) noexcept {
  return call([&]() -> CUresult {
    CUcontext context = nullptr;
    if (CUresult error = current(context))
      return error;
    if (CUresult error = codeOf(context->gpu.failure()))
      return error;
    return function(context);
  });
}

// Handles: false if there is none such in the context.
bool findStream(CUcontext context, CUstream stream, StreamId &id);
CUmodule findModule(CUmodule module); // null: none, in any context
CUfunction findFunction(CUfunction function);
CUevent findEvent(CUcontext context, CUevent event);

void destroyContext(CUcontext context);

} // namespace kvq::ptxsim::lookalike
