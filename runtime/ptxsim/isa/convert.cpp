// SPDX-License-Identifier: Apache-2.0
//
// cvt between integers and cvt.pack (ISA cvt, cvt.pack). A register may be wider than its type: a source is read from
// its low bits, a result is extended to the register's width. There is a form for each width.
#include "runtime/ptxsim/isa/convert.h"

#include "runtime/ptxsim/isa/forms.h"
#include "runtime/ptxsim/isa/lanes.h"

#include <algorithm>
#include <limits>

namespace kvq::ptxsim {

namespace {

template <typename T, bool isSigned> using Sign = std::conditional_t<isSigned, std::make_signed_t<T>, T>;

// D in a register of type DR from A in a register of type AR, which have the signs of D and A.
template <typename D, typename DR, typename A, typename AR> constexpr DR convert(AR a) { return DR(D(A(a))); }
template <typename D, typename DR, typename A, typename AR> constexpr DR convertSat(AR a) {
  return DR(saturate<D>(A(a)));
}

template <typename D, typename DR, typename A, typename AR> constexpr Handler plainHandler() {
  if constexpr (sizeof(D) <= sizeof(A) && !std::is_same_v<D, A>) // the same for every such A
    return plainHandler<D, DR, D, Sign<std::make_unsigned_t<AR>, std::is_signed_v<D>>>();
  else if constexpr (sizeof(DR) == 1 || sizeof(AR) == 1) // rare
    return unaryEach<DR, AR, convert<D, DR, A, AR>>;
  else
    return unary<DR, AR, convert<D, DR, A, AR>>;
}

// cvt.sat is rare: the two types are read from Form::tag, and only the registers' sizes make different handlers.
struct IntegerType {
  int bits;
  bool isSigned;
};
template <typename T> constexpr int kTag = sizeof(T) * 8 << 1 | std::is_signed_v<T>;
constexpr IntegerType typeOf(int tag) { return {(tag >> 1) & 127, (tag & 1) != 0}; }

uint64_t saturate(uint64_t value, IntegerType from, IntegerType to) {
  const int unused = 64 - from.bits;
  if (!from.isSigned)
    return std::min<uint64_t>(value << unused >> unused, ~0ull >> (64 - to.bits + to.isSigned));
  const int64_t number = int64_t(value << unused) >> unused;
  const int64_t most = int64_t(~0ull >> (64 - to.bits + (to.isSigned || to.bits == 64)));
  return uint64_t(std::clamp(number, to.isSigned ? -most - 1 : 0, most));
}

template <typename DR, typename AR> void convertSat(Warp &warp, const Op &op, uint32_t mask) {
  const AR *a = warp.at<AR>(op.sources[0]);
  const IntegerType from = typeOf(op.form->tag >> 8), to = typeOf(op.form->tag);
  writeEachLane(warp.at<DR>(op.results[0]), mask, [=](int lane) { return saturate(a[lane], from, to); });
}

// The registers that may hold a type.
template <typename T, typename Body> void forWidths(Body body) {
  constexpr bool isSigned = std::is_signed_v<T>;
  if constexpr (sizeof(T) == 1)
    body.template operator()<Sign<uint8_t, isSigned>>();
  if constexpr (sizeof(T) <= 2)
    body.template operator()<Sign<uint16_t, isSigned>>();
  if constexpr (sizeof(T) <= 4)
    body.template operator()<Sign<uint32_t, isSigned>>();
  body.template operator()<Sign<uint64_t, isSigned>>();
}

template <typename D, typename A> void addPair(Table &table) {
  const std::string types = std::string(".") + kTypeName<D> + "." + kTypeName<A>;
  forWidths<D>([&]<typename DR>() {
    forWidths<A>([&]<typename AR>() {
      const std::string operands = bitsName<DR>() + " = " + bitsName<AR>();
      table.add(("cvt" + types).c_str(), operands.c_str(), OpClass::Convert, plainHandler<D, DR, A, AR>());
      using DU = std::make_unsigned_t<DR>;
      using AU = std::make_unsigned_t<AR>;
      table.add(("cvt.sat" + types).c_str(), operands.c_str(), OpClass::Convert, convertSat<DU, AU>)
          .tag(kTag<D> | kTag<A> << 8);
    });
  });
}

// cvt.pack: a into the upper part, b into the lower; types of fewer than 16 bits shift c up by both.
template <int bits, bool isSigned> constexpr uint32_t saturateBits(int32_t value) {
  constexpr int32_t least = isSigned ? -(1 << (bits - 1)) : 0,
                    most = isSigned ? (1 << (bits - 1)) - 1 : (1 << bits) - 1;
  return uint32_t(std::clamp(value, least, most)) & ((1u << bits) - 1);
}
template <int bits, bool isSigned> constexpr uint32_t packTwo(int32_t a, int32_t b) {
  return saturateBits<bits, isSigned>(a) << bits | saturateBits<bits, isSigned>(b);
}
template <int bits, bool isSigned> constexpr uint32_t packOnto(int32_t a, int32_t b, uint32_t c) {
  return packTwo<bits, isSigned>(a, b) | c << 2 * bits;
}

template <int bits, bool isSigned> void addPack(Table &table) {
  using U = uint32_t;
  using S = int32_t;
  const std::string name = "cvt.pack.sat." + std::string(isSigned ? "s" : "u") + std::to_string(bits) + ".s32";
  if constexpr (bits == 16)
    table.add(name.c_str(), "b32 = b32 b32", OpClass::Convert, binary<U, S, S, packTwo<bits, isSigned>>);
  else
    table.add((name + ".b32").c_str(), "b32 = b32 b32 b32", OpClass::Convert,
              ternary<U, S, S, U, packOnto<bits, isSigned>>);
}

} // namespace

void addIntegerConversions(Table &table) {
  forTypes<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>([&]<typename D>() {
    forTypes<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>(
        [&]<typename A>() { addPair<D, A>(table); });
  });
  addPack<16, false>(table);
  addPack<16, true>(table);
  addPack<8, false>(table);
  addPack<8, true>(table);
  addPack<4, false>(table);
  addPack<4, true>(table);
  addPack<2, false>(table);
  addPack<2, true>(table);
}

void addConvert(Table &table) {
  addIntegerConversions(table);
  addNumberConversions(table);
  addPackedConversions(table);
}

} // namespace kvq::ptxsim
