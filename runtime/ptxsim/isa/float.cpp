// SPDX-License-Identifier: Apache-2.0
//
// f32 and f64 arithmetic with IEEE rounding (ISA "Floating-Point Instructions"); what is approximate is in
// approximate.cpp.
#include "runtime/ptxsim/isa/forms.h"
#include "runtime/ptxsim/isa/half.h"
#include "runtime/ptxsim/isa/lanes.h"
#include "runtime/ptxsim/isa/rounding.h"

#include <cfenv>

namespace kvq::ptxsim {

namespace {

// f32: rounding | ftz << 2 | sat << 3 as one number, to choose one of 16 handlers.
template <int how> constexpr int kRounding = how & 3;
template <int how> constexpr bool kFtz = how & 4;
template <int how> constexpr bool kSat = how & 8;
template <int how> float finish(float value) { return saturated<kSat<how>>(flushed<kFtz<how>>(value)); }
template <int how> float input(float value) { return flushed<kFtz<how>>(value); }

template <int how> float add(float a, float b) {
  return finish<how>(addRounded<kRounding<how>>(input<how>(a), input<how>(b)));
}
template <int how> float subtract(float a, float b) { return add<how>(a, floatOf(bitsOf(b) ^ 0x80000000)); }
template <int how> float multiply(float a, float b) {
  const float x = input<how>(a), y = input<how>(b), result = mulRounded<kRounding<how>>(x, y);
  if constexpr (kFtz<how>)
    return saturated<kSat<how>>(flushResult<kRounding<how>>(result, double(x) * double(y)));
  return saturated<kSat<how>>(result);
}
template <int how> float fusedMultiplyAdd(float a, float b, float c) {
  const float x = input<how>(a), y = input<how>(b), z = input<how>(c), result = fmaRounded<kRounding<how>>(x, y, z);
  if constexpr (kFtz<how>)
    return saturated<kSat<how>>(flushResult<kRounding<how>>(result, addToOdd(double(x) * double(y), double(z))));
  return saturated<kSat<how>>(result);
}
template <int how> float divide(float a, float b) {
  const float x = input<how>(a), y = input<how>(b), result = divRounded<kRounding<how>>(x, y);
  if constexpr (kFtz<how>) // a quotient is never so close to a bound that rounding it to double matters
    return canonical(flushResult<kRounding<how>>(result, double(x) / double(y)));
  return canonical(result);
}
template <int how> float reciprocal(float a) { return divide<how>(1.0f, a); }
template <int how> float root(float a) { return finish<how>(sqrtRounded<kRounding<how>>(input<how>(a))); }

template <bool ftz> float absolute(float a) { return canonical(floatOf(bitsOf(flushed<ftz>(a)) & 0x7fffffff)); }
template <bool ftz> float negate(float a) { return canonical(floatOf(bitsOf(flushed<ftz>(a)) ^ 0x80000000)); }

// min and max: -0 is less than +0. A NaN gives way to a number, or with .NaN wins. Bits of how: ftz, NaN, xorsign.abs,
// max.
template <int how> float extremum(float a, float b) {
  a = flushed<(how & 1) != 0>(a), b = flushed<(how & 1) != 0>(b);
  const uint32_t sign = (bitsOf(a) ^ bitsOf(b)) & 0x80000000;
  if constexpr ((how & 4) != 0)
    a = floatOf(bitsOf(a) & 0x7fffffff), b = floatOf(bitsOf(b) & 0x7fffffff);
  constexpr bool isMax = how & 8;
  const uint32_t same = isMax ? bitsOf(a) & bitsOf(b) : bitsOf(a) | bitsOf(b); // equal, or zeros of different sign
  const bool first = isMax ? a > b : a < b;
  const uint32_t ordered = a == b ? same : first ? bitsOf(a) : bitsOf(b);
  const uint32_t chosen = (how & 4) != 0 ? ordered | sign : ordered;
  const bool aNaN = a != a, bNaN = b != b, both = aNaN & bNaN, any = aNaN | bNaN;
  if constexpr ((how & 2) != 0)
    return floatOf(any ? kFloatNaN : chosen);
  const uint32_t number =
      ((aNaN ? bitsOf(b) : bitsOf(a)) & ((how & 4) != 0 ? 0x7fffffff : ~0u)) | ((how & 4) != 0 ? sign : 0);
  return floatOf(both ? kFloatNaN : any ? number : chosen);
}

// f64. A NaN among the sources goes through with its sign and payload, made quiet: the second's rather than the third's
// rather than the first's, but a dividend's first of all; as an H200 does.
constexpr uint64_t kDoubleSign = 1ull << 63, kDoubleQuiet = 1ull << 51, kDoubleNaN = 0xfff8000000000000;
constexpr bool isNaN(uint64_t bits) { return (bits & ~kDoubleSign) > 0x7ff0000000000000; }
struct Divide64 {
  static double of(double a, double b, double) { return a / b; }
};
template <typename F> KVQ_INLINE double withNaN(double a, double b, double c, double result) {
  const uint64_t x = std::bit_cast<uint64_t>(a), y = std::bit_cast<uint64_t>(b), z = std::bit_cast<uint64_t>(c);
  const uint64_t bits = std::bit_cast<uint64_t>(result);
  const bool xFirst = std::is_same_v<F, Divide64> && isNaN(x);
  const uint64_t source = xFirst ? x : isNaN(y) ? y : isNaN(z) ? z : x;
  const uint64_t nan = isNaN(source) ? source | kDoubleQuiet : kDoubleNaN;
  return std::bit_cast<double>(isNaN(bits) ? nan : bits);
}
// abs and neg do not change the sign of a NaN.
uint64_t absolute64(uint64_t a) { return isNaN(a) ? a | kDoubleQuiet : a & ~kDoubleSign; }
uint64_t negate64(uint64_t a) { return isNaN(a) ? a | kDoubleQuiet : a ^ kDoubleSign; }
template <bool isMax> double extremum64(double a, double b) {
  const uint64_t x = std::bit_cast<uint64_t>(a), y = std::bit_cast<uint64_t>(b);
  const bool first = isMax ? a > b : a < b;
  const uint64_t ordered = a == b ? (isMax ? x & y : x | y) : first ? x : y;
  return withNaN<void>(a, b, a, std::bit_cast<double>(isNaN(x) ? y : isNaN(y) ? x : ordered));
}

struct Add64 {
  static double of(double a, double b, double) { return a + b; }
};
struct Subtract64 {
  static double of(double a, double b, double) { return a - b; }
};
struct Multiply64 {
  static double of(double a, double b, double) { return a * b; }
};
struct Fma64 {
  static double of(double a, double b, double c) { return std::fma(a, b, c); }
};
struct Reciprocal64 {
  static double of(double a, double, double) { return 1.0 / a; }
};
struct Root64 {
  static double of(double a, double, double) { return squareRoot(a); }
};

// Directed rounding of f64 is rare: the environment is changed once for all lanes, and volatile keeps the operations
// inside.
template <typename F> void directed64(Warp &warp, const Op &op, uint32_t mask, int mode) {
  const double *source[3] = {};
  for (int i = 0; i < op.sourceCount; ++i)
    source[i] = warp.at<double>(op.sources[i]);
  double *d = warp.at<double>(op.results[0]);
  const int before = std::fegetround();
  std::fesetround(mode);
  forLanes(mask, [&](int lane) {
    const double first = source[0][lane], second = source[1] ? source[1][lane] : first;
    const double third = source[2] ? source[2][lane] : first;
    volatile double a = first, b = second, c = third;
    volatile double result = F::of(a, b, c);
    d[lane] = withNaN<F>(first, second, third, result);
  });
  std::fesetround(before);
}

template <typename F, int sources, int rounding> void rounded64(Warp &warp, const Op &op, uint32_t mask) {
  constexpr int kModes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  if constexpr (rounding != Rn)
    return directed64<F>(warp, op, mask, kModes[rounding]);
  const double *a = warp.at<double>(op.sources[0]);
  const double *b = sources > 1 ? warp.at<double>(op.sources[1]) : a,
               *c = sources > 2 ? warp.at<double>(op.sources[2]) : a;
  writeLanes(warp.at<double>(op.results[0]), mask,
             [=](int lane) { return withNaN<F>(a[lane], b[lane], c[lane], F::of(a[lane], b[lane], c[lane])); });
}

int roundingOf(const Form &form, int group) { return form.choice[group] < 0 ? Rn : form.choice[group]; }
int howOf(const Form &form) { // of [.rn|.rz|.rm|.rp][.ftz][.sat]
  return roundingOf(form, 0) | (form.choice[1] >= 0) << 2 | (form.choice.size() > 2 && form.choice[2] >= 0) << 3;
}

void addFloats(Table &table) {
  const auto add32 = [&](const char *pattern, const char *operands, auto handlers) {
    table.add(pattern, operands, OpClass::Fp32, [=](const Form &form) { return pick<16>(howOf(form), handlers); });
  };
  using F = float;
  add32("add[.rn|.rz|.rm|.rp][.ftz][.sat].f32", "f32 = f32 f32",
        []<int how>() -> Handler { return binary<F, F, F, add<how>>; });
  add32("sub[.rn|.rz|.rm|.rp][.ftz][.sat].f32", "f32 = f32 f32",
        []<int how>() -> Handler { return binary<F, F, F, subtract<how>>; });
  add32("mul[.rn|.rz|.rm|.rp][.ftz][.sat].f32", "f32 = f32 f32",
        []<int how>() -> Handler { return binary<F, F, F, multiply<how>>; });
  for (const char *pattern : {"fma{.rn|.rz|.rm|.rp}[.ftz][.sat].f32", "mad[.rn|.rz|.rm|.rp][.ftz][.sat].f32"})
    add32(pattern, "f32 = f32 f32 f32",
          []<int how>() -> Handler { return ternary<F, F, F, F, fusedMultiplyAdd<how>>; });
  add32("div{.rn|.rz|.rm|.rp}[.ftz].f32", "f32 = f32 f32",
        []<int how>() -> Handler { return binary<F, F, F, divide<how & 7>>; });
  add32("rcp{.rn|.rz|.rm|.rp}[.ftz].f32", "f32 = f32",
        []<int how>() -> Handler { return unary<F, F, reciprocal<how & 7>>; });
  add32("sqrt{.rn|.rz|.rm|.rp}[.ftz].f32", "f32 = f32",
        []<int how>() -> Handler { return unary<F, F, root<how & 7>>; });

  const auto flag = [](const Form &form, int group) { return form.choice[group] >= 0; };
  table.add("abs[.ftz].f32", "f32 = f32", OpClass::Fp32, [=](const Form &form) {
    return pickBool(flag(form, 0), []<bool ftz>() -> Handler { return unary<F, F, absolute<ftz>>; });
  });
  table.add("neg[.ftz].f32", "f32 = f32", OpClass::Fp32, [=](const Form &form) {
    return pickBool(flag(form, 0), []<bool ftz>() -> Handler { return unary<F, F, negate<ftz>>; });
  });
  table.add("{min|max}[.ftz][.NaN][.xorsign.abs].f32", "f32 = f32 f32", OpClass::Fp32, [=](const Form &form) {
    const int how = flag(form, 1) | flag(form, 2) << 1 | flag(form, 3) << 2 | form.choice[0] << 3;
    return pick<16>(how, []<int which>() -> Handler { return binary<F, F, F, extremum<which>>; });
  });
}

// Mixed precision (ISA 8.6): sources of f16 or bf16 become f32, which is exact, before f32 operations on them.
template <bool isBf16> float widened(uint16_t a) { return isBf16 ? floatOf(uint32_t(a) << 16) : halfToFloat(a); }
enum MixedOperation { MixedAdd, MixedSub, MixedFma };

template <int operation, int how, bool isBf16> Handler mixedHandler() {
  using U = uint16_t;
  using F = float;
  if constexpr (operation == MixedFma)
    return ternary<F, U, U, F,
                   [](U a, U b, F c) { return fusedMultiplyAdd<how>(widened<isBf16>(a), widened<isBf16>(b), c); }>;
  else if constexpr (operation == MixedAdd)
    return binary<F, U, F, [](U a, F c) { return add<how>(widened<isBf16>(a), c); }>;
  else
    return binary<F, U, F, [](U a, F c) { return subtract<how>(widened<isBf16>(a), c); }>;
}

template <int operation> void addMixed(Table &table, const std::string &name, const std::string &rounding) {
  for (const std::string &type : {std::string("f16"), std::string("bf16")}) {
    const std::string sources = operation == MixedFma ? type + " " + type + " f32" : type + " f32";
    table.add((name + rounding + "[.sat].f32." + type).c_str(), ("f32 = " + sources).c_str(), OpClass::Fp32,
              [isBf16 = type == "bf16"](const Form &form) {
                const int how = roundingOf(form, 0) | (form.choice[1] >= 0) << 3;
                return pick<16>(how, [=]<int which>() -> Handler {
                  return isBf16 ? mixedHandler<operation, which, true>() : mixedHandler<operation, which, false>();
                });
              });
  }
}

void addDoubles(Table &table) {
  using D = double;
  const auto rounded = [&]<typename What, int sources>(const char *pattern, const char *operands) {
    table.add(pattern, operands, OpClass::Fp64, [](const Form &form) {
      return pick<4>(roundingOf(form, 0), []<int rounding>() -> Handler { return rounded64<What, sources, rounding>; });
    });
  };
  rounded.operator()<Add64, 2>("add[.rn|.rz|.rm|.rp].f64", "f64 = f64 f64");
  rounded.operator()<Subtract64, 2>("sub[.rn|.rz|.rm|.rp].f64", "f64 = f64 f64");
  rounded.operator()<Multiply64, 2>("mul[.rn|.rz|.rm|.rp].f64", "f64 = f64 f64");
  rounded.operator()<Fma64, 3>("fma{.rn|.rz|.rm|.rp}.f64", "f64 = f64 f64 f64");
  rounded.operator()<Fma64, 3>("mad[.rn|.rz|.rm|.rp].f64", "f64 = f64 f64 f64");
  rounded.operator()<Divide64, 2>("div{.rn|.rz|.rm|.rp}.f64", "f64 = f64 f64");
  rounded.operator()<Reciprocal64, 1>("rcp{.rn|.rz|.rm|.rp}.f64", "f64 = f64");
  rounded.operator()<Root64, 1>("sqrt{.rn|.rz|.rm|.rp}.f64", "f64 = f64");
  table.add("abs.f64", "f64 = f64", OpClass::Fp64, unary<uint64_t, uint64_t, absolute64>);
  table.add("neg.f64", "f64 = f64", OpClass::Fp64, unary<uint64_t, uint64_t, negate64>);
  table.add("min.f64", "f64 = f64 f64", OpClass::Fp64, binary<D, D, D, extremum64<false>>);
  table.add("max.f64", "f64 = f64 f64", OpClass::Fp64, binary<D, D, D, extremum64<true>>);
}

// testp counts zeros as normal (ISA testp).
enum Property { Finite, Infinite, Number, NotANumber, Normal, Subnormal };
template <typename U, int property> void testp(Warp &warp, const Op &op, uint32_t mask) {
  constexpr U infinity = sizeof(U) == 4 ? U(0x7f800000) : U(0x7ff0000000000000);
  constexpr U leastNormal = sizeof(U) == 4 ? U(0x00800000) : U(0x0010000000000000);
  const U *a = warp.at<U>(op.sources[0]);
  writePredicate(warp, op.results[0], mask, lanesWhere([=](int lane) -> bool {
                   const U size = a[lane] << 1 >> 1;
                   const bool subnormal = (size != 0) & (size < leastNormal);
                   switch (property) {
                   case Finite:
                     return size < infinity;
                   case Infinite:
                     return size == infinity;
                   case Number:
                     return size <= infinity;
                   case NotANumber:
                     return size > infinity;
                   case Normal:
                     return (size < infinity) & !subnormal;
                   default:
                     return subnormal;
                   }
                 }));
}

template <typename U> void addBitTests(Table &table, const std::string &type, OpClass opClass) {
  table.add(("testp{.finite|.infinite|.number|.notanumber|.normal|.subnormal}." + type).c_str(),
            ("pred = " + type).c_str(), opClass, [](const Form &form) {
              return pick<6>(form.choice[0], []<int property>() -> Handler { return testp<U, property>; });
            });
  // The sign of the first source, the magnitude of the second.
  table.add(("copysign." + type).c_str(), (type + " = " + type + " " + type).c_str(), opClass,
            binary<U, U, U, [](U a, U b) {
              constexpr U sign = U(1) << (8 * sizeof(U) - 1);
              return (a & sign) | (b & ~sign);
            }>);
}

} // namespace

void addFloat(Table &table) {
  addFloats(table);
  addMixed<MixedAdd>(table, "add", "[.rn|.rz|.rm|.rp]");
  addMixed<MixedSub>(table, "sub", "[.rn|.rz|.rm|.rp]");
  addMixed<MixedFma>(table, "fma", "{.rn|.rz|.rm|.rp}");
  addDoubles(table);
  addBitTests<uint32_t>(table, "f32", OpClass::Fp32);
  addBitTests<uint64_t>(table, "f64", OpClass::Fp64);
}

} // namespace kvq::ptxsim
