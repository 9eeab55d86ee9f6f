// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/gpu/gpu.h"

#include <cstdio>
#include <cstring>

namespace kvq::ptxsim {

// What the report says of the end, without the list of warps behind it.
static std::string endOf(const Report &report) {
  std::string line = report.message.substr(0, report.message.find('\n'));
  while (line.ends_with(':') || line.ends_with(' '))
    line.pop_back();
  return "kernel " + report.kernel + ": " + line;
}

Failure failureOf(const Report &report) {
  using Kind = Failure::Kind;
  if (report.end == Report::End::Deadlock || report.end == Report::End::Limit)
    return {Kind::Timeout, endOf(report)};
  if (report.findings.empty())
    return report.end == Report::End::Trap ? Failure{Kind::LaunchFailure, endOf(report)} : Failure{};
  const Finding &first = report.findings.front();
  std::string message = "kernel " + first.kernel + ", line " + std::to_string(first.line) + ", block (" +
                        std::to_string(first.block[0]) + ", " + std::to_string(first.block[1]) + ", " +
                        std::to_string(first.block[2]) + "), warp " + std::to_string(first.warp) + ", lane " +
                        std::to_string(first.lane) + ": " + nameOf(first.check) + ": " + first.message;
  switch (first.check) {
  case Check::Bounds:
    return {Kind::IllegalAddress, std::move(message)};
  case Check::Align:
    return {Kind::Misaligned, std::move(message)};
  default:
    return {Kind::LaunchFailure, std::move(message)};
  }
}

Gpu::Gpu(Settings settings) : settings_(std::move(settings)), queue_(settings_.options.seed) {}

Result<uint64_t> Gpu::allocate(int64_t bytes, std::string name) {
  if (bytes <= 0)
    return Status(Code::InvalidArgument, "an allocation of " + std::to_string(bytes) + " bytes is not possible");
  if (bytes > freeBytes())
    return Status(Code::ResourceExhausted, "the device has " + std::to_string(freeBytes()) + " bytes free but " +
                                               std::to_string(bytes) + " are needed");
  return simulator_.memory().allocate(bytes, std::move(name));
}

Status Gpu::release(uint64_t base) {
  (void)queue_.runAll(); // a failure shows at the next wait
  return simulator_.memory().release(base);
}

int64_t Gpu::freeBytes() const {
  return settings_.memoryBytes - const_cast<Simulator &>(simulator_).memory().bytesInUse();
}

Status Gpu::checkRange(uint64_t address, int64_t bytes) const {
  const Allocation *allocation = const_cast<Simulator &>(simulator_).memory().find(address);
  const uint64_t offset = allocation ? address - allocation->base : 0;
  if (bytes < 0 || !allocation || address < allocation->base || offset > static_cast<uint64_t>(allocation->size) ||
      static_cast<uint64_t>(bytes) > static_cast<uint64_t>(allocation->size) - offset) {
    char text[32];
    std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(address));
    return {Code::InvalidArgument, std::to_string(bytes) + " bytes at " + text + " lie in no buffer of the device"};
  }
  return Status::ok();
}

Status Gpu::copyIn(StreamId stream, uint64_t to, const void *from, int64_t bytes) {
  KVQ_RETURN_IF_ERROR(checkRange(to, bytes));
  queue_.push(stream, [this, to, from, bytes] {
    return simulator_.memory().write(to, {static_cast<const uint8_t *>(from), static_cast<size_t>(bytes)});
  });
  return Status::ok();
}

Status Gpu::copyIn(StreamId stream, uint64_t to, std::vector<uint8_t> from) {
  KVQ_RETURN_IF_ERROR(checkRange(to, static_cast<int64_t>(from.size())));
  queue_.push(stream, [this, to, data = std::move(from)] { return simulator_.memory().write(to, data); });
  return Status::ok();
}

Status Gpu::copyOut(StreamId stream, void *to, uint64_t from, int64_t bytes) {
  KVQ_RETURN_IF_ERROR(checkRange(from, bytes));
  queue_.push(stream, [this, to, from, bytes] {
    return simulator_.memory().read(from, {static_cast<uint8_t *>(to), static_cast<size_t>(bytes)});
  });
  return Status::ok();
}

Status Gpu::copy(StreamId stream, uint64_t to, uint64_t from, int64_t bytes) {
  KVQ_RETURN_IF_ERROR(checkRange(to, bytes));
  KVQ_RETURN_IF_ERROR(checkRange(from, bytes));
  queue_.push(stream, [this, to, from, bytes] { return simulator_.memory().copy(to, from, bytes); });
  return Status::ok();
}

