// SPDX-License-Identifier: Apache-2.0
//
// Moves, vectors packed into a register and taken apart, and conversions of addresses (ISA "Data Movement").
#include "runtime/ptxsim/isa/forms.h"
#include "runtime/ptxsim/isa/lanes.h"
#include "runtime/ptxsim/memory/address.h"

namespace kvq::ptxsim {

namespace {

// Always blended: where all lanes are active, the loop would become a call of memmove, which costs more.
template <typename T> void move(Warp &warp, const Op &op, uint32_t mask) {
  const T *a = warp.at<T>(op.sources[0]);
  T *d = warp.at<T>(op.results[0]);
  KVQ_LANES
  for (int lane = 0; lane < kLanes; ++lane) {
    const T all = kLaneBits.bit[lane] & mask ? T(~T(0)) : T(0);
    d[lane] = (a[lane] & all) | (d[lane] & ~all);
  }
}

// mov.b32 d, {a, b}: the first element is the least significant.
template <typename D, typename E> void pack(Warp &warp, const Op &op, uint32_t mask) {
  constexpr int count = sizeof(D) / sizeof(E);
  D *d = warp.at<D>(op.results[0]);
  const E *first = warp.at<E>(op.sources[0]), *second = warp.at<E>(op.sources[1]);
  if constexpr (count == 2) {
    writeLanes(d, mask, [=](int lane) { return D(first[lane]) | D(second[lane]) << 8 * sizeof(E); });
  } else {
    const E *third = warp.at<E>(op.sources[2]), *fourth = warp.at<E>(op.sources[3]);
    writeLanes(d, mask, [=](int lane) {
      return D(first[lane]) | D(second[lane]) << 16 | D(third[lane]) << 32 | D(fourth[lane]) << 48;
    });
  }
}

template <typename A, typename E> void unpack(Warp &warp, const Op &op, uint32_t mask) {
  const A *a = warp.at<A>(op.sources[0]);
  for (size_t i = 0; i < sizeof(A) / sizeof(E); ++i)
    writeLanes(warp.at<E>(op.results[i]), mask, [=](int lane) { return E(a[lane] >> 8 * sizeof(E) * i); });
}

template <Space space> constexpr uint64_t toGeneric(uint64_t a) { return a + genericBase(space); }
template <Space space> constexpr uint64_t fromGeneric(uint64_t a) { return a - genericBase(space); }

template <Space space> void isSpace(Warp &warp, const Op &op, uint32_t mask) {
  const uint64_t *a = warp.at<uint64_t>(op.sources[0]);
  writePredicate(warp, op.results[0], mask, lanesWhere([=](int lane) { return spaceOf(a[lane]) == space; }));
}

void predicateMove(Warp &warp, const Op &op, uint32_t mask) {
  writePredicate(warp, op.results[0], mask, warp.predicate(op.sources[0]));
}

// The lanes that execute this instruction together.
void activeMask(Warp &warp, const Op &op, uint32_t mask) {
  writeLanes(warp.at<uint32_t>(op.results[0]), mask, [=](int) { return mask; });
}

template <Space space> void addSpace(Table &table, const std::string &name) {
  using U = uint64_t;
  table.add(("cvta." + name + ".u64").c_str(), "u64 = u64", OpClass::Move, unary<U, U, toGeneric<space>>).propagates();
  table.add(("cvta.to." + name + ".u64").c_str(), "u64 = u64", OpClass::Move, unary<U, U, fromGeneric<space>>)
      .propagates();
  table.add(("isspacep." + name).c_str(), "pred = u64", OpClass::Move, isSpace<space>);
}

} // namespace

void addMove(Table &table) {
  forTypes<uint16_t, uint32_t, uint64_t>([&]<typename T>() {
    const std::string bits = std::to_string(8 * sizeof(T));
    table.add(withType("mov{.b$|.u$|.s$}", bits).c_str(), withType("b$ = b$", bits).c_str(), OpClass::Move, move<T>)
        .propagates();
  });
  table.add("mov.f32", "b32 = b32", OpClass::Move, move<uint32_t>).propagates();
  table.add("mov.f64", "b64 = b64", OpClass::Move, move<uint64_t>).propagates();
  table.add("mov.pred", "pred = pred", OpClass::Predicate, predicateMove).propagates();

  table.add("mov.b32", "b32 = b16x2", OpClass::Move, pack<uint32_t, uint16_t>).propagates();
  table.add("mov.b64", "b64 = b32x2", OpClass::Move, pack<uint64_t, uint32_t>).propagates();
  table.add("mov.b64", "b64 = b16x4", OpClass::Move, pack<uint64_t, uint16_t>).propagates();
  table.add("mov.b32", "b16x2 = b32", OpClass::Move, unpack<uint32_t, uint16_t>).propagates();
  table.add("mov.b64", "b32x2 = b64", OpClass::Move, unpack<uint64_t, uint32_t>).propagates();
  table.add("mov.b64", "b16x4 = b64", OpClass::Move, unpack<uint64_t, uint16_t>).propagates();

  addSpace<Space::Global>(table, "global");
  addSpace<Space::Shared>(table, "shared");
  addSpace<Space::Shared>(table, "shared::cta");
  addSpace<Space::Local>(table, "local");
  addSpace<Space::Const>(table, "const");
  addSpace<Space::Param>(table, "param");
  addSpace<Space::Param>(table, "param::entry");
  table.add("activemask.b32", "b32 =", OpClass::Warp, activeMask);
}

} // namespace kvq::ptxsim
