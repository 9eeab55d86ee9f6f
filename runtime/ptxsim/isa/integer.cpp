// SPDX-License-Identifier: Apache-2.0
//
// Integer arithmetic (ISA "Integer Arithmetic Instructions", "Extended-Precision Integer Arithmetic Instructions").
#include "runtime/ptxsim/isa/forms.h"
#include "runtime/ptxsim/isa/lanes.h"

#include <algorithm>
#include <limits>

namespace kvq::ptxsim {

namespace {

// Wraps without undefined behaviour: unsigned, and 16 bits not promoted to int.
template <typename T> using Wrap = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
template <typename T>
using Twice = std::conditional_t<
    std::is_signed_v<T>,
    std::conditional_t<sizeof(T) == 2, int32_t, std::conditional_t<sizeof(T) == 4, int64_t, __int128>>,
    std::conditional_t<sizeof(T) == 2, uint32_t, std::conditional_t<sizeof(T) == 4, uint64_t, unsigned __int128>>>;

template <typename T> constexpr T add(T a, T b) { return T(Wrap<T>(a) + Wrap<T>(b)); }
template <typename T> constexpr T subtract(T a, T b) { return T(Wrap<T>(a) - Wrap<T>(b)); }
template <typename T> constexpr T mulLo(T a, T b) { return T(Wrap<T>(a) * Wrap<T>(b)); }
template <typename T> constexpr T mulHi(T a, T b) { return T(Twice<T>(a) * Twice<T>(b) >> 8 * sizeof(T)); }
template <typename T> constexpr Twice<T> mulWide(T a, T b) { return Twice<T>(a) * Twice<T>(b); }
template <typename T> constexpr T madLo(T a, T b, T c) { return add(mulLo(a, b), c); }
template <typename T> constexpr T madHi(T a, T b, T c) { return add(mulHi(a, b), c); }
template <typename T> constexpr Twice<T> madWide(T a, T b, Twice<T> c) { return add(mulWide(a, b), c); }

constexpr int32_t saturate(int64_t value) {
  return int32_t(std::clamp<int64_t>(value, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()));
}
constexpr int32_t addSat(int32_t a, int32_t b) { return saturate(int64_t(a) + b); }
constexpr int32_t subtractSat(int32_t a, int32_t b) { return saturate(int64_t(a) - b); }
constexpr int32_t madHiSat(int32_t a, int32_t b, int32_t c) { return saturate(int64_t(mulHi(a, b)) + c); }

// The 48-bit product of the low 24 bits; .hi are its upper 32 bits, .lo its lower 32 (ISA mul24).
template <typename T> constexpr T low24(T a) { return T(uint32_t(a) << 8) >> 8; }
template <typename T> constexpr T mul24Lo(T a, T b) { return T(mulWide(low24(a), low24(b))); }
template <typename T> constexpr T mul24Hi(T a, T b) { return T(mulWide(low24(a), low24(b)) >> 16); }
template <typename T> constexpr T mad24Lo(T a, T b, T c) { return add(mul24Lo(a, b), c); }
template <typename T> constexpr T mad24Hi(T a, T b, T c) { return add(mul24Hi(a, b), c); }
constexpr int32_t mad24HiSat(int32_t a, int32_t b, int32_t c) { return saturate(int64_t(mul24Hi(a, b)) + c); }

template <typename T> constexpr T negate(T a) { return T(-Wrap<T>(a)); }
template <typename T> constexpr T absolute(T a) { return a < 0 ? negate(a) : a; }
template <typename T> constexpr T minimum(T a, T b) { return a < b ? a : b; }
template <typename T> constexpr T maximum(T a, T b) { return a > b ? a : b; }
template <typename T> constexpr T relu(T a) { return a > 0 ? a : T(0); }
template <typename T> constexpr T minRelu(T a, T b) { return relu(minimum(a, b)); }
template <typename T> constexpr T maxRelu(T a, T b) { return relu(maximum(a, b)); }
template <typename T> constexpr T sumOfDifferences(T a, T b, T c) {
  return add(c, a < b ? subtract(b, a) : subtract(a, b));
}

// Division by zero is unspecified in the ISA; the code that ptxas emits gives all ones for quotient and remainder. The
// most negative value by -1 wraps.
template <typename T> constexpr T divide(T a, T b) {
  if (b == 0)
    return T(~T(0));
  if (std::is_signed_v<T> && b == T(-1))
    return negate(a);
  return T(a / b);
}
template <typename T> constexpr T remainder(T a, T b) {
  if (b == 0)
    return T(~T(0));
  if (std::is_signed_v<T> && b == T(-1))
    return 0;
  return T(a % b);
}

// Two values of 16 bits in a register.
template <typename T, auto function> constexpr uint32_t inHalves(uint32_t a, uint32_t b) {
  const uint16_t low = uint16_t(function(T(a), T(b)));
  const uint16_t high = uint16_t(function(T(a >> 16), T(b >> 16)));
  return low | uint32_t(high) << 16;
}

// With a carry in or out; the flag is one bit a lane in Warp::carry. sub's flag is the borrow.
template <typename T, bool negative, bool in, bool out> void addCarry(Warp &warp, const Op &op, uint32_t mask) {
  T *d = warp.at<T>(op.results[0]);
  const T *a = warp.at<T>(op.sources[0]), *b = warp.at<T>(op.sources[1]);
  const uint32_t old = warp.carry;
  uint32_t flags = 0;
  if constexpr (out)
    flags = lanesWhere([=](int lane) {
      const bool carried = in && old & kLaneBits.bit[lane];
      const T sum = negative ? T(a[lane] - b[lane]) : T(a[lane] + b[lane]);
      const bool over = negative ? a[lane] < b[lane] : sum < a[lane];
      return over | (carried & (negative ? sum == 0 : T(sum + 1) == 0));
    });
  writeLanes(d, mask, [=](int lane) {
    const T carried = in && old & kLaneBits.bit[lane] ? 1 : 0;
    return negative ? a[lane] - b[lane] - carried : a[lane] + b[lane] + carried;
  });
  if constexpr (out)
    warp.carry = (old & ~mask) | (flags & mask);
}

// mad.cc, madc: the carry is that of adding c to the wanted half of the product.
template <typename T, bool high, bool in, bool out> void madCarry(Warp &warp, const Op &op, uint32_t mask) {
  using U = std::make_unsigned_t<T>;
  U *d = warp.at<U>(op.results[0]);
  const T *a = warp.at<T>(op.sources[0]), *b = warp.at<T>(op.sources[1]);
  const U *c = warp.at<U>(op.sources[2]);
  uint32_t flags = 0;
  forLanes(mask, [&](int lane) {
    const U product = U(high ? mulHi(a[lane], b[lane]) : mulLo(a[lane], b[lane]));
    const U carried = in ? warp.carry >> lane & 1 : 0;
    const U sum = product + c[lane];
    flags |= uint32_t(sum < product || U(sum + carried) < sum) << lane;
    d[lane] = sum + carried;
  });
  if constexpr (out)
    warp.carry = (warp.carry & ~mask) | (flags & mask);
}

template <typename T> void addArithmetic(Table &table) {
  const auto one = [&](const char *pattern, Handler handler) {
    addTyped<T>(table, pattern, "$ = $", OpClass::Alu, handler);
  };
  const auto two = [&](const char *pattern, Handler handler) {
    addTyped<T>(table, pattern, "$ = $ $", OpClass::Alu, handler);
  };
  const auto three = [&](const char *pattern, Handler handler) {
    addTyped<T>(table, pattern, "$ = $ $ $", OpClass::Alu, handler);
  };
  two("add.$", binary<T, T, T, add<T>>);
  two("sub.$", binary<T, T, T, subtract<T>>);
  two("mul.lo.$", binary<T, T, T, mulLo<T>>);
  two("mul.hi.$", binary<T, T, T, mulHi<T>>);
  three("mad.lo.$", ternary<T, T, T, T, madLo<T>>);
  three("mad.hi.$", ternary<T, T, T, T, madHi<T>>);
  three("sad.$", ternary<T, T, T, T, sumOfDifferences<T>>);
  two("div.$", binaryEach<T, T, T, divide<T>>);
  two("rem.$", binaryEach<T, T, T, remainder<T>>);
  two("min.$", binary<T, T, T, minimum<T>>);
  two("max.$", binary<T, T, T, maximum<T>>);
  if constexpr (std::is_signed_v<T>) {
    one("abs.$", unary<T, T, absolute<T>>);
    one("neg.$", unary<T, T, negate<T>>);
  }
  if constexpr (sizeof(T) < 8) {
    const std::string wide = kTypeName<Twice<T>>;
    addTyped<T>(table, "mul.wide.$", (wide + " = $ $").c_str(), OpClass::Alu, binary<Twice<T>, T, T, mulWide<T>>);
    addTyped<T>(table, "mad.wide.$", (wide + " = $ $ " + wide).c_str(), OpClass::Alu,
                ternary<Twice<T>, T, T, Twice<T>, madWide<T>>);
  }
}

template <typename T> void addExtended(Table &table) {
  using U = std::make_unsigned_t<T>;
  const auto two = [&](const char *pattern, Handler handler) {
    addTyped<T>(table, pattern, "$ = $ $", OpClass::Alu, handler);
  };
  two("add.cc.$", addCarry<U, false, false, true>);
  two("addc.$", addCarry<U, false, true, false>);
  two("addc.cc.$", addCarry<U, false, true, true>);
  two("sub.cc.$", addCarry<U, true, false, true>);
  two("subc.$", addCarry<U, true, true, false>);
  two("subc.cc.$", addCarry<U, true, true, true>);
  const auto three = [&](const char *pattern, Handler handler) {
    addTyped<T>(table, pattern, "$ = $ $ $", OpClass::Alu, handler);
  };
  three("mad.lo.cc.$", madCarry<T, false, false, true>);
  three("mad.hi.cc.$", madCarry<T, true, false, true>);
  three("madc.lo.$", madCarry<T, false, true, false>);
  three("madc.hi.$", madCarry<T, true, true, false>);
  three("madc.lo.cc.$", madCarry<T, false, true, true>);
  three("madc.hi.cc.$", madCarry<T, true, true, true>);
}

template <typename T> void add24(Table &table) {
  addTyped<T>(table, "mul24.lo.$", "$ = $ $", OpClass::Alu, binary<T, T, T, mul24Lo<T>>);
  addTyped<T>(table, "mul24.hi.$", "$ = $ $", OpClass::Alu, binary<T, T, T, mul24Hi<T>>);
  addTyped<T>(table, "mad24.lo.$", "$ = $ $ $", OpClass::Alu, ternary<T, T, T, T, mad24Lo<T>>);
  addTyped<T>(table, "mad24.hi.$", "$ = $ $ $", OpClass::Alu, ternary<T, T, T, T, mad24Hi<T>>);
}

// sm_90: add, min and max on two values of 16 bits.
template <typename T> void addHalves(Table &table) {
  using H = Handler;
  const auto two = [&](const char *pattern, H handler) {
    table.add(withType(pattern, kTypeName<T>).c_str(), "b32 = b32 b32", OpClass::Alu, handler);
  };
  two("add.$x2", binary<uint32_t, uint32_t, uint32_t, inHalves<T, add<T>>>);
  two("min.$x2", binary<uint32_t, uint32_t, uint32_t, inHalves<T, minimum<T>>>);
  two("max.$x2", binary<uint32_t, uint32_t, uint32_t, inHalves<T, maximum<T>>>);
  if constexpr (std::is_signed_v<T>) {
    two("min.relu.$x2", binary<uint32_t, uint32_t, uint32_t, inHalves<T, minRelu<T>>>);
    two("max.relu.$x2", binary<uint32_t, uint32_t, uint32_t, inHalves<T, maxRelu<T>>>);
  }
}

} // namespace

void addInteger(Table &table) {
  forTypes<uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>([&]<typename T>() { addArithmetic<T>(table); });
  forTypes<uint32_t, int32_t, uint64_t, int64_t>([&]<typename T>() { addExtended<T>(table); });
  forTypes<uint32_t, int32_t>([&]<typename T>() { add24<T>(table); });
  forTypes<uint16_t, int16_t>([&]<typename T>() { addHalves<T>(table); });
  using I = int32_t;
  table.add("add.sat.s32", "s32 = s32 s32", OpClass::Alu, binary<I, I, I, addSat>);
  table.add("sub.sat.s32", "s32 = s32 s32", OpClass::Alu, binary<I, I, I, subtractSat>);
  table.add("mad.hi.sat.s32", "s32 = s32 s32 s32", OpClass::Alu, ternary<I, I, I, I, madHiSat>);
  table.add("mad24.hi.sat.s32", "s32 = s32 s32 s32", OpClass::Alu, ternary<I, I, I, I, mad24HiSat>);
  table.add("min.relu.s32", "s32 = s32 s32", OpClass::Alu, binary<I, I, I, minRelu<I>>);
  table.add("max.relu.s32", "s32 = s32 s32", OpClass::Alu, binary<I, I, I, maxRelu<I>>);
}

} // namespace kvq::ptxsim
