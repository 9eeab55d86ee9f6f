// SPDX-License-Identifier: Apache-2.0
//
// The scalar reference: every built-in kernel of kvq/kernel_abi.h, written straight from docs/format-spec.md. It is an
// oracle for generated kernels and the debugging device "ref", never a substitute for them: readable before fast.
// Codes, scales, minima and copies are bit-exact; attention and merging are computed in f64 and rounded at the end.
#pragma once

#include "runtime/format/problem.h"

#include <cstdint>
#include <span>

namespace kvq {

// Works off one program of the requested kernel, with the arguments of kvq/kernel_abi.h. Returns 0. The request must be
// one that parseKernelRequest accepts. `rows` and `lag` narrow what a generated kernel handles; they are not needed
// here.
int32_t runReference(const KernelRequest &request, const uint64_t *args, const int64_t *programId);

// One group by quantize_c2; scale and minimum are f16.
struct QuantizedGroup {
  uint16_t scale = 0, minimum = 0;
};
// codes.size() == values.size() >= 1; no value is bad (quantize_c1).
QuantizedGroup quantizeGroup(std::span<const float> values, int bits, std::span<uint8_t> codes);

} // namespace kvq
