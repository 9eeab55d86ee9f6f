// SPDX-License-Identifier: Apache-2.0
//
// Comparison and selection (ISA "Comparison and Selection Instructions", "Half Precision Comparison Instructions") and
// the logic of predicates.
#include "runtime/ptxsim/isa/forms.h"
#include "runtime/ptxsim/isa/half.h"
#include "runtime/ptxsim/isa/lanes.h"

namespace kvq::ptxsim {

namespace {

enum Compare { Eq, Ne, Lt, Le, Gt, Ge, Equ, Neu, Ltu, Leu, Gtu, Geu, Num, Nan };
constexpr const char *kInteger = "{.eq|.ne|.lt|.le|.gt|.ge}";
constexpr const char *kUnsigned = "{.lo|.ls|.hi|.hs}"; // Lt, Le, Gt, Ge
constexpr const char *kFloating = "{.eq|.ne|.lt|.le|.gt|.ge|.equ|.neu|.ltu|.leu|.gtu|.geu|.num|.nan}";

// eq to ge are false where an operand is NaN, ne too; equ to geu are true.
template <int how, typename T> constexpr bool compares(T a, T b) {
  const bool unordered = (a != a) | (b != b);
  switch (how) {
  case Eq:
    return a == b;
  case Ne:
    return (a != b) & !unordered;
  case Lt:
    return a < b;
  case Le:
    return a <= b;
  case Gt:
    return a > b;
  case Ge:
    return a >= b;
  case Equ:
    return (a == b) | unordered;
  case Neu:
    return a != b;
  case Ltu:
    return !(a >= b);
  case Leu:
    return !(a > b);
  case Gtu:
    return !(a <= b);
  case Geu:
    return !(a < b);
  case Num:
    return !unordered;
  default:
    return unordered;
  }
}

// How lanes of a type are read for a comparison, and how many operators it has.
template <typename T, int count> struct Plain {
  using Lane = T;
  static constexpr int operators = count;
  static constexpr bool packed = false;
  static T value(T a) { return a; }
};
struct FlushedFloat : Plain<float, 14> {
  static float value(float a) { return flush(a); }
};
struct Half : Plain<uint16_t, 14> {
  static constexpr uint16_t one = 0x3c00;
  static float value(uint16_t a) { return halfToFloat(a); }
};
struct FlushedHalf : Half {
  static float value(uint16_t a) { return halfToFloat(flushHalf(a)); }
};
struct Bfloat : Half {
  static constexpr uint16_t one = 0x3f80;
  static float value(uint16_t a) { return bfloatToFloat(a); }
};
template <typename R> struct Packed : R {
  using Lane = uint32_t;
  static constexpr bool packed = true;
};

// The lanes where the comparison holds; of packed types, in both halves.
struct Lanes {
  uint32_t low, high;
};
template <typename R, int how> Lanes compareLanes(const Warp &warp, const Op &op) {
  const auto *a = warp.at<typename R::Lane>(op.sources[0]), *b = warp.at<typename R::Lane>(op.sources[1]);
  if constexpr (R::packed) {
    const auto half = [=](int shift) {
      return lanesWhere([=](int lane) {
        return compares<how>(R::value(uint16_t(a[lane] >> shift)), R::value(uint16_t(b[lane] >> shift)));
      });
    };
    return {half(0), half(16)};
  } else {
    const uint32_t holds = lanesWhere([=](int lane) { return compares<how>(R::value(a[lane]), R::value(b[lane])); });
    return {holds, ~holds}; // setp p|q: q is the opposite
  }
}

// What a form with a combination or of set does with the lanes, in Form::tag: these are rare, and share their handlers.
enum Combine { Alone, And, Or, Xor };
constexpr const char *kCombine[] = {"", ".and", ".or", ".xor"};
struct Tag {
  int compare = Eq, combine = Alone;
  uint16_t yes = 0; // set: all ones or the upper half of 1.0
  int packed() const { return compare | combine << 4 | yes << 8; }
  static Tag of(int tag) { return {tag & 15, tag >> 4 & 15, uint16_t(tag >> 8)}; }
};

template <typename R, int... how>
Lanes compareBy(int index, const Warp &warp, const Op &op, std::integer_sequence<int, how...>) {
  static constexpr Lanes (*kCompares[])(const Warp &, const Op &) = {compareLanes<R, how>...};
  return kCompares[index](warp, op);
}
template <typename R> Lanes combined(const Warp &warp, const Op &op, Tag tag) {
  const Lanes lanes = compareBy<R>(tag.compare, warp, op, std::make_integer_sequence<int, R::operators>());
  if (tag.combine == Alone)
    return lanes;
  const uint32_t other = warp.predicate(op.sources[2]);
  if (tag.combine == And)
    return {lanes.low & other, lanes.high & other};
  if (tag.combine == Or)
    return {lanes.low | other, lanes.high | other};
  return {lanes.low ^ other, lanes.high ^ other};
}

void writePredicates(Warp &warp, const Op &op, uint32_t mask, Lanes lanes) {
  writePredicate(warp, op.results[0], mask, lanes.low);
  if (op.resultCount > 1)
    writePredicate(warp, op.results[1], mask, lanes.high);
}
template <typename R, int how> void setp(Warp &warp, const Op &op, uint32_t mask) {
  writePredicates(warp, op, mask, compareLanes<R, how>(warp, op));
}
template <typename R> void setpCombined(Warp &warp, const Op &op, uint32_t mask) {
  writePredicates(warp, op, mask, combined<R>(warp, op, Tag::of(op.form->tag)));
}

// D: uint32_t also for packed types, where each half has its own result.
template <typename R, typename D> void set(Warp &warp, const Op &op, uint32_t mask) {
  const Tag tag = Tag::of(op.form->tag);
  const Lanes lanes = combined<R>(warp, op, tag);
  const uint32_t ones = tag.yes == 0xffff ? 0xffff : 0;
  const uint32_t low = R::packed ? tag.yes : sizeof(D) == 4 ? uint32_t(tag.yes) << 16 | ones : tag.yes;
  const uint32_t high = R::packed ? uint32_t(tag.yes) << 16 : 0;
  writeLanes(warp.at<D>(op.results[0]), mask, [=](int lane) {
    return D((lanes.low & kLaneBits.bit[lane] ? low : 0) | (lanes.high & kLaneBits.bit[lane] ? high : 0));
  });
}

// The forms of one type.
struct Naming {
  const char *operators; // the alternatives from `first` on
  std::string middle;    // "" or ".ftz"
  std::string type;      // ".f32"
  std::string operand;   // "b32"
  int first = Eq;
};

void tagForms(Table::Added added, const Naming &naming, int combine, uint16_t yes) {
  added.each([first = naming.first, combine, yes](Form &form) {
    form.tag = Tag{form.choice[0] + first, combine, yes}.packed();
  });
}

template <typename R> void addCompares(Table &table, const Naming &naming) {
  for (int combine = Alone; combine <= Xor; ++combine) {
    const std::string name = naming.operators + std::string(kCombine[combine]) + naming.middle;
    const std::string operands = " = " + naming.operand + " " + naming.operand + (combine == Alone ? "" : " pred");
    const int first = naming.first;
    const auto choose = [=](const Form &form) -> Handler {
      if (combine != Alone)
        return setpCombined<R>;
      return pick<R::operators>(form.choice[0] + first, []<int c>() -> Handler { return setp<R, c>; });
    };
    tagForms(table.add(("setp" + name + naming.type).c_str(), ("pred|pred" + operands).c_str(), OpClass::Predicate,
                       Choose(choose)),
             naming, combine, 0);
    const auto addSet = [&](const std::string &type, const char *result, Handler handler, uint16_t yes) {
      tagForms(table.add(("set" + name + type + naming.type).c_str(), (result + operands).c_str(), OpClass::Predicate,
                         handler),
               naming, combine, yes);
    };
    if constexpr (R::packed) {
      addSet(naming.type, "b32", set<R, uint32_t>, R::one);
      addSet("{.u16x2|.s16x2}", "b32", set<R, uint32_t>, 0xffff);
    } else {
      addSet("{.u32|.s32}", "b32", set<R, uint32_t>, 0xffff);
      addSet(".f32", "b32", set<R, uint32_t>, 0x3f80);
      addSet(".f16", "b16", set<R, uint16_t>, 0x3c00);
      addSet(".bf16", "b16", set<R, uint16_t>, 0x3f80);
      addSet("{.u16|.s16}", "b16", set<R, uint16_t>, 0xffff);
    }
  }
}

template <typename T> void addSelect(Table &table) {
  const std::string size = std::to_string(8 * sizeof(T));
  const std::string types = sizeof(T) == 2 ? "{.b$|.u$|.s$}" : "{.b$|.u$|.s$|.f$}";
  const auto add = [&](const std::string &pattern, const char *operands, Handler handler) {
    table.add(withType(pattern, size).c_str(), withType(operands, size).c_str(), OpClass::Predicate, handler);
  };
  add("selp" + types, "b$ = b$ b$ pred", [](Warp &warp, const Op &op, uint32_t mask) {
    const T *a = warp.at<T>(op.sources[0]), *b = warp.at<T>(op.sources[1]);
    const uint32_t chosen = warp.predicate(op.sources[2]);
    // Not `? a : b`, which the compiler turns into a load from one of two addresses.
    writeLanes(warp.at<T>(op.results[0]), mask, [=](int lane) {
      const T all = kLaneBits.bit[lane] & chosen ? T(~T(0)) : T(0);
      return (a[lane] & all) | (b[lane] & ~all);
    });
  });
  // -0.0 selects the first, NaN the second.
  add("slct" + types + ".s32", "b$ = b$ b$ b32",
      ternary<T, T, T, int32_t, [](T a, T b, int32_t c) { return c >= 0 ? a : b; }>);
  add("slct" + types + ".f32", "b$ = b$ b$ b32",
      ternary<T, T, T, float, [](T a, T b, float c) { return c >= 0 ? a : b; }>);
  add("slct.ftz" + types + ".f32", "b$ = b$ b$ b32",
      ternary<T, T, T, float, [](T a, T b, float c) { return flush(c) >= 0 ? a : b; }>);
}

template <auto function> void predicateLogic(Warp &warp, const Op &op, uint32_t mask) {
  writePredicate(warp, op.results[0], mask, function(warp.predicate(op.sources[0]), warp.predicate(op.sources[1])));
}

void addPredicates(Table &table) {
  using P = uint32_t;
  table.add("and.pred", "pred = pred pred", OpClass::Predicate, predicateLogic<[](P a, P b) { return a & b; }>);
  table.add("or.pred", "pred = pred pred", OpClass::Predicate, predicateLogic<[](P a, P b) { return a | b; }>);
  table.add("xor.pred", "pred = pred pred", OpClass::Predicate, predicateLogic<[](P a, P b) { return a ^ b; }>);
  table.add("not.pred", "pred = pred", OpClass::Predicate, [](Warp &warp, const Op &op, uint32_t mask) {
    writePredicate(warp, op.results[0], mask, ~warp.predicate(op.sources[0]));
  });
}

} // namespace

void addCompare(Table &table) {
  forTypes<uint16_t, uint32_t, uint64_t>([&]<typename T>() {
    const std::string bits = bitsName<T>();
    using S = std::make_signed_t<T>;
    const std::string type = std::string(".") + kTypeName<T>;
    addCompares<Plain<T, 6>>(table, {"{.eq|.ne}", "", "." + bits, bits});
    addCompares<Plain<T, 6>>(table, {kInteger, "", type, bits});
    addCompares<Plain<T, 6>>(table, {kUnsigned, "", type, bits, Lt});
    addCompares<Plain<S, 6>>(table, {kInteger, "", std::string(".") + kTypeName<S>, bits});
    addSelect<T>(table);
  });
  addCompares<Plain<float, 14>>(table, {kFloating, "", ".f32", "f32"});
  addCompares<FlushedFloat>(table, {kFloating, ".ftz", ".f32", "f32"});
  addCompares<Plain<double, 14>>(table, {kFloating, "", ".f64", "f64"});
  addCompares<Half>(table, {kFloating, "", ".f16", "f16"});
  addCompares<FlushedHalf>(table, {kFloating, ".ftz", ".f16", "f16"});
  addCompares<Bfloat>(table, {kFloating, "", ".bf16", "bf16"});
  addCompares<Packed<Half>>(table, {kFloating, "", ".f16x2", "f16x2"});
  addCompares<Packed<FlushedHalf>>(table, {kFloating, ".ftz", ".f16x2", "f16x2"});
  addCompares<Packed<Bfloat>>(table, {kFloating, "", ".bf16x2", "bf16x2"});
  addPredicates(table);
}

} // namespace kvq::ptxsim
