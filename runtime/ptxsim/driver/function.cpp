// SPDX-License-Identifier: Apache-2.0
//
// What a function is, how many of its blocks fit, and launching it.
#include "runtime/ptxsim/driver/state.h"

#include <algorithm>
#include <cstring>

using namespace kvq;
using namespace kvq::ptxsim;
using namespace kvq::ptxsim::lookalike;

static int attributeOf(const CUfunc_st &function, CUfunction_attribute attribute) {
  const KernelAttributes &kernel = function.attributes;
  const Arch &arch = *function.module->context->gpu.settings().arch;
  switch (attribute) {
  case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    return static_cast<int>(kernel.maxThreads);
  case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
    return static_cast<int>(kernel.sharedBytes);
  case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
    return static_cast<int>(kernel.constBytes);
  case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
    return static_cast<int>(kernel.localBytes);
  case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    return function.module->target.version;
  case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
    return arch.major * 10 + arch.minor;
  case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
    return function.maxDynamicShared;
  case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
    return function.carveout;
  default: // NUM_REGS among them: ptxas alone knows
    return 0;
  }
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
  return inContext([&](CUcontext) -> CUresult {
    if (!value || attribute < 0 || attribute >= CU_FUNC_ATTRIBUTE_MAX)
      return CUDA_ERROR_INVALID_VALUE;
    if (!findFunction(function))
      return CUDA_ERROR_INVALID_HANDLE;
    *value = attributeOf(*function, attribute);
    return CUDA_SUCCESS;
  });
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  return inContext([&](CUcontext context) -> CUresult {
    if (!findFunction(function))
      return CUDA_ERROR_INVALID_HANDLE;
    const int64_t most = context->gpu.settings().arch->sharedPerBlock - function->attributes.sharedBytes;
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES && value >= 0 && value <= most)
      function->maxDynamicShared = value;
    else if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT && value >= -1 && value <= 100)
      function->carveout = value;
    else
      return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
  });
}

CUresult cuFuncSetCacheConfig(CUfunction function, int config) {
  return inContext([&](CUcontext) -> CUresult {
    if (!findFunction(function))
      return CUDA_ERROR_INVALID_HANDLE;
    return config < 0 || config > 3 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  });
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, CUfunction function, int threads,
                                                              size_t sharedBytes, unsigned flags) {
  return inContext([&](CUcontext context) -> CUresult {
    if (!blocks || threads < 1 || flags > 1)
      return CUDA_ERROR_INVALID_VALUE;
    if (!findFunction(function))
      return CUDA_ERROR_INVALID_HANDLE;
    const KernelAttributes &kernel = function->attributes;
    *blocks = 0;
    if (threads <= static_cast<int>(kernel.maxThreads) &&
        sharedBytes <= static_cast<size_t>(function->maxDynamicShared))
      *blocks =
          occupancy(*context->gpu.settings().arch, threads, kernel.sharedBytes + static_cast<int64_t>(sharedBytes));
    return CUDA_SUCCESS;
  });
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads,
                                                     size_t sharedBytes) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, sharedBytes, 0);
}

// The parameters as one buffer, from an array of pointers to each or from CU_LAUNCH_PARAM_BUFFER_*.
static CUresult gather(const KernelAttributes &kernel, void **params, void **extra, std::vector<uint8_t> &out) {
  out.assign(static_cast<size_t>(kernel.paramBytes), 0);
  if (params) {
    if (extra)
      return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < kernel.params.size(); ++i) {
      if (!params[i])
        return CUDA_ERROR_INVALID_VALUE;
      std::memcpy(out.data() + kernel.params[i].offset, params[i], static_cast<size_t>(kernel.params[i].size));
    }
    return CUDA_SUCCESS;
  }
  const void *buffer = nullptr;
  size_t size = 0;
  for (void **word = extra; word && *word; word += 2) {
    const auto key = reinterpret_cast<uintptr_t>(*word);
    if (key == 1) // CU_LAUNCH_PARAM_BUFFER_POINTER
      buffer = word[1];
    else if (key == 2 && word[1]) // CU_LAUNCH_PARAM_BUFFER_SIZE
      size = *static_cast<size_t *>(word[1]);
    else
      return CUDA_ERROR_INVALID_VALUE;
  }
  if (size != out.size() || (size && !buffer))
    return kernel.params.empty() && size == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  if (size)
    std::memcpy(out.data(), buffer, size);
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned blockX,
                        unsigned blockY, unsigned blockZ, unsigned sharedBytes, CUstream stream, void **params,
                        void **extra) {
  return inContext([&](CUcontext context) -> CUresult {
    if (!findFunction(function))
      return CUDA_ERROR_INVALID_HANDLE;
    if (function->module->context != context)
      return CUDA_ERROR_INVALID_CONTEXT;
    StreamId id = 0;
    if (!findStream(context, stream, id))
      return CUDA_ERROR_INVALID_HANDLE;
    Launch launch{function->attributes.name, {gridX, gridY, gridZ}, {blockX, blockY, blockZ}, sharedBytes, {}};
    if (CUresult error = gather(function->attributes, params, extra, launch.params))
      return error;
    const Status status =
        context->gpu.launch(id, function->module->module, std::move(launch), function->maxDynamicShared);
    return codeOf(status);
  });
}
