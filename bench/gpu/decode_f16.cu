// SPDX-License-Identifier: Apache-2.0
// One step of attention over a plain cache of halves, 128 channels, up to eight query heads of a KV head: what the
// quantized kernels stand beside. Each block takes a run of tokens, in tiles of 64 that come by cp.async one tile
// ahead; each warp takes 16 tokens of a tile: S' = K q' [tokens][heads], a softmax of its own, O' += V' P'
// [channels][heads], and leaves a partial result.
#include "device.cuh"

namespace {
constexpr int Threads = 128, Warps = Threads / WarpSize;
constexpr int Channels = 128, Blocks = Channels / 16, Tile = 64, TokensPerWarp = Tile / Warps;
constexpr int Stride = Channels + 8; // halves; 16 bytes more for the banks

/// Layouts, the last index without gaps: q [kvHeads][group][128]; k, v [kvHeads][tokens][128]; parts
/// [kvHeads][splits][4 warps][group][128], statistics (maximum in base 2, sum) the same without channels.
struct Shape {
  int tokens, kvHeads, group, splits;
  float scaleLog2; // of scores, times log2(e)
};
struct Stage {
  __half k[Tile * Stride], v[Tile * Stride];
};
struct Softmax {
  float maximum[2], sum[2]; // of this lane's two heads
};

/// What lies past the end of the run is not read, and zeros are written in its place.
DEVICE void fetch(Stage &stage, const __half *k, const __half *v, int token0, int end) {
#pragma unroll
  for (int turn = 0; turn < Tile * Channels / 8 / Threads; ++turn) {
    const unsigned i = indexAt<Threads>(turn), row = i / (Channels / 8), channel = i % (Channels / 8) * 8;
    const int token = token0 + row;
    const long long from = static_cast<long long>(token) * Channels + channel;
    copyAsync<16>(stage.k + row * Stride + channel, k + from, token < end ? 16 : 0);
    copyAsync<16>(stage.v + row * Stride + channel, v + from, token < end ? 16 : 0);
  }
}

/// c[0], c[1]: token lane / 4, heads lane % 4 * 2 and + 1; c[2], c[3]: token + 8.
DEVICE void score(float (&c)[4], const __half *k, const unsigned (&q)[Blocks][2], int tokensLeft, float scale) {
  const int lane = laneIndex();
#pragma unroll
  for (int i = 0; i < Blocks; ++i) {
    unsigned a[4];
    loadMatrices(a, k + lane % 16 * Stride + i * 16 + lane / 16 * 8);
    mmaHalf(c, a, q[i][0], q[i][1]);
  }
#pragma unroll
  for (int e = 0; e < 4; ++e)
    c[e] = lane / 4 + e / 2 * 8 < tokensLeft ? c[e] * scale : -INFINITY;
}

/// Turns scores into weights and rescales what was summed with the old maximum.
DEVICE void weigh(float (&c)[4], float (&o)[Blocks][4], Softmax &softmax) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float maximum = fmaxf(softmax.maximum[h], fmaxf(c[h], c[h + 2]));
#pragma unroll
    for (int distance = 4; distance < WarpSize; distance *= 2)
      maximum = fmaxf(maximum, __shfl_xor_sync(FullMask, maximum, distance));
    // Without a token yet the maximum is -inf, and -inf - -inf no number.
    const float base = maximum == -INFINITY ? 0 : maximum, factor = exp2Fast(softmax.maximum[h] - base);
    c[h] = exp2Fast(c[h] - base);
    c[h + 2] = exp2Fast(c[h + 2] - base);
    softmax.sum[h] = softmax.sum[h] * factor + (c[h] + c[h + 2]);
    softmax.maximum[h] = maximum;
#pragma unroll
    for (int i = 0; i < Blocks; ++i) {
      o[i][h] *= factor;
      o[i][h + 2] *= factor;
    }
  }
}

DEVICE unsigned transposed(float left, float right) {
  const __half2 pair = __floats2half2_rn(left, right);
  unsigned out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;"
               : "=r"(out)
               : "r"(*reinterpret_cast<const unsigned *>(&pair)));
  return out;
}

DEVICE void accumulate(float (&o)[Blocks][4], const __half *v, const float (&c)[4]) {
  const int lane = laneIndex();
  const unsigned p0 = transposed(c[0], c[1]), p1 = transposed(c[2], c[3]);
#pragma unroll
  for (int i = 0; i < Blocks; ++i) {
    unsigned a[4];
    loadMatricesTransposed(a, v + (lane / 16 * 8 + lane % 8) * Stride + i * 16 + lane / 8 % 2 * 8);
    mmaHalf(o[i], a, p0, p1);
  }
}

DEVICE void leavePart(float *parts, float2 *statistics, const float (&o)[Blocks][4], const Softmax &softmax,
                      int group) {
  const int lane = laneIndex();
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int head = lane % 4 * 2 + h;
    float sum = softmax.sum[h];
#pragma unroll
    for (int distance = 4; distance < WarpSize; distance *= 2)
      sum += __shfl_xor_sync(FullMask, sum, distance);
    if (head >= group)
      continue;
    if (lane < 4)
      statistics[head] = make_float2(softmax.maximum[h], sum);
#pragma unroll
    for (int i = 0; i < Blocks; ++i) {
      parts[head * Channels + i * 16 + lane / 4] = o[i][h];
      parts[head * Channels + i * 16 + 8 + lane / 4] = o[i][h + 2];
    }
  }
}
} // namespace

extern "C" __global__ void __launch_bounds__(Threads)
    decode_f16(const __half *q, const __half *k, const __half *v, float *parts, float2 *statistics, Shape shape) {
  extern __shared__ __align__(16) unsigned char memory[];
  Stage *const stages = reinterpret_cast<Stage *>(memory);
  const int lane = laneIndex(), row0 = warpIndex() * TokensPerWarp, kvHead = blockIdx.y;
  const long long first = static_cast<long long>(kvHead) * shape.tokens * Channels;
  const int run = (shape.tokens + shape.splits - 1) / shape.splits;
  const int begin = blockIdx.x * run, end = min(begin + run, shape.tokens);

  unsigned fragments[Blocks][2];
  const unsigned *const head =
      reinterpret_cast<const unsigned *>(q) + (kvHead * shape.group + lane / 4) * (Channels / 2);
#pragma unroll
  for (int i = 0; i < Blocks; ++i)
#pragma unroll
    for (int j = 0; j < 2; ++j)
      fragments[i][j] = lane / 4 < shape.group ? head[i * 8 + j * 4 + lane % 4] : 0;

  float o[Blocks][4] = {};
  Softmax softmax = {{-INFINITY, -INFINITY}, {0, 0}};
  if (begin < end)
    fetch(stages[0], k + first, v + first, begin, end);
  commitCopies();
#pragma unroll 1
  for (int token0 = begin, turn = 0; token0 < end; token0 += Tile, turn ^= 1) {
    if (token0 + Tile < end)
      fetch(stages[turn ^ 1], k + first, v + first, token0 + Tile, end);
    commitCopies();
    waitCopies<1>();
    __syncthreads(); // copies of the other threads are there
    float c[4] = {};
    score(c, stages[turn].k + row0 * Stride, fragments, end - token0 - row0, shape.scaleLog2);
    weigh(c, o, softmax);
    accumulate(o, stages[turn].v + row0 * Stride, c);
    __syncthreads(); // nobody reads the tile any more
  }
  const int part = ((kvHead * shape.splits + blockIdx.x) * Warps + warpIndex()) * shape.group;
  leavePart(parts + part * Channels, statistics + part, o, softmax, shape.group);
}
