// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/memory/history.h"

namespace kvq::ptxsim {

namespace {

constexpr size_t kBuckets = 1024;
constexpr uint32_t kLastNumber = 0xf0000000;

size_t hash(uint32_t parent, AccessKind kind, uint32_t segment) {
  uint64_t mixed = (uint64_t(parent) << 32 | segment) * 4 + uint64_t(kind);
  mixed = (mixed ^ mixed >> 31) * 0x9e3779b97f4a7c15;
  return size_t(mixed >> 24);
}

} // namespace

History::History() : buckets_(kBuckets, 0) {}

bool History::clear() {
  base_ += uint32_t(nodes_.size());
  nodes_.clear();
  if (base_ < kLastNumber)
    return false;
  base_ = 1;
  buckets_.assign(kBuckets, 0);
  return true;
}

uint32_t History::intern(uint32_t parent, AccessKind kind, uint32_t segment) {
  if ((nodes_.size() + 1) * 2 > buckets_.size())
    grow();
  const size_t wrap = buckets_.size() - 1;
  size_t at = hash(parent, kind, segment) & wrap;
  for (; buckets_[at] >= base_; at = (at + 1) & wrap) {
    const Node &one = node(buckets_[at]);
    if (one.parent == parent && one.segment == segment && one.kind == kind)
      return buckets_[at];
  }
  nodes_.push_back({parent, segment, kind});
  return buckets_[at] = base_ + uint32_t(nodes_.size()) - 1;
}

void History::grow() {
  std::vector<uint32_t> larger(buckets_.size() * 2, 0);
  const size_t wrap = larger.size() - 1;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    size_t at = hash(nodes_[i].parent, nodes_[i].kind, nodes_[i].segment) & wrap;
    while (larger[at] != 0)
      at = (at + 1) & wrap;
    larger[at] = base_ + uint32_t(i);
  }
  buckets_ = std::move(larger);
}

} // namespace kvq::ptxsim
