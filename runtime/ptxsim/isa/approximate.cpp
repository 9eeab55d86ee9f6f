// SPDX-License-Identifier: Apache-2.0
//
// Approximate functions: .approx and .full. The ISA bounds their errors; here they are computed in double and rounded
// once, and with Options::disturb moved by up to two units in the last place (one for fp16 and bf16), so that no kernel
// depends on the bits of one GPU.
#include "runtime/ptxsim/isa/forms.h"
#include "runtime/ptxsim/isa/lanes.h"
#include "runtime/ptxsim/isa/rounding.h"

#include <limits>

namespace kvq::ptxsim {

namespace {

constexpr double kTwo52 = 0x1.8p52; // the sum with it has the nearest integer in its low bits

// 2^x to a few 1e-17; beyond +-200 what a float makes infinite or zero.
KVQ_INLINE double exp2Of(double x) {
  const double low = x < -200 ? -200 : x, clamped = low > 200 ? 200 : low;
  const double shifted = clamped + kTwo52, t = (clamped - (shifted - kTwo52)) * 0.6931471805599453;
  double p = 1.0 / 6227020800; // 1 / 13!
  constexpr double kInverse[] = {
      1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
      1.0 / 120,       1.0 / 24,       1.0 / 6,       1.0 / 2,      1.0,         1.0};
  for (double inverse : kInverse)
    p = p * t + inverse;
  const uint64_t scale = (std::bit_cast<uint64_t>(shifted) - std::bit_cast<uint64_t>(kTwo52) + 1023) << 52;
  return p * std::bit_cast<double>(scale);
}

// log2 of a positive number within a float's range.
KVQ_INLINE double log2Of(double x) {
  constexpr uint64_t kRootHalf = 0x3fe6a09e667f3bcd, kOffset = 1024;
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  const uint64_t exponent = (bits - kRootHalf + (kOffset << 52)) >> 52; // plus kOffset
  const double m = std::bit_cast<double>(bits - ((exponent - kOffset) << 52));
  const double e = std::bit_cast<double>(0x4330000000000000 | exponent) - (0x1p52 + kOffset);
  const double s = (m - 1) / (m + 1), z = s * s;
  double p = 1.0 / 21;
  for (int odd = 19; odd > 0; odd -= 2)
    p = p * z + 1.0 / odd;
  return e + 2.8853900817779268 * s * p; // 2 / ln 2
}

template <bool ftz> KVQ_INLINE float finish(double value) { return canonical(flushed<ftz>(float(value))); }

template <bool ftz> KVQ_INLINE float ex2(float a) { return finish<ftz>(exp2Of(flushed<ftz>(a))); }
template <bool ftz> KVQ_INLINE float lg2(float a) {
  const float x = flushed<ftz>(a);
  const double result = log2Of(x);
  const double special = x == 0 ? -std::numeric_limits<double>::infinity() : x > 0 ? double(x) : std::nan("");
  const bool regular = (x > 0) & (x < std::numeric_limits<float>::infinity());
  return finish<ftz>(regular ? result : special);
}
template <bool ftz> KVQ_INLINE float reciprocal(float a) { return finish<ftz>(1.0 / double(flushed<ftz>(a))); }
template <bool ftz> KVQ_INLINE float root(float a) { return finish<ftz>(squareRoot(double(flushed<ftz>(a)))); }
template <bool ftz> KVQ_INLINE float reciprocalRoot(float a) {
  return finish<ftz>(1.0 / squareRoot(double(flushed<ftz>(a))));
}
template <bool ftz> float sine(float a) { return finish<ftz>(std::sin(double(flushed<ftz>(a)))); }
template <bool ftz> float cosine(float a) { return finish<ftz>(std::cos(double(flushed<ftz>(a)))); }
float hyperbolicTangent(float a) { return finish<false>(std::tanh(double(a))); }

template <bool ftz> KVQ_INLINE float divideFull(float a, float b) {
  return finish<ftz>(double(flushed<ftz>(a)) / double(flushed<ftz>(b)));
}
// As a * (1 / b): for divisors above 2^126 the reciprocal is subnormal and taken as zero (ISA div.approx).
template <bool ftz> KVQ_INLINE float divideApprox(float a, float b) {
  const float x = flushed<ftz>(a), y = flushed<ftz>(b);
  const float size = std::fabs(y);
  const bool large = size > 0x1p126f && size < std::numeric_limits<float>::infinity();
  const double quotient = double(x) / double(y), zero = double(x) * std::copysign(0.0, double(y));
  return finish<ftz>(large ? zero : quotient);
}

// The results of f64 approximations have their lower 32 bits clear, and the sources' lower 32 bits do not count.
double cleared(double value) { return std::bit_cast<double>(std::bit_cast<uint64_t>(value) >> 32 << 32); }
double approximated64(double value) {
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  return std::bit_cast<double>((bits << 1 >> 1) > 0x7ff0000000000000 ? 0x7fffffff00000000 : bits >> 32 << 32);
}
double flush64(double a) { return std::fabs(a) < 0x1p-1022 ? std::copysign(0.0, a) : a; }
double reciprocal64(double a) { return approximated64(flush64(1.0 / flush64(cleared(a)))); }
double reciprocalRoot64(double a) { return approximated64(1.0 / squareRoot(flush64(cleared(a)))); }
double reciprocalRootFull64(double a) {
  const uint64_t nan = a != a ? std::bit_cast<uint64_t>(a) | 1ull << 51 : 0xfff8000000000000;
  return a >= 0 ? 1.0 / squareRoot(a) : std::bit_cast<double>(nan);
}

// fp16 and bf16 through double with one rounding.
struct Fp16 {
  KVQ_INLINE static double widen(uint16_t a) { return halfToFloat(a); }
  KVQ_INLINE static uint16_t narrow(double a) { return floatToHalf(doubleToOdd(a)); }
};
struct Bf16 {
  KVQ_INLINE static double widen(uint16_t a) { return bfloatToFloat(a); }
  KVQ_INLINE static uint16_t narrow(double a) { return floatToBfloat(doubleToOdd(a)); }
};
template <typename N, bool ftz> KVQ_INLINE uint16_t ex2Half(uint16_t a) {
  const uint16_t x = ftz && (a & 0x7f80) == 0 ? a & 0x8000 : a; // .ftz is of bf16 only
  const uint16_t result = N::narrow(exp2Of(N::widen(x)));
  return ftz && (result & 0x7f80) == 0 ? result & 0x8000 : result;
}
template <typename N> uint16_t tanhHalf(uint16_t a) { return N::narrow(std::tanh(N::widen(a))); }
template <auto function> KVQ_INLINE uint32_t inHalves(uint32_t a) {
  return function(uint16_t(a)) | uint32_t(function(uint16_t(a >> 16))) << 16;
}

// Moved by up to `range` units. Zero, infinity and NaN stay, and a result does not become one of them, nor subnormal.
// Of bounded functions +-1 stays: results beyond it do not exist.
enum class Bound { None, One };
template <typename U> U moved(U bits, int mantissa, int range, Bound bound, Random &random) {
  const U magnitude = bits & U(~U(0)) >> 1, exponents = U((U(~U(0)) >> 1) >> mantissa << mantissa);
  const U one = U((exponents >> 1) >> mantissa << mantissa);
  const int by = int(random.below(uint32_t(2 * range + 1))) - range;
  const U result = U(magnitude + U(by));
  const bool special = magnitude >= exponents || magnitude >> mantissa == 0;
  const bool leaves =
      result >= exponents || result >> mantissa == 0 || (bound == Bound::One && (magnitude == one || result > one));
  return special || leaves ? bits : U(bits - magnitude + result);
}

template <typename U, int mantissa, bool packed, Bound bound> void disturb(Warp &warp, const Op &op, uint32_t mask) {
  if (!warp.worker->launch->options.disturb)
    return;
  U *d = warp.at<U>(op.results[0]);
  Random &random = warp.worker->random;
  forLanes(mask, [&](int lane) {
    if constexpr (packed) {
      const uint16_t low = moved<uint16_t>(uint16_t(d[lane]), mantissa, 1, bound, random);
      d[lane] = low | U(moved<uint16_t>(uint16_t(d[lane] >> 16), mantissa, 1, bound, random)) << 16;
    } else {
      d[lane] = moved<U>(d[lane], mantissa, sizeof(U) == 2 ? 1 : 2, bound, random);
    }
  });
}

// A handler and then the disturbance of its result.
template <Handler handler, typename U, int mantissa, bool packed = false, Bound bound = Bound::None>
void disturbed(Warp &warp, const Op &op, uint32_t mask) {
  handler(warp, op, mask);
  disturb<U, mantissa, packed, bound>(warp, op, mask);
}
template <Handler handler, Bound bound = Bound::None>
constexpr Handler kFloat = disturbed<handler, uint32_t, 23, false, bound>;

void addFloats(Table &table) {
  const auto add = [&](const char *pattern, const char *operands, auto handlers) {
    table.add(pattern, operands, OpClass::Special,
              [=](const Form &form) { return pickBool(form.choice[0] >= 0, handlers); });
  };
  using F = float;
  add("ex2.approx[.ftz].f32", "f32 = f32", []<bool ftz>() { return kFloat<unary<F, F, ex2<ftz>>>; });
  add("lg2.approx[.ftz].f32", "f32 = f32", []<bool ftz>() { return kFloat<unary<F, F, lg2<ftz>>>; });
  add("rcp.approx[.ftz].f32", "f32 = f32", []<bool ftz>() { return kFloat<unary<F, F, reciprocal<ftz>>>; });
  add("sqrt.approx[.ftz].f32", "f32 = f32", []<bool ftz>() { return kFloat<unary<F, F, root<ftz>>>; });
  add("rsqrt.approx[.ftz].f32", "f32 = f32", []<bool ftz>() { return kFloat<unary<F, F, reciprocalRoot<ftz>>>; });
  add("sin.approx[.ftz].f32", "f32 = f32", []<bool ftz>() { return kFloat<unaryEach<F, F, sine<ftz>>, Bound::One>; });
  add("cos.approx[.ftz].f32", "f32 = f32", []<bool ftz>() { return kFloat<unaryEach<F, F, cosine<ftz>>, Bound::One>; });
  add("div.approx[.ftz].f32", "f32 = f32 f32", []<bool ftz>() { return kFloat<binary<F, F, F, divideApprox<ftz>>>; });
  add("div.full[.ftz].f32", "f32 = f32 f32", []<bool ftz>() { return kFloat<binary<F, F, F, divideFull<ftz>>>; });
  table.add("tanh.approx.f32", "f32 = f32", OpClass::Special, kFloat<unaryEach<F, F, hyperbolicTangent>, Bound::One>);
  using D = double;
  table.add("rcp.approx.ftz.f64", "f64 = f64", OpClass::Special, unaryEach<D, D, reciprocal64>);
  table.add("rsqrt.approx.ftz.f64", "f64 = f64", OpClass::Special, unaryEach<D, D, reciprocalRoot64>);
  table.add("rsqrt.approx.f64", "f64 = f64", OpClass::Special, unaryEach<D, D, reciprocalRootFull64>);
}

template <typename N, int mantissa> void addHalves(Table &table, const std::string &type, const std::string &ftz) {
  constexpr bool flushes = std::is_same_v<N, Bf16>;
  using H = uint16_t;
  using W = uint32_t;
  const auto add = [&](const std::string &name, const char *operands, Handler handler) {
    table.add(name.c_str(), operands, OpClass::Special, handler);
  };
  add("ex2.approx" + ftz + type, "b16 = b16", disturbed<unary<H, H, ex2Half<N, flushes>>, H, mantissa>);
  add("ex2.approx" + ftz + type + "x2", "b32 = b32",
      disturbed<unary<W, W, inHalves<ex2Half<N, flushes>>>, W, mantissa, true>);
  add("tanh.approx" + type, "b16 = b16", disturbed<unaryEach<H, H, tanhHalf<N>>, H, mantissa, false, Bound::One>);
  add("tanh.approx" + type + "x2", "b32 = b32",
      disturbed<unaryEach<W, W, inHalves<tanhHalf<N>>>, W, mantissa, true, Bound::One>);
}

} // namespace

void addApproximate(Table &table) {
  addFloats(table);
  addHalves<Fp16, 10>(table, ".f16", "");
  addHalves<Bf16, 7>(table, ".bf16", ".ftz");
}

} // namespace kvq::ptxsim
