// SPDX-License-Identifier: Apache-2.0
//
// One access of a warp to memory: 32 addresses become pointers, after every check that is on, and are counted. A lane
// whose access cannot be made is reported and left out of Access::mask; its load gives 0, its store is dropped.
#pragma once

#include "runtime/ptxsim/exec/warp.h"
#include "runtime/ptxsim/memory/history.h"

#include <cstring>

namespace kvq::ptxsim {

enum class Pattern : uint8_t {
  Any,         // at[lane]
  Consecutive, // first + lane * bytes; the mask is lanes 0 to n
  Same,        // first
};

struct Intent {
  AccessKind kind;
  bool reads, writes;
  const char *verb;
};
inline constexpr Intent kLoad{AccessKind::Read, true, false, "load"};
inline constexpr Intent kStore{AccessKind::Write, false, true, "store"};
inline constexpr Intent kStrongLoad{AccessKind::Atomic, true, false, "load"};
inline constexpr Intent kStrongStore{AccessKind::Atomic, false, true, "store"};
inline constexpr Intent kUpdate{AccessKind::Atomic, true, true, "atomic operation"};

struct Access {
  uint32_t mask = 0;
  uint32_t bytes = 0; // of a lane
  Pattern pattern = Pattern::Any;
  uint8_t *first = nullptr;
  uint8_t *at[kLanes];
  uint8_t *of(int lane) const {
    return pattern == Pattern::Any ? at[lane] : pattern == Pattern::Same ? first : first + uint32_t(lane) * bytes;
  }
};

using Addresses = uint64_t[kLanes];

// The address operand whose slot is given. Lanes outside the mask get the address of one inside. `second`: it is the
// instruction's second one.
void readAddresses(const Warp &warp, const Op &op, Slot base, uint32_t mask, Addresses &out, bool second = false);

// `bytes` is what one lane accesses: a power of two up to 32. The addresses are those of the space.
void accessGlobal(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                  Access &out);
void accessShared(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                  Access &out);
void accessLocal(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                 Access &out);
void accessConst(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                 Access &out);
void accessParam(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                 Access &out);
// Each lane's address is in the window of a space. `shared` gets the lanes whose address is in shared memory.
void accessGeneric(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                   Access &out, uint32_t *shared = nullptr);

// The space of an operation that is known when the table is made.
template <Space space>
inline void access(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                   Access &out) {
  if constexpr (space == Space::Global)
    accessGlobal(warp, op, mask, addresses, bytes, intent, out);
  else if constexpr (space == Space::Shared)
    accessShared(warp, op, mask, addresses, bytes, intent, out);
  else if constexpr (space == Space::Local)
    accessLocal(warp, op, mask, addresses, bytes, intent, out);
  else if constexpr (space == Space::Const)
    accessConst(warp, op, mask, addresses, bytes, intent, out);
  else if constexpr (space == Space::Param)
    accessParam(warp, op, mask, addresses, bytes, intent, out);
  else
    accessGeneric(warp, op, mask, addresses, bytes, intent, out);
}

// What follows is for the spaces' own files.

// Whether the addresses of the lanes are consecutive, equal, or neither.
Pattern patternOf(const Addresses &addresses, uint32_t mask, uint32_t bytes);

// Whether `bytes` bytes of flags are all 1.
inline bool allWritten(const uint8_t *flags, uint64_t bytes) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  uint64_t differ = 0;
  for (; bytes >= 8; bytes -= 8, flags += 8) {
    uint64_t word;
    std::memcpy(&word, flags, 8);
    differ |= word ^ kOnes;
  }
  for (; bytes > 0; --bytes, ++flags)
    differ |= *flags ^ 1;
  return differ == 0;
}

// The bits of `wanted` that differ in the flags of any lane's bytes, as far as they are in `care`. The number of bytes
// is known to the loop, so that one lane costs a load or two.
template <uint32_t bytes>
uint64_t differingFlags(const uint8_t *flags, const uint32_t *offsets, uint32_t mask, uint64_t wanted, uint64_t care) {
  uint64_t differ = 0;
  forLanes(mask, [&](int lane) {
    constexpr uint32_t kPiece = bytes < 8 ? bytes : 8;
    for (uint32_t at = 0; at < bytes; at += kPiece) {
      uint64_t word = wanted; // bytes that are not loaded do not differ
      std::memcpy(&word, flags + offsets[lane] + at, kPiece);
      differ |= (word ^ wanted) & care;
    }
  });
  return differ;
}
inline uint64_t differingFlags(const uint8_t *flags, const uint32_t *offsets, uint32_t mask, uint32_t bytes,
                               uint64_t wanted, uint64_t care) {
  switch (bytes) {
  case 1:
    return differingFlags<1>(flags, offsets, mask, wanted, care);
  case 2:
    return differingFlags<2>(flags, offsets, mask, wanted, care);
  case 4:
    return differingFlags<4>(flags, offsets, mask, wanted, care);
  case 8:
    return differingFlags<8>(flags, offsets, mask, wanted, care);
  case 16:
    return differingFlags<16>(flags, offsets, mask, wanted, care);
  default:
    return differingFlags<32>(flags, offsets, mask, wanted, care);
  }
}

std::string hexadecimal(uint64_t value);
// "load of 16 bytes".
std::string nameOf(const Intent &intent, uint32_t bytes);
// The lanes of the mask for which wrong(lane) holds.
template <typename Wrong> uint32_t lanesWhere(uint32_t mask, Wrong wrong) {
  uint32_t found = 0;
  for (uint32_t rest = mask; rest; rest &= rest - 1)
    if (const int lane = std::countr_zero(rest); wrong(lane))
      found |= 1u << lane;
  return found;
}

// Distinct sectors of 32 bytes that the lanes of the mask touch.
uint32_t sectorsOf(const Addresses &addresses, uint32_t mask, uint32_t bytes);
// Different addresses among the lanes of the mask. Being aligned, different accesses of one size do not overlap.
uint32_t differentAddresses(const Addresses &addresses, uint32_t mask);
// Passes through the 32 banks of 4 bytes that an access needs, and how few would do: 32 lanes at once for up to 4 bytes
// a lane, halves of the warp for 8, quarters for 16.
struct Wavefronts {
  uint32_t needed = 0, least = 0;
};
Wavefronts wavefrontsOf(const uint32_t *offsets, uint32_t mask, uint32_t bytes);

} // namespace kvq::ptxsim
