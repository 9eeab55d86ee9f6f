// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/accelerator_device.h"

#include "runtime/device/half_test.h"

#include <algorithm>
#include <iterator>
#include <sstream>

namespace kvq {

namespace {

// What the compiler makes code for, as ten times the major number and the minor one.
constexpr int kTargets[] = {80, 86, 89, 90, 100, 120};

std::string levelOf(int target) { return std::string(kAcceleratorTargets) + "sm_" + std::to_string(target); }

// One word for each parameter: PTX says how long it is, not what it is.
std::string signatureOf(const FunctionInfo &function) {
  std::string text;
  for (const FunctionInfo::Parameter &parameter : function.parameters)
    text += (text.empty() ? "b" : " b") + std::to_string(8 * parameter.size);
  return text;
}

// PTX begins with a directive, of which IR has none. What is neither goes to the reader of PTX, which says so.
bool isPtx(std::string_view text) {
  for (size_t at = 0; (at = text.find_first_not_of(" \t\r\n", at)) != text.npos;) {
    if (text.substr(at, 2) == "//")
      at = text.find('\n', at);
    else if (text.substr(at, 2) == "/*")
      at = text.find("*/", at) == text.npos ? text.npos : text.find("*/", at) + 2;
    else
      return text[at] == '.' || text.substr(at).find("func.func") == text.npos;
    if (at == text.npos)
      break;
  }
  return true;
}

std::optional<std::string> copyOf(const char *text) { return text ? std::optional<std::string>(text) : std::nullopt; }

const char *pointer(const std::optional<std::string> &text) { return text ? text->c_str() : nullptr; }

constexpr const char *kFlushes =
    "; its matrix instructions take halves below 2^-14 as zero, so that kernels are slower here";

} // namespace

std::string withoutForm(std::string_view level) {
  return std::string(level.substr(0, level.size() - (level.ends_with(kMagicForm) ? kMagicForm.size() : 0)));
}

std::string acceleratorLevels(int major, int minor) {
  std::string levels;
  for (int target : kTargets)
    if (target <= 10 * major + minor)
      levels += (levels.empty() ? "" : " ") + levelOf(target);
  return levels;
}

Result<std::string> acceleratorLevel(int major, int minor, const char *asked) {
  const std::string all = acceleratorLevels(major, minor);
  const std::string capability = std::to_string(major) + "." + std::to_string(minor);
  if (all.empty())
    return Status(Code::Unsupported, "a GPU of compute capability " + capability +
                                         " is older than kvq makes kernels for: use one of 8.0 or later");
  if (!asked)
    return all.substr(all.rfind(' ') + 1); // npos + 1 is the begin
  const std::string level =
      std::string_view(asked).starts_with(kAcceleratorTargets) ? asked : std::string(kAcceleratorTargets) + asked;
  std::istringstream words(all);
  if (std::find(std::istream_iterator<std::string>(words), {}, withoutForm(level)) ==
      std::istream_iterator<std::string>())
    return Status(Code::InvalidArgument, "level '" + std::string(asked) +
                                             "' is none that a GPU of compute capability " + capability +
                                             " runs: use one of " + all);
  return level;
}

Result<std::unique_ptr<Device>> AcceleratorDevice::create(std::string name, std::unique_ptr<Accelerator> accelerator,
                                                          std::string level, std::string levels,
                                                          const DeviceOptions &options,
                                                          std::unique_ptr<ParallelFor> parallel) {
  auto halves = testHalves(*accelerator);
  if (!halves.isOk())
    return Status(halves.status().code(), "device \"" + name + "\": " + halves.status().message());
  const bool flushes = halves.value() == SubnormalHalves::Flushed;
  if (flushes)
    level = withoutForm(level) + std::string(kMagicForm);
  return std::unique_ptr<Device>(new AcceleratorDevice(std::move(name), std::move(accelerator), std::move(level),
                                                       std::move(levels), flushes ? kFlushes : "", options,
                                                       std::move(parallel)));
}

AcceleratorDevice::AcceleratorDevice(std::string name, std::unique_ptr<Accelerator> accelerator, std::string level,
                                     std::string levels, std::string warning, const DeviceOptions &options,
                                     std::unique_ptr<ParallelFor> parallel)
    : Device(std::move(parallel)), name_(std::move(name)), level_(std::move(level)), levels_(std::move(levels)),
      warning_(std::move(warning)), storeDir_(copyOf(options.storeDir)), compiler_(copyOf(options.compiler)),
      frozen_(options.frozen), accelerator_(std::move(accelerator)) {}

Profile AcceleratorDevice::profile() const { return kAcceleratorProfile; }

Result<KernelSource *> AcceleratorDevice::compiledKernels() const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (compiledKernels_)
    return compiledKernels_.get();
  if (compiler_ && compiler_->empty())
    return Status(Code::Unsupported,
                  "device \"" + name_ +
                      "\" was asked for without a compiler plug-in, whose hash the keys of stored "
                      "kernels need: give its path (with frozen set, nothing is compiled) or compile "
                      "PTX of your own");
  auto compiler = Compiler::load(pointer(compiler_));
  if (!compiler.isOk())
    return compiler.status();
  auto made = KernelSource::open(
      {compiler.value(), level_, pointer(storeDir_), frozen_, Code::Unsupported, machine(), scoreHookFunction()},
      [this](const CompiledKernel &compiled, KernelInfo info) { return load(compiled, std::move(info)); });
  if (!made.isOk())
    return made.status();
  compiledKernels_ = std::move(made.value());
  return compiledKernels_.get();
}

