// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/cuda/core.h"

#include <algorithm>
#include <set>

namespace kvq::cuda {

namespace {

constexpr size_t kMostNames = 8; // of kernels that a message may have to name

// After these the context is lost: a kernel's fault, or the hardware's.
bool isLost(CUresult error) {
  switch (error) {
  case kEccUncorrectable:
  case kNvlinkUncorrectable:
  case kIllegalAddress:
  case kLaunchTimeout:
  case kContextIsDestroyed:
  case kAssert:
    return true;
  default: // exceptions of a warp, from a stack error to an unspecified launch failure
    return error >= kHardwareStackError && error <= kLaunchFailed;
  }
}

bool isOfKernel(CUresult error) {
  return isLost(error) && error != kEccUncorrectable && error != kNvlinkUncorrectable && error != kContextIsDestroyed;
}

Code codeOf(CUresult error) {
  switch (error) {
  case kInvalidValue:
  case kInvalidDevice:
  case kInvalidImage:
  case kInvalidHandle:
  case kNotFound:
  case kLaunchOutOfResources:
    return Code::InvalidArgument;
  case kOutOfMemory:
    return Code::ResourceExhausted;
  case kNotReady:
    return Code::FailedPrecondition;
  default:
    return Code::Unsupported;
  }
}

} // namespace

Result<CoreRef> Core::create(const Driver &driver, int ordinal, CubinCompiler cubins) {
  const auto failed = [&](CUresult error, const char *call) {
    return Status(codeOf(error) == Code::ResourceExhausted ? Code::ResourceExhausted : Code::Unsupported,
                  "GPU " + std::to_string(ordinal) + " cannot be used: " + call + " answers " + driver.nameOf(error) +
                      ": look at nvidia-smi, or create a context on device \"cpu\"");
  };
  CUdevice device = 0;
  if (const CUresult error = driver.cuDeviceGet(&device, ordinal))
    return failed(error, "cuDeviceGet");
  Figures figures;
  figures.ordinal = ordinal;
  char name[256] = {};
  if (const CUresult error = driver.cuDeviceGetName(name, sizeof name - 1, device))
    return failed(error, "cuDeviceGetName");
  figures.name = name;
  if (const CUresult error = driver.cuDeviceTotalMem_v2(&figures.memoryBytes, device))
    return failed(error, "cuDeviceTotalMem");
  for (const auto &[value, attribute] : {std::pair(&figures.major, kMajor), std::pair(&figures.minor, kMinor),
                                         std::pair(&figures.multiprocessors, kMultiprocessors),
                                         std::pair(&figures.sharedPerBlock, kMaxSharedPerBlockOptIn)})
    if (const CUresult error = driver.cuDeviceGetAttribute(value, attribute, device))
      return failed(error, "cuDeviceGetAttribute");
  CUcontext context = nullptr;
  if (const CUresult error = driver.cuDevicePrimaryCtxRetain(&context, device))
    return failed(error, "cuDevicePrimaryCtxRetain");
  return CoreRef(new Core(driver, std::move(cubins), device, context, std::move(figures)));
}

Status Core::state() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

std::string Core::suspects() const {
  std::set<std::string> names;
  for (const auto &[stream, kernels] : launched_)
    names.insert(kernels.begin(), kernels.end());
  if (names.empty())
    return "the GPU";
  std::string text = names.size() == 1 ? "kernel " : "one of the kernels ";
  for (const std::string &name : names)
    text += (name == *names.begin() ? "" : ", ") + name;
  return text;
}

Status Core::refused(CUresult error, const std::string &what) {
  if (!isLost(error))
    return {codeOf(error), what + ": the driver answers " + driver.nameOf(error)};
  std::lock_guard<std::mutex> lock(mutex_);
  if (!failure_.isOk())
    return failure_; // the first is the cause
  const std::string answer = driver.nameOf(error) + "; the device answers nothing else: ";
  failure_ = isOfKernel(error)
                 ? Status(Code::InvalidArgument, suspects() + " failed with " + answer +
                                                     "mend the kernel (device \"ptxsim\" shows the line) and start "
                                                     "this process anew")
                 : Status(Code::FailedPrecondition,
                          what + " failed with " + answer + "look at nvidia-smi and start this process anew");
  return failure_;
}

void Core::launched(CUstream stream, const std::string &kernel) {
  std::lock_guard<std::mutex> lock(mutex_);
  Names &names = launched_[stream];
  if (std::find(names.begin(), names.end(), kernel) != names.end())
    return;
  if (names.size() == kMostNames)
    names.erase(names.begin());
  names.push_back(kernel);
}

Core::Names Core::takeLaunched(CUstream stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = launched_.find(stream);
  if (found == launched_.end())
    return {};
  Names names = std::move(found->second);
  launched_.erase(found);
  return names;
}

void Core::putBack(CUstream stream, const Names &kernels) {
  for (const std::string &kernel : kernels)
    launched(stream, kernel);
}

void Core::forgetLaunched() {
  std::lock_guard<std::mutex> lock(mutex_);
  launched_.clear();
}

void Core::allocated(DeviceAddress address, Allocation allocation) {
  std::lock_guard<std::mutex> lock(mutex_);
  allocations_.insert_or_assign(address, std::move(allocation));
}

bool Core::forget(DeviceAddress address) {
  std::lock_guard<std::mutex> lock(mutex_);
  return allocations_.erase(address) != 0;
}

Status Core::checkRange(DeviceAddress address, int64_t bytes) const {
  if (bytes < 0)
    return {Code::InvalidArgument, std::to_string(bytes) + " bytes cannot be copied or filled: use at least 0"};
  std::lock_guard<std::mutex> lock(mutex_);
  auto after = allocations_.upper_bound(address);
  if (after == allocations_.begin())
    return Status::ok();
  const auto &[begin, allocation] = *--after;
  const uint64_t offset = address - begin, size = static_cast<uint64_t>(allocation.bytes);
  if (offset >= size || static_cast<uint64_t>(bytes) <= size - offset)
    return Status::ok();
  return {Code::InvalidArgument, "bytes " + std::to_string(offset) + " to " +
                                     std::to_string(offset + static_cast<uint64_t>(bytes)) + " are outside of " +
                                     allocation.name + ", which has " + std::to_string(allocation.bytes)};
}

} // namespace kvq::cuda
