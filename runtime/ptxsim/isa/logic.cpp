// SPDX-License-Identifier: Apache-2.0
//
// Logic, shifts, bit fields, permutation of bytes and the dot products of bytes (ISA "Logic and Shift Instructions" and
// the bit operations of "Integer Arithmetic Instructions").
#include "runtime/ptxsim/isa/forms.h"
#include "runtime/ptxsim/isa/lanes.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace kvq::ptxsim {

namespace {

template <typename T> constexpr uint32_t kBits = 8 * sizeof(T);

// Shift amounts beyond the width are clamped to it.
template <typename T> constexpr T shiftLeft(T a, uint32_t by) {
  return by < kBits<T> ? T(a << (by & (kBits<T> - 1))) : 0;
}
template <typename T> constexpr T shiftRight(T a, uint32_t by) {
  if (std::is_signed_v<T>)
    return T(a >> std::min(by, kBits<T> - 1));
  return by < kBits<T> ? T(a >> (by & (kBits<T> - 1))) : 0;
}

template <bool clamp> constexpr uint32_t funnelAmount(uint32_t by) { return clamp ? std::min(by, 32u) : by & 31; }
template <bool clamp> constexpr uint32_t funnelLeft(uint32_t low, uint32_t high, uint32_t by) {
  return uint32_t((uint64_t(high) << 32 | low) << funnelAmount<clamp>(by) >> 32);
}
template <bool clamp> constexpr uint32_t funnelRight(uint32_t low, uint32_t high, uint32_t by) {
  return uint32_t((uint64_t(high) << 32 | low) >> funnelAmount<clamp>(by));
}

template <typename T> constexpr T lowBits(uint32_t count) {
  return count < kBits<T> ? T((T(1) << count) - 1) : T(~T(0));
}

// The ISA lets position and length be 0 to 255. Beyond, 32-bit instructions take the low eight bits and 64-bit ones,
// which ptxas makes of shifts, all of them.
template <typename T> constexpr void narrowField(uint32_t &position, uint32_t &length) {
  if constexpr (sizeof(T) == 4)
    position &= 0xff, length &= 0xff;
}

// bfe fills with the sign bit of the field where it is longer than what is left of the source: the last bit there.
template <typename T> constexpr T extractField(T a, uint32_t position, uint32_t length) {
  using U = std::make_unsigned_t<T>;
  narrowField<T>(position, length);
  const U field = U(shiftRight(a, position)) & lowBits<U>(length);
  if (!std::is_signed_v<T> || length == 0 || length >= kBits<T>)
    return T(field);
  const U sign = U(1) << (length - 1);
  return T((field ^ sign) - sign);
}
template <typename T> constexpr T insertField(T a, T b, uint32_t position, uint32_t length) {
  narrowField<T>(position, length);
  const T field = shiftLeft(lowBits<T>(length), position);
  return T((b & ~field) | (shiftLeft(a, position) & field));
}

template <typename T> constexpr uint32_t leadingZeros(T a) { return uint32_t(std::countl_zero(a)); }
template <typename T> constexpr uint32_t countOnes(T a) { return uint32_t(std::popcount(a)); }
template <typename T, bool shiftAmount> constexpr uint32_t findLeading(T a) {
  using U = std::make_unsigned_t<T>;
  const U bits = U(a < 0 ? ~a : a);
  if (bits == 0)
    return ~0u;
  const uint32_t zeros = leadingZeros(bits);
  return shiftAmount ? zeros : kBits<T> - 1 - zeros;
}
template <typename T> constexpr T reverseBits(T a) {
  constexpr T fives = T(~T(0)) / 3, threes = T(~T(0)) / 5, fifteens = T(~T(0)) / 17;
  a = (a >> 1 & fives) | (a & fives) << 1;
  a = (a >> 2 & threes) | (a & threes) << 2;
  a = (a >> 4 & fifteens) | (a & fifteens) << 4;
  a = (a >> 8 & T(0x00ff00ff00ff00ff)) | (a & T(0x00ff00ff00ff00ff)) << 8;
  a = (a >> 16 & T(0x0000ffff0000ffff)) | (a & T(0x0000ffff0000ffff)) << 16;
  if constexpr (sizeof(T) == 8)
    a = a >> 32 | a << 32;
  return a;
}

// szext: the low n bits, extended; n == 0 gives 0, n >= 32 the value (clamp).
template <typename T, bool clamp> constexpr T extend(T a, uint32_t length) {
  return extractField<T>(a, 0, clamp ? std::min(length, 32u) : length & 31);
}
template <bool clamp> constexpr uint32_t makeMask(uint32_t position, uint32_t length) {
  return shiftLeft(lowBits<uint32_t>(clamp ? std::min(length, 32u) : length & 31), clamp ? position : position & 31);
}

// fns: the position of the bit that is the offset-th set one from base on, upwards or downwards; offset 0: base itself.
uint32_t findSet(uint32_t bits, uint32_t base, int32_t offset) {
  if (offset == 0)
    return base < 32 && bits >> base & 1 ? base : ~0u;
  const int step = offset > 0 ? 1 : -1;
  int64_t left = std::abs(int64_t(offset));
  for (int64_t at = base; at >= 0 && at < 32; at += step)
    if (bits >> at & 1 && --left == 0)
      return uint32_t(at);
  return ~0u;
}

template <typename A> constexpr int32_t byteOf(uint32_t word, int index) {
  return std::is_signed_v<A> ? int8_t(word >> 8 * index) : uint8_t(word >> 8 * index);
}
template <typename A, typename B> constexpr uint32_t dot4(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 4; ++i)
    c += uint32_t(byteOf<A>(a, i) * byteOf<B>(b, i));
  return c;
}
template <typename A, typename B, bool high> constexpr uint32_t dot2(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 2; ++i) {
    const int32_t half = std::is_signed_v<A> ? int16_t(a >> 16 * i) : uint16_t(a >> 16 * i);
    c += uint32_t(half * byteOf<B>(b, i + 2 * high));
  }
  return c;
}

