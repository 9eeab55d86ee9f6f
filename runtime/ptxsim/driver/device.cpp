// SPDX-License-Identifier: Apache-2.0
//
// Initialisation and what the device is.
#include "runtime/ptxsim/driver/state.h"

#include <cstdio>
#include <cstring>

using namespace kvq::ptxsim;
using namespace kvq::ptxsim::lookalike;

static constexpr int kDriverVersion = 13000; // PTX up to 9.0

// The attributes that programs look at; the others are 0, as those of features that a device lacks.
static int attributeOf(const Settings &settings, CUdevice_attribute attribute) {
  const Arch &arch = *settings.arch;
  switch (attribute) {
  case 1: // MAX_THREADS_PER_BLOCK
  case 2: // MAX_BLOCK_DIM_X
  case 3: // MAX_BLOCK_DIM_Y
    return kMaxThreads;
  case 4: // MAX_BLOCK_DIM_Z
    return 64;
  case 5: // MAX_GRID_DIM_X
    return 0x7fffffff;
  case 6: // MAX_GRID_DIM_Y
  case 7: // MAX_GRID_DIM_Z
    return 65535;
  case 8: // MAX_SHARED_MEMORY_PER_BLOCK
    return kDefaultShared;
  case 9: // TOTAL_CONSTANT_MEMORY
    return 65536;
  case 10: // WARP_SIZE
    return kWarp;
  case 12: // MAX_REGISTERS_PER_BLOCK
  case 82: // MAX_REGISTERS_PER_MULTIPROCESSOR
    return kRegistersPerSm;
  case 13: // CLOCK_RATE, kHz
    return 1'000'000;
  case 15: // GPU_OVERLAP
  case 31: // CONCURRENT_KERNELS
  case 40: // ASYNC_ENGINE_COUNT
  case 41: // UNIFIED_ADDRESSING
    return 1;
  case 16: // MULTIPROCESSOR_COUNT
    return arch.multiprocessors;
  case 36: // MEMORY_CLOCK_RATE, kHz
    return 1'000'000;
  case 37: // GLOBAL_MEMORY_BUS_WIDTH
    return 4096;
  case 38: // L2_CACHE_SIZE
    return arch.l2Bytes;
  case 39: // MAX_THREADS_PER_MULTIPROCESSOR
    return arch.threadsPerSm;
  case 75: // COMPUTE_CAPABILITY_MAJOR
    return arch.major;
  case 76: // COMPUTE_CAPABILITY_MINOR
    return arch.minor;
  case 81: // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
    return arch.sharedPerSm;
  case 97: // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    return arch.sharedPerBlock;
  case 106: // MAX_BLOCKS_PER_MULTIPROCESSOR
    return arch.blocksPerSm;
  case 111: // RESERVED_SHARED_MEMORY_PER_BLOCK
    return kReservedShared;
  default:
    return 0;
  }
}
static constexpr int kAttributes = 150; // numbers from there on are refused

CUresult cuInit(unsigned flags) {
  if (flags)
    return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(driver().mutex);
  if (driver().initialised)
    return CUDA_SUCCESS;
  auto settings = settingsFromEnvironment();
  if (!settings.isOk()) {
    std::fprintf(stderr, "ptxsim: %s\n", settings.status().message().c_str());
    return CUDA_ERROR_INVALID_VALUE;
  }
  driver().settings = std::move(settings.value());
  driver().initialised = true;
  return CUDA_SUCCESS;
}

CUresult cuGetExportTable(const void **table, const void *) {
  if (!table)
    return CUDA_ERROR_INVALID_VALUE;
  *table = nullptr;
  return CUDA_ERROR_NOT_FOUND;
}

CUresult cuDriverGetVersion(int *version) {
  if (!version)
    return CUDA_ERROR_INVALID_VALUE;
  *version = kDriverVersion;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
  return call([&] { return count ? (*count = 1, CUDA_SUCCESS) : CUDA_ERROR_INVALID_VALUE; });
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  return call([&]() -> CUresult {
    if (!device)
      return CUDA_ERROR_INVALID_VALUE;
    if (ordinal != 0)
      return CUDA_ERROR_INVALID_DEVICE;
    *device = 0;
    return CUDA_SUCCESS;
  });
}

// A call about a device with one result.
template <typename Function> static CUresult ofDevice(CUdevice device, const void *out, const Function &function) {
  return call([&]() -> CUresult {
    if (!out)
      return CUDA_ERROR_INVALID_VALUE;
    if (device != 0)
      return CUDA_ERROR_INVALID_DEVICE;
    return function();
  });
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
  return ofDevice(device, name, [&]() -> CUresult {
    if (length < 1)
      return CUDA_ERROR_INVALID_VALUE;
    std::snprintf(name, static_cast<size_t>(length), "ptxsim %s", driver().settings.arch->name);
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  return ofDevice(device, value, [&]() -> CUresult {
    if (attribute < 1 || attribute >= kAttributes)
      return CUDA_ERROR_INVALID_VALUE;
    *value = attributeOf(driver().settings, attribute);
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  return ofDevice(device, bytes, [&] {
    *bytes = static_cast<size_t>(driver().settings.memoryBytes);
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
  return ofDevice(device, uuid, [&] {
    std::memset(uuid, 0, sizeof(*uuid));
    std::snprintf(uuid->bytes, sizeof(uuid->bytes), "ptxsim %s", driver().settings.arch->name);
    return CUDA_SUCCESS;
  });
}
CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) { return cuDeviceGetUuid_v2(uuid, device); }

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
  return ofDevice(device, major, [&]() -> CUresult {
    if (!minor)
      return CUDA_ERROR_INVALID_VALUE;
    *major = driver().settings.arch->major;
    *minor = driver().settings.arch->minor;
    return CUDA_SUCCESS;
  });
}
