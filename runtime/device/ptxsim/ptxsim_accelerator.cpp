// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/ptxsim/ptxsim_accelerator.h"

#include "runtime/format/ptx_text.h"
#include "runtime/ptxsim/gpu/gpu.h"

#include <mutex>

namespace kvq {

namespace {

// What all objects of a device share; whichever goes last ends it.
struct Core {
  explicit Core(const ptxsim::Settings &settings) : gpu(settings) {}
  std::mutex mutex;
  ptxsim::Gpu gpu;
};
using CoreRef = std::shared_ptr<Core>;

Status failed(const Status &status) {
  if (status.isOk())
    return status;
  return {Code::InvalidArgument,
          status.message() + "; the device answers nothing else: mend the kernel and create another context"};
}

// Runs a function under the lock, unless the device has failed.
template <typename Function> auto locked(const CoreRef &core, const Function &function) -> decltype(function()) {
  std::lock_guard<std::mutex> lock(core->mutex);
  if (Status status = failed(core->gpu.state()); !status.isOk())
    return status;
  return function();
}

// A module, whose variables lie in the device's memory: they are released under the lock.
class ModuleHandle {
public:
  ModuleHandle(CoreRef core, ptxsim::ModuleRef module) : core(std::move(core)), module(std::move(module)) {}
  ~ModuleHandle() {
    std::lock_guard<std::mutex> lock(core->mutex);
    module.reset();
  }
  ModuleHandle(const ModuleHandle &) = delete;
  ModuleHandle &operator=(const ModuleHandle &) = delete;
  const CoreRef core;
  ptxsim::ModuleRef module;
};
using ModuleHandleRef = std::shared_ptr<const ModuleHandle>;

class SimulatedFunction : public DeviceFunction {
public:
  SimulatedFunction(ModuleHandleRef module, const ptxsim::KernelAttributes &kernel) : module_(std::move(module)) {
    info_.name = kernel.name;
    for (const ptxsim::KernelParam &param : kernel.params)
      info_.parameters.push_back({param.offset, param.size});
    info_.parameterBytes = kernel.paramBytes;
    info_.sharedBytes = kernel.sharedBytes;
    info_.localBytes = kernel.localBytes;
    info_.maxThreads = kernel.maxThreads;
    std::copy(std::begin(kernel.reqntid), std::end(kernel.reqntid), info_.block);
  }
  const FunctionInfo &info() const override { return info_; }
  Result<int> blocksPerProcessor(int threads, int64_t dynamicShared) const override {
    return ptxsim::occupancy(*core()->gpu.settings().arch, threads, info_.sharedBytes + dynamicShared);
  }
  const ptxsim::ModuleRef &module() const { return module_->module; }
  const Core *core() const { return module_->core.get(); }

private:
  ModuleHandleRef module_;
  FunctionInfo info_;
};

class SimulatedModule : public DeviceModule {
public:
  explicit SimulatedModule(ModuleHandleRef module) : module_(std::move(module)) {}
  std::vector<std::string> functions() const override { return module_->module->kernels(); }
  Result<DeviceFunctionRef> function(std::string_view name) const override {
    auto attributes = module_->module->attributes(name);
    if (!attributes.isOk())
      return attributes.status();
    return DeviceFunctionRef(std::make_shared<SimulatedFunction>(module_, attributes.value()));
  }
  Result<std::pair<DeviceAddress, int64_t>> variable(std::string_view name) const override {
    return module_->module->variable(name);
  }

private:
  ModuleHandleRef module_;
};

class SimulatedEvent : public Event {
public:
  explicit SimulatedEvent(CoreRef core) : core_(std::move(core)), id_(core_->gpu.queue().createEvent()) {}
  ~SimulatedEvent() override {
    std::lock_guard<std::mutex> lock(core_->mutex);
    core_->gpu.queue().destroyEvent(id_);
  }
  Status synchronize() override {
    return locked(core_, [&] { return failed(core_->gpu.synchronizeEvent(id_)); });
  }
  Result<bool> done() override {
    return locked(core_, [&]() -> Result<bool> {
      if (Status status = failed(core_->gpu.pollEvent(id_)); !status.isOk())
        return status;
      return core_->gpu.queue().eventDone(id_);
    });
  }
  Result<double> millisecondsSince(const Event &) override {
    return Status(Code::Unsupported, "a simulated device has no time: count instructions in its report");
  }
  ptxsim::EventId id() const { return id_; }
  const Core *core() const { return core_.get(); }

private:
  CoreRef core_;
  ptxsim::EventId id_;
};

Status foreign(const char *what) {
  return {Code::InvalidArgument, std::string(what) + " belongs to another device: use the one that made it"};
}

class SimulatedStream : public Stream {
public:
  SimulatedStream(CoreRef core, ptxsim::StreamId id) : core_(std::move(core)), id_(id) {}
  ~SimulatedStream() override {
    std::lock_guard<std::mutex> lock(core_->mutex);
    (void)core_->gpu.synchronize(id_); // a failure is the next call's answer
    core_->gpu.queue().destroyStream(id_);
  }
  Status upload(DeviceAddress to, const void *from, int64_t bytes) override {
    return locked(core_, [&] { return core_->gpu.copyIn(id_, to, from, bytes); });
  }
  Status download(void *to, DeviceAddress from, int64_t bytes) override {
    return locked(core_, [&] { return core_->gpu.copyOut(id_, to, from, bytes); });
  }
  Status copy(DeviceAddress to, DeviceAddress from, int64_t bytes) override {
    return locked(core_, [&] { return core_->gpu.copy(id_, to, from, bytes); });
  }
  Status fill(DeviceAddress to, int64_t bytes, uint8_t value) override {
    return locked(core_, [&] { return core_->gpu.fill(id_, to, bytes, {&value, 1}); });
  }
  Status launch(const DeviceFunction &function, const LaunchShape &shape,
                std::span<const uint8_t> parameters) override {
    const auto *known = dynamic_cast<const SimulatedFunction *>(&function);
    if (!known || known->core() != core_.get())
      return foreign("the kernel");
    ptxsim::Launch launch{known->info().name,
                          {shape.grid[0], shape.grid[1], shape.grid[2]},
                          {shape.block[0], shape.block[1], shape.block[2]},
                          shape.dynamicShared,
                          {parameters.begin(), parameters.end()}};
    return locked(core_, [&] {
      // The runtime opts in to all the shared memory that a launch asks for, as one would on CUDA.
      return core_->gpu.launch(id_, known->module(), std::move(launch), core_->gpu.settings().arch->sharedPerBlock);
    });
  }
  Status record(Event &event) override {
    return withEvent(event, [&](ptxsim::EventId id) { core_->gpu.queue().record(id, id_); });
  }
  Status wait(const Event &event) override {
    return withEvent(event, [&](ptxsim::EventId id) { core_->gpu.queue().wait(id_, id); });
  }
  Status synchronize() override {
    return locked(core_, [&] { return failed(core_->gpu.synchronize(id_)); });
  }
  Result<bool> done() override {
    return locked(core_, [&]() -> Result<bool> {
      if (Status status = failed(core_->gpu.poll(id_)); !status.isOk())
        return status;
      return core_->gpu.queue().done(id_);
    });
  }

private:
  template <typename Function> Status withEvent(const Event &event, const Function &function) {
    const auto *known = dynamic_cast<const SimulatedEvent *>(&event);
    if (!known || known->core() != core_.get())
      return foreign("the event");
    return locked(core_, [&] {
      function(known->id());
      return Status::ok();
    });
  }

