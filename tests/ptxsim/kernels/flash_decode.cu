// SPDX-License-Identifier: Apache-2.0
// One step of attention over a cache in 4 bits, split over the tokens: up to eight query heads share a KV head, so that
// they are the eight columns of m16n8k16. Each block takes a run of tokens; flash_combine.cu joins the runs.
//
// Per tile of 64 tokens: packed words come by cp.async, one tile ahead; all threads widen them to halves in shared
// memory; each warp then takes 16 tokens: S' = K q' [tokens][heads], a softmax of its own, O' += V' P'
// [channels][heads]. The warps' parts are joined at the end.
#include "device.cuh"

namespace {
constexpr int Threads = 128, Warps = Threads / WarpSize;
constexpr int Channels = 64, Heads = 8, Tile = 64, TokensPerWarp = Tile / Warps;
constexpr int Words = Channels / 8;   // of 8 codes
constexpr int Stride = Channels + 8;  // halves; 16 bytes more for the banks
constexpr int StrideO = Channels + 1; // floats

/// Layouts, the last index without gaps: q [batch][kvHeads][group][64]; words [batch][kvHeads][tokens][8]; scale and
/// minimum [batch][kvHeads][tokens]; parts [batch][kvHeads][group][splits][64], statistics the same without channels.
struct Shape {
  int tokens, kvHeads, group, splits;
  float scaleLog2; // of scores, times log2(e)
};
struct Stage {
  unsigned words[2][Tile * Words]; // K, V
  __half2 parameters[2][Tile];
};
struct Shared {
  Stage stages[2];
  union {
    __half wide[2][Tile * Stride];
    struct {
      float o[Warps][Heads * StrideO];
      float maximum[Warps][Heads], sum[Warps][Heads];
    } parts;
  };
};
struct Softmax {
  float maximum[2], sum[2]; // of this lane's two heads
};

/// What lies past the end of the run is not read, and zeros are written in its place.
DEVICE void fetch(Stage &stage, const unsigned *const (&words)[2], const __half2 *const (&parameters)[2], int token0,
                  int end) {
  const int token = token0 + threadIdx.x / 2, half = threadIdx.x % 2 * 4;
#pragma unroll
  for (int which = 0; which < 2; ++which)
    copyAsync<16>(stage.words[which] + threadIdx.x * 4, words[which] + token * Words + half, token < end ? 16 : 0);
  const int which = threadIdx.x / Tile, mine = token0 + threadIdx.x % Tile;
  copyAsync<4>(stage.parameters[which] + threadIdx.x % Tile, (which ? parameters[1] : parameters[0]) + mine,
               mine < end ? 4 : 0);
}

/// Halves of codes: 0x6400 is 1024, whose last bit is worth 1. The first and the fifth code of what is left in word.
DEVICE unsigned codesAsHalves(unsigned word) {
  unsigned halves;
  asm("lop3.b32 %0, %1, 0x000f000f, 0x64006400, 0xea;" : "=r"(halves) : "r"(word));
  return halves;
}

DEVICE __half2 asHalves(unsigned bits) { return *reinterpret_cast<__half2 *>(&bits); }
DEVICE unsigned asBits(__half2 halves) { return *reinterpret_cast<unsigned *>(&halves); }

DEVICE void widenWord(__half *to, unsigned word, __half2 parameters) {
  const __half2 scale = __low2half2(parameters), minimum = __high2half2(parameters), bias = asHalves(0x64006400u);
  unsigned far[4]; // codes i and i + 4
#pragma unroll
  for (int i = 0; i < 4; ++i)
    far[i] = asBits(__hfma2(__hsub2(asHalves(codesAsHalves(word >> 4 * i)), bias), scale, minimum));
  uint4 near;
  near.x = __byte_perm(far[0], far[1], 0x5410);
  near.y = __byte_perm(far[2], far[3], 0x5410);
  near.z = __byte_perm(far[0], far[1], 0x7632);
  near.w = __byte_perm(far[2], far[3], 0x7632);
  *reinterpret_cast<uint4 *>(to) = near;
}

DEVICE void widenTile(__half (&wide)[2][Tile * Stride], const Stage &stage) {
#pragma unroll
  for (int which = 0; which < 2; ++which)
#pragma unroll
    for (int turn = 0; turn < Tile * Words / Threads; ++turn) {
      const unsigned i = indexAt<Threads>(turn);
      widenWord(wide[which] + i / Words * Stride + i % Words * 8, stage.words[which][i],
                stage.parameters[which][i / Words]);
    }
}

/// Scores of the warp's tokens in base 2; c[0], c[1]: token lane / 4, heads lane % 4 * 2 and + 1; c[2], c[3]: token
/// + 8.
DEVICE void score(float (&c)[4], const __half *k, const unsigned (&q)[Channels / 16][2], int tokensLeft, float scale) {
  const int lane = laneIndex();
#pragma unroll
  for (int i = 0; i < Channels / 16; ++i) {
    unsigned a[4];
    loadMatrices(a, k + lane % 16 * Stride + i * 16 + lane / 16 * 8);
    mmaHalf(c, a, q[i][0], q[i][1]);
  }
#pragma unroll
  for (int e = 0; e < 4; ++e)
    c[e] = lane / 4 + e / 2 * 8 < tokensLeft ? c[e] * scale : -INFINITY;
}

/// Turns scores into weights and rescales what was summed with the old maximum.
DEVICE void weigh(float (&c)[4], float (&o)[Channels / 16][4], Softmax &softmax) {
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
    for (int i = 0; i < Channels / 16; ++i) {
      o[i][h] *= factor;
      o[i][h + 2] *= factor;
    }
  }
}

