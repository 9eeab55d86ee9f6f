// SPDX-License-Identifier: Apache-2.0
//
// Loads and stores (PTX ISA, "Data Movement and Conversion Instructions: ld, ldu, st").
#include "runtime/ptxsim/isa/ordering.h"
#include "runtime/ptxsim/memory/address.h"

#include <type_traits>

namespace kvq::ptxsim {

namespace {

// Memory to registers of type R; M is what an element is in memory, and its sign decides how it is widened. Lanes that
// could not access get 0.
template <typename M, typename R, int V> void gather(Warp &warp, const Op &op, const Access &access, uint32_t mask) {
  R *to[V];
  for (int v = 0; v < V; ++v)
    to[v] = warp.at<R>(op.results[v]);
  auto element = [](const uint8_t *from, int v) {
    M value;
    std::memcpy(&value, from + size_t(v) * sizeof(M), sizeof(M));
    return R(value);
  };
  if (access.mask == kFull && access.pattern == Pattern::Consecutive) {
    for (int lane = 0; lane < kLanes; ++lane)
      for (int v = 0; v < V; ++v)
        to[v][lane] = element(access.first + size_t(lane) * V * sizeof(M), v);
    return;
  }
  if (access.mask == mask && access.pattern == Pattern::Same) {
    for (int v = 0; v < V; ++v) {
      const R value = element(access.first, v);
      forLanes(mask, [&](int lane) { to[v][lane] = value; });
    }
    return;
  }
  forLanes(access.mask, [&](int lane) {
    const uint8_t *from = access.of(lane);
    for (int v = 0; v < V; ++v)
      to[v][lane] = element(from, v);
  });
  if (const uint32_t missing = mask & ~access.mask)
    forLanes(missing, [&](int lane) {
      for (int v = 0; v < V; ++v)
        to[v][lane] = 0;
    });
}

// Registers to memory, in the order of the lanes. Returns the lanes whose bytes another lane has overwritten with
// different ones.
template <typename M, typename R, int V> uint32_t scatter(Warp &warp, const Op &op, const Access &access) {
  const R *from[V];
  for (int v = 0; v < V; ++v)
    from[v] = warp.at<R>(op.sources[1 + v]);
  if (access.mask == kFull && access.pattern == Pattern::Consecutive) {
    for (int lane = 0; lane < kLanes; ++lane)
      for (int v = 0; v < V; ++v) {
        const M value = M(from[v][lane]);
        std::memcpy(access.first + (size_t(lane) * V + size_t(v)) * sizeof(M), &value, sizeof(M));
      }
    return 0;
  }
  forLanes(access.mask, [&](int lane) {
    for (int v = 0; v < V; ++v) {
      const M value = M(from[v][lane]);
      std::memcpy(access.of(lane) + size_t(v) * sizeof(M), &value, sizeof(M));
    }
  });
  uint32_t lost = 0;
  forLanes(access.mask, [&](int lane) {
    for (int v = 0; v < V; ++v) {
      M value;
      std::memcpy(&value, access.of(lane) + size_t(v) * sizeof(M), sizeof(M));
      lost |= uint32_t(value != M(from[v][lane])) << lane;
    }
  });
  return lost;
}

// The decoder sets op.width to the bytes of the register; 0 or fewer bytes than the element has: as many as it has.
template <typename M, int V> void moveIn(Warp &warp, const Op &op, const Access &access, uint32_t mask) {
  if (op.width <= sizeof(M))
    return gather<M, std::make_unsigned_t<M>, V>(warp, op, access, mask);
  if constexpr (sizeof(M) < 2)
    if (op.width == 2)
      return gather<M, uint16_t, V>(warp, op, access, mask);
  if constexpr (sizeof(M) < 4)
    if (op.width == 4)
      return gather<M, uint32_t, V>(warp, op, access, mask);
  if constexpr (sizeof(M) < 8)
    gather<M, uint64_t, V>(warp, op, access, mask);
}

template <typename M, int V> uint32_t moveOut(Warp &warp, const Op &op, const Access &access) {
  if (op.width <= sizeof(M))
    return scatter<M, M, V>(warp, op, access);
  if constexpr (sizeof(M) < 2)
    if (op.width == 2)
      return scatter<M, uint16_t, V>(warp, op, access);
  if constexpr (sizeof(M) < 4)
    if (op.width == 4)
      return scatter<M, uint32_t, V>(warp, op, access);
  if constexpr (sizeof(M) < 8)
    return scatter<M, uint64_t, V>(warp, op, access);
  return 0;
}

// Two lanes of one store left different values in a byte of shared memory.
void reportOverlap(Warp &warp, const Op &op, uint32_t lanes, const Addresses &addresses) {
  const uint64_t at = uint32_t(addresses[std::countr_zero(lanes)]);
  report(warp, op, Check::SharedRace, lanes,
         "lanes of this store write different values to the byte at shared offset " + std::to_string(at),
         {"shared", at, ""});
}

template <Space space, typename M, int V> void load(Warp &warp, const Op &op, uint32_t mask) {
  Addresses addresses;
  readAddresses(warp, op, op.sources[0], mask, addresses);
  Access made;
  access<space>(warp, op, mask, addresses, sizeof(M) * V, kLoad, made);
  moveIn<M, V>(warp, op, made, mask);
}

template <Space space, typename M, int V> void store(Warp &warp, const Op &op, uint32_t mask) {
  Addresses addresses;
  readAddresses(warp, op, op.sources[0], mask, addresses);
  Access made;
  uint32_t shared = space == Space::Shared ? mask : 0;
  if constexpr (space == Space::Generic)
    accessGeneric(warp, op, mask, addresses, sizeof(M) * V, kStore, made, &shared);
  else
    access<space>(warp, op, mask, addresses, sizeof(M) * V, kStore, made);
  const uint32_t lost = moveOut<M, V>(warp, op, made) & shared;
  if (lost)
    reportOverlap(warp, op, lost, addresses);
}

// Volatile and the strong forms.
template <Space space, typename M, int V> void loadStrong(Warp &warp, const Op &op, uint32_t mask) {
  Addresses addresses, kept;
  readAddresses(warp, op, op.sources[0], mask, addresses);
  std::memcpy(kept, addresses, sizeof kept);
  const Ordering ordering = orderingOf(op);
  Access made;
  access<space>(warp, op, mask, addresses, sizeof(M) * V, strongIntent(kStrongLoad, space, ordering), made);
  moveIn<M, V>(warp, op, made, mask);
  orderStrong(warp, space, made.mask, kept, ordering, true, false);
}

template <Space space, typename M, int V> void storeStrong(Warp &warp, const Op &op, uint32_t mask) {
  Addresses addresses, kept;
  readAddresses(warp, op, op.sources[0], mask, addresses);
  std::memcpy(kept, addresses, sizeof kept);
  const Ordering ordering = orderingOf(op);
  Access made;
  access<space>(warp, op, mask, addresses, sizeof(M) * V, strongIntent(kStrongStore, space, ordering), made);
  moveOut<M, V>(warp, op, made);
  orderStrong(warp, space, made.mask, kept, ordering, false, true);
}

struct Kind {
  const char *name; // as in patterns
  Space space;
  OpClass opClass;
};
constexpr Kind kKinds[] = {
    {"", Space::Generic, OpClass::Generic},
    {".global", Space::Global, OpClass::Global},
    {".shared[::cta|::cluster]", Space::Shared, OpClass::Shared},
    {".local", Space::Local, OpClass::Local},
    {".const", Space::Const, OpClass::Const},
    {".param", Space::Param, OpClass::Param},
};

template <Space space, typename M, int V> void addForms(Table &table, const Kind &kind, const std::string &type) {
  const std::string vector = V == 1 ? "" : ".v" + std::to_string(V);
  const std::string element = type + (V == 1 ? "" : "x" + std::to_string(V)) + (type[0] == 'f' ? "" : "*");
  const bool policy = space == Space::Global || space == Space::Generic;
  const std::string loads = element + " = addr" + (policy ? " b64?" : ""),
                    stores = "= addr " + element + (policy ? " b64?" : "");
  auto add = [&](const std::string &pattern, const std::string &operands, Handler handler) {
    Table::Added added = table.add((pattern + vector + "." + type).c_str(), operands.c_str(), kind.opClass, handler);
    return added.space(space);
  };
  const std::string name = kind.name;
  add("ld[.weak]" + name, loads, load<space, M, V>);
  if constexpr (space == Space::Global || space == Space::Generic)
    add("ldu" + name, loads, load<space, M, V>);
  if constexpr (space != Space::Const && space != Space::Param)
    add("st[.weak]" + name, stores, store<space, M, V>);
  if constexpr (space == Space::Local) { // nobody else sees it
    add("ld.volatile" + name, loads, load<space, M, V>);
    add("st.volatile" + name, stores, store<space, M, V>);
  }
  if constexpr ((space == Space::Generic || space == Space::Global || space == Space::Shared) && V * sizeof(M) <= 16) {
    const std::string scope = "{.cta|.cluster|.gpu|.sys}";
    markStrong(add("ld.volatile" + name, loads, loadStrong<space, M, V>));
    markStrong(add("ld{.relaxed|.acquire}" + scope + name, loads, loadStrong<space, M, V>));
    markStrong(add("ld.mmio.relaxed.sys" + name, loads, loadStrong<space, M, V>));
    markStrong(add("st.mmio.relaxed.sys" + name, stores, storeStrong<space, M, V>));
    markStrong(add("st.volatile" + name, stores, storeStrong<space, M, V>));
    markStrong(add("st{.relaxed|.release}" + scope + name, stores, storeStrong<space, M, V>));
  }
}

template <Space space, typename M> void addType(Table &table, const Kind &kind, const char *type) {
  addForms<space, M, 1>(table, kind, type);
  addForms<space, M, 2>(table, kind, type);
  if constexpr (sizeof(M) < 8 || space == Space::Global)
    addForms<space, M, 4>(table, kind, type);
  if constexpr (sizeof(M) == 4 && space == Space::Global) // 32 bytes a lane, sm_100
    addForms<space, M, 8>(table, kind, type);
}

template <Space space> void addSpace(Table &table, const Kind &kind) {
  for (const char *type : {"b8", "u8"})
    addType<space, uint8_t>(table, kind, type);
  addType<space, int8_t>(table, kind, "s8");
  for (const char *type : {"b16", "u16"})
    addType<space, uint16_t>(table, kind, type);
  addType<space, int16_t>(table, kind, "s16");
  for (const char *type : {"b32", "u32", "f32"})
    addType<space, uint32_t>(table, kind, type);
  addType<space, int32_t>(table, kind, "s32");
  for (const char *type : {"b64", "u64", "s64", "f64"})
    addType<space, uint64_t>(table, kind, type);
}

} // namespace

void addMemory(Table &table) {
  addSpace<Space::Generic>(table, kKinds[0]);
  addSpace<Space::Global>(table, kKinds[1]);
  addSpace<Space::Shared>(table, kKinds[2]);
  addSpace<Space::Local>(table, kKinds[3]);
  addSpace<Space::Const>(table, kKinds[4]);
  addSpace<Space::Param>(table, kKinds[5]);
  addFences(table);
  addMbarriers(table);
}

} // namespace kvq::ptxsim
