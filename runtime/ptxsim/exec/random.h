// SPDX-License-Identifier: Apache-2.0
//
// The generator behind every seeded choice: splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
// generators, OOPSLA 2014). The same on every platform, unlike the distributions of the standard library.
#pragma once

#include <cstdint>

namespace kvq::ptxsim {

class Random {
public:
  explicit Random(uint64_t seed = 0) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  uint32_t below(uint32_t count) { return uint32_t((next() >> 32) * count >> 32); }

private:
  uint64_t state_;
};

} // namespace kvq::ptxsim
