// SPDX-License-Identifier: Apache-2.0
//
// cp.async without bulk (PTX ISA, "Data Movement and Conversion Instructions: cp.async").
#include "runtime/ptxsim/memory/async_copy.h"
#include "runtime/ptxsim/isa/ordering.h"
#include "runtime/ptxsim/memory/mbarrier.h"

#include <algorithm>

namespace kvq::ptxsim {

namespace {

constexpr Intent kCopyFrom{AccessKind::Read, true, false, "cp.async"};
constexpr Intent kCopyTo{AccessKind::Write, false, true, "cp.async"};

// The lanes outside the mask get an address of one inside.
void restrict(Addresses &to, const Addresses &from, uint32_t mask) {
  for (int lane = 0; lane < kLanes; ++lane)
    to[lane] = from[mask >> lane & 1 ? lane : std::countr_zero(mask)];
}

// Reads `size` bytes at each lane's source: checks, and keeps where they lie.
void readSource(Warp &warp, const Op &op, uint32_t lanes, const Addresses &sources, uint32_t size, AsyncCopy &copy) {
  const uint32_t crooked = lanesWhere(lanes, [&](int lane) { return sources[lane] & (copy.bytes - 1); });
  if (size != copy.bytes && crooked)
    report(warp, op, Check::Align, crooked,
           "the source of a cp.async is not a multiple of " + std::to_string(copy.bytes),
           {"global", sources[std::countr_zero(crooked)], ""});
  // An odd size is read in pieces, as the checks know powers of two.
  uint32_t good = lanes;
  for (uint32_t done = 0; done < size && good;) {
    const uint32_t piece = std::bit_floor(size - done);
    Addresses at;
    restrict(at, sources, good);
    for (uint64_t &address : at)
      address += done;
    Access access;
    accessGlobal(warp, op, good, at, piece, kCopyFrom, access);
    if (done == 0)
      forLanes(access.mask, [&](int lane) {
        copy.from[lane] = access.of(lane);
        copy.fromBytes[lane] = uint8_t(size);
      });
    forLanes(good & ~access.mask, [&](int lane) { copy.fromBytes[lane] = 0; });
    good = access.mask;
    done += piece;
  }
}

void issueCopy(Warp &warp, const Op &op, uint32_t mask, const uint32_t *sizes) {
  Addresses targets, sources;
  readAddresses(warp, op, op.sources[0], mask, targets);
  readAddresses(warp, op, op.sources[1], mask, sources, true);
  AsyncCopy copy;
  copy.bytes = uint32_t(op.immediate);
  Access access;
  accessShared(warp, op, mask, targets, copy.bytes, kCopyTo, access);
  copy.lanes = access.mask;
  forLanes(mask, [&](int lane) {
    copy.to[lane] = uint32_t(targets[lane]);
    copy.fromBytes[lane] = 0;
    copy.from[lane] = nullptr;
  });
  for (uint32_t rest = mask; rest;) {
    const uint32_t size = sizes[std::countr_zero(rest)];
    const uint32_t lanes = lanesWhere(rest, [&](int lane) { return sizes[lane] == size; });
    rest &= ~lanes;
    if (size > 0)
      readSource(warp, op, lanes, sources, size, copy);
  }
  if (copy.lanes)
    warp.async->issue(warp, copy);
}

bool isSize(uint64_t bytes) { return bytes == 4 || bytes == 8 || bytes == 16; }

// The third source, if there is one, is the src-size; or not, where only a cache policy is given.
template <bool sized> void copy(Warp &warp, const Op &op, uint32_t mask) {
  if (!isSize(op.immediate)) {
    report(warp, op, Check::Bounds, mask, "cp.async copies 4, 8 or 16 bytes, not " + std::to_string(op.immediate));
    return;
  }
  uint32_t sizes[kLanes];
  const uint32_t *given = sized && op.sourceCount > 2 ? warp.at<uint32_t>(op.sources[2]) : nullptr;
  for (int lane = 0; lane < kLanes; ++lane)
    sizes[lane] = given ? given[lane] : uint32_t(op.immediate);
  const uint32_t tooMany = lanesWhere(mask, [&](int lane) { return sizes[lane] > op.immediate; });
  if (tooMany)
    report(warp, op, Check::Bounds, tooMany,
           "the src-size " + std::to_string(sizes[std::countr_zero(tooMany)]) +
               " of a cp.async is more than its cp-size " + std::to_string(op.immediate));
  for (uint32_t &size : sizes)
    size = std::min(size, uint32_t(op.immediate));
  issueCopy(warp, op, mask, sizes);
}

// With the predicate ignore-src, the third source.
void copyUnlessIgnored(Warp &warp, const Op &op, uint32_t mask) {
  const uint32_t ignored = warp.predicate(op.sources[2]);
  uint32_t sizes[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    sizes[lane] = ignored >> lane & 1 ? 0 : uint32_t(op.immediate);
  issueCopy(warp, op, mask, sizes);
}

void commitGroup(Warp &warp, const Op &, uint32_t mask) { warp.async->commit(mask); }
void waitGroup(Warp &warp, const Op &op, uint32_t mask) { warp.async->waitGroups(warp, mask, uint32_t(op.immediate)); }
void waitAll(Warp &warp, const Op &, uint32_t mask) { warp.async->waitAll(warp, mask); }

} // namespace

void addAsyncCopy(Table &table) {
  // .ca and .cg are hints. A cache policy may come last.
  const char *name = "cp.async.shared[::cta|::cluster].global";
  table.add(name, "= addr addr imm b32? b64?", OpClass::AsyncCopy, copy<true>).space(Space::Shared);
  table.add(name, "= addr addr imm b64", OpClass::AsyncCopy, copy<false>).space(Space::Shared);
  table.add(name, "= addr addr imm pred b64?", OpClass::AsyncCopy, copyUnlessIgnored).space(Space::Shared);
  table.add("cp.async.commit_group", "=", OpClass::AsyncCopy, commitGroup);
  table.add("cp.async.wait_group", "= imm", OpClass::AsyncCopy, waitGroup);
  table.add("cp.async.wait_all", "=", OpClass::AsyncCopy, waitAll);
}

} // namespace kvq::ptxsim
