// SPDX-License-Identifier: Apache-2.0
// C = A B' with signed bytes and exact sums: A [m][k] and B [n][k] row-major. Four warps make a tile of 64 x 64, each
// 16 of its rows.
#include "tile.cuh"

namespace {
constexpr int Threads = 128;
constexpr int TileM = 64, TileN = 64, TileK = 64;
constexpr int Stride = TileK + 16;
} // namespace

extern "C" __global__ void __launch_bounds__(Threads)
    gemm_s8(const signed char *a, const signed char *b, int *c, int m, int n, int k) {
  __shared__ __align__(16) signed char tileA[TileM * Stride];
  __shared__ __align__(16) signed char tileB[TileN * Stride];
  const int lane = laneIndex(), rowOfWarp = warpIndex() * 16;
  const int row0 = blockIdx.y * TileM, column0 = blockIdx.x * TileN;
  int sum[TileN / 8][4] = {};
#pragma unroll 1
  for (int k0 = 0; k0 < k; k0 += TileK) {
    loadTile<Threads, TileM, TileK, Stride>(tileA, a, m, k, row0, k0);
    loadTile<Threads, TileN, TileK, Stride>(tileB, b, n, k, column0, k0);
    __syncthreads();
#pragma unroll
    for (int kk = 0; kk < TileK; kk += 32) {
      // Two bytes are one element of ldmatrix: 16 columns of a matrix are 16 bytes.
      unsigned fragmentA[4];
      loadMatrices(fragmentA, tileA + (rowOfWarp + lane % 16) * Stride + kk + lane / 16 * 16);
#pragma unroll
      for (int j = 0; j < TileN / 16; ++j) {
        unsigned fragmentB[4];
        loadMatrices(fragmentB, tileB + (j * 16 + lane / 16 * 8 + lane % 8) * Stride + kk + lane / 8 % 2 * 16);
        mmaInt8(sum[2 * j], fragmentA, fragmentB[0], fragmentB[1]);
        mmaInt8(sum[2 * j + 1], fragmentA, fragmentB[2], fragmentB[3]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int j = 0; j < TileN / 8; ++j)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = row0 + rowOfWarp + e / 2 * 8 + lane / 4, column = column0 + j * 8 + lane % 4 * 2 + e % 2;
      if (row < m && column < n)
        c[static_cast<long long>(row) * n + column] = sum[j][e];
    }
}
