// SPDX-License-Identifier: Apache-2.0
// What the kernels share: the warp's shape, asynchronous copies, matrix fragments. Inline assembly where CUDA C++ has
// no function that both nvcc and clang know.
#pragma once

#include <cuda_fp16.h>

#define DEVICE __device__ __forceinline__

constexpr unsigned FullMask = 0xffffffffu;
constexpr int WarpSize = 32;

DEVICE int laneIndex() { return threadIdx.x % WarpSize; }
DEVICE int warpIndex() { return threadIdx.x / WarpSize; }
/// What this thread takes at its n-th turn of a loop that Threads threads share. A loop up to a constant number of
/// turns is unrolled as a whole; one up to a bound of this index has a remainder that no thread ever enters.
template <int Threads> DEVICE unsigned indexAt(int turn) { return threadIdx.x + turn * Threads; }

DEVICE unsigned sharedAddress(const void *pointer) { return static_cast<unsigned>(__cvta_generic_to_shared(pointer)); }

/// Copies Bytes (4, 8 or 16) to shared memory; of the source only `valid` bytes are read, the others become zeros.
template <int Bytes> DEVICE void copyAsync(void *shared, const void *global, int valid) {
  if constexpr (Bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(sharedAddress(shared)), "l"(global), "r"(valid)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(sharedAddress(shared)), "l"(global), "r"(valid),
                 "n"(Bytes)
                 : "memory");
}
DEVICE void commitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending> DEVICE void waitCopies() { asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory"); }

/// Four 8x8 matrices of 16-bit elements; lane l names the row l % 8 of matrix l / 8.
DEVICE void loadMatrices(unsigned (&fragment)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(sharedAddress(row))
               : "memory");
}
DEVICE void loadMatricesTransposed(unsigned (&fragment)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(sharedAddress(row))
               : "memory");
}

#define MMA_FLOAT(types)                                                                                               \
  asm volatile("mma.sync.aligned.m16n8k16.row.col." types " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"     \
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                                                \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

DEVICE void mmaHalf(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) { MMA_FLOAT("f32.f16.f16.f32"); }
DEVICE void mmaBfloat(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  MMA_FLOAT("f32.bf16.bf16.f32");
}
DEVICE void mmaInt8(int (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// 2 to the power of x, subnormals flushed.
DEVICE float exp2Fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
