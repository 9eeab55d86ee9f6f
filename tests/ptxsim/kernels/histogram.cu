// SPDX-License-Identifier: Apache-2.0
// Histogram of bytes: each block counts in shared memory, then adds what it found to the 256 counters in global memory.
#include "device.cuh"

namespace {
constexpr int Bins = 256;
}

extern "C" __global__ void histogram(const unsigned char *values, unsigned count, unsigned *counters) {
  __shared__ unsigned bins[Bins];
#pragma unroll 1
  for (unsigned bin = threadIdx.x; bin < Bins; bin += blockDim.x)
    bins[bin] = 0;
  __syncthreads();
  const unsigned first = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
#pragma unroll 1
  for (unsigned i = first; i < count / 4; i += step) {
    const unsigned four = reinterpret_cast<const unsigned *>(values)[i];
#pragma unroll
    for (int shift = 0; shift < 32; shift += 8)
      atomicAdd(bins + (four >> shift & 0xff), 1u);
  }
  if (first < count % 4)
    atomicAdd(bins + values[count / 4 * 4 + first], 1u);
  __syncthreads();
#pragma unroll 1
  for (unsigned bin = threadIdx.x; bin < Bins; bin += blockDim.x)
    if (bins[bin] != 0)
      atomicAdd(counters + bin, bins[bin]);
}