// Operations whose second and later sources are mostly immediates: with equal values in all lanes the loop has scalar
// shift amounts, which every vector extension has instructions for.
template <typename T, auto function> void byAmount(Warp &warp, const Op &op, uint32_t mask) {
  const T *a = warp.at<T>(op.sources[0]);
  const uint32_t *by = warp.at<uint32_t>(op.sources[1]);
  T *d = warp.at<T>(op.results[0]);
  if (uniform(by)) {
    const uint32_t one = by[0];
    return writeLanes(d, mask, [=](int lane) { return function(a[lane], one); });
  }
  writeLanes(d, mask, [=](int lane) { return function(a[lane], by[lane]); });
}

template <auto function> void funnel(Warp &warp, const Op &op, uint32_t mask) {
  const uint32_t *a = warp.at<uint32_t>(op.sources[0]), *b = warp.at<uint32_t>(op.sources[1]);
  const uint32_t *by = warp.at<uint32_t>(op.sources[2]);
  uint32_t *d = warp.at<uint32_t>(op.results[0]);
  if (uniform(by)) {
    const uint32_t one = by[0];
    return writeLanes(d, mask, [=](int lane) { return function(a[lane], b[lane], one); });
  }
  writeLanes(d, mask, [=](int lane) { return function(a[lane], b[lane], by[lane]); });
}

template <typename T> void bfe(Warp &warp, const Op &op, uint32_t mask) {
  const T *a = warp.at<T>(op.sources[0]);
  const uint32_t *position = warp.at<uint32_t>(op.sources[1]), *length = warp.at<uint32_t>(op.sources[2]);
  T *d = warp.at<T>(op.results[0]);
  if (uniform(position) && uniform(length)) {
    const uint32_t first = position[0], count = length[0];
    return writeLanes(d, mask, [=](int lane) { return extractField(a[lane], first, count); });
  }
  writeLanes(d, mask, [=](int lane) { return extractField(a[lane], position[lane], length[lane]); });
}

template <typename T> void bfi(Warp &warp, const Op &op, uint32_t mask) {
  const T *a = warp.at<T>(op.sources[0]), *b = warp.at<T>(op.sources[1]);
  const uint32_t *position = warp.at<uint32_t>(op.sources[2]), *length = warp.at<uint32_t>(op.sources[3]);
  T *d = warp.at<T>(op.results[0]);
  if (uniform(position) && uniform(length)) {
    const uint32_t first = position[0], count = length[0];
    return writeLanes(d, mask, [=](int lane) { return insertField(a[lane], b[lane], first, count); });
  }
  writeLanes(d, mask, [=](int lane) { return insertField(a[lane], b[lane], position[lane], length[lane]); });
}

