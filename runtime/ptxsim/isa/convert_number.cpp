// SPDX-License-Identifier: Apache-2.0
//
// cvt between floats, and between floats and integers (ISA cvt). What compilers emit often has a handler of its own;
// the other combinations go through one function on doubles that reads what to do from Form::tag.
#include "runtime/ptxsim/isa/convert.h"
#include "runtime/ptxsim/isa/forms.h"
#include "runtime/ptxsim/isa/lanes.h"
#include "runtime/ptxsim/isa/number.h"

namespace kvq::ptxsim {

namespace {

// Everything about a conversion, packed into Form::tag.
struct Plan {
  NumberType to, from;
  int rounding = Rn;
  bool integral = false; // .rni and its like: to an integral value
  bool ftz = false, sat = false, relu = false, satfinite = false;
  int pack() const {
    return int(to) | int(from) << 4 | rounding << 8 | integral << 11 | ftz << 12 | sat << 13 | relu << 14 |
           satfinite << 15;
  }
  static Plan of(int tag) {
    return {NumberType(tag & 15), NumberType(tag >> 4 & 15), tag >> 8 & 7,         (tag >> 11 & 1) != 0,
            (tag >> 12 & 1) != 0, (tag >> 13 & 1) != 0,      (tag >> 14 & 1) != 0, (tag >> 15 & 1) != 0};
  }
};

// A 64-bit integer to f64 is the one case where a double does not hold the source.
uint64_t wideToDouble(const Plan &plan, uint64_t bits) {
  const __int128 exact = plan.from == NumberType::S64 ? __int128(int64_t(bits)) : __int128(bits);
  double near = double(exact);
  const __int128 back = __int128(near);
  const bool down = plan.rounding == Rm || (plan.rounding == Rz && exact > 0);
  const bool up = plan.rounding == Rp || (plan.rounding == Rz && exact < 0);
  if (plan.sat)
    near = exact > 0 ? 1 : 0;
  else if (down && back > exact)
    near = std::nextafter(near, -INFINITY);
  else if (up && back < exact)
    near = std::nextafter(near, INFINITY);
  return std::bit_cast<uint64_t>(near);
}

// Conversions from or to f64 keep a NaN's sign and the upper bits of its payload, others give the canonical one.
uint64_t convertNaN(const Plan &plan, uint64_t bits, double value) {
  if (plan.sat)
    return 0;
  const bool keeps = plan.to == NumberType::F64 || plan.from == NumberType::F64;
  if (!keeps)
    return plan.to == NumberType::F32 ? kFloatNaN : kHalfNaN;
  const uint64_t canonical = plan.ftz && plan.from == NumberType::F32;
  const uint64_t wide = canonical                      ? 0x7fffffffe0000000
                        : plan.from == NumberType::F64 ? bits
                                                       : std::bit_cast<uint64_t>(value);
  const uint64_t quiet = wide | 1ull << 51, sign = quiet >> 63, payload = quiet & ((1ull << 52) - 1);
  switch (plan.to) {
  case NumberType::F64:
    return quiet;
  case NumberType::F32:
    return sign << 31 | 0x7f800000 | payload >> 29;
  case NumberType::BF16:
    return sign << 15 | 0x7f80 | payload >> 45;
  default:
    return sign << 15 | 0x7c00 | payload >> 42;
  }
}

uint64_t convertNumber(const Plan &plan, uint64_t bits) {
  if (plan.to == NumberType::F64 && (plan.from == NumberType::S64 || plan.from == NumberType::U64))
    return wideToDouble(plan, bits);
  double value = decodeNumber(plan.from, bits);
  if (value != value && !isInteger(plan.to))
    return convertNaN(plan, bits, value);
  // An H200 does not flush what becomes fp16.
  if (plan.ftz && plan.from == NumberType::F32 && plan.to != NumberType::F16 && std::fabs(value) < 0x1p-126)
    value = std::copysign(0.0, value);
  if (isInteger(plan.to))
    return encodeInteger(plan.to, roundToIntegral(value, plan.rounding), plan.from);
  if (plan.integral)
    value = roundToIntegral(value, plan.rounding);
  if (plan.sat)
    value = value > 0 ? std::min(value, 1.0) : 0.0;
  if (plan.relu && value <= 0)
    value = 0;
  if (plan.ftz && plan.to == NumberType::F32 &&
      std::fabs(roundNumber(NumberType::F32, value, plan.rounding)) < 0x1p-126)
    value = std::copysign(0.0, value);
  return encodeFloat(plan.to, value, plan.rounding, plan.satfinite);
}

template <typename DR, typename AR> void convert(Warp &warp, const Op &op, uint32_t mask) {
  const AR *a = warp.at<AR>(op.sources[0]);
  const Plan plan = Plan::of(op.form->tag);
  writeEachLane(warp.at<DR>(op.results[0]), mask, [=](int lane) { return DR(convertNumber(plan, a[lane])); });
}

template <typename Body> void forRegisters(NumberType type, Body body) {
  const int bits = bitsOf(type);
  if (bits <= 8)
    body.template operator()<uint8_t>();
  if (bits == 16 || (bits < 16 && isInteger(type)))
    body.template operator()<uint16_t>();
  if (bits == 32 || (bits < 32 && isInteger(type)))
    body.template operator()<uint32_t>();
  if (bits == 64 || isInteger(type))
    body.template operator()<uint64_t>();
}

struct Fast {
  const char *name;
  size_t result, source; // bytes of the registers
  Handler handler;
};

template <typename T> float toFloat(T a) { return float(a); }
float widenHalf(uint16_t a) { return canonical(halfToFloat(a)); }
uint32_t widenBfloat(uint16_t a) { return uint32_t(a) << 16; }
template <typename T> T same(T a) { return a; } // NaN too

// f32 to an integer of 32 bits, as the ISA's table says: NaN gives 0, what is beyond the range its end. Rounded as a
// double, which holds every such integer; the comparisons are false for NaN.
template <typename I, int rounding, bool ftz> I toInteger(float a) {
  constexpr double least = std::numeric_limits<I>::min(), most = std::numeric_limits<I>::max();
  const double value = integralPart<rounding>(double(flushed<ftz>(a)));
  const double low = value > least ? value : least, clamped = low < most ? low : most;
  const double number = a == a ? clamped : 0.0;
  if constexpr (std::is_signed_v<I>)
    return I(number);
  else // SSE2 converts signed integers only
    return uint32_t(int32_t(number - 0x1p31)) ^ 0x80000000;
}

const Fast *findFast(const std::string &name, size_t result, size_t source) {
  using U32 = uint32_t;
  using S32 = int32_t;
  using U16 = uint16_t;
  static const Fast kFast[] = {
      {"cvt.f32.f16", 4, 2, unary<float, U16, widenHalf>},
      {"cvt.f32.bf16", 4, 2, unary<U32, U16, widenBfloat>},
      {"cvt.f32.f32", 4, 4, unary<U32, U32, same<U32>>},
      {"cvt.f64.f64", 8, 8, unary<uint64_t, uint64_t, same<uint64_t>>},
      {"cvt.rn.f16.f32", 2, 4, unary<U16, float, floatToHalf>},
      {"cvt.rn.bf16.f32", 2, 4, unary<U16, float, floatToBfloat>},
      {"cvt.rn.f32.s32", 4, 4, unary<float, S32, toFloat<S32>>},
      {"cvt.rn.f32.u32", 4, 4, unary<float, U32, toFloat<U32>>},
      {"cvt.rn.f32.u16", 4, 2, unary<float, U16, toFloat<U16>>},
      {"cvt.rn.f32.s16", 4, 2, unary<float, int16_t, toFloat<int16_t>>},
      {"cvt.rn.f32.u8", 4, 2, unary<float, U16, [](U16 a) { return float(uint8_t(a)); }>},
      {"cvt.rn.f32.s8", 4, 2, unary<float, U16, [](U16 a) { return float(int8_t(a)); }>},
      {"cvt.rn.f32.s8", 4, 4, unary<float, U32, [](U32 a) { return float(int8_t(a)); }>},
      {"cvt.rn.f32.u8", 4, 4, unary<float, U32, [](U32 a) { return float(uint8_t(a)); }>},
      {"cvt.rni.s32.f32", 4, 4, unary<S32, float, toInteger<S32, Rn, false>>},
      {"cvt.rzi.s32.f32", 4, 4, unary<S32, float, toInteger<S32, Rz, false>>},
      {"cvt.rmi.s32.f32", 4, 4, unary<S32, float, toInteger<S32, Rm, false>>},
      {"cvt.rpi.s32.f32", 4, 4, unary<S32, float, toInteger<S32, Rp, false>>},
      {"cvt.rni.u32.f32", 4, 4, unary<U32, float, toInteger<U32, Rn, false>>},
      {"cvt.rzi.u32.f32", 4, 4, unary<U32, float, toInteger<U32, Rz, false>>},
      {"cvt.rni.ftz.s32.f32", 4, 4, unary<S32, float, toInteger<S32, Rn, true>>},
      {"cvt.rzi.ftz.s32.f32", 4, 4, unary<S32, float, toInteger<S32, Rz, true>>},
      {"cvt.rzi.ftz.u32.f32", 4, 4, unary<U32, float, toInteger<U32, Rz, true>>},
      {"cvt.rni.f32.f32", 4, 4, unary<float, float, [](float a) { return canonical(integralPart<Rn>(a)); }>},
      {"cvt.rzi.f32.f32", 4, 4, unary<float, float, [](float a) { return canonical(integralPart<Rz>(a)); }>},
      {"cvt.rmi.f32.f32", 4, 4, unary<float, float, [](float a) { return canonical(integralPart<Rm>(a)); }>},
      {"cvt.rpi.f32.f32", 4, 4, unary<float, float, [](float a) { return canonical(integralPart<Rp>(a)); }>},
  };
  for (const Fast &fast : kFast)
    if (name == fast.name && result == fast.result && source == fast.source)
      return &fast;
  return nullptr;
}

void addPlan(Table &table, const std::string &name, const Plan &plan) {
  forRegisters(plan.to, [&]<typename DR>() {
    forRegisters(plan.from, [&]<typename AR>() {
      const Fast *fast = findFast(name, sizeof(DR), sizeof(AR));
      table
          .add(name.c_str(), (bitsName<DR>() + " = " + bitsName<AR>()).c_str(), OpClass::Convert,
               fast ? fast->handler : convert<DR, AR>)
          .tag(plan.pack());
    });
  });
}

// Adds the plan with and without each of the modifiers that `may` has.
void addModified(Table &table, const std::string &rounding, Plan plan, const Plan &may) {
  for (int bits = 0; bits < 16; ++bits) {
    plan.ftz = bits & 1, plan.sat = bits & 2, plan.relu = bits & 4, plan.satfinite = bits & 8;
    if ((plan.ftz && !may.ftz) || (plan.sat && !may.sat) || (plan.relu && !may.relu) ||
        (plan.satfinite && !may.satfinite))
      continue;
    const std::string modifiers = std::string(plan.ftz ? ".ftz" : "") + (plan.relu ? ".relu" : "") +
                                  (plan.satfinite ? ".satfinite" : "") + (plan.sat ? ".sat" : "");
    addPlan(table, "cvt" + rounding + modifiers + "." + nameOf(plan.to) + "." + nameOf(plan.from), plan);
  }
}

constexpr const char *kRoundings[] = {".rn", ".rz", ".rm", ".rp"};
constexpr const char *kIntegral[] = {".rni", ".rzi", ".rmi", ".rpi"};

void addBetweenFloats(Table &table, NumberType to, NumberType from) {
  Plan plan{to, from}, may = plan;
  may.ftz = to == NumberType::F32 || from == NumberType::F32;
  may.sat = to != NumberType::BF16;
  const bool widens = to == NumberType::F64 || (to == NumberType::F32 && from != NumberType::F64);
  if (to == from || widens)
    addModified(table, "", plan, may);
  if (to != from && widens)
    return;
  plan.integral = to == from;
  may.relu = may.satfinite = from == NumberType::F32 && bitsOf(to) == 16;
  for (plan.rounding = Rn; plan.rounding <= Rp; ++plan.rounding)
    addModified(table, (plan.integral ? kIntegral : kRoundings)[plan.rounding], plan, may);
}

void addWithInteger(Table &table, NumberType integer, NumberType number) {
  Plan to{number, integer}, from{integer, number}, may{};
  may.sat = true;
  for (int rounding = Rn; rounding <= Rp; ++rounding) {
    to.rounding = from.rounding = rounding;
    may.ftz = false;
    addModified(table, kRoundings[rounding], to, may);
    may.ftz = number == NumberType::F32;
    addModified(table, kIntegral[rounding], from, may);
  }
}

} // namespace

void addNumberConversions(Table &table) {
  using enum NumberType;
  for (NumberType number : {F16, BF16, F32, F64}) {
    for (NumberType other : {F16, BF16, F32, F64})
      addBetweenFloats(table, number, other);
    for (NumberType integer : {U8, S8, U16, S16, U32, S32, U64, S64})
      addWithInteger(table, integer, number);
  }
}

} // namespace kvq::ptxsim
