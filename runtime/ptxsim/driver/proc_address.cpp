// SPDX-License-Identifier: Apache-2.0
//
// cuGetProcAddress: a name without a version suffix means the newest version that there is here.
#include "runtime/ptxsim/driver/cuda_api.h"

#include <string_view>

namespace {

struct Entry {
  std::string_view name;
  void *function;
};

#define KVQ_ENTRY(name) {#name, reinterpret_cast<void *>(&name)}
const Entry kEntries[] = {
    KVQ_ENTRY(cuInit),
    KVQ_ENTRY(cuDriverGetVersion),
    KVQ_ENTRY(cuGetExportTable),
    KVQ_ENTRY(cuGetErrorName),
    KVQ_ENTRY(cuGetErrorString),
    KVQ_ENTRY(cuGetProcAddress),
    KVQ_ENTRY(cuGetProcAddress_v2),
    KVQ_ENTRY(cuDeviceGetCount),
    KVQ_ENTRY(cuDeviceGet),
    KVQ_ENTRY(cuDeviceGetName),
    KVQ_ENTRY(cuDeviceGetAttribute),
    KVQ_ENTRY(cuDeviceTotalMem_v2),
    KVQ_ENTRY(cuDeviceGetUuid),
    KVQ_ENTRY(cuDeviceGetUuid_v2),
    KVQ_ENTRY(cuDeviceComputeCapability),
    KVQ_ENTRY(cuDevicePrimaryCtxRetain),
    KVQ_ENTRY(cuDevicePrimaryCtxRelease_v2),
    KVQ_ENTRY(cuDevicePrimaryCtxRelease),
    KVQ_ENTRY(cuDevicePrimaryCtxReset_v2),
    KVQ_ENTRY(cuDevicePrimaryCtxGetState),
    KVQ_ENTRY(cuCtxCreate_v2),
    KVQ_ENTRY(cuCtxCreate_v3),
    KVQ_ENTRY(cuCtxCreate_v4),
    KVQ_ENTRY(cuCtxDestroy_v2),
    KVQ_ENTRY(cuCtxSetCurrent),
    KVQ_ENTRY(cuCtxGetCurrent),
    KVQ_ENTRY(cuCtxPushCurrent_v2),
    KVQ_ENTRY(cuCtxPopCurrent_v2),
    KVQ_ENTRY(cuCtxGetDevice),
    KVQ_ENTRY(cuCtxSynchronize),
    KVQ_ENTRY(cuMemAlloc_v2),
    KVQ_ENTRY(cuMemFree_v2),
    KVQ_ENTRY(cuMemAllocHost_v2),
    KVQ_ENTRY(cuMemFreeHost),
    KVQ_ENTRY(cuMemGetInfo_v2),
    KVQ_ENTRY(cuMemcpyHtoD_v2),
    KVQ_ENTRY(cuMemcpyDtoH_v2),
    KVQ_ENTRY(cuMemcpyDtoD_v2),
    KVQ_ENTRY(cuMemcpyHtoDAsync_v2),
    KVQ_ENTRY(cuMemcpyDtoHAsync_v2),
    KVQ_ENTRY(cuMemcpyDtoDAsync_v2),
    KVQ_ENTRY(cuMemcpy2DAsync_v2),
    KVQ_ENTRY(cuMemsetD2D8Async),
    KVQ_ENTRY(cuMemsetD8_v2),
    KVQ_ENTRY(cuMemsetD32_v2),
    KVQ_ENTRY(cuMemsetD8Async),
    KVQ_ENTRY(cuMemsetD32Async),
    KVQ_ENTRY(cuModuleLoad),
    KVQ_ENTRY(cuModuleLoadData),
    KVQ_ENTRY(cuModuleLoadDataEx),
    KVQ_ENTRY(cuModuleUnload),
    KVQ_ENTRY(cuModuleGetFunction),
    KVQ_ENTRY(cuModuleGetGlobal_v2),
    KVQ_ENTRY(cuFuncGetAttribute),
    KVQ_ENTRY(cuFuncSetAttribute),
    KVQ_ENTRY(cuFuncSetCacheConfig),
    KVQ_ENTRY(cuLaunchKernel),
    KVQ_ENTRY(cuOccupancyMaxActiveBlocksPerMultiprocessor),
    KVQ_ENTRY(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags),
    KVQ_ENTRY(cuStreamCreate),
    KVQ_ENTRY(cuStreamCreateWithPriority),
    KVQ_ENTRY(cuStreamDestroy_v2),
    KVQ_ENTRY(cuStreamSynchronize),
    KVQ_ENTRY(cuStreamQuery),
    KVQ_ENTRY(cuStreamWaitEvent),
    KVQ_ENTRY(cuEventCreate),
    KVQ_ENTRY(cuEventDestroy_v2),
    KVQ_ENTRY(cuEventRecord),
    KVQ_ENTRY(cuEventSynchronize),
    KVQ_ENTRY(cuEventQuery),
    KVQ_ENTRY(cuEventElapsedTime),
    KVQ_ENTRY(cuEventElapsedTime_v2),
};
#undef KVQ_ENTRY

void *find(std::string_view symbol) {
  // Later versions come later in the list.
  void *found = nullptr;
  for (const Entry &entry : kEntries) {
    const std::string_view rest = entry.name.starts_with(symbol) ? entry.name.substr(symbol.size()) : "-";
    if (rest.empty() || (rest.size() == 3 && rest.starts_with("_v")))
      found = entry.function;
  }
  return found;
}

} // namespace

CUresult cuGetProcAddress_v2(const char *symbol, void **function, int, uint64_t, int *status) {
  if (!symbol || !function)
    return CUDA_ERROR_INVALID_VALUE;
  *function = find(symbol);
  if (!status)
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
  *status = *function ? 0 : 1; // CU_GET_PROC_ADDRESS_SUCCESS, _SYMBOL_NOT_FOUND
  return CUDA_SUCCESS;
}

CUresult cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(symbol, function, version, flags, nullptr);
}
