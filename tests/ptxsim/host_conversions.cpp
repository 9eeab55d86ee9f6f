// SPDX-License-Identifier: Apache-2.0
// Conversions and arithmetic as the host side of CUDA's own headers computes them. The argument names a function;
// standard input holds 64-bit words, all first operands, then all second ones; standard output gets the results.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp4.h>
#include <cuda_fp8.h>

namespace {

using Function = std::function<uint64_t(uint64_t, uint64_t)>;

template <typename To, typename From> To bitsOf(From value) {
  To to{};
  std::memcpy(static_cast<void *>(&to), &value, sizeof(to) < sizeof(value) ? sizeof(to) : sizeof(value));
  return to;
}

template <typename Argument, typename Result> Function unary(Result (*function)(Argument)) {
  return [function](uint64_t a, uint64_t) { return bitsOf<uint64_t>(function(bitsOf<Argument>(a))); };
}

template <typename Argument, typename Result> Function binary(Result (*function)(Argument, Argument)) {
  return [function](uint64_t a, uint64_t b) {
    return bitsOf<uint64_t>(function(bitsOf<Argument>(a), bitsOf<Argument>(b)));
  };
}

using Half = __half;
using Bfloat = __nv_bfloat16;

#define UNARY(name, argument, result) {#name, unary(static_cast<result (*)(argument)>(name))}
#define BINARY(name, type, tag) {#name "." tag, binary(static_cast<type (*)(type, type)>(name))}
#define COMPARE(name, type, tag) {#name "." tag, binary(static_cast<bool (*)(type, type)>(name))}
#define ROUNDINGS(name, argument, result)                                                                              \
  UNARY(name##_rn, argument, result), UNARY(name##_rz, argument, result), UNARY(name##_rd, argument, result),          \
      UNARY(name##_ru, argument, result)

const std::map<std::string, Function> &conversions() {
  static const std::map<std::string, Function> table = {
      ROUNDINGS(__float2half, float, Half),
      ROUNDINGS(__int2half, int, Half),
      ROUNDINGS(__uint2half, unsigned, Half),
      ROUNDINGS(__short2half, short, Half),
      ROUNDINGS(__ushort2half, unsigned short, Half),
      ROUNDINGS(__ll2half, long long, Half),
      ROUNDINGS(__ull2half, unsigned long long, Half),
      ROUNDINGS(__float2bfloat16, float, Bfloat),
      UNARY(__double2half, double, Half),
      UNARY(__double2bfloat16, double, Bfloat),
      UNARY(__half2float, Half, float),
      UNARY(__bfloat162float, Bfloat, float),
      UNARY(__half2char_rz, Half, signed char),
      UNARY(__half2uchar_rz, Half, unsigned char),
      UNARY(__half2short_rz, Half, short),
      UNARY(__half2ushort_rz, Half, unsigned short),
      UNARY(__half2int_rz, Half, int),
      UNARY(__half2uint_rz, Half, unsigned),
      UNARY(__half2ll_rz, Half, long long),
      UNARY(__half2ull_rz, Half, unsigned long long),
      UNARY(__bfloat162int_rz, Bfloat, int),
      UNARY(__bfloat162uint_rz, Bfloat, unsigned),
      UNARY(__bfloat162short_rz, Bfloat, short),
      UNARY(__bfloat162ushort_rz, Bfloat, unsigned short),
      UNARY(__bfloat162ll_rz, Bfloat, long long),
      UNARY(__bfloat162ull_rz, Bfloat, unsigned long long),
      UNARY(__int2bfloat16_rn, int, Bfloat),
      UNARY(__uint2bfloat16_rn, unsigned, Bfloat),
      UNARY(__short2bfloat16_rn, short, Bfloat),
      UNARY(__ushort2bfloat16_rn, unsigned short, Bfloat),
      UNARY(__ll2bfloat16_rn, long long, Bfloat),
      UNARY(__ull2bfloat16_rn, unsigned long long, Bfloat),
  };
  return table;
}

#define ARITHMETIC(type, tag)                                                                                          \
  BINARY(__hadd, type, tag), BINARY(__hsub, type, tag), BINARY(__hmul, type, tag), BINARY(__hmax, type, tag),          \
      BINARY(__hmin, type, tag), BINARY(__hmax_nan, type, tag), BINARY(__hmin_nan, type, tag),                         \
      COMPARE(__heq, type, tag), COMPARE(__hne, type, tag), COMPARE(__hlt, type, tag), COMPARE(__hle, type, tag),      \
      COMPARE(__hgt, type, tag), COMPARE(__hge, type, tag), COMPARE(__hltu, type, tag), COMPARE(__hgeu, type, tag),    \
      COMPARE(__hneu, type, tag)

const std::map<std::string, Function> &arithmetic() {
  static const std::map<std::string, Function> table = {
      ARITHMETIC(Half, "f16"),         ARITHMETIC(Bfloat, "bf16"),      BINARY(__hadd_sat, Half, "f16"),
      BINARY(__hsub_sat, Half, "f16"), BINARY(__hmul_sat, Half, "f16"),
  };
  return table;
}

template <__nv_fp8_interpretation_t kind> Function toFp8(bool fromHalf) {
  return [fromHalf](uint64_t a, uint64_t) -> uint64_t {
    return fromHalf ? __nv_cvt_halfraw_to_fp8(bitsOf<__half_raw>(a), __NV_SATFINITE, kind)
                    : __nv_cvt_float_to_fp8(bitsOf<float>(a), __NV_SATFINITE, kind);
  };
}

template <__nv_fp8_interpretation_t kind> Function fromFp8() {
  return [](uint64_t a, uint64_t) -> uint64_t { return __nv_cvt_fp8_to_halfraw(uint8_t(a), kind).x; };
}

const std::map<std::string, Function> &small() {
  static const std::map<std::string, Function> table = {
      {"float.e4m3", toFp8<__NV_E4M3>(false)},
      {"float.e5m2", toFp8<__NV_E5M2>(false)},
      {"half.e4m3", toFp8<__NV_E4M3>(true)},
      {"half.e5m2", toFp8<__NV_E5M2>(true)},
      {"e4m3.half", fromFp8<__NV_E4M3>()},
      {"e5m2.half", fromFp8<__NV_E5M2>()},
      {"float.e2m1",
       [](uint64_t a, uint64_t) -> uint64_t {
         return __nv_cvt_float_to_fp4(bitsOf<float>(a), __NV_E2M1, cudaRoundNearest);
       }},
      {"e2m1.half", [](uint64_t a, uint64_t) -> uint64_t { return __nv_cvt_fp4_to_halfraw(uint8_t(a), __NV_E2M1).x; }},
  };
  return table;
}

const Function *find(const std::string &name) {
  for (const auto *table : {&conversions(), &arithmetic(), &small()})
    if (auto found = table->find(name); found != table->end())
      return &found->second;
  return nullptr;
}

} // namespace

int main(int count, char **arguments) {
  const Function *function = count == 3 ? find(arguments[1]) : nullptr;
  if (!function) {
    std::fprintf(stderr, "host_conversions: no such function\n");
    return 2;
  }
  size_t operands = arguments[2][0] == '2' ? 2 : 1;
  std::vector<uint64_t> words(1 << 18);
  words.resize(std::fread(words.data(), sizeof(uint64_t), words.size(), stdin));
  size_t values = words.size() / operands;
  std::vector<uint64_t> results(values);
  for (size_t i = 0; i < values; ++i)
    results[i] = (*function)(words[i], operands == 2 ? words[values + i] : 0);
  return std::fwrite(results.data(), sizeof(uint64_t), values, stdout) == values ? 0 : 1;
}
