// SPDX-License-Identifier: Apache-2.0
//
// The part of CUDA's driver interface that the look-alike has: types, numbers and prototypes, declared by hand from
// NVIDIA's documentation of the driver API.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

typedef int CUresult;
enum : CUresult {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_INVALID_VALUE = 1,
  CUDA_ERROR_OUT_OF_MEMORY = 2,
  CUDA_ERROR_NOT_INITIALIZED = 3,
  CUDA_ERROR_INVALID_DEVICE = 101,
  CUDA_ERROR_INVALID_IMAGE = 200,
  CUDA_ERROR_INVALID_CONTEXT = 201,
  CUDA_ERROR_NO_BINARY_FOR_GPU = 209,
  CUDA_ERROR_INVALID_PTX = 218,
  CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222,
  CUDA_ERROR_FILE_NOT_FOUND = 301,
  CUDA_ERROR_INVALID_HANDLE = 400,
  CUDA_ERROR_NOT_FOUND = 500,
  CUDA_ERROR_NOT_READY = 600,
  CUDA_ERROR_ILLEGAL_ADDRESS = 700,
  CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES = 701,
  CUDA_ERROR_LAUNCH_TIMEOUT = 702,
  CUDA_ERROR_CONTEXT_IS_DESTROYED = 709,
  CUDA_ERROR_MISALIGNED_ADDRESS = 716,
  CUDA_ERROR_LAUNCH_FAILED = 719,
  CUDA_ERROR_NOT_SUPPORTED = 801,
  CUDA_ERROR_UNKNOWN = 999,
};

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUuuid_st {
  char bytes[16];
} CUuuid;
typedef int CUdevice_attribute;
typedef int CUfunction_attribute;
typedef int CUjit_option;
typedef size_t (*CUoccupancyB2DSize)(int blockSize);
typedef int CUmemorytype;
enum : CUmemorytype { CU_MEMORYTYPE_HOST = 1, CU_MEMORYTYPE_DEVICE = 2, CU_MEMORYTYPE_UNIFIED = 4 };
typedef struct CUDA_MEMCPY2D_st {
  size_t srcXInBytes, srcY;
  CUmemorytype srcMemoryType;
  const void *srcHost;
  CUdeviceptr srcDevice;
  void *srcArray;
  size_t srcPitch, dstXInBytes, dstY;
  CUmemorytype dstMemoryType;
  void *dstHost;
  CUdeviceptr dstDevice;
  void *dstArray;
  size_t dstPitch, WidthInBytes, Height;
} CUDA_MEMCPY2D;

// Streams that are no objects.
inline constexpr uintptr_t kLegacyStream = 1, kPerThreadStream = 2;
enum : unsigned { CU_STREAM_DEFAULT = 0, CU_STREAM_NON_BLOCKING = 1 };
enum : unsigned {
  CU_EVENT_DEFAULT = 0,
  CU_EVENT_BLOCKING_SYNC = 1,
  CU_EVENT_DISABLE_TIMING = 2,
  CU_EVENT_INTERPROCESS = 4
};
enum : CUjit_option {
  CU_JIT_WALL_TIME = 2,
  CU_JIT_INFO_LOG_BUFFER = 3,
  CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES = 4,
  CU_JIT_ERROR_LOG_BUFFER = 5,
  CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6,
  CU_JIT_NUM_OPTIONS = 35,
};
enum : CUfunction_attribute {
  CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0,
  CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
  CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES = 2,
  CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES = 3,
  CU_FUNC_ATTRIBUTE_NUM_REGS = 4,
  CU_FUNC_ATTRIBUTE_PTX_VERSION = 5,
  CU_FUNC_ATTRIBUTE_BINARY_VERSION = 6,
  CU_FUNC_ATTRIBUTE_CACHE_MODE_CA = 7,
  CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
  CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT = 9,
  CU_FUNC_ATTRIBUTE_MAX = 16,
};

#define KVQ_CU __attribute__((visibility("default"))) CUresult

KVQ_CU cuInit(unsigned flags);
KVQ_CU cuDriverGetVersion(int *version);
/* Tables of internal functions, by a number of 16 bytes: there are none. NVRTC asks for some where there is a driver,
 * and calls this by its address without a check. */
KVQ_CU cuGetExportTable(const void **table, const void *id);
KVQ_CU cuGetErrorName(CUresult error, const char **text);
KVQ_CU cuGetErrorString(CUresult error, const char **text);
KVQ_CU cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags);
KVQ_CU cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status);