// Bit i of the table is the result for a = i >> 2 & 1, b = i >> 1 & 1, c = i & 1.
inline void lop3(Warp &warp, const Op &op, uint32_t mask) {
  const uint32_t *a = warp.at<uint32_t>(op.sources[0]), *b = warp.at<uint32_t>(op.sources[1]);
  const uint32_t *c = warp.at<uint32_t>(op.sources[2]);
  uint32_t *d = warp.at<uint32_t>(op.results[0]);
  switch (op.immediate & 0xff) { // what compilers emit most
  case 0xea:
    return writeLanes(d, mask, [=](int lane) { return (a[lane] & b[lane]) | c[lane]; });
  case 0xf8:
    return writeLanes(d, mask, [=](int lane) { return a[lane] | (b[lane] & c[lane]); });
  case 0x6a:
    return writeLanes(d, mask, [=](int lane) { return (a[lane] & b[lane]) ^ c[lane]; });
  case 0x96:
    return writeLanes(d, mask, [=](int lane) { return a[lane] ^ b[lane] ^ c[lane]; });
  case 0xfe:
    return writeLanes(d, mask, [=](int lane) { return a[lane] | b[lane] | c[lane]; });
  }
  uint32_t without[4], differs[4]; // by a and b: the result for c = 0, and where c = 1 changes it
  for (int i = 0; i < 4; ++i) {
    without[i] = -(uint32_t(op.immediate) >> 2 * i & 1);
    differs[i] = without[i] ^ -(uint32_t(op.immediate) >> (2 * i + 1) & 1);
  }
  writeLanes(d, mask, [=](int lane) {
    const uint32_t z = c[lane];
    const uint32_t r0 = without[0] ^ (differs[0] & z), r1 = without[1] ^ (differs[1] & z);
    const uint32_t r2 = without[2] ^ (differs[2] & z), r3 = without[3] ^ (differs[3] & z);
    const uint32_t a0 = r0 ^ ((r0 ^ r1) & b[lane]), a1 = r2 ^ ((r2 ^ r3) & b[lane]);
    return a0 ^ ((a0 ^ a1) & a[lane]);
  });
}

// lop3.or, lop3.and: the predicate is (d != 0) or/and the last source.
template <bool isOr> void lop3Predicate(Warp &warp, const Op &op, uint32_t mask) {
  const uint32_t q = warp.predicate(op.sources[3]);
  lop3(warp, op, mask);
  const uint32_t *d = warp.at<uint32_t>(op.results[0]);
  const uint32_t p = lanesWhere([=](int lane) { return d[lane] != 0; });
  writePredicate(warp, op.results[1], mask, isOr ? p | q : p & q);
}

// The eight bytes of {b, a}: four bits of the selector choose one, the highest bit replicates its sign.
constexpr uint32_t permuteByte(uint32_t a, uint32_t b, uint32_t nibble) {
  const uint32_t shifted = (nibble & 4 ? b : a) >> (nibble & 3) * 8;
  return nibble & 8 ? (shifted & 0x80) * 2 - (shifted >> 7 & 1) : shifted & 0xff;
}
constexpr uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t d = 0;
  for (int i = 0; i < 4; ++i)
    d |= permuteByte(a, b, selector >> 4 * i & 15) << 8 * i;
  return d;
}

// One byte of the result, where all lanes have the same selector.
struct PermutedByte {
  const uint32_t *from;
  uint32_t by, plain, sign;
  PermutedByte(const uint32_t *a, const uint32_t *b, uint32_t nibble)
      : from(nibble & 4 ? b : a), by((nibble & 3) * 8), plain(nibble & 8 ? 0 : 0xff), sign(nibble & 8 ? 1 : 0) {}
  uint32_t operator[](int lane) const {
    const uint32_t shifted = from[lane] >> by;
    return (shifted & plain) | (-(shifted >> 7 & sign) & 0xff);
  }
};

