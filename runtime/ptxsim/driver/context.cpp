// SPDX-License-Identifier: Apache-2.0
//
// Contexts and which of them is current in a thread.
#include "runtime/ptxsim/driver/state.h"

using namespace kvq::ptxsim;
using namespace kvq::ptxsim::lookalike;

static CUcontext makeContext() {
  auto made = std::make_unique<CUctx_st>(driver().settings);
  const CUcontext context = made.get();
  driver().contexts.emplace(context, std::move(made));
  return context;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  return call([&]() -> CUresult {
    if (!context)
      return CUDA_ERROR_INVALID_VALUE;
    if (device != 0)
      return CUDA_ERROR_INVALID_DEVICE;
    if (!driver().primary)
      driver().primary = makeContext();
    ++driver().primaryRetained;
    *context = driver().primary;
    return CUDA_SUCCESS;
  });
}

static void endPrimary() {
  if (driver().primary)
    destroyContext(driver().primary);
  driver().primary = nullptr;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return call([&]() -> CUresult {
    if (device != 0)
      return CUDA_ERROR_INVALID_DEVICE;
    if (driver().primaryRetained == 0)
      return CUDA_ERROR_INVALID_CONTEXT;
    if (--driver().primaryRetained == 0)
      endPrimary();
    return CUDA_SUCCESS;
  });
}
CUresult cuDevicePrimaryCtxRelease(CUdevice device) { return cuDevicePrimaryCtxRelease_v2(device); }

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
  return call([&]() -> CUresult {
    if (device != 0)
      return CUDA_ERROR_INVALID_DEVICE;
    endPrimary();
    if (driver().primaryRetained)
      driver().primary = makeContext();
    return CUDA_SUCCESS;
  });
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
  return call([&]() -> CUresult {
    if (!flags || !active)
      return CUDA_ERROR_INVALID_VALUE;
    if (device != 0)
      return CUDA_ERROR_INVALID_DEVICE;
    *flags = 0;
    *active = driver().primary != nullptr;
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device) {
  return call([&]() -> CUresult {
    if (!context)
      return CUDA_ERROR_INVALID_VALUE;
    if (device != 0)
      return CUDA_ERROR_INVALID_DEVICE;
    *context = makeContext();
    currentStack().push_back(*context);
    return CUDA_SUCCESS;
  });
}
CUresult cuCtxCreate_v3(CUcontext *context, void *affinity, int count, unsigned flags, CUdevice device) {
  return affinity || count ? CUDA_ERROR_NOT_SUPPORTED : cuCtxCreate_v2(context, flags, device);
}
CUresult cuCtxCreate_v4(CUcontext *context, void *params, unsigned flags, CUdevice device) {
  return params ? CUDA_ERROR_NOT_SUPPORTED : cuCtxCreate_v2(context, flags, device);
}

CUresult cuCtxDestroy_v2(CUcontext context) {
  return call([&]() -> CUresult {
    if (!driver().contexts.count(context))
      return context ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_ERROR_INVALID_VALUE;
    if (context == driver().primary)
      return CUDA_ERROR_INVALID_CONTEXT;
    if (!currentStack().empty() && currentStack().back() == context)
      currentStack().pop_back();
    destroyContext(context);
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxSetCurrent(CUcontext context) {
  return call([&]() -> CUresult {
    if (context && !driver().contexts.count(context))
      return CUDA_ERROR_INVALID_CONTEXT;
    if (!currentStack().empty())
      currentStack().pop_back();
    if (context)
      currentStack().push_back(context);
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetCurrent(CUcontext *context) {
  return call([&]() -> CUresult {
    if (!context)
      return CUDA_ERROR_INVALID_VALUE;
    *context = currentStack().empty() ? nullptr : currentStack().back();
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxPushCurrent_v2(CUcontext context) {
  return call([&]() -> CUresult {
    if (!driver().contexts.count(context))
      return CUDA_ERROR_INVALID_CONTEXT;
    currentStack().push_back(context);
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxPopCurrent_v2(CUcontext *context) {
  return call([&]() -> CUresult {
    if (currentStack().empty())
      return CUDA_ERROR_INVALID_CONTEXT;
    if (context)
      *context = currentStack().back();
    currentStack().pop_back();
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetDevice(CUdevice *device) {
  return inContext([&](CUcontext) { return device ? (*device = 0, CUDA_SUCCESS) : CUDA_ERROR_INVALID_VALUE; });
}

CUresult cuCtxSynchronize(void) {
  return inContext([](CUcontext context) { return result(context, context->gpu.synchronizeAll()); });
}
