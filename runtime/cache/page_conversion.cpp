// SPDX-License-Identifier: Apache-2.0
#include "runtime/cache/page_conversion.h"

namespace kvq {

static constexpr int64_t kPageAlignment = 64; // kernel_abi.h

Status PageConversion::prepare(Profile from, size_t blocks) {
  for (bool isK : {true, false}) {
    auto opened = device_.open(convertRequest(config_, isK, from));
    KVQ_RETURN_IF_ERROR(opened.status());
    kernels_[isK ? 0 : 1] = opened.value();
  }
  items_.resize(blocks * config_.kvHeads);
  if (!memory_.isHost())
    KVQ_RETURN_IF_ERROR(itemsSeen_.reserve(static_cast<int64_t>(items_.size() * sizeof(items_[0]))));
  return pages_.reserve(static_cast<int64_t>(blocks) * geometry_.blockBytes + kPageAlignment);
}

void PageConversion::setBlocks(std::span<const int32_t> blocks) {
  for (size_t i = 0; i < items_.size(); ++i) {
    const auto block = static_cast<int32_t>(i / config_.kvHeads), head = static_cast<int32_t>(i % config_.kvHeads);
    items_[i] = {block, blocks[block], head, 0};
  }
  if (!memory_.isHost())
    memory_.copyIn(itemsSeen_.address(), items_.data(), static_cast<int64_t>(items_.size() * sizeof(items_[0])));
}

Status PageConversion::convert(const uint8_t *from, DeviceAddress pool) {
  const auto programs = static_cast<int64_t>(items_.size());
  const DeviceAddress source = (pages_.address() + kPageAlignment - 1) / kPageAlignment * kPageAlignment;
  memory_.copyIn(source, from, programs * geometry_.pageBytes);
  uint64_t args[KVQ_CONVERT_ARGS];
  args[KVQ_CONVERT_ITEMS] = memory_.isHost() ? reinterpret_cast<DeviceAddress>(items_.data()) : itemsSeen_.address();
  args[KVQ_CONVERT_SOURCE] = source;
  args[KVQ_CONVERT_SOURCE_BLOCK_STRIDE] = static_cast<uint64_t>(geometry_.pageBytes * config_.kvHeads);
  args[KVQ_CONVERT_SOURCE_HEAD_STRIDE] = static_cast<uint64_t>(geometry_.pageBytes);
  args[KVQ_CONVERT_PAGES] = pool;
  args[KVQ_CONVERT_BLOCK_STRIDE] = static_cast<uint64_t>(geometry_.blockStride);
  args[KVQ_CONVERT_HEAD_STRIDE] = static_cast<uint64_t>(geometry_.headStride);
  for (const KernelRef &kernel : kernels_)
    KVQ_RETURN_IF_ERROR(memory_.launch(device_, *kernel, args, programs, Spread::Parallel));
  return Status::ok();
}

} // namespace kvq
