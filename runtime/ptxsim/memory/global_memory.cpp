// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/memory/global_memory.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace kvq::ptxsim {

namespace {

constexpr int64_t kLimit = int64_t(64) << 30;
// Windows are used once until so many were: a pointer to released memory then finds nothing instead of a new
// allocation.
constexpr size_t kFreshWindows = size_t(1) << 20;
// What uninitialised memory holds: NaN in every floating-point type, so that results show it where the check is off.
constexpr uint8_t kUninitialised = 0xff;

size_t windowsOf(int64_t bytes) { return size_t(bytes >> 32) + 1; }

std::string hex(uint64_t address) {
  char text[20];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(address));
  return text;
}

Status invalid(std::string message) { return {Code::InvalidArgument, std::move(message)}; }

// The offset of a range within its allocation, or why it has none.
Result<int64_t> offsetOf(const Allocation *allocation, uint64_t address, int64_t bytes) {
  if (bytes < 0)
    return invalid("a negative number of bytes");
  if (!allocation)
    return invalid("address " + hex(address) + " is in no allocation");
  const uint64_t offset = address - allocation->base;
  if (offset > uint64_t(allocation->size) || bytes > allocation->size - int64_t(offset))
    return invalid(std::to_string(bytes) + " bytes at offset " + std::to_string(offset) + " leave allocation '" +
                   allocation->name + "' of " + std::to_string(allocation->size) + " bytes");
  return int64_t(offset);
}

} // namespace

GlobalMemory::GlobalMemory() = default;
GlobalMemory::~GlobalMemory() = default;

Result<uint64_t> GlobalMemory::allocate(int64_t bytes, std::string name) {
  if (bytes <= 0)
    return invalid("an allocation needs at least one byte, not " + std::to_string(bytes));
  if (bytes > kLimit - inUse_)
    return Status(Code::ResourceExhausted, "global memory of the simulator is 64 GiB; " + std::to_string(inUse_) +
                                               " bytes are in use and " + std::to_string(bytes) + " were asked for");
  const size_t count = windowsOf(bytes);
  size_t first = windows_.size();
  if (first + count > kFreshWindows) {
    const std::vector<Allocation *> run(count, nullptr);
    first = size_t(std::search(windows_.begin(), windows_.end(), run.begin(), run.end()) - windows_.begin());
  }
  auto allocation = std::make_unique<Allocation>();
  allocation->base = (kFirstWindow + first) << 32;
  allocation->size = bytes;
  allocation->name = std::move(name);
  allocation->data.assign(size_t(bytes), kUninitialised);
  allocation->written.assign(size_t(bytes), 0);
  windows_.resize(std::max(windows_.size(), first + count));
  std::fill_n(windows_.begin() + ptrdiff_t(first), count, allocation.get());
  inUse_ += bytes;
  owned_.push_back(std::move(allocation));
  return owned_.back()->base;
}

Status GlobalMemory::release(uint64_t base) {
  const Allocation *allocation = find(base);
  if (!allocation || allocation->base != base)
    return invalid("address " + hex(base) + " is not the start of an allocation");
  std::fill_n(windows_.begin() + ptrdiff_t((base >> 32) - kFirstWindow), windowsOf(allocation->size), nullptr);
  inUse_ -= allocation->size;
  std::erase_if(owned_, [&](const auto &one) { return one.get() == allocation; });
  return Status::ok();
}

Status GlobalMemory::write(uint64_t address, std::span<const uint8_t> bytes) {
  if (bytes.empty())
    return Status::ok();
  Allocation *allocation = find(address);
  const Result<int64_t> offset = offsetOf(allocation, address, int64_t(bytes.size()));
  if (!offset.isOk())
    return offset.status();
  std::memcpy(allocation->data.data() + offset.value(), bytes.data(), bytes.size());
  std::memset(allocation->written.data() + offset.value(), 1, bytes.size());
  return Status::ok();
}

Status GlobalMemory::read(uint64_t address, std::span<uint8_t> bytes) const {
  if (bytes.empty())
    return Status::ok();
  const Allocation *allocation = find(address);
  const Result<int64_t> offset = offsetOf(allocation, address, int64_t(bytes.size()));
  if (!offset.isOk())
    return offset.status();
  std::memcpy(bytes.data(), allocation->data.data() + offset.value(), bytes.size());
  return Status::ok();
}

Status GlobalMemory::fill(uint64_t address, int64_t bytes, uint8_t value) {
  if (bytes == 0)
    return Status::ok();
  Allocation *allocation = find(address);
  const Result<int64_t> offset = offsetOf(allocation, address, bytes);
  if (!offset.isOk())
    return offset.status();
  std::memset(allocation->data.data() + offset.value(), value, size_t(bytes));
  std::memset(allocation->written.data() + offset.value(), 1, size_t(bytes));
  return Status::ok();
}

Status GlobalMemory::copy(uint64_t to, uint64_t from, int64_t bytes) {
  if (bytes == 0)
    return Status::ok();
  Allocation *target = find(to);
  const Allocation *source = find(from);
  const Result<int64_t> targetOffset = offsetOf(target, to, bytes);
  if (!targetOffset.isOk())
    return targetOffset.status();
  const Result<int64_t> sourceOffset = offsetOf(source, from, bytes);
  if (!sourceOffset.isOk())
    return sourceOffset.status();
  const int64_t t = targetOffset.value(), s = sourceOffset.value();
  std::memmove(target->data.data() + t, source->data.data() + s, size_t(bytes));
  std::memmove(target->written.data() + t, source->written.data() + s, size_t(bytes));
  return Status::ok();
}

Status GlobalMemory::addRegion(uint64_t address, int64_t bytes, std::string name) {
  if (bytes <= 0)
    return invalid("a region needs at least one byte, not " + std::to_string(bytes));
  Allocation *allocation = find(address);
  const Result<int64_t> offset = offsetOf(allocation, address, bytes);
  if (!offset.isOk())
    return offset.status();
  const int64_t begin = offset.value(), end = begin + bytes;
  std::vector<Region> &regions = allocation->regions;
  const auto next = std::lower_bound(regions.begin(), regions.end(), begin,
                                     [](const Region &region, int64_t at) { return region.end <= at; });
  if (next != regions.end() && next->begin < end)
    return invalid("region '" + name + "' overlaps region '" + next->name + "' of allocation '" + allocation->name +
                   "'");
  regions.insert(next, {begin, end, std::move(name)});
  return Status::ok();
}

Status GlobalMemory::setReadOnly(uint64_t base, bool readOnly) {
  Allocation *allocation = find(base);
  if (!allocation || allocation->base != base)
    return invalid("address " + hex(base) + " is not the start of an allocation");
  allocation->readOnly = readOnly;
  return Status::ok();
}

} // namespace kvq::ptxsim
