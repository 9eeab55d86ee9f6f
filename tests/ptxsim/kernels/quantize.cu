// SPDX-License-Identifier: Apache-2.0
// Quantizes rows of halves in groups of 64 columns to 2, 4 or 8 bits, and packs the codes into 32-bit words, the first
// column in the lowest bits. A warp makes a group, two columns a lane; the last group of a row may be ragged, its codes
// past the end are zeros. scaleAndMinimum: both as halves, for each group.
#include "device.cuh"

namespace {
constexpr int Group = 64;

template <int Distance> DEVICE void widen(float &low, float &high) {
  low = fminf(low, __shfl_xor_sync(FullMask, low, Distance));
  high = fmaxf(high, __shfl_xor_sync(FullMask, high, Distance));
  if constexpr (Distance > 1)
    widen<Distance / 2>(low, high);
}

template <int Levels> DEVICE unsigned codeOf(float value, float scale, float minimum) {
  if (scale == 0)
    return 0;
  // Each operation rounds by itself: a fused one would give other codes at ties.
  const float code = rintf(__fdiv_rn(__fsub_rn(value, minimum), scale));
  return static_cast<unsigned>(fminf(fmaxf(code, 0.0f), static_cast<float>(Levels)));
}

template <int Bits>
DEVICE void quantize(const __half *values, unsigned *words, __half2 *scaleAndMinimum, unsigned rows, unsigned columns) {
  constexpr int Levels = (1 << Bits) - 1, LanesPerWord = 32 / (2 * Bits);
  const unsigned groups = (columns + Group - 1) / Group;
  const unsigned item = blockIdx.x * (blockDim.x / WarpSize) + warpIndex();
  if (item >= rows * groups)
    return;
  const unsigned row = item / groups, column = item % groups * Group + laneIndex() * 2;
  float2 pair = make_float2(0, 0);
  float low = INFINITY, high = -INFINITY;
  if (column < columns) {
    pair = __half22float2(*reinterpret_cast<const __half2 *>(values + static_cast<long long>(row) * columns + column));
    low = fminf(pair.x, pair.y);
    high = fmaxf(pair.x, pair.y);
  }
  widen<WarpSize / 2>(low, high);
  const __half2 stored = __floats2half2_rn(__fdiv_rn(__fsub_rn(high, low), static_cast<float>(Levels)), low);
  const float scale = __low2float(stored), minimum = __high2float(stored);
  unsigned word = 0;
  if (column < columns)
    word = codeOf<Levels>(pair.x, scale, minimum) | codeOf<Levels>(pair.y, scale, minimum) << Bits;
  word <<= laneIndex() % LanesPerWord * 2 * Bits;
#pragma unroll
  for (int distance = 1; distance < LanesPerWord; distance *= 2)
    word |= __shfl_down_sync(FullMask, word, distance);
  if (laneIndex() % LanesPerWord == 0)
    words[static_cast<long long>(item) * (WarpSize / LanesPerWord) + laneIndex() / LanesPerWord] = word;
  if (laneIndex() == 0)
    scaleAndMinimum[item] = stored;
}
} // namespace

#define QUANTIZE(bits)                                                                                                 \
  extern "C" __global__ void quantize_##bits(const __half *values, unsigned *words, __half2 *scaleAndMinimum,          \
                                             unsigned rows, unsigned columns) {                                        \
    quantize<bits>(values, words, scaleAndMinimum, rows, columns);                                                     \
  }
QUANTIZE(2)
QUANTIZE(4)
QUANTIZE(8)
