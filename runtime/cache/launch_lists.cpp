// SPDX-License-Identifier: Apache-2.0
#include "runtime/cache/launch_lists.h"

#include <algorithm>

namespace kvq {

static constexpr int64_t kAlign = 64;

Status LaunchLists::place(const std::array<int64_t, kLists> &bytes) {
  int64_t end = 0;
  for (int list = 0; list < kLists; ++list) {
    begin_[list] = end;
    end += (bytes[list] + kAlign - 1) / kAlign * kAlign;
  }
  if (end <= static_cast<int64_t>(host_.size()))
    return Status::ok();
  KVQ_RETURN_IF_ERROR(memory_.wait()); // host_ may be on its way
  KVQ_RETURN_IF_ERROR(device_.reserve(end));
  host_.assign(device_.bytes(), 0);
  // Nothing of it is on the device yet: the next send() takes along whatever is in host_.
  changedBegin_ = 0;
  changedEnd_ = end;
  return Status::ok();
}

Status LaunchLists::set(int list, const void *data, int64_t bytes) {
  uint8_t *at = host_.data() + begin_[list];
  if (bytes == 0 || std::memcmp(at, data, bytes) == 0)
    return Status::ok();
  if (sentAt_ == memory_.waits())
    KVQ_RETURN_IF_ERROR(memory_.wait());
  std::memcpy(at, data, bytes);
  const bool none = changedBegin_ == changedEnd_;
  changedBegin_ = none ? begin_[list] : std::min(changedBegin_, begin_[list]);
  changedEnd_ = none ? begin_[list] + bytes : std::max(changedEnd_, begin_[list] + bytes);
  return Status::ok();
}

void LaunchLists::send() {
  if (changedBegin_ == changedEnd_)
    return;
  memory_.copyIn(device_.address() + changedBegin_, host_.data() + changedBegin_, changedEnd_ - changedBegin_);
  changedBegin_ = changedEnd_ = 0;
  sentAt_ = memory_.waits();
}

} // namespace kvq
