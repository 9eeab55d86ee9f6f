// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/cuda/module.h"

#include "runtime/format/ptx_text.h"

#include <algorithm>

namespace kvq::cuda {

// Code in the context, unloaded with the last kernel of it.
class ModuleHandle {
public:
  ModuleHandle(CoreRef core, CUmodule module) : core(std::move(core)), module(module) {}
  ~ModuleHandle() {
    core->giveBack([&] { (void)core->driver.cuModuleUnload(module); });
  }
  ModuleHandle(const ModuleHandle &) = delete;
  ModuleHandle &operator=(const ModuleHandle &) = delete;
  const CoreRef core;
  const CUmodule module;
};

namespace {

class CudaModule : public DeviceModule {
public:
  CudaModule(std::shared_ptr<const ModuleHandle> module, std::vector<PtxEntry> entries)
      : module_(std::move(module)), entries_(std::move(entries)) {}
  std::vector<std::string> functions() const override {
    std::vector<std::string> names;
    for (const PtxEntry &entry : entries_)
      names.push_back(entry.name);
    return names;
  }
  Result<DeviceFunctionRef> function(std::string_view name) const override;
  Result<std::pair<DeviceAddress, int64_t>> variable(std::string_view name) const override;

private:
  Core &core() const { return *module_->core; }
  Result<DeviceFunctionRef> describe(CUfunction function, const PtxEntry &entry) const;

