// SPDX-License-Identifier: Apache-2.0
//
// atom and red (PTX ISA, "Parallel Synchronization and Communication Instructions: atom, red"). The lanes of a warp
// take their turns in order, or in a seeded order; so do the blocks of a kernel with atomics on global memory.
#include "runtime/ptxsim/isa/half.h"
#include "runtime/ptxsim/isa/ordering.h"
#include "runtime/ptxsim/memory/address.h"

#include <algorithm>
#include <numeric>

namespace kvq::ptxsim {

namespace {

// Operations on one element: the new value from the old one and the operands. `global`: in global memory.
struct Add {
  template <typename T> static T apply(T old, T b, T, bool) { return T(old + b); }
};
struct AddFloat { // f32 in global memory flushes subnormals, in shared memory it keeps them
  static uint32_t apply(uint32_t old, uint32_t b, uint32_t, bool global) {
    const auto in = [&](uint32_t bits) { return global ? flush(floatOf(bits)) : floatOf(bits); };
    const float sum = in(old) + in(b);
    return sum != sum ? kFloatNaN : bitsOf(global ? flush(sum) : sum);
  }
};
// In global memory an H200 passes a NaN on as it is, signaling ones too, the operand's rather than the old one. In
// shared memory it adds as everywhere else: the first NaN, made quiet.
struct AddDouble {
  static uint64_t apply(uint64_t old, uint64_t b, uint64_t, bool global) {
    const double sum = std::bit_cast<double>(old) + std::bit_cast<double>(b);
    const auto isNaN = [](uint64_t bits) { return (bits & ~(uint64_t(1) << 63)) > 0x7ff0000000000000; };
    if (global)
      return isNaN(b) ? b : isNaN(old) ? old : std::bit_cast<uint64_t>(sum);
    constexpr uint64_t kQuiet = uint64_t(1) << 51;
    return isNaN(old) ? old | kQuiet : isNaN(b) ? b | kQuiet : std::bit_cast<uint64_t>(sum);
  }
};
struct Half {
  static float wide(uint16_t bits) { return halfToFloat(bits); }
  static uint16_t narrow(float value) { return floatToHalf(value); }
};
struct Bfloat {
  static float wide(uint16_t bits) { return bfloatToFloat(bits); }
  static uint16_t narrow(float value) { return floatToBfloat(value); }
};
struct Plus {
  static float apply(float a, float b) { return a + b; }
};
struct Least { // the other one where one is NaN; -0 is less than +0
  static float apply(float a, float b) {
    if (a != a || b != b)
      return a != a ? b : a;
    return a < b || (a == b && (bitsOf(a) >> 31)) ? a : b;
  }
};
struct Most {
  static float apply(float a, float b) {
    if (a != a || b != b)
      return a != a ? b : a;
    return a > b || (a == b && !(bitsOf(a) >> 31)) ? a : b;
  }
};
// An fp32 sum of two such numbers, rounded again, is the exact sum rounded once.
template <typename Format, typename Function> struct Narrow {
  static uint16_t apply(uint16_t old, uint16_t b, uint16_t, bool) {
    return Format::narrow(Function::apply(Format::wide(old), Format::wide(b)));
  }
};
template <typename One> struct Twice {
  static uint32_t apply(uint32_t old, uint32_t b, uint32_t, bool global) {
    return uint32_t(One::apply(uint16_t(old >> 16), uint16_t(b >> 16), 0, global)) << 16 |
           One::apply(uint16_t(old), uint16_t(b), 0, global);
  }
};
struct Min {
  template <typename T> static T apply(T old, T b, T, bool) { return std::min(old, b); }
};
struct Max {
  template <typename T> static T apply(T old, T b, T, bool) { return std::max(old, b); }
};
struct And {
  template <typename T> static T apply(T old, T b, T, bool) { return old & b; }
};
struct Or {
  template <typename T> static T apply(T old, T b, T, bool) { return old | b; }
};
struct Xor {
  template <typename T> static T apply(T old, T b, T, bool) { return old ^ b; }
};
struct Exchange {
  template <typename T> static T apply(T, T b, T, bool) { return b; }
};
struct CompareAndSwap {
  template <typename T> static T apply(T old, T b, T c, bool) { return old == b ? c : old; }
};
struct Increment {
  static uint32_t apply(uint32_t old, uint32_t b, uint32_t, bool) { return old >= b ? 0 : old + 1; }
};
struct Decrement {
  static uint32_t apply(uint32_t old, uint32_t b, uint32_t, bool) { return old == 0 || old > b ? b : old - 1; }
};

// The lanes of the mask in the order in which they take their turns.
int turns(Warp &warp, uint32_t mask, int (&order)[kLanes]) {
  int count = 0;
  forLanes(mask, [&](int lane) { order[count++] = lane; });
  if (warp.worker->launch->options.seed)
    for (int i = count - 1; i > 0; --i)
      std::swap(order[i], order[warp.worker->random.below(uint32_t(i + 1))]);
  return count;
}

template <Space space, typename T, int V, typename Operation, bool returns>
void atomic(Warp &warp, const Op &op, uint32_t mask) {
  Addresses addresses, kept;
  readAddresses(warp, op, op.sources[0], mask, addresses);
  std::memcpy(kept, addresses, sizeof kept);
  const Ordering ordering = orderingOf(op);
  Access made;
  access<space>(warp, op, mask, addresses, sizeof(T) * V, strongIntent(kUpdate, space, ordering), made);
  constexpr bool swaps = std::is_same_v<Operation, CompareAndSwap>;
  if constexpr (returns)
    if (const uint32_t missing = mask & ~made.mask)
      for (int v = 0; v < V; ++v)
        forLanes(missing, [&](int lane) { warp.at<T>(op.results[v])[lane] = 0; });
  // Results may be in the registers of operands: every lane is done with its own before the next one.
  int order[kLanes];
  const int count = turns(warp, made.mask, order);
  for (int i = 0; i < count; ++i) {
    const int lane = order[i];
    const bool global = space == Space::Global || (space == Space::Generic && spaceOf(kept[lane]) == Space::Global);
    T old[V], b[V], c[V] = {};
    std::memcpy(old, made.of(lane), sizeof old);
    for (int v = 0; v < V; ++v) {
      b[v] = warp.at<T>(op.sources[1 + v])[lane];
      if constexpr (swaps)
        c[v] = warp.at<T>(op.sources[2])[lane];
    }
    T fresh[V];
    for (int v = 0; v < V; ++v)
      fresh[v] = Operation::apply(old[v], b[v], c[v], global);
    std::memcpy(made.of(lane), fresh, sizeof fresh);
    if constexpr (returns)
      for (int v = 0; v < V; ++v)
        warp.at<T>(op.results[v])[lane] = old[v];
  }
  orderStrong(warp, space, made.mask, kept, ordering, true, true);
}

// `operation` holds the type and, for a vector, its length: "add.u32", "add.v4.f32".
template <Space space, typename T, typename Operation, int V = 1>
void add(Table &table, const std::string &where, const std::string &operation, const std::string &type) {
  constexpr bool swaps = std::is_same_v<Operation, CompareAndSwap>, exchanges = std::is_same_v<Operation, Exchange>;
  const std::string registers = type + (V == 1 ? "" : "x" + std::to_string(V));
  const std::string sources = " = addr " + registers + (swaps ? " " + type : "") + " b64?"; // a cache policy
  const std::string rest = "[.cta|.cluster|.gpu|.sys]" + where + "." + operation;
  const std::string atomName = "atom[.relaxed|.acquire|.release|.acq_rel]" + rest;
  markStrong(
      table.add(atomName.c_str(), (registers + sources).c_str(), OpClass::Atomic, atomic<space, T, V, Operation, true>)
          .space(space));
  if constexpr (!swaps && !exchanges)
    markStrong(table
                   .add(("red[.relaxed|.release]" + rest).c_str(), sources.c_str(), OpClass::Atomic,
                        atomic<space, T, V, Operation, false>)
                   .space(space));
}

template <Space space, typename T, typename Operation>
void addScalar(Table &table, const std::string &where, const char *operation, const char *type) {
  add<space, T, Operation>(table, where, std::string(operation) + "." + type, type);
}

// Vectors, sm_90. The ISA's grammar has the operation first, its examples have it last; ptxas takes both.
template <Space space, int V, typename T, typename Operation>
void addVector(Table &table, const char *where, const std::string &operation, const std::string &type) {
  const std::string vector = "v" + std::to_string(V) + "." + type;
  add<space, T, Operation, V>(table, where, operation + "." + vector, type);
  add<space, T, Operation, V>(table, where, vector + "." + operation, type);
}

template <Space space, typename One>
void addHalves(Table &table, const char *where, const char *name, const std::string &type) {
  const std::string operation = std::string(name) + ".noftz";
  addVector<space, 2, uint16_t, One>(table, where, operation, type);
  addVector<space, 4, uint16_t, One>(table, where, operation, type);
  addVector<space, 8, uint16_t, One>(table, where, operation, type);
  addVector<space, 2, uint32_t, Twice<One>>(table, where, operation, type + "x2");
  addVector<space, 4, uint32_t, Twice<One>>(table, where, operation, type + "x2");
}

template <Space space, typename Format> void addFormat(Table &table, const char *where, const char *type) {
  addHalves<space, Narrow<Format, Plus>>(table, where, "add", type);
  addHalves<space, Narrow<Format, Least>>(table, where, "min", type);
  addHalves<space, Narrow<Format, Most>>(table, where, "max", type);
}

template <Space space> void addVectors(Table &table, const char *where) {
  addFormat<space, Half>(table, where, "f16");
  addFormat<space, Bfloat>(table, where, "bf16");
  addVector<space, 2, uint32_t, AddFloat>(table, where, "add", "f32");
  addVector<space, 4, uint32_t, AddFloat>(table, where, "add", "f32");
}

template <Space space, typename T> void addInteger(Table &table, const std::string &where, const char *type) {
  addScalar<space, T, Min>(table, where, "min", type);
  addScalar<space, T, Max>(table, where, "max", type);
}

template <Space space, typename T> void addBits(Table &table, const std::string &where, const char *type) {
  addScalar<space, T, And>(table, where, "and", type);
  addScalar<space, T, Or>(table, where, "or", type);
  addScalar<space, T, Xor>(table, where, "xor", type);
  addScalar<space, T, Exchange>(table, where, "exch", type);
  addScalar<space, T, CompareAndSwap>(table, where, "cas", type);
}

template <Space space> void addSpace(Table &table, const std::string &where) {
  addScalar<space, uint32_t, Add>(table, where, "add", "u32");
  addScalar<space, int32_t, Add>(table, where, "add", "s32");
  addScalar<space, uint64_t, Add>(table, where, "add", "u64");
  addScalar<space, uint32_t, AddFloat>(table, where, "add", "f32");
  addScalar<space, uint64_t, AddDouble>(table, where, "add", "f64");
  addScalar<space, uint16_t, Narrow<Half, Plus>>(table, where, "add.noftz", "f16");
  addScalar<space, uint16_t, Narrow<Bfloat, Plus>>(table, where, "add.noftz", "bf16");
  addScalar<space, uint32_t, Twice<Narrow<Half, Plus>>>(table, where, "add.noftz", "f16x2");
  addScalar<space, uint32_t, Twice<Narrow<Bfloat, Plus>>>(table, where, "add.noftz", "bf16x2");
  addInteger<space, uint32_t>(table, where, "u32");
  addInteger<space, int32_t>(table, where, "s32");
  addInteger<space, uint64_t>(table, where, "u64");
  addInteger<space, int64_t>(table, where, "s64");
  addBits<space, uint32_t>(table, where, "b32");
  addBits<space, uint64_t>(table, where, "b64");
  addScalar<space, uint16_t, CompareAndSwap>(table, where, "cas", "b16");
  addScalar<space, uint32_t, Increment>(table, where, "inc", "u32");
  addScalar<space, uint32_t, Decrement>(table, where, "dec", "u32");
}

} // namespace

void addAtomic(Table &table) {
  addSpace<Space::Global>(table, ".global");
  addSpace<Space::Shared>(table, ".shared[::cta|::cluster]");
  addSpace<Space::Generic>(table, "");
  addVectors<Space::Global>(table, ".global");
  addVectors<Space::Generic>(table, "");
}

} // namespace kvq::ptxsim
