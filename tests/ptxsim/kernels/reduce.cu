// SPDX-License-Identifier: Apache-2.0
// Sum, maximum and number of negatives of an array: lanes by shuffles and redux, warps through shared memory, blocks by
// atomics. The maximum is that of codes which order as the values do.
#include "device.cuh"

namespace {
struct Partial {
  float sum = 0;
  unsigned maximum = 0, negatives = 0;
};

DEVICE unsigned orderedCode(float value) {
  const unsigned bits = __float_as_uint(value);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

DEVICE void take(Partial &partial, float value) {
  partial.sum += value;
  partial.maximum = max(partial.maximum, orderedCode(value));
  partial.negatives += value < 0;
}

DEVICE void reduceWarp(Partial &partial) {
#pragma unroll
  for (int distance = WarpSize / 2; distance > 0; distance /= 2)
    partial.sum += __shfl_down_sync(FullMask, partial.sum, distance);
  partial.maximum = __reduce_max_sync(FullMask, partial.maximum);
  partial.negatives = __reduce_add_sync(FullMask, partial.negatives);
}
} // namespace

extern "C" __global__ void reduce(const float *values, unsigned count, float *sum, unsigned *maximum,
                                  unsigned *negatives) {
  __shared__ float sums[WarpSize];
  __shared__ unsigned maxima[WarpSize], counts[WarpSize];
  const unsigned first = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
  Partial partial;
#pragma unroll 1
  for (unsigned i = first; i < count / 4; i += step) {
    const float4 four = reinterpret_cast<const float4 *>(values)[i];
    take(partial, four.x);
    take(partial, four.y);
    take(partial, four.z);
    take(partial, four.w);
  }
  if (first < count % 4)
    take(partial, values[count / 4 * 4 + first]);
  reduceWarp(partial);
  if (laneIndex() == 0) {
    sums[warpIndex()] = partial.sum;
    maxima[warpIndex()] = partial.maximum;
    counts[warpIndex()] = partial.negatives;
  }
  __syncthreads();
  if (warpIndex() == 0) {
    const bool there = laneIndex() < blockDim.x / WarpSize;
    partial.sum = there ? sums[laneIndex()] : 0;
    partial.maximum = there ? maxima[laneIndex()] : 0;
    partial.negatives = there ? counts[laneIndex()] : 0;
    reduceWarp(partial);
    if (laneIndex() == 0) {
      atomicAdd(sum, partial.sum);
      atomicMax(maximum, partial.maximum);
      atomicAdd(negatives, partial.negatives);
    }
  }
}