void prmt(Warp &warp, const Op &op, uint32_t mask) {
  const uint32_t *a = warp.at<uint32_t>(op.sources[0]), *b = warp.at<uint32_t>(op.sources[1]);
  const uint32_t *selector = warp.at<uint32_t>(op.sources[2]);
  uint32_t *d = warp.at<uint32_t>(op.results[0]);
  if (!uniform(selector))
    return writeEachLane(d, mask, [=](int lane) { return permute(a[lane], b[lane], selector[lane]); });
  const PermutedByte r0(a, b, selector[0]), r1(a, b, selector[0] >> 4);
  const PermutedByte r2(a, b, selector[0] >> 8), r3(a, b, selector[0] >> 12);
  writeLanes(d, mask, [=](int lane) { return r0[lane] | r1[lane] << 8 | r2[lane] << 16 | r3[lane] << 24; });
}

// The modes of prmt as a selector; by the low two bits of the third source (ISA prmt, table).
constexpr uint32_t kModeSelectors[6][4] = {
    {0x3210, 0x4321, 0x5432, 0x6543}, // f4e
    {0x5670, 0x6701, 0x7012, 0x0123}, // b4e
    {0x0000, 0x1111, 0x2222, 0x3333}, // rc8
    {0x3210, 0x3211, 0x3222, 0x3333}, // ecl
    {0x0000, 0x1110, 0x2210, 0x3210}, // ecr
    {0x1010, 0x3232, 0x1010, 0x3232}, // rc16
};

template <int mode> void prmtMode(Warp &warp, const Op &op, uint32_t mask) {
  const uint32_t *a = warp.at<uint32_t>(op.sources[0]), *b = warp.at<uint32_t>(op.sources[1]);
  const uint32_t *c = warp.at<uint32_t>(op.sources[2]);
  writeEachLane(warp.at<uint32_t>(op.results[0]), mask,
                [=](int lane) { return permute(a[lane], b[lane], kModeSelectors[mode][c[lane] & 3]); });
}

template <typename T> void addBitwise(Table &table) {
  const std::string bits = bitsName<T>();
  const auto add = [&](const char *pattern, const char *operands, OpClass opClass, Handler handler) {
    table.add(withType(pattern, bits).c_str(), withType(operands, bits).c_str(), opClass, handler);
  };
  add("and.$", "$ = $ $", OpClass::Logic, binary<T, T, T, [](T a, T b) { return a & b; }>);
  add("or.$", "$ = $ $", OpClass::Logic, binary<T, T, T, [](T a, T b) { return a | b; }>);
  add("xor.$", "$ = $ $", OpClass::Logic, binary<T, T, T, [](T a, T b) { return a ^ b; }>);
  add("not.$", "$ = $", OpClass::Logic, unary<T, T, [](T a) { return ~a; }>);
  add("cnot.$", "$ = $", OpClass::Logic, unary<T, T, [](T a) { return a == 0; }>);
  add("shl.$", "$ = $ b32", OpClass::Logic, byAmount<T, shiftLeft<T>>);
  add("shr.$", "$ = $ b32", OpClass::Logic, byAmount<T, shiftRight<T>>);
}

// Of 32 and 64 bits.
template <typename T> void addBitFields(Table &table) {
  using S = std::make_signed_t<T>;
  const auto add = [&](const char *pattern, const char *operands, Handler handler) {
    const std::string bits = bitsName<T>();
    table.add(withType(pattern, std::to_string(kBits<T>)).c_str(), withType(operands, bits).c_str(), OpClass::Logic,
              handler);
  };
  add("brev.b$", "$ = $", unary<T, T, reverseBits<T>>);
  add("clz.b$", "b32 = $", unary<uint32_t, T, leadingZeros<T>>);
  add("popc.b$", "b32 = $", unary<uint32_t, T, countOnes<T>>);
  add("bfind.u$", "b32 = $", unary<uint32_t, T, findLeading<T, false>>);
  add("bfind.s$", "b32 = $", unary<uint32_t, S, findLeading<S, false>>);
  add("bfind.shiftamt.u$", "b32 = $", unary<uint32_t, T, findLeading<T, true>>);
  add("bfind.shiftamt.s$", "b32 = $", unary<uint32_t, S, findLeading<S, true>>);
  add("bfe.u$", "$ = $ b32 b32", bfe<T>);
  add("bfe.s$", "$ = $ b32 b32", bfe<S>);
  add("bfi.b$", "$ = $ $ b32 b32", bfi<T>);
}

