// SPDX-License-Identifier: Apache-2.0
// A tile of a row-major matrix, from global to shared memory.
#pragma once

#include "device.cuh"

/// Rows x Columns of a matrix from (row0, column0) on; zeros outside of it. Chunks of 16 bytes where the rows allow it.
template <int Threads, int Rows, int Columns, int Stride, typename T>
DEVICE void loadTile(T *tile, const T *matrix, int rows, int columns, int row0, int column0) {
  constexpr int Chunk = 16 / sizeof(T);
  constexpr int PerRow = Columns / Chunk;
  static_assert(Rows * PerRow % Threads == 0 && Stride % Chunk == 0);
  const bool aligned = columns % Chunk == 0;
#pragma unroll
  for (int turn = 0; turn < Rows * PerRow / Threads; ++turn) {
    const unsigned i = indexAt<Threads>(turn);
    const int row = row0 + i / PerRow, column = column0 + i % PerRow * Chunk;
    T *to = tile + i / PerRow * Stride + i % PerRow * Chunk;
    const T *from = matrix + static_cast<long long>(row) * columns + column;
    if (aligned) {
      const bool inside = row < rows && column < columns;
      *reinterpret_cast<uint4 *>(to) = inside ? *reinterpret_cast<const uint4 *>(from) : make_uint4(0, 0, 0, 0);
    } else {
#pragma unroll 1
      for (int j = 0; j < Chunk; ++j)
        to[j] = row < rows && column + j < columns ? from[j] : T(0);
    }
  }
}