  CoreRef core_;
  ptxsim::StreamId id_;
};

class SimulatedAccelerator : public Accelerator {
public:
  explicit SimulatedAccelerator(const ptxsim::Settings &settings)
      : core_(std::make_shared<Core>(settings)), default_(core_, core_->gpu.queue().createStream(false)) {}
  Result<DeviceAddress> allocate(int64_t bytes, const std::string &name) override {
    return locked(core_, [&] { return core_->gpu.allocate(bytes, name); });
  }
  Status release(DeviceAddress address) override {
    std::lock_guard<std::mutex> lock(core_->mutex); // after a failure too
    return core_->gpu.release(address);
  }
  Result<int64_t> freeBytes() const override {
    return locked(core_, [&] { return Result<int64_t>(core_->gpu.freeBytes()); });
  }
  Stream &defaultStream() override { return default_; }
  Result<StreamRef> createStream() override {
    return locked(core_, [&] {
      const ptxsim::StreamId id = core_->gpu.queue().createStream(false);
      return Result<StreamRef>(std::make_shared<SimulatedStream>(core_, id));
    });
  }
  Result<EventRef> createEvent() override {
    return locked(core_, [&] { return Result<EventRef>(std::make_shared<SimulatedEvent>(core_)); });
  }
  Result<DeviceModuleRef> load(std::string_view text, const std::string &file) override;
  Status synchronize() override {
    return locked(core_, [&] { return failed(core_->gpu.synchronizeAll()); });
  }
  int processors() const override { return core_->gpu.settings().arch->multiprocessors; }
  std::string name() const override { return std::string("ptxsim ") + core_->gpu.settings().arch->name; }
  std::string description() const override {
    const ptxsim::Settings &settings = core_->gpu.settings();
    return std::string("ptxsim ") + settings.arch->name + ", compute capability " +
           std::to_string(settings.arch->major) + "." + std::to_string(settings.arch->minor) + ", " +
           std::to_string(settings.memoryBytes >> 20) + " MiB, simulated";
  }

private:
  CoreRef core_;
  SimulatedStream default_;
};

Result<DeviceModuleRef> SimulatedAccelerator::load(std::string_view text, const std::string &file) {
  return locked(core_, [&]() -> Result<DeviceModuleRef> {
    const ptxsim::Arch &arch = *core_->gpu.settings().arch;
    const PtxTarget target = ptxTarget(text);
    if (!target.name.empty() && !runsPtx(arch.major, arch.minor, target.name))
      return Status(Code::Unsupported, file + " is made for " + target.name + ", which " + arch.name +
                                           " does not run: compile it for that, or set KVQ_PTXSIM_ARCH");
    auto module = core_->gpu.load(text, file);
    if (!module.isOk())
      return module.status();
    return DeviceModuleRef(
        std::make_shared<SimulatedModule>(std::make_shared<const ModuleHandle>(core_, std::move(module.value()))));
  });
}

} // namespace

std::unique_ptr<Accelerator> makePtxsimAccelerator(const ptxsim::Settings &settings) {
  return std::make_unique<SimulatedAccelerator>(settings);
}

} // namespace kvq
