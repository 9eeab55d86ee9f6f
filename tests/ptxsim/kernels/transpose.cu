// SPDX-License-Identifier: Apache-2.0
// Transposes a matrix of 32-bit words through tiles of 32 x 32 in shared memory, 8 rows at a time.
#include "device.cuh"

namespace {
constexpr int Tile = 32, RowsAtOnce = 8;
}

extern "C" __global__ void __launch_bounds__(Tile *RowsAtOnce)
    transpose(const unsigned *from, unsigned *to, int rows, int columns) {
  __shared__ unsigned tile[Tile][Tile + 1]; // a word more: a column lies in 32 banks
  const int row0 = blockIdx.y * Tile, column0 = blockIdx.x * Tile;
#pragma unroll
  for (int turn = 0; turn < Tile / RowsAtOnce; ++turn) {
    const int i = threadIdx.y + turn * RowsAtOnce;
    if (row0 + i < rows && column0 + threadIdx.x < columns)
      tile[i][threadIdx.x] = from[static_cast<long long>(row0 + i) * columns + column0 + threadIdx.x];
  }
  __syncthreads();
#pragma unroll
  for (int turn = 0; turn < Tile / RowsAtOnce; ++turn) {
    const int i = threadIdx.y + turn * RowsAtOnce;
    if (column0 + i < columns && row0 + threadIdx.x < rows)
      to[static_cast<long long>(column0 + i) * rows + row0 + threadIdx.x] = tile[threadIdx.x][i];
  }
}
