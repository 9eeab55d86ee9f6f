// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 (FIPS 180-4): keys and checksums of the kernel store, checksums of snapshots. Written plainly: some 200 MB/s.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kvq {

using Digest = std::array<uint8_t, 32>;

class Sha256 {
public:
  void update(const void *data, size_t bytes);
  Digest finish(); // the object is spent afterwards

private:
  void block(const uint8_t *data);
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> buffer_{};
  uint64_t bytes_ = 0;
};

Digest sha256(std::string_view data);
std::string toHex(const Digest &digest);

} // namespace kvq