  std::shared_ptr<const ModuleHandle> module_;
  std::vector<PtxEntry> entries_;
};

Result<DeviceFunctionRef> CudaModule::function(std::string_view name) const {
  const auto entry =
      std::find_if(entries_.begin(), entries_.end(), [&](const PtxEntry &known) { return known.name == name; });
  if (entry == entries_.end())
    return Status(Code::InvalidArgument, "the module has no kernel '" + std::string(name) + "'");
  return core().run([&]() -> Result<DeviceFunctionRef> {
    CUfunction function = nullptr;
    if (const CUresult error = core().driver.cuModuleGetFunction(&function, module_->module, entry->name.c_str()))
      return core().refused(error, "kernel " + entry->name);
    return describe(function, *entry);
  });
}

// The parameters as the driver has them; false: it cannot tell.
bool askParameters(const Driver &driver, CUfunction function, FunctionInfo &info) {
  if (!driver.cuFuncGetParamInfo)
    return false;
  size_t offset = 0, bytes = 0;
  CUresult error = kSuccess;
  for (size_t i = 0; !(error = driver.cuFuncGetParamInfo(function, i, &offset, &bytes)); ++i) {
    info.parameters.push_back({static_cast<int64_t>(offset), static_cast<int64_t>(bytes)});
    info.parameterBytes = static_cast<int64_t>(offset + bytes);
  }
  return error == kInvalidValue; // after the last
}

Result<DeviceFunctionRef> CudaModule::describe(CUfunction function, const PtxEntry &entry) const {
  FunctionInfo info;
  info.name = entry.name;
  std::copy(std::begin(entry.block), std::end(entry.block), info.block);
  int threads = 0, sharedBytes = 0, localBytes = 0, dynamicShared = 0;
  for (const auto &[value, attribute] :
       {std::pair(&threads, kMaxThreads), std::pair(&sharedBytes, kSharedBytes), std::pair(&localBytes, kLocalBytes),
        std::pair(&dynamicShared, kMaxDynamicShared)})
    if (const CUresult error = core().driver.cuFuncGetAttribute(value, attribute, function))
      return core().refused(error, "figures of kernel " + entry.name);
  info.maxThreads = static_cast<uint32_t>(threads);
  info.sharedBytes = sharedBytes;
  info.localBytes = localBytes;
  if (!askParameters(core().driver, function, info)) {
    info.parameters.clear();
    for (const PtxEntry::Parameter &parameter : entry.parameters)
      info.parameters.push_back({parameter.offset, parameter.size});
    info.parameterBytes = entry.parameterBytes;
  }
  return DeviceFunctionRef(std::make_shared<CudaFunction>(module_, function, std::move(info), dynamicShared));
}

Result<std::pair<DeviceAddress, int64_t>> CudaModule::variable(std::string_view name) const {
  return core().run([&]() -> Result<std::pair<DeviceAddress, int64_t>> {
    CUdeviceptr address = 0;
    size_t bytes = 0;
    const std::string text(name);
    if (const CUresult error = core().driver.cuModuleGetGlobal_v2(&address, &bytes, module_->module, text.c_str()))
      return core().refused(error, "variable '" + text + "' of the module");
    return std::pair<DeviceAddress, int64_t>(address, bytes);
  });
}

// An image, and what the driver's compiler says of it.
CUresult loadImage(const Driver &driver, const void *image, CUmodule &module, std::string &log) {
  log.assign(8192, '\0');
  int options[] = {kErrorLog, kErrorLogBytes};
  void *values[] = {log.data(), reinterpret_cast<void *>(log.size())};
  const CUresult error = driver.cuModuleLoadDataEx(&module, image, 2, options, values);
  log.resize(log.find('\0') == std::string::npos ? log.size() : log.find('\0'));
  return error;
}

// A cubin of the text's one kernel; null: the text it is.
CUmodule loadCubin(Core &core, std::string_view text, const std::vector<PtxEntry> &entries) {
  if (!core.cubins || entries.size() != 1)
    return nullptr;
  const std::string arch = "sm_" + std::to_string(10 * core.figures().major + core.figures().minor);
  auto cubin = core.cubins(text, entries[0].name, arch);
  CUmodule module = nullptr;
  std::string log;
  // A driver that is older than the compiler may not know what it made, and takes the text all the same.
  if (!cubin.isOk() || cubin.value().empty() || loadImage(core.driver, cubin.value().data(), module, log) != kSuccess)
    return nullptr;
  return module;
}

Status refusedText(Core &core, CUresult error, const std::string &log, const std::string &file) {
  if (error == kUnsupportedPtxVersion)
    return {Code::Unsupported, file + " is PTX of a version that the driver, for CUDA " +
                                   versionText(core.driver.version) + ", does not know: update the driver"};
  if (error == kInvalidPtx && !log.empty())
    return {Code::Unsupported, jitMessage(log, file)};
  return core.refused(error, file + (log.empty() ? "" : " (" + jitMessage(log, file) + ")"));
}

} // namespace

std::string jitMessage(std::string_view log, const std::string &file) {
  constexpr std::string_view kInput = "ptx input";
  std::string first; // a line that tells something, though not where
  while (!log.empty()) {
    const std::string_view line = log.substr(0, log.find('\n'));
    log.remove_prefix(std::min(line.size() + 1, log.size()));
    if (first.empty())
      first = line;
    // "ptxas application ptx input, line 5; error   : MESSAGE", or "ptx input:5: MESSAGE".
    const size_t at = line.find(kInput);
    if (at == std::string_view::npos)
      continue;
    std::string_view rest = line.substr(at + kInput.size());
    const size_t digits = rest.find_first_of("0123456789");
    if (digits == std::string_view::npos || (rest.substr(0, digits) != ", line " && rest.substr(0, digits) != ":"))
      continue;
    rest.remove_prefix(digits);
    const std::string_view number = rest.substr(0, rest.find_first_not_of("0123456789"));
    const size_t message = rest.find(": ");
    if (message != std::string_view::npos)
      return file + ":" + std::string(number) + ": " + std::string(rest.substr(message + 2));
  }
  return file + ": " + first;
}

Result<DeviceModuleRef> loadModule(const CoreRef &core, std::string_view text, const std::string &file) {
  const Core::Figures &figures = core->figures();
  const PtxTarget target = ptxTarget(text);
  if (!target.name.empty() && !runsPtx(figures.major, figures.minor, target.name))
    return Status(Code::Unsupported, file + " is made for " + target.name + ", which sm_" +
                                         std::to_string(10 * figures.major + figures.minor) +
                                         " does not run: compile it for that");
  std::vector<PtxEntry> entries = ptxEntries(text);
  CUmodule module = loadCubin(*core, text, entries);
  if (!module) {
    std::string log;
    if (const CUresult error = loadImage(core->driver, std::string(text).c_str(), module, log))
      return refusedText(*core, error, log, file);
  }
  return DeviceModuleRef(
      std::make_shared<CudaModule>(std::make_shared<const ModuleHandle>(core, module), std::move(entries)));
}

const Core *CudaFunction::core() const { return module_->core.get(); }

Status CudaFunction::checkLaunch(const LaunchShape &shape, size_t parameterBytes) const {
  constexpr uint32_t kMostThreads = 1024, kMostDeep = 64, kMostGrid[3] = {INT32_MAX, 65535, 65535};
  const auto wrong = [&](const std::string &what) {
    return Status(Code::InvalidArgument, "kernel " + info_.name + " cannot be launched: " + what);
  };
  for (int i = 0; i < 3; ++i)
    if (shape.grid[i] < 1 || shape.grid[i] > kMostGrid[i])
      return wrong("a grid must have 1 to " + std::to_string(kMostGrid[i]) + " blocks along dimension " +
                   std::to_string(i) + " and was given " + std::to_string(shape.grid[i]));
  const uint64_t threads = uint64_t(shape.block[0]) * shape.block[1] * std::min(shape.block[2], kMostDeep + 1);
  if (shape.block[0] > kMostThreads || shape.block[1] > kMostThreads || shape.block[2] > kMostDeep || threads < 1 ||
      threads > kMostThreads)
    return wrong("a block must have 1 to 1024 threads, at most 64 along z");
  if (info_.block[0] && !std::equal(shape.block, shape.block + 3, info_.block))
    return wrong("it needs blocks of its .reqntid");
  if (threads > info_.maxThreads)
    return wrong("a block has " + std::to_string(threads) + " threads but the kernel allows " +
                 std::to_string(info_.maxThreads));
  if (static_cast<int64_t>(parameterBytes) != info_.parameterBytes)
    return wrong("it takes " + std::to_string(info_.parameterBytes) + " bytes of parameters and was given " +
                 std::to_string(parameterBytes));
  return allowShared(shape.dynamicShared);
}

Status CudaFunction::allowShared(int64_t dynamicShared) const {
  Core &core = *module_->core;
  const int64_t most = core.figures().sharedPerBlock - info_.sharedBytes;
  if (dynamicShared < 0 || dynamicShared > std::max<int64_t>(most, defaultShared_))
    return {Code::InvalidArgument, "kernel " + info_.name + " cannot have " + std::to_string(dynamicShared) +
                                       " bytes of dynamic shared memory: a block of it has at most " +
                                       std::to_string(most)};
  if (dynamicShared <= defaultShared_)
    return Status::ok();
  // Always the most that there is: of two launches that ask for different amounts neither takes the other's away.
  if (const CUresult error = core.driver.cuFuncSetAttribute(function_, kMaxDynamicShared, static_cast<int>(most)))
    return core.refused(error, "shared memory of kernel " + info_.name);
  return Status::ok();
}

Result<int> CudaFunction::blocksPerProcessor(int threads, int64_t dynamicShared) const {
  Core &core = *module_->core;
  return core.run([&]() -> Result<int> {
    KVQ_RETURN_IF_ERROR(allowShared(dynamicShared));
    int blocks = 0;
    if (const CUresult error = core.driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(
            &blocks, function_, threads, static_cast<size_t>(dynamicShared)))
      return core.refused(error, "occupancy of kernel " + info_.name);
    return blocks;
  });
}

} // namespace kvq::cuda
