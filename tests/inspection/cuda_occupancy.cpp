// SPDX-License-Identifier: Apache-2.0
//
// Blocks a multiprocessor by CUDA's own header: "major minor warps shared_sm shared_block threads registers shared" a
// line in, blocks a line out.
#include <climits>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

#include "cuda_occupancy.h"

int main() {
  int major, minor, warps, threads, registers;
  size_t sharedSm, sharedBlock, shared;
  while (std::scanf("%d %d %d %zu %zu %d %d %zu", &major, &minor, &warps, &sharedSm, &sharedBlock, &threads, &registers,
                    &shared) == 8) {
    cudaOccDeviceProp device;
    device.computeMajor = major;
    device.computeMinor = minor;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = warps * 32;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 * 1024;
    device.sharedMemPerMultiprocessor = sharedSm;
    device.numSms = 1;
    device.sharedMemPerBlockOptin = sharedBlock;
    device.reservedSharedMemPerBlock = 1024;
    cudaOccFuncAttributes function{};
    function.maxThreadsPerBlock = INT_MAX;
    function.numRegs = registers;
    function.partitionedGCConfig = PARTITIONED_GC_OFF;
    function.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    function.maxDynamicSharedSizeBytes = sharedBlock;
    const cudaOccDeviceState state{};
    cudaOccResult result;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &function, &state, threads, shared) !=
        CUDA_OCC_SUCCESS)
      return 1;
    std::printf("%d\n", result.activeBlocksPerMultiprocessor);
  }
  return 0;
}
