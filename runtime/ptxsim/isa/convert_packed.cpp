// SPDX-License-Identifier: Apache-2.0
//
// cvt to and from packed numbers: two fp16 or bf16 in a register, two numbers of eight, six or four bits, and tf32. Of
// two sources the first goes into the upper half.
#include "runtime/ptxsim/isa/convert.h"
#include "runtime/ptxsim/isa/forms.h"
#include "runtime/ptxsim/isa/fp8.h"
#include "runtime/ptxsim/isa/lanes.h"
#include "runtime/ptxsim/isa/number.h"

namespace kvq::ptxsim {

namespace {

// .relu: negative numbers become +0, NaN stays.
template <bool relu> KVQ_INLINE float rectified(float value) { return relu && value <= 0 ? 0.0f : value; }

// The combinations that are not to nearest without saturation are rare and share the scalar functions of number.h.
template <NumberType type, int rounding, bool relu, bool satfinite> KVQ_INLINE uint16_t narrow(float value) {
  value = rectified<relu>(value);
  if constexpr (rounding == Rn && !satfinite)
    return type == NumberType::F16 ? floatToHalf(value) : floatToBfloat(value);
  return uint16_t(encodeFloat(type, value, rounding, satfinite));
}
template <NumberType type, int rounding, bool relu, bool satfinite> KVQ_INLINE uint32_t narrowTwo(float a, float b) {
  return uint32_t(narrow<type, rounding, relu, satfinite>(a)) << 16 | narrow<type, rounding, relu, satfinite>(b);
}

template <NumberType type> void addHalves(Table &table) {
  table.add(("cvt{.rn|.rz}[.relu][.satfinite]." + std::string(nameOf(type)) + "x2.f32").c_str(), "b32 = f32 f32",
            OpClass::Convert, [](const Form &form) {
              const int how = form.choice[0] | (form.choice[1] >= 0) << 1 | (form.choice[2] >= 0) << 2;
              return pick<8>(how, []<int h>() -> Handler {
                constexpr auto function = narrowTwo < type, (h & 1) ? Rz : Rn, (h & 2) != 0, (h & 4) != 0 > ;
                return h == 0 || h == 2 ? Handler(binary<uint32_t, float, float, function>)
                                        : Handler(binaryEach<uint32_t, float, float, function>);
              });
            });
}

template <int rounding, bool relu, bool satfinite> uint32_t toTf32(float value) {
  return uint32_t(encodeFloat(NumberType::TF32, rectified<relu>(value), rounding, satfinite)) & 0xffffe000;
}
// .rna is older and made of integer operations, NaN included (as an H200 does).
template <bool satfinite> uint32_t toTf32Away(float value) {
  const uint32_t bits = bitsOf(value), special = (bits & 0x7f800000) == 0x7f800000;
  const uint32_t result = (bits + (special ? 0 : 0x1000)) & 0xffffe000;
  return satfinite && (result & 0x7f800000) == 0x7f800000 ? result - 0x2000 : result;
}

void addTf32(Table &table) {
  table.add("cvt{.rn|.rz}[.relu][.satfinite].tf32.f32", "b32 = f32", OpClass::Convert, [](const Form &form) {
    const int how = form.choice[0] | (form.choice[1] >= 0) << 1 | (form.choice[2] >= 0) << 2;
    return pick<8>(how, []<int h>() -> Handler {
      return unaryEach<uint32_t, float, toTf32<(h & 1) ? Rz : Rn, (h & 2) != 0, (h & 4) != 0>>;
    });
  });
  table.add("cvt.rna[.satfinite].tf32.f32", "b32 = f32", OpClass::Convert, [](const Form &form) {
    return pickBool(form.choice[0] >= 0,
                    []<bool satfinite>() { return Handler(unary<uint32_t, float, toTf32Away<satfinite>>); });
  });
}

// Two small numbers in D: the second one `bits` above the first.
template <typename Small, int bits, bool relu> KVQ_INLINE uint32_t smallTwo(float a, float b) {
  return toSmall<Small>(rectified<relu>(a)) << bits | toSmall<Small>(rectified<relu>(b));
}
template <typename Small, int bits, bool relu> KVQ_INLINE uint32_t smallHalves(uint32_t a) {
  return smallTwo<Small, bits, relu>(halfToFloat(uint16_t(a >> 16)), halfToFloat(uint16_t(a)));
}
template <typename Small, int bits, bool relu> KVQ_INLINE uint32_t smallBfloats(uint32_t a) {
  return smallTwo<Small, bits, relu>(bfloatToFloat(uint16_t(a >> 16)), bfloatToFloat(uint16_t(a)));
}
template <typename Small, int bits, bool relu> KVQ_INLINE uint32_t halvesOfSmall(uint32_t a) {
  const uint16_t low = floatToHalf(rectified<relu>(fromSmall<Small>(a)));
  const uint16_t high = floatToHalf(rectified<relu>(fromSmall<Small>(a >> bits)));
  return uint32_t(high) << 16 | low;
}

// Packed: the register of two of them, of 16 bits or, for four-bit numbers, of eight.
template <typename Small, typename Packed, bool relu> void addSmall(Table &table, const std::string &type) {
  constexpr int bits = sizeof(Packed) == 1 ? 4 : 8;
  const std::string packed = bitsName<Packed>(), modifier = relu ? ".relu." : ".",
                    source = "cvt.rn.satfinite" + modifier;
  const auto add = [&](const std::string &name, const std::string &operands, Handler handler) {
    table.add(name.c_str(), operands.c_str(), OpClass::Convert, handler);
  };
  add(source + type + ".f32", packed + " = f32 f32", binary<Packed, float, float, smallTwo<Small, bits, relu>>);
  add(source + type + ".f16x2", packed + " = b32", unary<Packed, uint32_t, smallHalves<Small, bits, relu>>);
  add(source + type + ".bf16x2", packed + " = b32", unary<Packed, uint32_t, smallBfloats<Small, bits, relu>>);
  add("cvt.rn" + modifier + "f16x2." + type, "b32 = " + packed,
      unary<uint32_t, Packed, halvesOfSmall<Small, bits, relu>>);
}

// ue8m0: a power of two; 0xff is NaN. Rounded towards zero or up; the largest is 2^127, the least 2^-127.
template <bool up, bool satfinite> uint32_t toPower(float value) {
  const uint32_t magnitude = bitsOf(value) & 0x7fffffff;
  const uint32_t exponent = magnitude >> 23, more = up && (magnitude & 0x7fffff) ? 1 : 0;
  const uint32_t power = exponent == 0 ? uint32_t(up && magnitude > 0x00400000) : exponent + more;
  if (magnitude > 0x7f800000)
    return 0xff;
  return power > 0xfe ? (satfinite ? 0xfe : 0xff) : power;
}
template <bool up, bool satfinite> uint32_t twoPowers(float a, float b) {
  return toPower<up, satfinite>(a) << 8 | toPower<up, satfinite>(b);
}
uint32_t bfloatOfPower(uint32_t power) { return power == 0xff ? kHalfNaN : power == 0 ? 0x0040 : power << 7; }

void addPowers(Table &table) {
  table.add("cvt{.rz|.rp}[.satfinite].ue8m0x2.f32", "b16 = f32 f32", OpClass::Convert, [](const Form &form) {
    return pick<4>(form.choice[0] | (form.choice[1] >= 0) << 1, []<int h>() -> Handler {
      return binary<uint16_t, float, float, twoPowers<(h & 1) != 0, (h & 2) != 0>>;
    });
  });
  table.add(
      "cvt.rn.bf16x2.ue8m0x2", "b32 = b16", OpClass::Convert,
      unary<uint32_t, uint16_t, [](uint16_t a) { return bfloatOfPower(a >> 8) << 16 | bfloatOfPower(a & 0xff); }>);
}

} // namespace

void addPackedConversions(Table &table) {
  addHalves<NumberType::F16>(table);
  addHalves<NumberType::BF16>(table);
  addTf32(table);
  const auto both = [&]<typename Small, typename Packed>(const char *type) {
    addSmall<Small, Packed, false>(table, type);
    addSmall<Small, Packed, true>(table, type);
  };
  both.operator()<E4m3, uint16_t>("e4m3x2");
  both.operator()<E5m2, uint16_t>("e5m2x2");
  both.operator()<E2m3, uint16_t>("e2m3x2");
  both.operator()<E3m2, uint16_t>("e3m2x2");
  both.operator()<E2m1, uint8_t>("e2m1x2");
  addPowers(table);
}

} // namespace kvq::ptxsim
