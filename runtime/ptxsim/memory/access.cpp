// SPDX-License-Identifier: Apache-2.0
//
// What the spaces have in common, and the spaces that need no race check: local, constant, parameters, generic.
#include "runtime/ptxsim/memory/access.h"
#include "runtime/ptxsim/memory/address.h"
#include "runtime/ptxsim/memory/local_memory.h"

#include <cstdio>

namespace kvq::ptxsim {

void readAddresses(const Warp &warp, const Op &op, Slot base, uint32_t mask, Addresses &out, bool second) {
  const uint64_t offset = uint64_t(second ? op.secondOffset : op.offset);
  if ((second ? op.secondAddressBytes : op.addressBytes) == 8) {
    const uint64_t *from = warp.at<uint64_t>(base);
    for (int lane = 0; lane < kLanes; ++lane)
      out[lane] = from[lane] + offset;
  } else {
    const uint32_t *from = warp.at<uint32_t>(base);
    for (int lane = 0; lane < kLanes; ++lane)
      out[lane] = uint32_t(from[lane] + uint32_t(offset));
  }
  if (mask == kFull)
    return;
  const uint64_t inside = out[std::countr_zero(mask)];
  for (int lane = 0; lane < kLanes; ++lane)
    out[lane] = mask >> lane & 1 ? out[lane] : inside;
}

Pattern patternOf(const Addresses &addresses, uint32_t mask, uint32_t bytes) {
  const uint64_t first = addresses[0];
  uint64_t step = 0, same = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    same |= addresses[lane] ^ first;
  if (!same)
    return Pattern::Same;
  if (mask & (mask + 1)) // not lanes 0 to n
    return Pattern::Any;
  if (mask == kFull) {
    for (int lane = 0; lane < kLanes; ++lane)
      step |= (addresses[lane] - first) ^ uint32_t(lane) * bytes;
  } else {
    for (int lane = 0; mask >> lane; ++lane)
      step |= (addresses[lane] - first) ^ uint32_t(lane) * bytes;
  }
  return step ? Pattern::Any : Pattern::Consecutive;
}

std::string hexadecimal(uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string nameOf(const Intent &intent, uint32_t bytes) {
  return std::string(intent.verb) + " of " + std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
}

namespace {

// Bounds and alignment of a space that is `size` bytes from 0 on. Returns the lanes that may go on.
uint32_t checkSmall(Warp &warp, const Op &op, uint32_t mask, const Addresses &addresses, uint32_t bytes,
                    const Intent &intent, uint64_t size, const char *space) {
  uint64_t differ = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    differ |= addresses[lane] ^ addresses[0];
  if (!differ && addresses[0] + bytes <= size && addresses[0] < size && !(addresses[0] & (bytes - 1)))
    return mask;
  const uint32_t outside =
      lanesWhere(mask, [&](int lane) { return addresses[lane] > size || size - addresses[lane] < bytes; });
  if (outside && warp.worker->check(Check::Bounds)) {
    const uint64_t at = addresses[std::countr_zero(outside)];
    report(warp, op, Check::Bounds, outside,
           nameOf(intent, bytes) + " at offset " + std::to_string(at) + " of " + space + " memory, which has " +
               std::to_string(size) + " bytes",
           {space, at, ""});
  }
  const uint32_t inside = mask & ~outside;
  const uint32_t crooked = lanesWhere(inside, [&](int lane) { return addresses[lane] & (bytes - 1); });
  if (crooked && warp.worker->check(Check::Align)) {
    const uint64_t at = addresses[std::countr_zero(crooked)];
    report(warp, op, Check::Align, crooked,
           nameOf(intent, bytes) + " at offset " + std::to_string(at) + " of " + space +
               " memory, which is not a multiple of " + std::to_string(bytes),
           {space, at, ""});
  }
  return inside;
}

// Memory that all lanes share and nobody writes.
void accessBytes(Warp &warp, const Op &op, uint32_t mask, const Addresses &addresses, uint32_t bytes,
                 const Intent &intent, const std::vector<uint8_t> &memory, const char *space, Access &out) {
  out.bytes = bytes;
  out.mask = checkSmall(warp, op, mask, addresses, bytes, intent, memory.size(), space);
  if (intent.writes && out.mask) {
    if (warp.worker->check(Check::Bounds))
      report(warp, op, Check::Bounds, out.mask, nameOf(intent, bytes) + " to " + space + " memory, which is read-only",
             {space, addresses[std::countr_zero(out.mask)], ""});
    out.mask = 0;
  }
  out.pattern = out.mask == mask ? patternOf(addresses, mask, bytes) : Pattern::Any;
  uint8_t *base = const_cast<uint8_t *>(memory.data());
  if (out.pattern != Pattern::Any)
    out.first = base + addresses[0];
  else
    forLanes(out.mask, [&](int lane) { out.at[lane] = base + addresses[lane]; });
}

} // namespace

void accessParam(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                 Access &out) {
  accessBytes(warp, op, mask, addresses, bytes, intent, warp.worker->launch->launch->params, "param", out);
}

void accessConst(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                 Access &out) {
  static const std::vector<uint8_t> none;
  const std::vector<uint8_t> *bank = warp.worker->launch->constants;
  accessBytes(warp, op, mask, addresses, bytes, intent, bank ? *bank : none, "const", out);
}

void accessLocal(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                 Access &out) {
  static LocalMemory none;
  LocalMemory &local = warp.local ? *warp.local : none;
  ++warp.worker->counters.localRequests;
  out.bytes = bytes;
  out.pattern = Pattern::Any;
  out.mask = checkSmall(warp, op, mask, addresses, bytes, intent, uint64_t(local.size()), "local");
  uint32_t unwritten = 0;
  const bool checks = intent.reads && warp.worker->check(Check::UninitMemory);
  forLanes(out.mask, [&](int lane) {
    out.at[lane] = local.data(lane) + addresses[lane];
    uint8_t *written = local.written(lane) + addresses[lane];
    if (checks && !allWritten(written, bytes))
      unwritten |= 1u << lane;
    if (intent.writes)
      std::memset(written, 1, bytes);
  });
  if (unwritten) {
    const uint64_t at = addresses[std::countr_zero(unwritten)];
    report(warp, op, Check::UninitMemory, unwritten,
           nameOf(intent, bytes) + " at offset " + std::to_string(at) + " of local memory, which was not written",
           {"local", at, ""});
  }
}

void accessGeneric(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                   Access &out, uint32_t *shared) {
  const auto one = [&](Space space, uint32_t lanes, Addresses &at, Access &to) {
    switch (space) {
    case Space::Shared:
      if (shared)
        *shared |= lanes;
      return accessShared(warp, op, lanes, at, bytes, intent, to);
    case Space::Local:
      return accessLocal(warp, op, lanes, at, bytes, intent, to);
    case Space::Const:
      return accessConst(warp, op, lanes, at, bytes, intent, to);
    case Space::Param:
      return accessParam(warp, op, lanes, at, bytes, intent, to);
    default:
      return accessGlobal(warp, op, lanes, at, bytes, intent, to);
    }
  };
  if (shared)
    *shared = 0;
  const Space first = spaceOf(addresses[std::countr_zero(mask)]);
  uint32_t rest = lanesWhere(mask, [&](int lane) { return spaceOf(addresses[lane]) != first; });
  if (!rest) {
    for (uint64_t &address : addresses)
      address -= genericBase(first);
    return one(first, mask, addresses, out);
  }
  out = {};
  out.bytes = bytes;
  rest = mask;
  while (rest) { // a warp whose lanes point into several spaces
    const Space space = spaceOf(addresses[std::countr_zero(rest)]);
    const uint32_t lanes = lanesWhere(rest, [&](int lane) { return spaceOf(addresses[lane]) == space; });
    Addresses inSpace;
    for (int lane = 0; lane < kLanes; ++lane)
      inSpace[lane] = addresses[lanes >> lane & 1 ? lane : std::countr_zero(lanes)] - genericBase(space);
    Access part;
    one(space, lanes, inSpace, part);
    forLanes(part.mask, [&](int lane) { out.at[lane] = part.of(lane); });
    out.mask |= part.mask;
    rest &= ~lanes;
  }
}

} // namespace kvq::ptxsim
