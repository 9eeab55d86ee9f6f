// SPDX-License-Identifier: Apache-2.0
// C = A B with f16 or bf16 inputs and f32 sums: A [m][k] and B [k][n] row-major. Four warps make a tile of 64 x 64,
// each a quarter of it; A comes by ldmatrix, B by ldmatrix.trans.
#include "tile.cuh"

namespace {
constexpr int Threads = 128;
constexpr int TileM = 64, TileN = 64, TileK = 32;
// 16 bytes behind each row: the eight rows of a matrix then lie in different banks.
constexpr int StrideA = TileK + 8, StrideB = TileN + 8;

using Multiply = void (*)(float (&)[4], const unsigned (&)[4], unsigned, unsigned);

DEVICE void store(float *c, int m, int n, int row, int column, float value) {
  if (row < m && column < n)
    c[static_cast<long long>(row) * n + column] = value;
}

template <Multiply multiply>
DEVICE void gemm(const unsigned short *a, const unsigned short *b, float *c, int m, int n, int k) {
  __shared__ __align__(16) unsigned short tileA[TileM * StrideA];
  __shared__ __align__(16) unsigned short tileB[TileK * StrideB];
  const int lane = laneIndex(), rowOfWarp = warpIndex() / 2 * 32, columnOfWarp = warpIndex() % 2 * 32;
  const int row0 = blockIdx.y * TileM, column0 = blockIdx.x * TileN;
  float sum[2][4][4] = {};
#pragma unroll 1
  for (int k0 = 0; k0 < k; k0 += TileK) {
    loadTile<Threads, TileM, TileK, StrideA>(tileA, a, m, k, row0, k0);
    loadTile<Threads, TileK, TileN, StrideB>(tileB, b, k, n, k0, column0);
    __syncthreads();
#pragma unroll
    for (int kk = 0; kk < TileK; kk += 16) {
      unsigned fragmentA[2][4], fragmentB[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        loadMatrices(fragmentA[i], tileA + (rowOfWarp + i * 16 + lane % 16) * StrideA + kk + lane / 16 * 8);
        const int row = kk + lane / 8 % 2 * 8 + lane % 8;
        loadMatricesTransposed(fragmentB[i], tileB + row * StrideB + columnOfWarp + i * 16 + lane / 16 * 8);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          multiply(sum[i][j], fragmentA[i], fragmentB[j / 2][j % 2 * 2], fragmentB[j / 2][j % 2 * 2 + 1]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        store(c, m, n, row0 + rowOfWarp + i * 16 + e / 2 * 8 + lane / 4,
              column0 + columnOfWarp + j * 8 + lane % 4 * 2 + e % 2, sum[i][j][e]);
}
} // namespace

extern "C" __global__ void __launch_bounds__(Threads)
    gemm_f16(const unsigned short *a, const unsigned short *b, float *c, int m, int n, int k) {
  gemm<mmaHalf>(a, b, c, m, n, k);
}
extern "C" __global__ void __launch_bounds__(Threads)
    gemm_bf16(const unsigned short *a, const unsigned short *b, float *c, int m, int n, int k) {
  gemm<mmaBfloat>(a, b, c, m, n, k);
}
