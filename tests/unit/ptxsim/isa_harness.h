// SPDX-License-Identifier: Apache-2.0
//
// Runs the handler of one instruction on a frame of its own, without a module: operands are 32 lanes of 1 to 8 bytes.
#pragma once

#include "runtime/ptxsim/decode/registry.h"
#include "runtime/ptxsim/exec/warp.h"

#include <array>
#include <cstring>
#include <gtest/gtest.h>

namespace kvq::ptxsim::test {

struct Lanes {
  int bytes = 4; // of a lane; 0: a predicate, whose mask is lane[0]
  std::array<uint64_t, 32> lane{};
};

template <typename T> Lanes lanesOf(const std::array<T, 32> &values) {
  Lanes lanes{int(sizeof(T)), {}};
  for (int i = 0; i < 32; ++i)
    std::memcpy(&lanes.lane[i], &values[i], sizeof(T));
  return lanes;
}
template <typename T> Lanes same(T value) {
  std::array<T, 32> values;
  values.fill(value);
  return lanesOf(values);
}
inline Lanes predicate(uint32_t mask) { return {0, {mask}}; }

template <typename T> T get(const Lanes &lanes, int lane) {
  T value;
  std::memcpy(&value, &lanes.lane[lane], sizeof(T));
  return value;
}

class Machine {
public:
  explicit Machine(void (*add)(Table &)) {
    add(table);
    warp.frame = frame;
    warp.worker = &worker;
    worker.launch = &launch;
  }

  // The results, which hold `before` in lanes that are not in mask. A test fails where no form has such operands.
  std::vector<Lanes> run(const std::string &name, const std::vector<Lanes> &sources, uint32_t mask = kFull,
                         uint64_t immediate = 0) {
    const Form *form = find(name, sources);
    if (!form) {
      ADD_FAILURE() << "no form " << name << " with these operands";
      return std::vector<Lanes>(2);
    }
    std::vector<Slot> slots;
    std::vector<Lanes> results;
    uint32_t next = 0;
    const auto place = [&](const Lanes &lanes) {
      slots.push_back({next, 0});
      if (lanes.bytes == 0)
        std::memcpy(frame + next, lanes.lane.data(), 4);
      for (int i = 0; i < 32 && lanes.bytes; ++i)
        std::memcpy(frame + next + i * lanes.bytes, &lanes.lane[i], lanes.bytes);
      next += 256;
    };
    for (const OperandSpec &spec : form->results)
      for (int i = 0; i < spec.vector + (spec.second != Type::None); ++i) {
        results.push_back({sizeOf(i < spec.vector ? spec.type : spec.second), {}});
        results.back().lane.fill(before);
        place(results.back());
      }
    for (const Lanes &source : sources)
      place(source);
    Op op;
    op.results = slots.data();
    op.sources = slots.data() + results.size();
    op.resultCount = uint8_t(results.size());
    op.sourceCount = uint8_t(sources.size());
    op.immediate = immediate;
    op.form = form;
    form->handler(warp, op, mask);
    for (size_t r = 0; r < results.size(); ++r)
      read(slots[r], results[r]);
    return results;
  }

  // The value of a single result in each lane.
  template <typename D, typename... A>
  std::array<D, 32> call(const std::string &name, const std::array<A, 32> &...sources) {
    const Lanes result = run(name, {lanesOf(sources)...})[0];
    std::array<D, 32> values{};
    for (int i = 0; i < 32; ++i)
      values[i] = get<D>(result, i);
    return values;
  }

  static constexpr uint64_t before = 0x5a5a5a5a5a5a5a5a;
  Table table;
  LaunchState launch;
  Worker worker;
  Warp warp;

private:
  static int sizeOf(Type type) { return type == Type::Pred ? 0 : bytesOf(type); }
  const Form *find(const std::string &name, const std::vector<Lanes> &sources) const {
    for (const auto &form : table.find(name)) {
      std::vector<int> sizes;
      for (const OperandSpec &spec : form->sources)
        if (spec.kind == OperandKind::Value)
          sizes.insert(sizes.end(), size_t(spec.vector), sizeOf(spec.type));
      bool fits = sizes.size() == sources.size();
      for (size_t i = 0; fits && i < sizes.size(); ++i)
        fits = sizes[i] == sources[i].bytes;
      if (fits)
        return form.get();
    }
    return nullptr;
  }
  void read(Slot slot, Lanes &lanes) const {
    lanes.lane.fill(0);
    if (lanes.bytes == 0)
      std::memcpy(lanes.lane.data(), frame + slot.lanes, 4);
    for (int i = 0; i < 32 && lanes.bytes; ++i)
      std::memcpy(&lanes.lane[i], frame + slot.lanes + i * lanes.bytes, lanes.bytes);
  }
  alignas(64) std::byte frame[256 * 16] = {};
};

// Bits that are drawn to be interesting for integers and for floats: corners, few bits set, neighbours of powers of
// two.
template <typename T> T draw(Random &random) {
  constexpr int bits = 8 * sizeof(T);
  const uint64_t any = random.next();
  switch (random.below(6)) {
  case 0:
    return T(uint64_t(1) - random.below(3));
  case 1:
    return T((uint64_t(1) << random.below(bits)) + 1 - random.below(3));
  case 2:
    return T(any >> random.below(64));
  default:
    return T(any);
  }
}
template <typename T> std::array<T, 32> drawLanes(Random &random) {
  std::array<T, 32> values;
  for (T &value : values)
    value = draw<T>(random);
  return values;
}
template <typename To, typename From> std::array<To, 32> as(const std::array<From, 32> &from) {
  return std::bit_cast<std::array<To, 32>>(from);
}

} // namespace kvq::ptxsim::test
