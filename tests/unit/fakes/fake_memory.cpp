// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/fakes/fake_memory.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

using namespace kvq;

namespace kvq_test {

namespace {

constexpr int64_t kPage = 4096;

// What the signal's handler looks through.
struct Mapping {
  std::atomic<uintptr_t> begin{0}, end{0};
};
std::array<Mapping, 64> mappings;
struct sigaction before;

void onFault(int signal, siginfo_t *info, void *) {
  const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Mapping &mapping : mappings)
    if (at >= mapping.begin && at < mapping.end) {
      constexpr char text[] = "\nFAILURE: the host touched the fake accelerator's memory, which only the device's own "
                              "copies and kernels may\n";
      (void)!write(2, text, sizeof(text) - 1);
      _exit(1);
    }
  sigaction(signal, &before, nullptr); // no business of ours: it comes again
}

void watch(uintptr_t begin, uintptr_t end) {
  static const bool installed = [] {
    struct sigaction action{};
    action.sa_sigaction = onFault;
    action.sa_flags = SA_SIGINFO;
    return sigaction(SIGSEGV, &action, &before) == 0;
  }();
  (void)installed;
  for (Mapping &mapping : mappings)
    if (uintptr_t none = 0; mapping.begin.compare_exchange_strong(none, begin)) {
      mapping.end = end;
      return;
    }
}

void unwatch(uintptr_t begin) {
  for (Mapping &mapping : mappings)
    if (mapping.begin == begin) {
      mapping.end = 0;
      mapping.begin = 0;
    }
}

} // namespace

FakeMemory::FakeMemory(int64_t bytes) : bytes_((bytes + kPage - 1) / kPage * kPage) {
  void *mapped = mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    bytes_ = 0;
    return;
  }
  base_ = static_cast<uint8_t *>(mapped);
  watch(reinterpret_cast<uintptr_t>(base_), reinterpret_cast<uintptr_t>(base_) + bytes_);
}

FakeMemory::~FakeMemory() {
  if (!base_)
    return;
  unwatch(reinterpret_cast<uintptr_t>(base_));
  munmap(base_, bytes_);
}

void FakeMemory::protect(bool open) { mprotect(base_, bytes_, open ? PROT_READ | PROT_WRITE : PROT_NONE); }

// The first hole between allocations that is large enough; each begins a page, so that no two are neighbours.
Result<DeviceAddress> FakeMemory::allocate(int64_t bytes, const std::string &name) {
  const int64_t size = (bytes + kPage - 1) / kPage * kPage + kPage;
  const auto base = reinterpret_cast<DeviceAddress>(base_);
  DeviceAddress at = base;
  for (const auto &[begin, length] : allocations_) {
    if (begin - at >= static_cast<uint64_t>(size))
      break;
    at = begin + (length + kPage - 1) / kPage * kPage + kPage;
  }
  if (at + size > base + bytes_)
    return Status(Code::ResourceExhausted, "no room for " + name + ": " + std::to_string(freeBytes()) + " bytes of " +
                                               std::to_string(bytes_) + " are free");
  allocations_[at] = bytes;
  used_ += size;
  const Open open(*this);
  std::memset(reinterpret_cast<void *>(at), 0xff, bytes);
  return at;
}

Status FakeMemory::release(DeviceAddress address) {
  const auto found = allocations_.find(address);
  if (found == allocations_.end())
    return {Code::InvalidArgument, std::to_string(address) + " was never allocated"};
  used_ -= (found->second + kPage - 1) / kPage * kPage + kPage;
  {
    const Open open(*this);
    std::memset(reinterpret_cast<void *>(address), 0xff, found->second);
  }
  allocations_.erase(found);
  return Status::ok();
}

Status FakeMemory::check(DeviceAddress address, int64_t bytes) const {
  const auto next = allocations_.upper_bound(address);
  if (next != allocations_.begin()) {
    const auto &[begin, length] = *std::prev(next);
    if (bytes >= 0 && address + bytes <= begin + length)
      return Status::ok();
  }
  return {Code::InvalidArgument,
          std::to_string(bytes) + " bytes at " + std::to_string(address) + " are not in one allocation of the device"};
}

} // namespace kvq_test
