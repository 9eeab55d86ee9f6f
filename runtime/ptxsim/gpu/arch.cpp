// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/gpu/arch.h"

#include <algorithm>

namespace kvq::ptxsim {

static constexpr int KiB = 1024;
static constexpr Arch kArchs[] = {
    {"sm_80", 8, 0, 108, 2048, 32, 164 * KiB, 163 * KiB, 40 << 20},
    {"sm_86", 8, 6, 82, 1536, 16, 100 * KiB, 99 * KiB, 6 << 20},
    {"sm_87", 8, 7, 16, 1536, 16, 164 * KiB, 163 * KiB, 4 << 20},
    {"sm_89", 8, 9, 128, 1536, 24, 100 * KiB, 99 * KiB, 72 << 20},
    {"sm_90", 9, 0, 132, 2048, 32, 228 * KiB, 227 * KiB, 50 << 20},
    {"sm_100", 10, 0, 148, 2048, 32, 228 * KiB, 227 * KiB, 126 << 20},
    {"sm_120", 12, 0, 170, 1536, 24, 100 * KiB, 99 * KiB, 96 << 20},
};

const Arch *findArch(std::string_view name) {
  for (const Arch &arch : kArchs)
    if (name == arch.name)
      return &arch;
  return nullptr;
}

std::string archNames() {
  std::string names;
  for (const Arch &arch : kArchs)
    names += (names.empty() ? "" : ", ") + std::string(arch.name);
  return names;
}

int occupancy(const Arch &arch, int threads, int64_t sharedBytes) {
  if (threads < 1 || threads > kMaxThreads || sharedBytes > arch.sharedPerBlock)
    return 0;
  const int warps = (threads + kWarp - 1) / kWarp;
  // Shared memory is handed out in steps of 128 bytes.
  const int64_t shared = (sharedBytes + kReservedShared + 127) / 128 * 128;
  return static_cast<int>(
      std::min<int64_t>({arch.blocksPerSm, arch.threadsPerSm / kWarp / warps, arch.sharedPerSm / shared}));
}

} // namespace kvq::ptxsim
