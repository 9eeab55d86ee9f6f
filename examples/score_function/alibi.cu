// SPDX-License-Identifier: Apache-2.0
//
// The same as alibi.mlir, for devices that run PTX.
#include <math.h>

extern "C" __device__ float kvq_score_mod(float score, int batch, int head, int q, int k) {
  return score + exp2f(-(float)(head + 1)) * (float)(k - q);
}
