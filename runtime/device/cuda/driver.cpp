// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/cuda/driver.h"

#include "runtime/jit/library.h"

namespace kvq::cuda {

// The first that takes PTX 7.0, which code for compute capability 8.0 needs.
static constexpr int kOldest = 11000;

std::string versionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string Driver::nameOf(CUresult error) const {
  const char *name = nullptr, *text = nullptr;
  if (cuGetErrorName(error, &name) != kSuccess || !name)
    return "error " + std::to_string(error);
  if (cuGetErrorString(error, &text) != kSuccess || !text)
    return name;
  return std::string(name) + " (" + text + ")";
}

static Status tooOld(const std::string &library, const std::string &what) {
  return {Code::Unsupported, "the NVIDIA driver behind " + library + " is too old: it " + what +
                                 ", and device \"cuda\" needs one for CUDA " + versionText(kOldest) +
                                 " or later: update the driver"};
}

static Status notInitialised(const Driver &driver, const std::string &library, CUresult error) {
  if (error == kStubLibrary)
    return {Code::Unsupported, library + " is the stub of a CUDA toolkit and no driver: take its folder off "
                                         "LD_LIBRARY_PATH, so that the driver's own is found"};
  if (error == kNoDevice)
    return {Code::Unsupported, "the NVIDIA driver finds no GPU that this process may use: look at nvidia-smi and "
                               "CUDA_VISIBLE_DEVICES, or create a context on device \"cpu\""};
  return {Code::Unsupported, "the NVIDIA driver cannot be initialised: cuInit answers " + driver.nameOf(error) +
                                 ": look at nvidia-smi, or create a context on device \"cpu\""};
}

Result<Driver> loadDriver(const std::string &file) {
  auto library = Library::open(file);
  if (!library.isOk())
    return Status(Code::Unsupported, "device \"cuda\" needs the NVIDIA driver, which cannot be loaded (" +
                                         library.status().message() +
                                         "): install it, or create a context on device \"cpu\"");
  Driver driver;
#define KVQ_CUDA_FIND(name, parameters)                                                                                \
  if (!library.value().find(#name, driver.name))                                                                       \
    return tooOld(file, "lacks " #name);
  KVQ_CUDA_FUNCTIONS(KVQ_CUDA_FIND)
#undef KVQ_CUDA_FIND
  library.value().find("cuFuncGetParamInfo", driver.cuFuncGetParamInfo);
  if (const CUresult error = driver.cuInit(0))
    return notInitialised(driver, file, error);
  if (const CUresult error = driver.cuDriverGetVersion(&driver.version))
    return notInitialised(driver, file, error);
  if (driver.version < kOldest)
    return tooOld(file, "supports CUDA " + versionText(driver.version));
  return driver;
}

} // namespace kvq::cuda
