// SPDX-License-Identifier: Apache-2.0
//
// CUDA's driver, libcuda.so.1: the functions that the runtime calls, declared by hand from NVIDIA's documentation of
// the driver API under the names that the library exports, and its table once it is loaded.
#pragma once

#include "runtime/format/status.h"

#include <cstddef>
#include <cstdint>

// A copy of rows, as the driver reads it: each side by its kind of memory.
struct CUDA_MEMCPY2D_st {
  size_t fromX, fromY;
  int fromKind;
  const void *fromHost;
  unsigned long long fromDevice;
  void *fromArray;
  size_t fromPitch, toX, toY;
  int toKind;
  void *toHost;
  unsigned long long toDevice;
  void *toArray;
  size_t toPitch, width, height;
};
static_assert(sizeof(CUDA_MEMCPY2D_st) == 128, "the driver's layout");

struct CUctx_st;
struct CUmod_st;
struct CUfunc_st;
struct CUstream_st;
struct CUevent_st;

namespace kvq::cuda {

using CUresult = int;
inline constexpr CUresult kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kStubLibrary = 34, kNoDevice = 100,
                          kInvalidDevice = 101, kInvalidImage = 200, kNoBinaryForGpu = 209, kEccUncorrectable = 214,
                          kInvalidPtx = 218, kNvlinkUncorrectable = 220, kUnsupportedPtxVersion = 222,
                          kInvalidHandle = 400, kNotFound = 500, kNotReady = 600, kIllegalAddress = 700,
                          kLaunchOutOfResources = 701, kLaunchTimeout = 702, kContextIsDestroyed = 709, kAssert = 710,
                          kHardwareStackError = 714, kLaunchFailed = 719, kNotSupported = 801;

using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = ::CUctx_st *;
using CUmodule = ::CUmod_st *;
using CUfunction = ::CUfunc_st *;
using CUstream = ::CUstream_st *;
using CUevent = ::CUevent_st *;

enum DeviceAttribute : int {
  kMaxSharedPerBlock = 8,
  kMultiprocessors = 16,
  kMajor = 75,
  kMinor = 76,
  kMaxSharedPerBlockOptIn = 97,
};
enum FunctionAttribute : int { kMaxThreads = 0, kSharedBytes = 1, kLocalBytes = 3, kMaxDynamicShared = 8 };
enum JitOption : int { kErrorLog = 5, kErrorLogBytes = 6 };
inline constexpr int kDeviceMemory = 2;     // of a copy of rows
inline constexpr unsigned kNonBlocking = 1; // a stream that does not wait for the default one

// F(name, parameters): what every driver that is new enough has.
#define KVQ_CUDA_FUNCTIONS(F)                                                                                          \
  F(cuInit, (unsigned flags))                                                                                          \
  F(cuDriverGetVersion, (int *version))                                                                                \
  F(cuGetErrorName, (CUresult error, const char **text))                                                               \
  F(cuGetErrorString, (CUresult error, const char **text))                                                             \
  F(cuDeviceGetCount, (int *count))                                                                                    \
  F(cuDeviceGet, (CUdevice * device, int ordinal))                                                                     \
  F(cuDeviceGetName, (char *name, int length, CUdevice device))                                                        \
  F(cuDeviceGetAttribute, (int *value, int attribute, CUdevice device))                                                \
  F(cuDeviceTotalMem_v2, (size_t *bytes, CUdevice device))                                                             \
  F(cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))                                                  \
  F(cuDevicePrimaryCtxRelease_v2, (CUdevice device))                                                                   \
  F(cuCtxPushCurrent_v2, (CUcontext context))                                                                          \
  F(cuCtxPopCurrent_v2, (CUcontext * context))                                                                         \
  F(cuCtxSynchronize, ())                                                                                              \
  F(cuMemAlloc_v2, (CUdeviceptr * pointer, size_t bytes))                                                              \
  F(cuMemFree_v2, (CUdeviceptr pointer))                                                                               \
  F(cuMemGetInfo_v2, (size_t *free, size_t *total))                                                                    \
  F(cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream))                           \
  F(cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t bytes, CUstream stream))                                 \
  F(cuMemcpyDtoDAsync_v2, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))                           \
  F(cuMemsetD8Async, (CUdeviceptr to, unsigned char value, size_t count, CUstream stream))                             \
  F(cuMemsetD2D8Async,                                                                                                 \
    (CUdeviceptr to, size_t pitch, unsigned char value, size_t width, size_t height, CUstream stream))                 \
  F(cuMemcpy2DAsync_v2, (const CUDA_MEMCPY2D_st *copy, CUstream stream))                                               \
  F(cuModuleLoadDataEx, (CUmodule * module, const void *image, unsigned count, int *options, void **values))           \
  F(cuModuleUnload, (CUmodule module))                                                                                 \
  F(cuModuleGetFunction, (CUfunction * function, CUmodule module, const char *name))                                   \
  F(cuModuleGetGlobal_v2, (CUdeviceptr * pointer, size_t *bytes, CUmodule module, const char *name))                   \
  F(cuFuncGetAttribute, (int *value, int attribute, CUfunction function))                                              \
  F(cuFuncSetAttribute, (CUfunction function, int attribute, int value))                                               \
  F(cuLaunchKernel,                                                                                                    \
    (CUfunction function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned blockX, unsigned blockY,            \
     unsigned blockZ, unsigned sharedBytes, CUstream stream, void **parameters, void **extra))                         \
  F(cuOccupancyMaxActiveBlocksPerMultiprocessor,                                                                       \
    (int *blocks, CUfunction function, int threads, size_t dynamicSharedBytes))                                        \
  F(cuStreamCreate, (CUstream * stream, unsigned flags))                                                               \
  F(cuStreamDestroy_v2, (CUstream stream))                                                                             \
  F(cuStreamSynchronize, (CUstream stream))                                                                            \
  F(cuStreamQuery, (CUstream stream))                                                                                  \
  F(cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags))                                               \
  F(cuEventCreate, (CUevent * event, unsigned flags))                                                                  \
  F(cuEventDestroy_v2, (CUevent event))                                                                                \
  F(cuEventRecord, (CUevent event, CUstream stream))                                                                   \
  F(cuEventSynchronize, (CUevent event))                                                                               \
  F(cuEventQuery, (CUevent event))                                                                                     \
  F(cuEventElapsedTime, (float *milliseconds, CUevent begin, CUevent end))

struct Driver {
#define KVQ_CUDA_MEMBER(name, parameters) CUresult(*name) parameters = nullptr;
  KVQ_CUDA_FUNCTIONS(KVQ_CUDA_MEMBER)
#undef KVQ_CUDA_MEMBER
  // Drivers for CUDA 12.4 and later; null in others.
  CUresult (*cuFuncGetParamInfo)(CUfunction function, size_t index, size_t *offset, size_t *bytes) = nullptr;
  int version = 0; // of CUDA that it supports: 12040 is 12.4

  // "CUDA_ERROR_OUT_OF_MEMORY (out of memory)".
  std::string nameOf(CUresult error) const;
};

// Loads and initialises the driver. Unsupported: it is not installed, is a stub, is too old, or finds no device.
Result<Driver> loadDriver(const std::string &library);

// "12.4".
std::string versionText(int version);

} // namespace kvq::cuda
