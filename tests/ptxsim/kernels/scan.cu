// SPDX-License-Identifier: Apache-2.0
// Inclusive scan of 32-bit words in one pass: each block takes the next tile by a ticket, and waits for the sum that
// the tile before it publishes. A ticket, not the block's index, because blocks start in any order. `chain` holds a
// word of 64 bits for each tile, zero at first: a flag in the upper half, the sum in the lower.
#include "device.cuh"

namespace {
constexpr int Threads = 128, Items = 4, Tile = Threads * Items;

DEVICE unsigned scanWarp(unsigned value) {
#pragma unroll
  for (int distance = 1; distance < WarpSize; distance *= 2) {
    const unsigned left = __shfl_up_sync(FullMask, value, distance);
    if (laneIndex() >= distance)
      value += left;
  }
  return value;
}

DEVICE unsigned sumBefore(unsigned long long *chain, unsigned tile) {
  if (tile == 0)
    return 0;
  unsigned long long state;
  do
    state = atomicAdd(chain + tile - 1, 0ull);
  while (state >> 32 == 0);
  return static_cast<unsigned>(state);
}
} // namespace

extern "C" __global__ void __launch_bounds__(Threads)
    scan(const unsigned *values, unsigned *sums, unsigned count, unsigned long long *chain, unsigned *ticket) {
  __shared__ unsigned tileOfBlock, before, warpSums[Threads / WarpSize];
  if (threadIdx.x == 0)
    tileOfBlock = atomicAdd(ticket, 1u);
  __syncthreads();
  const unsigned tile = tileOfBlock;
  const unsigned first = tile * Tile + threadIdx.x * Items;
  unsigned items[Items];
  unsigned sum = 0;
#pragma unroll
  for (int i = 0; i < Items; ++i) {
    sum += first + i < count ? values[first + i] : 0;
    items[i] = sum;
  }
  const unsigned scanned = scanWarp(sum);
  if (laneIndex() == WarpSize - 1)
    warpSums[warpIndex()] = scanned;
  __syncthreads();
  unsigned offset = scanned - sum;
#pragma unroll
  for (int warp = 0; warp < Threads / WarpSize - 1; ++warp)
    offset += warp < warpIndex() ? warpSums[warp] : 0;
  if (threadIdx.x == Threads - 1) {
    before = sumBefore(chain, tile);
    atomicExch(chain + tile, 1ull << 32 | static_cast<unsigned>(before + offset + sum));
  }
  __syncthreads();
  offset += before;
#pragma unroll
  for (int i = 0; i < Items; ++i)
    if (first + i < count)
      sums[first + i] = offset + items[i];
}