Status Gpu::fill(StreamId stream, uint64_t to, int64_t bytes, std::span<const uint8_t> value) {
  KVQ_RETURN_IF_ERROR(checkRange(to, bytes));
  if (value.size() == 1) {
    queue_.push(stream, [this, to, bytes, byte = value[0]] { return simulator_.memory().fill(to, bytes, byte); });
    return Status::ok();
  }
  queue_.push(stream, [this, to, bytes, pattern = std::vector<uint8_t>(value.begin(), value.end())] {
    std::vector<uint8_t> data(static_cast<size_t>(bytes));
    for (size_t i = 0; i + pattern.size() <= data.size(); i += pattern.size())
      std::memcpy(data.data() + i, pattern.data(), pattern.size());
    return simulator_.memory().write(to, data);
  });
  return Status::ok();
}

Status Gpu::checkLaunch(const KernelAttributes &kernel, const Launch &launch, int64_t sharedLimit) const {
  const auto wrong = [&](Code code, const std::string &why) {
    return Status(code, "launch of " + kernel.name + ": " + why);
  };
  const Dim &grid = launch.grid, &block = launch.block;
  if (grid.count() == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return wrong(Code::InvalidArgument, "the grid must have 1 to 2147483647, 65535 and 65535 blocks");
  if (block.count() == 0 || block.x > kMaxThreads || block.y > kMaxThreads || block.z > 64 ||
      block.count() > kMaxThreads)
    return wrong(Code::InvalidArgument, "a block must have 1 to 1024 threads, at most 64 along z");
  if (kernel.reqntid[0] &&
      (block.x != kernel.reqntid[0] || block.y != kernel.reqntid[1] || block.z != kernel.reqntid[2]))
    return wrong(Code::InvalidArgument, "the kernel needs blocks of its .reqntid");
  if (block.count() > kernel.maxThreads)
    return wrong(Code::InvalidArgument, "a block has " + std::to_string(block.count()) +
                                            " threads but the kernel allows " + std::to_string(kernel.maxThreads));
  if (launch.dynamicShared < 0 || launch.dynamicShared > sharedLimit ||
      kernel.sharedBytes + launch.dynamicShared > settings_.arch->sharedPerBlock)
    return wrong(Code::FailedPrecondition, std::to_string(launch.dynamicShared) +
                                               " bytes of dynamic shared memory are more than the kernel may have");
  if (static_cast<int64_t>(launch.params.size()) != kernel.paramBytes)
    return wrong(Code::InvalidArgument, "the parameters have " + std::to_string(launch.params.size()) +
                                            " bytes but must have " + std::to_string(kernel.paramBytes));
  return Status::ok();
}

Status Gpu::launch(StreamId stream, ModuleRef module, Launch launch, int64_t sharedLimit) {
  auto attributes = module->attributes(launch.kernel);
  if (!attributes.isOk())
    return attributes.status();
  KVQ_RETURN_IF_ERROR(checkLaunch(attributes.value(), launch, sharedLimit));
  queue_.push(stream,
              [this, module = std::move(module), launch = std::move(launch)] { return runLaunch(*module, launch); });
  return Status::ok();
}

Status Gpu::runLaunch(const LoadedModule &module, const Launch &launch) {
  auto report = simulator_.launch(module, launch, settings_.options);
  if (!report.isOk()) {
    failure_ = {Failure::Kind::LaunchFailure, report.status().message()};
    return report.status();
  }
  if (hook_)
    hook_(report.value());
  writeReport(report.value());
  failure_ = failureOf(report.value());
  return state();
}

void Gpu::writeReport(const Report &report) {
  if (settings_.reportFile.empty())
    return;
  if (FILE *file = std::fopen(settings_.reportFile.c_str(), "a")) {
    const std::string json = toJson(report);
    std::fwrite(json.data(), 1, json.size(), file);
    std::fclose(file);
  }
}

Status Gpu::state() const {
  return failure_.kind == Failure::Kind::None ? Status::ok() : Status(Code::Internal, failure_.message);
}

Status Gpu::finish(Status status) {
  if (!status.isOk() && failure_.kind == Failure::Kind::None) // memory that was released in the meantime
    failure_ = {Failure::Kind::IllegalAddress, status.message()};
  return state();
}

} // namespace kvq::ptxsim