KVQ_CU cuDeviceGetCount(int *count);
KVQ_CU cuDeviceGet(CUdevice *device, int ordinal);
KVQ_CU cuDeviceGetName(char *name, int length, CUdevice device);
KVQ_CU cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device);
KVQ_CU cuDeviceTotalMem_v2(size_t *bytes, CUdevice device);
KVQ_CU cuDeviceGetUuid(CUuuid *uuid, CUdevice device);
KVQ_CU cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device);
KVQ_CU cuDeviceComputeCapability(int *major, int *minor, CUdevice device);

KVQ_CU cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
KVQ_CU cuDevicePrimaryCtxRelease_v2(CUdevice device);
KVQ_CU cuDevicePrimaryCtxRelease(CUdevice device);
KVQ_CU cuDevicePrimaryCtxReset_v2(CUdevice device);
KVQ_CU cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active);
KVQ_CU cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device);
KVQ_CU cuCtxCreate_v3(CUcontext *context, void *affinity, int count, unsigned flags, CUdevice device);
KVQ_CU cuCtxCreate_v4(CUcontext *context, void *params, unsigned flags, CUdevice device);
KVQ_CU cuCtxDestroy_v2(CUcontext context);
KVQ_CU cuCtxSetCurrent(CUcontext context);
KVQ_CU cuCtxGetCurrent(CUcontext *context);
KVQ_CU cuCtxPushCurrent_v2(CUcontext context);
KVQ_CU cuCtxPopCurrent_v2(CUcontext *context);
KVQ_CU cuCtxGetDevice(CUdevice *device);
KVQ_CU cuCtxSynchronize(void);

KVQ_CU cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes);
KVQ_CU cuMemFree_v2(CUdeviceptr pointer);
KVQ_CU cuMemAllocHost_v2(void **pointer, size_t bytes);
KVQ_CU cuMemFreeHost(void *pointer);
KVQ_CU cuMemGetInfo_v2(size_t *free, size_t *total);
KVQ_CU cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes);
KVQ_CU cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes);
KVQ_CU cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes);
KVQ_CU cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream);
KVQ_CU cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream);
KVQ_CU cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
KVQ_CU cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream);
KVQ_CU cuMemsetD2D8Async(CUdeviceptr to, size_t pitch, unsigned char value, size_t width, size_t height,
                         CUstream stream);
KVQ_CU cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count);
KVQ_CU cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count);
KVQ_CU cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream);
KVQ_CU cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream);

KVQ_CU cuModuleLoad(CUmodule *module, const char *file);
KVQ_CU cuModuleLoadData(CUmodule *module, const void *image);
KVQ_CU cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options, void **values);
KVQ_CU cuModuleUnload(CUmodule module);
KVQ_CU cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name);
KVQ_CU cuModuleGetGlobal_v2(CUdeviceptr *pointer, size_t *bytes, CUmodule module, const char *name);
KVQ_CU cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function);
KVQ_CU cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value);
KVQ_CU cuFuncSetCacheConfig(CUfunction function, int config);
KVQ_CU cuLaunchKernel(CUfunction function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned blockX,
                      unsigned blockY, unsigned blockZ, unsigned sharedBytes, CUstream stream, void **params,
                      void **extra);
KVQ_CU cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads, size_t sharedBytes);
KVQ_CU cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, CUfunction function, int threads,
                                                            size_t sharedBytes, unsigned flags);

KVQ_CU cuStreamCreate(CUstream *stream, unsigned flags);
KVQ_CU cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority);
KVQ_CU cuStreamDestroy_v2(CUstream stream);
KVQ_CU cuStreamSynchronize(CUstream stream);
KVQ_CU cuStreamQuery(CUstream stream);
KVQ_CU cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags);
KVQ_CU cuEventCreate(CUevent *event, unsigned flags);
KVQ_CU cuEventDestroy_v2(CUevent event);
KVQ_CU cuEventRecord(CUevent event, CUstream stream);
KVQ_CU cuEventSynchronize(CUevent event);
KVQ_CU cuEventQuery(CUevent event);
KVQ_CU cuEventElapsedTime(float *milliseconds, CUevent begin, CUevent end);
KVQ_CU cuEventElapsedTime_v2(float *milliseconds, CUevent begin, CUevent end);

} // extern "C"
