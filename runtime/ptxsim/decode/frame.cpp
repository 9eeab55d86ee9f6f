// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/decode/frame.h"

#include <algorithm>

namespace kvq::ptxsim {

namespace {
constexpr uint32_t kLine = 64;
constexpr uint32_t roundUp(uint32_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }
} // namespace

Slot FrameBuilder::placeLanes(int bytes) {
  const Slot slot = {lanes_, written_};
  lanes_ += roundUp(uint32_t(32 * bytes));
  written_ += 4;
  return slot;
}

Slot FrameBuilder::placePredicate() {
  if (predicatesLeft_ == 0) {
    predicates_ = lanes_;
    predicatesLeft_ = kLine / 4;
    lanes_ += kLine;
  }
  const Slot slot = {predicates_, written_};
  predicates_ += 4;
  --predicatesLeft_;
  written_ += 4;
  return slot;
}

Slot FrameBuilder::constant(Type type, uint64_t bits) {
  const int bytes = type == Type::Pred ? 0 : bytesOf(type);
  const auto key = std::make_tuple(bytes, bits);
  auto found = constants_.find(key);
  if (found == constants_.end())
    found = constants_.emplace(key, Constant{place(type), type, bits}).first;
  return found->second.slot;
}

Slot FrameBuilder::special(Special special, Type type) {
  const auto key = std::make_tuple(special, bytesOf(type));
  auto found = specials_.find(key);
  if (found == specials_.end())
    found = specials_.emplace(key, SpecialUse{placeLanes(bytesOf(type)), special, bytesOf(type)}).first;
  return found->second.slot;
}

void FrameBuilder::finish(Kernel &kernel) {
  const uint32_t masks = roundUp(written_);
  auto move = [&](Slot &slot) { slot.lanes += masks - kLine; };
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
  kernel.frameBytes = masks + lanes_ - kLine;
  kernel.maskBytes = masks;
}

} // namespace kvq::ptxsim
