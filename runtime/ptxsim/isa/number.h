// SPDX-License-Identifier: Apache-2.0
//
// Numbers of every scalar type as doubles, and back with any rounding: one lane at a time, for conversions that have no
// vector handler of their own.
#pragma once

#include "runtime/ptxsim/isa/rounding.h"

#include <algorithm>
#include <limits>

namespace kvq::ptxsim {

enum class NumberType : uint8_t { U8, S8, U16, S16, U32, S32, U64, S64, F16, BF16, TF32, F32, F64 };
constexpr int bitsOf(NumberType type) {
  constexpr int kBits[] = {8, 8, 16, 16, 32, 32, 64, 64, 16, 16, 32, 32, 64};
  return kBits[int(type)];
}
constexpr bool isInteger(NumberType type) { return type <= NumberType::S64; }
constexpr bool isSigned(NumberType type) { return int(type) & 1; } // of integers
constexpr const char *nameOf(NumberType type) {
  constexpr const char *kNames[] = {"u8",  "s8",  "u16",  "s16",  "u32", "s32", "u64",
                                    "s64", "f16", "bf16", "tf32", "f32", "f64"};
  return kNames[int(type)];
}

// To an integral value; the sign of zero stays. Adding 2^52 rounds to nearest and even.
template <int rounding, typename F> KVQ_INLINE F integralPart(F value) {
  constexpr F large = sizeof(F) == 8 ? F(0x1p52) : F(0x1p23);
  const F magnitude = value < 0 ? -value : value;
  const F near = magnitude < large ? magnitude + large - large : magnitude;
  const F even = value < 0 ? -near : near;
  F result = even;
  if constexpr (rounding == Rz)
    result = near > magnitude ? (value < 0 ? F(1) - near : near - F(1)) : even;
  if constexpr (rounding == Rm)
    result = even > value ? even - F(1) : even;
  if constexpr (rounding == Rp)
    result = even < value ? even + F(1) : even;
  using U = std::conditional_t<sizeof(F) == 8, uint64_t, uint32_t>;
  constexpr U sign = U(1) << (8 * sizeof(F) - 1);
  return std::bit_cast<F>((std::bit_cast<U>(result) & ~sign) | (std::bit_cast<U>(value) & sign));
}

inline double roundToIntegral(double value, int rounding) {
  switch (rounding) {
  case Rn:
    return integralPart<Rn>(value);
  case Rz:
    return integralPart<Rz>(value);
  case Rm:
    return integralPart<Rm>(value);
  default:
    return integralPart<Rp>(value);
  }
}

// The low bits of a register as a double; integers of 64 bits that do not fit are rounded to odd, so that one more
// rounding is right.
inline double decodeNumber(NumberType type, uint64_t bits) {
  switch (type) {
  case NumberType::F16:
    return halfToFloat(uint16_t(bits));
  case NumberType::BF16:
    return bfloatToFloat(uint16_t(bits));
  case NumberType::TF32:
  case NumberType::F32:
    return floatOf(uint32_t(bits));
  case NumberType::F64:
    return std::bit_cast<double>(bits);
  default:
    break;
  }
  const int unused = 64 - bitsOf(type);
  const uint64_t value = bits << unused >> unused;
  const double low = double(value & 0xffffffff);
  if (isSigned(type))
    return addToOdd(double(int64_t(bits << unused) >> unused >> 32) * 0x1p32,
                    double(uint32_t(int64_t(bits << unused) >> unused)));
  return addToOdd(double(value >> 32) * 0x1p32, low);
}

// To the lattice of a float type, without regard to its largest value.
inline double roundNumber(NumberType type, double value, int rounding) {
  if (type == NumberType::F64 || value == 0 || !std::isfinite(value))
    return value;
  const bool half = type == NumberType::F16;
  const int mantissa = type == NumberType::F32 ? 23 : type == NumberType::BF16 ? 7 : 10;
  const int place = std::max(std::ilogb(value), half ? -14 : -126) - mantissa; // of the last bit
  return std::ldexp(roundToIntegral(std::ldexp(value, -place), rounding), place);
}

inline uint64_t encodeFloat(NumberType type, double value, int rounding, bool satfinite) {
  double result = roundNumber(type, value, rounding);
  const double largest = type == NumberType::F16    ? 65504.0
                         : type == NumberType::BF16 ? 0x1.fep127
                         : type == NumberType::TF32 ? 0x1.ffcp127
                         : type == NumberType::F32  ? double(std::numeric_limits<float>::max())
                                                    : std::numeric_limits<double>::max();
  const bool stays = satfinite || (!std::isinf(value) &&
                                   (rounding == Rz || (rounding == Rm && value > 0) || (rounding == Rp && value < 0)));
  if (std::fabs(result) > largest)
    result = std::copysign(stays ? largest : std::numeric_limits<double>::infinity(), value);
  switch (type) {
  case NumberType::F16:
    return floatToHalf(float(result));
  case NumberType::BF16:
    return floatToBfloat(float(result));
  case NumberType::F64:
    return std::bit_cast<uint64_t>(result);
  default:
    return result == result ? bitsOf(float(result)) : kFloatNaN;
  }
}

// The ISA's table for NaN: 0, unless the source is f64 or the integer has 64 bits; then only its highest bit is set.
inline uint64_t encodeInteger(NumberType type, double integral, NumberType from) {
  const int bits = bitsOf(type);
  if (integral != integral)
    return from == NumberType::F64 || bits == 64 ? (isSigned(type) ? ~0ull << (bits - 1) : 1ull << (bits - 1)) : 0;
  if (isSigned(type)) {
    const double end = std::ldexp(1.0, bits - 1);
    return integral >= end ? (1ull << (bits - 1)) - 1 : uint64_t(int64_t(std::max(integral, -end)));
  }
  const double end = std::ldexp(1.0, bits);
  return integral >= end ? ~0ull >> (64 - bits) : integral > 0 ? uint64_t(integral) : 0;
}

} // namespace kvq::ptxsim
