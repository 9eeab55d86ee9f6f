// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/decode/frame.h"

#include "runtime/ptxsim/decode/control_flow.h"

#include <algorithm>
#include <queue>

namespace kvq::ptxsim {

namespace {

constexpr uint32_t kLine = 64;
constexpr uint32_t kMask = 4; // bytes of a predicate
// Bits of the sets of live registers, beyond which every register gets a place of its own: 64 MiB.
constexpr uint64_t kMostBits = uint64_t(1) << 29;

constexpr uint32_t roundUp(uint32_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

class BitSets {
public:
  BitSets(size_t sets, size_t bits) : words_((bits + 63) / 64), data_(sets * words_) {}
  uint64_t *of(size_t set) { return data_.data() + set * words_; }
  size_t words() const { return words_; }
  void set(size_t set, size_t bit) { of(set)[bit / 64] |= uint64_t(1) << bit % 64; }
  bool has(size_t set, size_t bit) { return of(set)[bit / 64] >> bit % 64 & 1; }

private:
  size_t words_;
  std::vector<uint64_t> data_;
};

} // namespace

Slot FrameBuilder::newSlot(Type type, bool pinned) {
  const Slot slot = {uint32_t(places_.size()), written_};
  places_.push_back({type == Type::Pred ? kMask : roundUp(uint32_t(32 * bytesOf(type))), pinned});
  written_ += kMask;
  return slot;
}

Slot FrameBuilder::constant(Type type, uint64_t bits) {
  const int bytes = type == Type::Pred ? 0 : bytesOf(type);
  const auto key = std::make_tuple(bytes, bits);
  auto found = constants_.find(key);
  if (found == constants_.end())
    found = constants_.emplace(key, Constant{newSlot(type, true), type, bits}).first;
  return found->second.slot;
}

Slot FrameBuilder::special(Special special, Type type) {
  const auto key = std::make_tuple(special, bytesOf(type));
  auto found = specials_.find(key);
  if (found == specials_.end())
    found = specials_.emplace(key, SpecialUse{newSlot(type, true), special, bytesOf(type)}).first;
  return found->second.slot;
}

void FrameBuilder::findLifetimes(const Kernel &kernel) {
  auto touch = [&](Slot slot, uint32_t at) {
    Place &place = places_[slot.lanes];
    place.begin = std::min(place.begin, at);
    place.end = std::max(place.end, at);
  };
  for (uint32_t i = 0; i < kernel.operations.size(); ++i) {
    const Op &op = kernel.operations[i];
    for (int k = 0; k < op.resultCount; ++k)
      touch(op.results[k], i);
    for (int k = 0; k < op.sourceCount; ++k)
      touch(op.sources[k], i);
    if (op.guarded)
      touch(op.guard, i);
  }
  extendOverBlocks(kernel);
}

// Live at the edges of basic blocks, by the usual equations: in = uses | (out & ~kills), out = the union of the
// successors' in. They hold for each lane by itself, so that it does not matter how lanes diverge; a guarded write
// kills nothing.
void FrameBuilder::extendOverBlocks(const Kernel &kernel) {
  const ControlFlowGraph graph = controlFlow(kernel.operations);
  const size_t blocks = graph.begins.size(), registers = places_.size();
  if (uint64_t(blocks) * registers * 4 > kMostBits) {
    for (Place &place : places_)
      place.pinned = true;
    return;
  }
  BitSets uses(blocks, registers), kills(blocks, registers), in(blocks, registers), out(blocks, registers);
  for (size_t block = 0; block + 1 < blocks; ++block)
    for (uint32_t i = graph.begins[block]; i < graph.begins[block + 1]; ++i) {
      const Op &op = kernel.operations[i];
      for (int k = 0; k < op.sourceCount; ++k)
        if (!kills.has(block, op.sources[k].lanes))
          uses.set(block, op.sources[k].lanes);
      if (op.guarded && !kills.has(block, op.guard.lanes))
        uses.set(block, op.guard.lanes);
      for (int k = 0; k < op.resultCount && !op.guarded; ++k)
        kills.set(block, op.results[k].lanes);
    }
  std::vector<char> queued(blocks, 1);
  std::vector<int> work;
  for (size_t block = 0; block < blocks; ++block)
    work.push_back(int(block));
  while (!work.empty()) {
    const int block = work.back();
    work.pop_back();
    queued[block] = 0;
    bool changed = false;
    for (size_t w = 0; w < in.words(); ++w) {
      uint64_t live = 0;
      for (int next : graph.successors[block])
        live |= in.of(next)[w];
      out.of(block)[w] = live;
      live = uses.of(block)[w] | (live & ~kills.of(block)[w]);
      changed |= live != in.of(block)[w];
      in.of(block)[w] = live;
    }
    for (int before : graph.predecessors[block])
      if (changed && !queued[before]) {
        queued[before] = 1;
        work.push_back(before);
      }
  }
  for (size_t block = 0; block + 1 < blocks; ++block)
    for (size_t i = 0; i < registers; ++i) {
      if (in.has(block, i))
        places_[i].begin = std::min(places_[i].begin, graph.begins[block]);
      if (out.has(block, i))
        places_[i].end = std::max(places_[i].end, graph.begins[block + 1] - 1);
    }
}

// Linear scan (Poletto and Sarkar 1999) without spilling: a place is taken over when its last user has ended.
uint32_t FrameBuilder::layOut(uint32_t offset) {
  std::vector<uint32_t> order;
  uint32_t predicates = 0, predicatesLeft = 0;
  for (uint32_t i = 0; i < places_.size(); ++i) {
    Place &place = places_[i];
    if (place.bytes == kMask) { // sixteen of them make a line
      if (predicatesLeft == 0) {
        predicates = offset;
        predicatesLeft = kLine / kMask;
        offset += kLine;
      }
      place.offset = predicates;
      predicates += kMask;
      --predicatesLeft;
    } else if (place.pinned) {
      place.offset = offset;
      offset += place.bytes;
    } else {
      order.push_back(i);
    }
  }
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return places_[a].begin < places_[b].begin; });
  using Ending = std::pair<uint32_t, uint32_t>; // operation, place
  std::priority_queue<Ending, std::vector<Ending>, std::greater<Ending>> live;
  std::map<uint32_t, std::vector<uint32_t>> free; // by bytes: offsets
  for (uint32_t index : order) {
    Place &place = places_[index];
    while (!live.empty() && live.top().first < place.begin) {
      const Place &ended = places_[live.top().second];
      free[ended.bytes].push_back(ended.offset);
      live.pop();
    }
    std::vector<uint32_t> &candidates = free[place.bytes];
    if (candidates.empty()) {
      place.offset = offset;
      offset += place.bytes;
    } else {
      place.offset = candidates.back();
      candidates.pop_back();
    }
    live.push({place.end, index});
  }
  return offset;
}

void FrameBuilder::finish(Kernel &kernel) {
  findLifetimes(kernel);
  kernel.maskBytes = roundUp(written_);
  kernel.frameBytes = layOut(kernel.maskBytes);
  auto move = [&](Slot &slot) { slot.lanes = places_[slot.lanes].offset; };
  for (auto &list : kernel.slots)
    for (Slot &slot : list)
      move(slot);
  for (Op &op : kernel.operations)
    if (op.guarded)
      move(op.guard);
  for (auto &[key, constant] : constants_) {
    kernel.constants.push_back(constant);
    move(kernel.constants.back().slot);
  }
  for (auto &[key, use] : specials_) {
    kernel.specials.push_back(use);
    move(kernel.specials.back().slot);
  }
}

} // namespace kvq::ptxsim
