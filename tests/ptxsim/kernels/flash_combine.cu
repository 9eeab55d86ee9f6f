// SPDX-License-Identifier: Apache-2.0
// Joins the runs of flash_decode.cu: a block for each query head, a thread for each channel. A run without tokens has
// the maximum -inf and weighs nothing.
#include "device.cuh"

namespace {
constexpr int Channels = 64, Warps = Channels / WarpSize, MaxSplits = 128;
}

extern "C" __global__ void __launch_bounds__(Channels)
    flash_combine(const float *parts, const float2 *statistics, __half *out, int splits) {
  __shared__ float weights[MaxSplits], maxima[Warps], sums[Warps];
  const float *const part = parts + static_cast<long long>(blockIdx.x) * splits * Channels;
  const float2 *const statistic = statistics + static_cast<long long>(blockIdx.x) * splits;
  float maximum = -INFINITY;
#pragma unroll 1
  for (int split = threadIdx.x; split < splits; split += Channels)
    maximum = fmaxf(maximum, statistic[split].x);
#pragma unroll
  for (int distance = WarpSize / 2; distance > 0; distance /= 2)
    maximum = fmaxf(maximum, __shfl_down_sync(FullMask, maximum, distance));
  if (laneIndex() == 0)
    maxima[warpIndex()] = maximum;
  __syncthreads();
  maximum = fmaxf(maxima[0], maxima[1]);
  float sum = 0;
#pragma unroll 1
  for (int split = threadIdx.x; split < splits; split += Channels) {
    const float2 mine = statistic[split];
    const float weight = exp2Fast(mine.x - maximum);
    weights[split] = weight;
    sum = fmaf(weight, mine.y, sum);
  }
#pragma unroll
  for (int distance = WarpSize / 2; distance > 0; distance /= 2)
    sum += __shfl_down_sync(FullMask, sum, distance);
  if (laneIndex() == 0)
    sums[warpIndex()] = sum;
  __syncthreads();
  float o = 0;
#pragma unroll 1
  for (int split = 0; split < splits; ++split)
    o = fmaf(weights[split], part[split * Channels + threadIdx.x], o);
  out[blockIdx.x * Channels + threadIdx.x] = __float2half_rn(__fdividef(o, sums[0] + sums[1]));
}