Result<KernelRef> AcceleratorDevice::load(const CompiledKernel &compiled, KernelInfo info) const {
  const std::string_view text(reinterpret_cast<const char *>(compiled.object.data()), compiled.object.size());
  auto module = accelerator_->load(text, info.name);
  if (!module.isOk())
    return module.status();
  auto function = module.value()->function(compiled.entry);
  if (!function.isOk())
    return function.status();
  return KernelRef(std::make_shared<AcceleratorKernel>(std::move(info), function.value(), GridOf::Programs));
}

Result<KernelRef> AcceleratorDevice::open(const KernelRequest &request, const ScoreFunction *score) {
  auto source = compiledKernels();
  return source.isOk() ? source.value()->obtain({toText(request), false, score}) : source.status();
}

Status AcceleratorDevice::available(const KernelRequest &request, const ScoreFunction *score) const {
  auto source = compiledKernels();
  return source.isOk() ? source.value()->available({toText(request), false, score}) : source.status();
}

Result<KernelRef> AcceleratorDevice::compile(const std::string &source, const std::string &entry) {
  if (isPtx(source))
    return loadPtx(source, entry);
  auto kernels = compiledKernels();
  return kernels.isOk() ? kernels.value()->obtainSource(source, entry) : kernels.status();
}

Result<KernelRef> AcceleratorDevice::loadPtx(const std::string &source, const std::string &entry) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (auto found = userKernels_.find({source, entry}); found != userKernels_.end())
    return found->second;
  auto module = accelerator_->load(source, "ptx");
  if (!module.isOk())
    return module.status();
  const std::vector<std::string> names = module.value()->functions();
  if (entry.empty() && names.size() != 1)
    return Status(Code::InvalidArgument,
                  "the module has " + std::to_string(names.size()) + " kernels: name the one that is meant");
  auto function = module.value()->function(entry.empty() ? names[0] : entry);
  if (!function.isOk())
    return function.status();
  const FunctionInfo &shape = function.value()->info();
  KernelInfo info{shape.name, "compiled", "", signatureOf(shape), 0, static_cast<int64_t>(source.size())};
  KernelRef kernel = std::make_shared<AcceleratorKernel>(std::move(info), function.value(), GridOf::Blocks);
  userKernels_.emplace(std::pair(source, entry), kernel);
  return kernel;
}

std::vector<KernelRef> AcceleratorDevice::kernels() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<KernelRef> all;
  for (const auto &[text, kernel] : userKernels_)
    all.push_back(kernel);
  if (compiledKernels_)
    for (KernelRef &kernel : compiledKernels_->kernels())
      all.push_back(std::move(kernel));
  return all;
}

} // namespace kvq
