// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/tool/scalar.h"

#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdlib>

namespace kvq::ptxsim {

static constexpr ScalarType kTypes[] = {
    {"bool", "", 'b', 1},      {"int8", "s8", 'i', 1},     {"int16", "s16", 'i', 2},  {"int32", "s32", 'i', 4},
    {"int64", "s64", 'i', 8},  {"uint8", "u8", 'u', 1},    {"uint16", "u16", 'u', 2}, {"uint32", "u32", 'u', 4},
    {"uint64", "u64", 'u', 8}, {"float16", "f16", 'f', 2}, {"", "bf16", 'e', 2},      {"float32", "f32", 'f', 4},
    {"float64", "f64", 'f', 8}};

const ScalarType *numpyType(std::string_view name) {
  for (const ScalarType &type : kTypes)
    if (*type.name && name == type.name)
      return &type;
  return nullptr;
}

const ScalarType *numpyType(char kind, int bytes) {
  for (const ScalarType &type : kTypes)
    if (*type.name && type.kind == kind && type.bytes == bytes)
      return &type;
  return nullptr;
}

const ScalarType *ptxType(std::string_view name) {
  for (const ScalarType &type : kTypes)
    if (*type.ptx && name == type.ptx)
      return &type;
  return nullptr;
}

static std::string names(const char *ScalarType::*name) {
  std::string all;
  for (const ScalarType &type : kTypes)
    if (*(type.*name))
      all += (all.empty() ? "" : ", ") + std::string(type.*name);
  return all;
}

std::string numpyNames() { return names(&ScalarType::name); }
std::string ptxNames() { return names(&ScalarType::ptx); }

static const char *nameOf(const ScalarType &type) { return *type.ptx ? type.ptx : type.name; }

static Status bad(const ScalarType &type, const std::string &text, const char *why) {
  return {Code::InvalidArgument, "'" + text + "' " + why + " " + nameOf(type)};
}

static std::vector<uint8_t> littleEnd(uint64_t bits, int bytes) {
  std::vector<uint8_t> out(bytes);
  for (int i = 0; i < bytes; ++i)
    out[i] = static_cast<uint8_t>(bits >> 8 * i);
  return out;
}

// A magnitude or bits: decimal or 0x..
static bool parseMagnitude(const char *text, bool &hex, uint64_t &value) {
  hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
  if (!(text[0] >= '0' && text[0] <= '9'))
    return false;
  char *end = nullptr;
  errno = 0;
  value = std::strtoull(text, &end, hex ? 16 : 10);
  return errno == 0 && *end == 0;
}

static Result<std::vector<uint8_t>> encodeInteger(const ScalarType &type, const std::string &text) {
  const bool negative = text.starts_with('-');
  uint64_t value = 0;
  bool hex = false;
  if (!parseMagnitude(text.c_str() + negative, hex, value))
    return bad(type, text, "is no value of type");
  const int bits = type.kind == 'b' ? 1 : 8 * type.bytes;
  const uint64_t all = bits == 64 ? ~uint64_t(0) : (uint64_t(1) << bits) - 1;
  const uint64_t top = type.kind == 'i' ? all / 2 : all;
  const uint64_t least = type.kind == 'i' ? all / 2 + 1 : 0; // magnitude of the least value
  if (value > (negative ? least : hex ? all : top))
    return bad(type, text, "does not fit into type");
  return littleEnd(negative ? ~value + 1 : value, type.bytes);
}

// Rounds to a format with fewer bits, to nearest, ties to even. Infinite where it does not fit.
static uint64_t narrow(double value, int exponentBits, int mantissaBits) {
  const uint64_t infinity = ((uint64_t(1) << exponentBits) - 1) << mantissaBits;
  const uint64_t sign = uint64_t(std::signbit(value)) << (exponentBits + mantissaBits);
  if (std::isnan(value))
    return sign | infinity | uint64_t(1) << (mantissaBits - 1);
  if (std::isinf(value) || value == 0)
    return sign | (value == 0 ? 0 : infinity);
  int exponent = 0;
  std::frexp(value, &exponent);
  const int least = 2 - (1 << (exponentBits - 1)); // exponent of the least normal number
  const int steps = std::max(exponent - 1 - least, 0);
  const double units = std::nearbyint(std::scalbn(std::fabs(value), mantissaBits - least - steps));
  // A mantissa with its leading bit adds one to the exponent's field: what a normal number has above a subnormal one.
  const uint64_t bits = (static_cast<uint64_t>(steps) << mantissaBits) + static_cast<uint64_t>(units);
  return sign | std::min(bits, infinity);
}

static Result<std::vector<uint8_t>> encodeFloat(const ScalarType &type, const std::string &text) {
  uint64_t bits = 0;
  bool hex = false;
  if (parseMagnitude(text.c_str(), hex, bits) && hex) {
    if (type.bytes < 8 && bits >> 8 * type.bytes)
      return bad(type, text, "has more bits than type");
    return littleEnd(bits, type.bytes);
  }
  char *end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != 0 || std::isspace(static_cast<unsigned char>(text[0])))
    return bad(type, text, "is no value of type");
  const bool infinite = std::isinf(value) && text.find_first_of("iI") != std::string::npos;
  bool overflow = std::isinf(value) && !infinite;
  if (type.bytes == 8) {
    bits = std::bit_cast<uint64_t>(value);
  } else if (type.bytes == 4) {
    const float single = std::strtof(text.c_str(), &end); // from the text: rounded once
    bits = std::bit_cast<uint32_t>(single);
    overflow |= std::isinf(single) && !infinite;
  } else {
    bits = type.kind == 'e' ? narrow(value, 8, 7) : narrow(value, 5, 10);
    overflow |= (bits & 0x7fff) == (type.kind == 'e' ? 0x7f80u : 0x7c00u) && !infinite;
  }
  if (overflow)
    return bad(type, text, "does not fit into type");
  return littleEnd(bits, type.bytes);
}

Result<std::vector<uint8_t>> encode(const ScalarType &type, const std::string &text) {
  return type.kind == 'f' || type.kind == 'e' ? encodeFloat(type, text) : encodeInteger(type, text);
}

} // namespace kvq::ptxsim
