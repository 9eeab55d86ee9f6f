// SPDX-License-Identifier: Apache-2.0
//
// Figures of GPU architectures, as NVIDIA's tables of compute capabilities give them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvq::ptxsim {

struct Arch {
  const char *name; // "sm_80"
  int major, minor;
  int multiprocessors; // of a typical device
  int threadsPerSm, blocksPerSm;
  int sharedPerSm;    // bytes
  int sharedPerBlock; // bytes that a block may have after opting in
  int l2Bytes;
};

inline constexpr int kDefaultShared = 48 * 1024; // of a block without opting in
inline constexpr int kReservedShared = 1024;     // of each block, for the system
inline constexpr int kWarp = 32;
inline constexpr int kMaxThreads = 1024; // of a block
inline constexpr int kRegistersPerSm = 65536;

const Arch *findArch(std::string_view name); // null: not known
std::string archNames();

// Blocks of a kernel that fit into a multiprocessor. Registers are ptxas' business: they are not counted.
int occupancy(const Arch &arch, int threads, int64_t sharedBytes);

} // namespace kvq::ptxsim
