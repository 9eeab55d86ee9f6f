// SPDX-License-Identifier: Apache-2.0
#include "runtime/cache/cache_memory.h"

#include <algorithm>

namespace kvq {

CacheMemory::CacheMemory(Accelerator *accelerator)
    : accelerator_(accelerator), stream_(accelerator ? &accelerator->defaultStream() : nullptr) {}

CacheMemory::~CacheMemory() { (void)wait(); } // a failure has been, or will be, answered by the device's next call

void CacheMemory::goTo(Stream &stream) {
  if (&stream == stream_)
    return;
  if (!switched_) {
    auto made = accelerator_->createEvent();
    if (!made.isOk())
      return note(made.status());
    switched_ = made.value();
  }
  note(stream_->record(*switched_));
  stream_ = &stream;
  note(stream_->wait(*switched_));
}

Status Scratch::reserve(int64_t bytes) {
  if (bytes <= bytes_)
    return Status::ok();
  if (memory_.isHost()) {
    host_.resize(bytes);
    address_ = reinterpret_cast<DeviceAddress>(host_.data());
    bytes_ = bytes;
    return Status::ok();
  }
  // Half more than is needed, as sizes grow with the batch step by step.
  const int64_t size = std::max(bytes, bytes_ + bytes_ / 2);
  auto address = memory_.accelerator()->allocate(size, name_);
  if (!address.isOk())
    return address.status();
  release();
  address_ = address.value();
  bytes_ = size;
  return Status::ok();
}

void Scratch::release() {
  if (!memory_.isHost() && address_)
    (void)memory_.accelerator()->release(address_); // after all work
  address_ = 0;
}

} // namespace kvq