template <typename A, typename B> void addDots(Table &table) {
  using U = uint32_t;
  const std::string types = std::string(".") + kTypeName<A> + "." + kTypeName<B>;
  const auto add = [&](const char *name, Handler handler) {
    table.add((name + types).c_str(), "b32 = b32 b32 b32", OpClass::Alu, handler);
  };
  add("dp4a", ternary<U, U, U, U, dot4<A, B>>);
  add("dp2a.lo", ternary<U, U, U, U, dot2<A, B, false>>);
  add("dp2a.hi", ternary<U, U, U, U, dot2<A, B, true>>);
}

void addPermutes(Table &table) {
  table.add("prmt.b32", "b32 = b32 b32 b32", OpClass::Logic, prmt);
  table.add("prmt.b32{.f4e|.b4e|.rc8|.ecl|.ecr|.rc16}", "b32 = b32 b32 b32", OpClass::Logic, [](const Form &form) {
    return pick<6>(form.choice[0], []<int mode>() -> Handler { return prmtMode<mode>; });
  });
  table.add("shf.l.clamp.b32", "b32 = b32 b32 b32", OpClass::Logic, funnel<funnelLeft<true>>);
  table.add("shf.l.wrap.b32", "b32 = b32 b32 b32", OpClass::Logic, funnel<funnelLeft<false>>);
  table.add("shf.r.clamp.b32", "b32 = b32 b32 b32", OpClass::Logic, funnel<funnelRight<true>>);
  table.add("shf.r.wrap.b32", "b32 = b32 b32 b32", OpClass::Logic, funnel<funnelRight<false>>);
}

} // namespace

void addLogic(Table &table) {
  forTypes<uint16_t, uint32_t, uint64_t>([&]<typename T>() { addBitwise<T>(table); });
  forTypes<uint16_t, uint32_t, uint64_t, int16_t, int32_t, int64_t>(
      [&]<typename T>() { addTyped<T>(table, "shr.$", "$ = $ b32", OpClass::Logic, byAmount<T, shiftRight<T>>); });
  forTypes<uint32_t, uint64_t>([&]<typename T>() { addBitFields<T>(table); });
  forTypes<uint32_t, int32_t>([&]<typename A>() {
    addDots<A, uint32_t>(table);
    addDots<A, int32_t>(table);
    using U = uint32_t;
    addTyped<A>(table, "szext.clamp.$", "$ = $ b32", OpClass::Logic, binary<A, A, U, extend<A, true>>);
    addTyped<A>(table, "szext.wrap.$", "$ = $ b32", OpClass::Logic, binary<A, A, U, extend<A, false>>);
  });
  using U = uint32_t;
  table.add("bmsk.clamp.b32", "b32 = b32 b32", OpClass::Logic, binary<U, U, U, makeMask<true>>);
  table.add("bmsk.wrap.b32", "b32 = b32 b32", OpClass::Logic, binary<U, U, U, makeMask<false>>);
  table.add("fns.b32", "b32 = b32 b32 b32", OpClass::Logic, [](Warp &warp, const Op &op, uint32_t mask) {
    const U *a = warp.at<U>(op.sources[0]), *base = warp.at<U>(op.sources[1]);
    const int32_t *offset = warp.at<int32_t>(op.sources[2]);
    writeEachLane(warp.at<U>(op.results[0]), mask,
                  [=](int lane) { return findSet(a[lane], base[lane], offset[lane]); });
  });
  table.add("lop3.b32", "b32 = b32 b32 b32 imm", OpClass::Logic, lop3);
  table.add("lop3.or.b32", "b32|pred = b32 b32 b32 imm pred", OpClass::Logic, lop3Predicate<true>);
  table.add("lop3.and.b32", "b32|pred = b32 b32 b32 imm pred", OpClass::Logic, lop3Predicate<false>);
  addPermutes(table);
}

} // namespace kvq::ptxsim
