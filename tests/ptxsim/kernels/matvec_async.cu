// SPDX-License-Identifier: Apache-2.0
// y = A x in f32 with two stages of asynchronous copies: while a tile of 32 x 64 is multiplied, the next one is on its
// way. Rows of A are `stride` elements apart, a multiple of 4, so that every copy is aligned.
#include "device.cuh"

namespace {
constexpr int Threads = 128;
constexpr int TileM = 32, TileK = 64;
constexpr int Stride = TileK + 4;
constexpr int LanesPerRow = Threads / TileM;

struct Stage {
  float a[TileM * Stride];
  float x[TileK];
};

DEVICE int validBytes(int columns, int column, int bytes) { return min(max((columns - column) * 4, 0), bytes); }

DEVICE void fetch(Stage &stage, const float *a, const float *x, int rows, int columns, int stride, int row0, int k0) {
#pragma unroll
  for (int turn = 0; turn < TileM * TileK / 4 / Threads; ++turn) {
    const unsigned i = indexAt<Threads>(turn);
    const int row = row0 + i / (TileK / 4), column = k0 + i % (TileK / 4) * 4;
    const int valid = row < rows ? validBytes(columns, column, 16) : 0;
    const float *from = a + static_cast<long long>(row) * stride + column; // not read where nothing is valid
    copyAsync<16>(stage.a + i / (TileK / 4) * Stride + i % (TileK / 4) * 4, from, valid);
  }
  if (threadIdx.x < TileK) {
    const int column = k0 + threadIdx.x;
    const int valid = validBytes(columns, column, 4);
    copyAsync<4>(stage.x + threadIdx.x, x + column, valid);
  }
}
} // namespace

extern "C" __global__ void __launch_bounds__(Threads)
    matvec_async(const float *a, const float *x, float *y, int rows, int columns, int stride) {
  __shared__ __align__(16) Stage stages[2];
  const int row0 = blockIdx.x * TileM;
  const int row = threadIdx.x / LanesPerRow, part = threadIdx.x % LanesPerRow;
  const int tiles = (columns + TileK - 1) / TileK;
  float sum = 0;
  fetch(stages[0], a, x, rows, columns, stride, row0, 0);
  commitCopies();
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles)
      fetch(stages[(tile + 1) % 2], a, x, rows, columns, stride, row0, (tile + 1) * TileK);
    // An empty group in the last round keeps "all but the newest" the right thing to wait for.
    commitCopies();
    waitCopies<1>();
    __syncthreads();
    const Stage &stage = stages[tile % 2];
#pragma unroll
    for (int k = 0; k < TileK; k += LanesPerRow)
      sum = fmaf(stage.a[row * Stride + k + part], stage.x[k + part], sum);
    __syncthreads();
  }
  sum += __shfl_down_sync(FullMask, sum, 1);
  sum += __shfl_down_sync(FullMask, sum, 2);
  if (part == 0 && row0 + row < rows)
    y[row0 + row] = sum;
}
