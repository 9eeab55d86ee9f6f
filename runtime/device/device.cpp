// SPDX-License-Identifier: Apache-2.0
//
// Launching: a grid of programs, in order on the caller's thread or spread over a parallel-for.
#include "runtime/device/device.h"

#include <atomic>

namespace kvq {

namespace {

struct Launch {
  const Kernel &kernel;
  const uint64_t *args;
  const int64_t *grid;
  std::atomic<int32_t> failure{0};

  void program(int64_t index) {
    const int64_t id[3] = {index % grid[0], index / grid[0] % grid[1], index / grid[0] / grid[1]};
    if (int32_t code = kernel.run(args, id); code != 0)
      failure.store(code, std::memory_order_relaxed);
  }
};

} // namespace

Status Device::launch(const Kernel &kernel, const uint64_t *args, const int64_t grid[3], Spread spread) const {
  const int64_t count = grid[0] * grid[1] * grid[2];
  Launch launch{kernel, args, grid};
  if (spread == Spread::Serial || count <= 1) {
    for (int64_t i = 0; i < count; ++i)
      launch.program(i);
  } else {
    parallel_->run(count, [](void *data, int64_t index) { static_cast<Launch *>(data)->program(index); }, &launch);
  }
  if (int32_t code = launch.failure.load())
    return {Code::Internal,
            "kernel " + kernel.info().name + " returned " + std::to_string(code) + ": please report it"};
  return Status::ok();
}

std::string builtinSignature(const KernelRequest &request) {
  const std::string data = "ptr<" + std::string(toText(request.type)) + ">";
  switch (request.op) {
  case KernelOp::Append:
    return "ptr<i8> " + data + " i64 " + data + " i64 " + data + " " + data + " i64 i64 i64 ptr<i32>";
  case KernelOp::QuantizeK:
  case KernelOp::QuantizeV:
    return "ptr<i8> ptr<i8> i64 i64 " + data + " i64 i64 i64";
  case KernelOp::Attend:
    return "ptr<i8> " + data + " ptr<i64> i64 ptr<i8> i64 i64 ptr<i32> " + data + " " + data +
           " i64 i64 i64 ptr<i32> ptr<i32> ptr<i32> f32 i64 f32 ptr<f32> ptr<f32> i64";
  case KernelOp::Merge:
    return "ptr<f32> ptr<f32> i64 i64 ptr<i32> " + data + " ptr<i64> i64 ptr<f32> ptr<f32> i64";
  case KernelOp::DequantizeK:
  case KernelOp::DequantizeV:
    return "ptr<i8> ptr<i8> i64 i64 " + data + " i64";
  case KernelOp::ConvertK:
  case KernelOp::ConvertV:
    return "ptr<i8> ptr<i8> i64 i64 ptr<i8> i64 i64";
  }
  return "";
}

} // namespace kvq
