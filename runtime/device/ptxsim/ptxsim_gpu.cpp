// SPDX-License-Identifier: Apache-2.0
//
// What libkvq-ptxsim.so exports: the simulated GPU. Which one it is the environment says
// (runtime/ptxsim/gpu/settings.h).
#include "runtime/device/ptxsim/plugin.h"
#include "runtime/device/ptxsim/ptxsim_accelerator.h"

#include <sstream>

namespace kvq {

namespace {

constexpr std::string_view kPrefix = "nvptx:"; // of a level; the architecture alone is taken too

Status make(std::string_view level, PtxsimGpu &gpu) {
  auto settings = ptxsim::settingsFromEnvironment();
  if (!settings.isOk())
    return settings.status();
  if (!level.empty()) {
    const std::string_view name = level.starts_with(kPrefix) ? level.substr(kPrefix.size()) : level;
    settings.value().arch = ptxsim::findArch(name);
    if (!settings.value().arch)
      return {Code::InvalidArgument, "level '" + std::string(level) +
                                         "' is no architecture that device ptxsim knows: use one of " +
                                         ptxsim::archNames()};
  }
  std::string names = ptxsim::archNames();
  std::erase(names, ',');
  std::istringstream words(names);
  for (std::string name; words >> name;)
    gpu.levels += (gpu.levels.empty() ? "" : " ") + std::string(kPrefix) + name;
  gpu.major = settings.value().arch->major;
  gpu.minor = settings.value().arch->minor;
  gpu.accelerator = makePtxsimAccelerator(settings.value());
  return Status::ok();
}

} // namespace

} // namespace kvq

extern "C" __attribute__((visibility("default"))) void kvq_ptxsim_gpu_1(const char *level, kvq::PtxsimGpu *gpu,
                                                                        kvq::Status *status) {
  *status = kvq::make(level ? level : "", *gpu);
}
static_assert(std::is_same_v<decltype(&kvq_ptxsim_gpu_1), kvq::MakePtxsimGpu>);