DEVICE unsigned transposed(float left, float right) {
  unsigned out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;"
               : "=r"(out)
               : "r"(asBits(__floats2half2_rn(left, right))));
  return out;
}

DEVICE void accumulate(float (&o)[Channels / 16][4], const __half *v, const float (&c)[4]) {
  const int lane = laneIndex();
  const unsigned p0 = transposed(c[0], c[1]), p1 = transposed(c[2], c[3]);
#pragma unroll
  for (int i = 0; i < Channels / 16; ++i) {
    unsigned a[4];
    loadMatricesTransposed(a, v + (lane / 16 * 8 + lane % 8) * Stride + i * 16 + lane / 8 % 2 * 8);
    mmaHalf(o[i], a, p0, p1);
  }
}

// softmax by reference: cicc -O1 of CUDA 13.0 gives the copy of a by-value parameter, and with it the original, the
// same place as score's fragment, while the original is alive.
DEVICE void leavePart(Shared &shared, const float (&o)[Channels / 16][4], const Softmax &softmax) {
  const int lane = laneIndex(), warp = warpIndex();
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int head = lane % 4 * 2 + h;
    float sum = softmax.sum[h];
#pragma unroll
    for (int distance = 4; distance < WarpSize; distance *= 2)
      sum += __shfl_xor_sync(FullMask, sum, distance);
    if (lane < 4) {
      shared.parts.maximum[warp][head] = softmax.maximum[h];
      shared.parts.sum[warp][head] = sum;
    }
#pragma unroll
    for (int i = 0; i < Channels / 16; ++i) {
      shared.parts.o[warp][head * StrideO + i * 16 + lane / 4] = o[i][h];
      shared.parts.o[warp][head * StrideO + i * 16 + 8 + lane / 4] = o[i][h + 2];
    }
  }
}

DEVICE void joinParts(const Shared &shared, float *parts, float2 *statistics, const Shape &shape) {
  const int firstHead = (blockIdx.z * shape.kvHeads + blockIdx.y) * shape.group;
#pragma unroll 1
  for (int i = threadIdx.x; i < shape.group * Channels; i += Threads) {
    const int head = i / Channels, channel = i % Channels;
    float maximum = -INFINITY, sum = 0, o = 0;
#pragma unroll
    for (int warp = 0; warp < Warps; ++warp)
      maximum = fmaxf(maximum, shared.parts.maximum[warp][head]);
    const float base = maximum == -INFINITY ? 0 : maximum;
#pragma unroll
    for (int warp = 0; warp < Warps; ++warp) {
      const float factor = exp2Fast(shared.parts.maximum[warp][head] - base);
      sum += factor * shared.parts.sum[warp][head];
      o += factor * shared.parts.o[warp][head * StrideO + channel];
    }
    const int part = (firstHead + head) * shape.splits + blockIdx.x;
    parts[part * Channels + channel] = o;
    if (channel == 0)
      statistics[part] = make_float2(maximum, sum);
  }
}
} // namespace

extern "C" __global__ void __launch_bounds__(Threads)
    flash_decode(const __half *q, const unsigned *kWords, const __half2 *kParameters, const unsigned *vWords,
                 const __half2 *vParameters, float *parts, float2 *statistics, Shape shape) {
  extern __shared__ __align__(16) unsigned char memory[];
  Shared &shared = *reinterpret_cast<Shared *>(memory);
  const int lane = laneIndex(), row0 = warpIndex() * TokensPerWarp, sequence = blockIdx.z * shape.kvHeads + blockIdx.y;
  const unsigned *const words[2] = {kWords + sequence * shape.tokens * Words, vWords + sequence * shape.tokens * Words};
  const __half2 *const parameters[2] = {kParameters + sequence * shape.tokens, vParameters + sequence * shape.tokens};
  const int run = (shape.tokens + shape.splits - 1) / shape.splits;
  const int begin = blockIdx.x * run, end = min(begin + run, shape.tokens);

  unsigned fragments[Channels / 16][2];
  const unsigned *const head =
      reinterpret_cast<const unsigned *>(q) + (sequence * shape.group + lane / 4) * (Channels / 2);
#pragma unroll
  for (int i = 0; i < Channels / 16; ++i)
#pragma unroll
    for (int j = 0; j < 2; ++j)
      fragments[i][j] = lane / 4 < shape.group ? head[i * 8 + j * 4 + lane % 4] : 0;

  float o[Channels / 16][4] = {};
  Softmax softmax = {{-INFINITY, -INFINITY}, {0, 0}};
  if (begin < end)
    fetch(shared.stages[0], words, parameters, begin, end);
  commitCopies();
#pragma unroll 1
  for (int token0 = begin, turn = 0; token0 < end; token0 += Tile, turn ^= 1) {
    if (token0 + Tile < end)
      fetch(shared.stages[turn ^ 1], words, parameters, token0 + Tile, end);
    commitCopies();
    waitCopies<1>();
    __syncthreads(); // copies of the other threads are there, and nobody reads the last tile any more
    widenTile(shared.wide, shared.stages[turn]);
    __syncthreads();
    float c[4] = {};
    score(c, shared.wide[0] + row0 * Stride, fragments, end - token0 - row0, shape.scaleLog2);
    weigh(c, o, softmax);
    accumulate(o, shared.wide[1] + row0 * Stride, c);
  }
  __syncthreads(); // the parts lie where the last tile lay
  leavePart(shared, o, softmax);
  __syncthreads();
  joinParts(shared, parts, statistics, shape);
}
