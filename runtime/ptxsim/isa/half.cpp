// SPDX-License-Identifier: Apache-2.0
//
// Arithmetic on fp16 and bf16, single and packed (ISA "Half Precision Floating-Point Instructions").
#include "runtime/ptxsim/isa/half.h"

#include "runtime/ptxsim/isa/forms.h"
#include "runtime/ptxsim/isa/lanes.h"

namespace kvq::ptxsim {

namespace {

// Each operation in float or double, so that one more rounding gives the result of rounding once.
struct Fp16 {
  static constexpr int infinity = 0x7c00;
  KVQ_INLINE static float widen(uint16_t a) { return halfToFloat(a); }
  KVQ_INLINE static uint16_t narrow(float a) { return floatToHalf(a); }
  // 24 bits are 2 * 11 + 2, which is enough for a sum (Figueroa, 1995); a product has 22.
  KVQ_INLINE static float add(float a, float b) { return a + b; }
  KVQ_INLINE static float multiply(float a, float b) { return a * b; }
  KVQ_INLINE static float fma(float a, float b, float c) { return addToOdd(a * b, c); }
};
struct Bf16 {
  static constexpr int infinity = 0x7f80;
  KVQ_INLINE static float widen(uint16_t a) { return bfloatToFloat(a); }
  KVQ_INLINE static uint16_t narrow(float a) { return floatToBfloat(a); }
  KVQ_INLINE static float add(float a, float b) { return a + b; }
  // A product may lie below what a float holds exactly.
  KVQ_INLINE static float multiply(float a, float b) { return doubleToOdd(double(a) * double(b)); }
  KVQ_INLINE static float fma(float a, float b, float c) {
    return doubleToOdd(addToOdd(double(a) * double(b), double(c)));
  }
};

// Bits of how: ftz, sat, relu.
template <typename N, int how> KVQ_INLINE float input(uint16_t a) { return N::widen((how & 1) ? flushHalf(a) : a); }
template <typename N, int how> KVQ_INLINE uint16_t finish(float value) {
  if constexpr ((how & 2) != 0) {
    const float low = value > 0 ? value : 0.0f; // +0 for NaN
    value = low < 1 ? low : 1.0f;
  }
  if constexpr ((how & 4) != 0)
    value = value <= 0 ? 0.0f : value;
  // Only fp16 has .ftz: what lies below the least normal number after rounding without a least exponent (see
  // flushResult).
  if constexpr ((how & 1) != 0)
    value = std::fabs(value) < 0x1.ffep-15f ? floatOf(bitsOf(value) & 0x80000000) : value;
  return N::narrow(value);
}

template <typename N, int how> KVQ_INLINE uint16_t sum(uint16_t a, uint16_t b) {
  return finish<N, how>(N::add(input<N, how>(a), input<N, how>(b)));
}
template <typename N, int how> KVQ_INLINE uint16_t subtract(uint16_t a, uint16_t b) {
  return finish<N, how>(N::add(input<N, how>(a), -input<N, how>(b)));
}
template <typename N, int how> KVQ_INLINE uint16_t multiply(uint16_t a, uint16_t b) {
  return finish<N, how>(N::multiply(input<N, how>(a), input<N, how>(b)));
}
template <typename N, int how> KVQ_INLINE uint16_t fma(uint16_t a, uint16_t b, uint16_t c) {
  return finish<N, how>(N::fma(input<N, how>(a), input<N, how>(b), input<N, how>(c)));
}

KVQ_INLINE uint16_t canonical(int bits, int infinity) { return uint16_t((bits & 0x7fff) > infinity ? kHalfNaN : bits); }

template <typename N, int how> KVQ_INLINE uint16_t absolute(uint16_t a) {
  return canonical(((how & 1) ? flushHalf(a) : a) & 0x7fff, N::infinity);
}
template <typename N, int how> KVQ_INLINE uint16_t negate(uint16_t a) {
  return canonical(((how & 1) ? flushHalf(a) : a) ^ 0x8000, N::infinity);
}

// As min and max of f32. Bits of how: ftz, NaN, xorsign.abs, max.
template <typename N, int how> KVQ_INLINE uint16_t extremum(uint16_t a, uint16_t b) {
  constexpr bool isMax = how & 8, signs = how & 4, strict = how & 2;
  const uint32_t x = (how & 1) ? flushHalf(a) : a, y = (how & 1) ? flushHalf(b) : b;
  const uint32_t u = signs ? x & 0x7fff : x, v = signs ? y & 0x7fff : y, sign = signs ? (x ^ y) & 0x8000 : 0;
  const float f = N::widen(uint16_t(u)), g = N::widen(uint16_t(v));
  const bool uNaN = f != f, vNaN = g != g, any = uNaN | vNaN, both = uNaN & vNaN;
  const bool first = isMax ? f > g : f < g;
  const uint32_t ordered = f == g ? (isMax ? u & v : u | v) : first ? u : v;
  const uint32_t number = uNaN ? v : vNaN ? u : ordered;
  const bool isNaN = strict ? any : both;
  return uint16_t(isNaN ? kHalfNaN : number | sign);
}

// In both halves of a register.
template <auto function> KVQ_INLINE uint32_t inTwo(uint32_t a) {
  return function(uint16_t(a)) | uint32_t(function(uint16_t(a >> 16))) << 16;
}
template <auto function> KVQ_INLINE uint32_t inTwo2(uint32_t a, uint32_t b) {
  return function(uint16_t(a), uint16_t(b)) | uint32_t(function(uint16_t(a >> 16), uint16_t(b >> 16))) << 16;
}
template <auto function> KVQ_INLINE uint32_t inTwo3(uint32_t a, uint32_t b, uint32_t c) {
  return function(uint16_t(a), uint16_t(b), uint16_t(c)) |
         uint32_t(function(uint16_t(a >> 16), uint16_t(b >> 16), uint16_t(c >> 16))) << 16;
}

template <auto function, bool packed> constexpr Handler one() {
  if constexpr (packed)
    return unary<uint32_t, uint32_t, inTwo<function>>;
  else
    return unary<uint16_t, uint16_t, function>;
}
template <auto function, bool packed> constexpr Handler pair() {
  using U = uint32_t;
  if constexpr (packed)
    return binary<U, U, U, inTwo2<function>>;
  else
    return binary<uint16_t, uint16_t, uint16_t, function>;
}
template <auto function, bool packed> constexpr Handler triple() {
  using U = uint32_t;
  if constexpr (packed)
    return ternary<U, U, U, U, inTwo3<function>>;
  else
    return ternary<uint16_t, uint16_t, uint16_t, uint16_t, function>;
}

int flag(const Form &form, size_t group) { return group < form.choice.size() && form.choice[group] >= 0; }

template <typename N, bool packed> void addType(Table &table, const std::string &type) {
  constexpr bool isHalf = std::is_same_v<N, Fp16>;
  const std::string bits = packed ? "b32" : "b16";
  const auto add = [&](const std::string &pattern, const char *operands, const Choose &choose) {
    table.add((pattern + "." + type).c_str(), withType(operands, bits).c_str(), OpClass::Half, choose);
  };
  const auto arithmetic = [&](const char *name, const char *operands, auto handlers) {
    add(std::string(name) + (isHalf ? "[.rn][.ftz][.sat]" : "[.rn]"), operands,
        [=](const Form &form) { return pick<4>(flag(form, 1) | flag(form, 2) << 1, handlers); });
  };
  arithmetic("add", "$ = $ $", []<int how>() { return pair<sum<N, how>, packed>(); });
  arithmetic("sub", "$ = $ $", []<int how>() { return pair<subtract<N, how>, packed>(); });
  arithmetic("mul", "$ = $ $", []<int how>() { return pair<multiply<N, how>, packed>(); });
  add(isHalf ? "fma.rn[.ftz][.sat]" : "fma.rn", "$ = $ $ $", [](const Form &form) {
    return pick<4>(flag(form, 0) | flag(form, 1) << 1, []<int how>() { return triple<fma<N, how>, packed>(); });
  });
  add(isHalf ? "fma.rn[.ftz].relu" : "fma.rn.relu", "$ = $ $ $", [](const Form &form) {
    return pickBool(flag(form, 0), []<bool ftz>() { return triple<fma<N, 4 | int(ftz)>, packed>(); });
  });
  add(isHalf ? "abs[.ftz]" : "abs", "$ = $", [](const Form &form) {
    return pickBool(flag(form, 0), []<bool ftz>() { return one<absolute<N, int(ftz)>, packed>(); });
  });
  add(isHalf ? "neg[.ftz]" : "neg", "$ = $", [](const Form &form) {
    return pickBool(flag(form, 0), []<bool ftz>() { return one<negate<N, int(ftz)>, packed>(); });
  });
  add(isHalf ? "{min|max}[.ftz][.NaN][.xorsign.abs]" : "{min|max}[.NaN][.xorsign.abs]", "$ = $ $",
      [](const Form &form) {
        const int how =
            (isHalf && flag(form, 1)) | flag(form, 1 + isHalf) << 1 | flag(form, 2 + isHalf) << 2 | form.choice[0] << 3;
        return pick<16>(how, []<int h>() { return pair<extremum<N, h>, packed>(); });
      });
}

} // namespace

void addHalf(Table &table) {
  addType<Fp16, false>(table, "f16");
  addType<Fp16, true>(table, "f16x2");
  addType<Bf16, false>(table, "bf16");
  addType<Bf16, true>(table, "bf16x2");
}

} // namespace kvq::ptxsim
