// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/cuda/cuda_accelerator.h"

#include "runtime/device/cuda/module.h"

namespace kvq::cuda {

namespace {

Status foreign(const char *what) {
  return {Code::InvalidArgument, std::string(what) + " belongs to another device: use the one that made it"};
}

std::string bytesText(int64_t bytes) { return std::to_string(bytes) + " bytes"; }

// A wait answers Ok, Not ready as false, or an error.
Result<bool> answerOf(Core &core, CUresult error, const char *what) {
  if (error == kSuccess || error == kNotReady)
    return error == kSuccess;
  return core.refused(error, what);
}

class CudaEvent : public Event {
public:
  CudaEvent(CoreRef core, CUevent event) : core_(std::move(core)), event_(event) {}
  ~CudaEvent() override {
    core_->giveBack([&] { (void)core_->driver.cuEventDestroy_v2(event_); });
  }
  Status synchronize() override {
    return core_->run([&] {
      const CUresult error = core_->driver.cuEventSynchronize(event_);
      return error ? core_->refused(error, "waiting for an event") : Status::ok();
    });
  }
  Result<bool> done() override {
    return core_->run([&] { return answerOf(*core_, core_->driver.cuEventQuery(event_), "asking for an event"); });
  }
  Result<double> millisecondsSince(const Event &begin) override;
  CUevent handle() const { return event_; }
  const Core *core() const { return core_.get(); }

private:
  CoreRef core_;
  CUevent event_;
};

Result<double> CudaEvent::millisecondsSince(const Event &begin) {
  const auto *known = dynamic_cast<const CudaEvent *>(&begin);
  if (!known || known->core() != core_.get())
    return foreign("the event");
  return core_->run([&]() -> Result<double> {
    float milliseconds = 0;
    const CUresult error = core_->driver.cuEventElapsedTime(&milliseconds, known->handle(), event_);
    if (error == kInvalidHandle)
      return Status(Code::FailedPrecondition,
                    "one of the two events was never recorded: record both and wait for them");
    if (error == kNotReady)
      return Status(Code::FailedPrecondition, "one of the two events is not done: wait for both");
    if (error)
      return core_->refused(error, "the time between two events");
    return milliseconds;
  });
}

class CudaStream : public Stream {
public:
  enum class Kind { Default, Made };
  CudaStream(CoreRef core, CUstream stream, Kind kind) : core_(std::move(core)), stream_(stream), kind_(kind) {}
  ~CudaStream() override {
    if (kind_ == Kind::Default)
      return;
    (void)synchronize(); // a failure is the next call's answer
    core_->takeLaunched(stream_);
    core_->giveBack([&] { (void)core_->driver.cuStreamDestroy_v2(stream_); });
  }
  Status upload(DeviceAddress to, const void *from, int64_t bytes) override {
    return transfer({{to, bytes}}, bytes, "upload", [&](const Driver &driver, size_t size) {
      return driver.cuMemcpyHtoDAsync_v2(to, from, size, stream_);
    });
  }
  Status download(void *to, DeviceAddress from, int64_t bytes) override {
    return transfer({{from, bytes}}, bytes, "download", [&](const Driver &driver, size_t size) {
      return driver.cuMemcpyDtoHAsync_v2(to, from, size, stream_);
    });
  }
  Status copy(DeviceAddress to, DeviceAddress from, int64_t bytes) override {
    return transfer({{from, bytes}, {to, bytes}}, bytes, "copy", [&](const Driver &driver, size_t size) {
      return driver.cuMemcpyDtoDAsync_v2(to, from, size, stream_);
    });
  }
  Status fill(DeviceAddress to, int64_t bytes, uint8_t value) override {
    return transfer({{to, bytes}}, bytes, "fill", [&](const Driver &driver, size_t size) {
      return driver.cuMemsetD8Async(to, value, size, stream_);
    });
  }
  Status copyRows(DeviceAddress to, int64_t toPitch, DeviceAddress from, int64_t fromPitch, int64_t width,
                  int64_t rows) override;
  Status fillRows(DeviceAddress to, int64_t pitch, int64_t width, int64_t rows, uint8_t value) override;
  Status launch(const DeviceFunction &function, const LaunchShape &shape, std::span<const uint8_t> parameters) override;
  Status record(Event &event) override {
    return withEvent(event, "recording an event",
                     [&](CUevent handle) { return core_->driver.cuEventRecord(handle, stream_); });
  }
  Status wait(const Event &event) override {
    return withEvent(event, "waiting for an event on a stream",
                     [&](CUevent handle) { return core_->driver.cuStreamWaitEvent(stream_, handle, 0); });
  }
  Status synchronize() override {
    return core_->run([&] {
      const Core::Names kernels = core_->takeLaunched(stream_);
      const CUresult error = core_->driver.cuStreamSynchronize(stream_);
      if (!error)
        return Status::ok();
      core_->putBack(stream_, kernels);
      return core_->refused(error, "waiting for a stream");
    });
  }
  Result<bool> done() override {
    return core_->run([&] { return answerOf(*core_, core_->driver.cuStreamQuery(stream_), "asking for a stream"); });
  }

private:
  struct Range {
    DeviceAddress address;
    int64_t bytes;
  };
  template <typename Call>
  Status transfer(std::initializer_list<Range> ranges, int64_t bytes, const char *what, const Call &call) {
    return core_->run([&]() -> Status {
      for (const Range &range : ranges)
        KVQ_RETURN_IF_ERROR(core_->checkRange(range.address, range.bytes));
      const CUresult error = bytes ? call(core_->driver, static_cast<size_t>(bytes)) : kSuccess;
      return error ? core_->refused(error, std::string(what) + ", " + bytesText(bytes)) : Status::ok();
    });
  }
  template <typename Call> Status withEvent(const Event &event, const char *what, const Call &call) {
    const auto *known = dynamic_cast<const CudaEvent *>(&event);
    if (!known || known->core() != core_.get())
      return foreign("the event");
    return core_->run([&] {
      const CUresult error = call(known->handle());
      return error ? core_->refused(error, what) : Status::ok();
    });
  }

  CoreRef core_;
  CUstream stream_;
  Kind kind_;
};

// Whether one call of the driver does it: a pitch has 31 bits, and rows do not overlap. Others go one by one.
bool fitsOneCall(int64_t pitch, int64_t width, int64_t rows) {
  return rows > 1 && width > 0 && pitch >= width && pitch <= INT32_MAX && rows <= INT32_MAX;
}

int64_t extent(int64_t pitch, int64_t width, int64_t rows) { return (rows - 1) * pitch + width; }

Status CudaStream::copyRows(DeviceAddress to, int64_t toPitch, DeviceAddress from, int64_t fromPitch, int64_t width,
                            int64_t rows) {
  if (!fitsOneCall(toPitch, width, rows) || !fitsOneCall(fromPitch, width, rows))
    return Stream::copyRows(to, toPitch, from, fromPitch, width, rows);
  CUDA_MEMCPY2D_st copy = {};
  copy.fromKind = copy.toKind = kDeviceMemory;
  copy.fromDevice = from;
  copy.fromPitch = static_cast<size_t>(fromPitch);
  copy.toDevice = to;
  copy.toPitch = static_cast<size_t>(toPitch);
  copy.width = static_cast<size_t>(width);
  copy.height = static_cast<size_t>(rows);
  return core_->run([&]() -> Status {
    KVQ_RETURN_IF_ERROR(core_->checkRange(from, extent(fromPitch, width, rows)));
    KVQ_RETURN_IF_ERROR(core_->checkRange(to, extent(toPitch, width, rows)));
    const CUresult error = core_->driver.cuMemcpy2DAsync_v2(&copy, stream_);
    // As its documentation has it, it may refuse pitches within the device that are not cuMemAllocPitch's.
    if (error == kInvalidValue)
      return Stream::copyRows(to, toPitch, from, fromPitch, width, rows);
    return error ? core_->refused(error, "copy of rows, " + bytesText(width * rows)) : Status::ok();
  });
}

Status CudaStream::fillRows(DeviceAddress to, int64_t pitch, int64_t width, int64_t rows, uint8_t value) {
  if (!fitsOneCall(pitch, width, rows))
    return Stream::fillRows(to, pitch, width, rows, value);
  return transfer({{to, extent(pitch, width, rows)}}, width * rows, "fill of rows", [&](const Driver &driver, size_t) {
    return driver.cuMemsetD2D8Async(to, static_cast<size_t>(pitch), value, static_cast<size_t>(width),
                                    static_cast<size_t>(rows), stream_);
  });
}

Status CudaStream::launch(const DeviceFunction &function, const LaunchShape &shape,
                          std::span<const uint8_t> parameters) {
  const auto *known = dynamic_cast<const CudaFunction *>(&function);
  if (!known || known->core() != core_.get())
    return foreign("the kernel");
  return core_->run([&]() -> Status {
    KVQ_RETURN_IF_ERROR(known->checkLaunch(shape, parameters.size()));
    // The driver reads what is pointed to, and takes it not to be changed.
    std::vector<void *> pointers;
    for (const FunctionInfo::Parameter &parameter : known->info().parameters)
      pointers.push_back(const_cast<uint8_t *>(parameters.data()) + parameter.offset);
    core_->launched(stream_, known->info().name); // first: with CUDA_LAUNCH_BLOCKING the launch itself fails
    const CUresult error = core_->driver.cuLaunchKernel(
        known->handle(), shape.grid[0], shape.grid[1], shape.grid[2], shape.block[0], shape.block[1], shape.block[2],
        static_cast<unsigned>(shape.dynamicShared), stream_, pointers.data(), nullptr);
    return error ? core_->refused(error, "launch of kernel " + known->info().name) : Status::ok();
  });
}

class CudaAccelerator : public Accelerator {
public:
  // The default stream is the driver's own, which other libraries of the process use too.
  explicit CudaAccelerator(CoreRef core)
      : core_(std::move(core)), default_(core_, nullptr, CudaStream::Kind::Default) {}
  Result<DeviceAddress> allocate(int64_t bytes, const std::string &name) override;
  Status release(DeviceAddress address) override;
  Result<int64_t> freeBytes() const override {
    return core_->run([&]() -> Result<int64_t> {
      size_t free = 0, total = 0;
      if (const CUresult error = core_->driver.cuMemGetInfo_v2(&free, &total))
        return core_->refused(error, "asking for free memory");
      return static_cast<int64_t>(free);
    });
  }
  Stream &defaultStream() override { return default_; }
  Result<StreamRef> createStream() override {
    return core_->run([&]() -> Result<StreamRef> {
      CUstream stream = nullptr;
      if (const CUresult error = core_->driver.cuStreamCreate(&stream, kNonBlocking))
        return core_->refused(error, "a stream cannot be created");
      return StreamRef(std::make_shared<CudaStream>(core_, stream, CudaStream::Kind::Made));
    });
  }
  Result<EventRef> createEvent() override {
    return core_->run([&]() -> Result<EventRef> {
      CUevent event = nullptr;
      if (const CUresult error = core_->driver.cuEventCreate(&event, 0))
        return core_->refused(error, "an event cannot be created");
      return EventRef(std::make_shared<CudaEvent>(core_, event));
    });
  }
  Result<DeviceModuleRef> load(std::string_view text, const std::string &file) override {
    return core_->run([&] { return loadModule(core_, text, file); });
  }
  Status synchronize() override {
    return core_->run([&] {
      if (const CUresult error = core_->driver.cuCtxSynchronize())
        return core_->refused(error, "waiting for the GPU");
      core_->forgetLaunched();
      return Status::ok();
    });
  }
  int processors() const override { return core_->figures().multiprocessors; }
  std::string name() const override { return core_->figures().name; }
  std::string description() const override {
    const Core::Figures &figures = core_->figures();
    return figures.name + ", compute capability " + std::to_string(figures.major) + "." +
           std::to_string(figures.minor) + ", " + std::to_string(figures.memoryBytes >> 20) + " MiB, driver for CUDA " +
           versionText(core_->driver.version);
  }

private:
  CoreRef core_;
  CudaStream default_;
};

Result<DeviceAddress> CudaAccelerator::allocate(int64_t bytes, const std::string &name) {
  if (bytes <= 0)
    return Status(Code::InvalidArgument, "an allocation of " + bytesText(bytes) + " is not possible (" + name + ")");
  return core_->run([&]() -> Result<DeviceAddress> {
    CUdeviceptr address = 0;
    const CUresult error = core_->driver.cuMemAlloc_v2(&address, static_cast<size_t>(bytes));
    if (error == kOutOfMemory) {
      size_t free = 0, total = 0;
      const bool known = core_->driver.cuMemGetInfo_v2(&free, &total) == kSuccess;
      return Status(Code::ResourceExhausted,
                    "the device has " + (known ? std::to_string(free) : std::string("too few")) + " bytes free but " +
                        name + " needs " + std::to_string(bytes) + ": free some, of other programs too");
    }
    if (error)
      return core_->refused(error, "allocating " + name);
    core_->allocated(address, {bytes, name});
    return address;
  });
}

Status CudaAccelerator::release(DeviceAddress address) {
  if (!core_->forget(address))
    return {Code::InvalidArgument, "address " + std::to_string(address) + " is none that this device allocated"};
  bool isFree = false;
  const Status released = core_->run([&] {
    isFree = true;
    CUresult error = core_->driver.cuCtxSynchronize(); // what was handed in may use it
    const Status waited = error ? core_->refused(error, "waiting for the GPU") : Status::ok();
    error = core_->driver.cuMemFree_v2(address);
    return waited.isOk() && error ? core_->refused(error, "releasing memory") : waited;
  });
  if (isFree)
    return released;
  // The device had failed, perhaps a moment ago in another thread: the memory goes with the context.
  core_->giveBack([&] { (void)core_->driver.cuMemFree_v2(address); });
  return Status::ok();
}

} // namespace

Result<Gpu> openGpu(const GpuOptions &options) {
  auto driver = loadDriver(options.library);
  if (!driver.isOk())
    return driver.status();
  int count = 0;
  const CUresult error = driver.value().cuDeviceGetCount(&count);
  if (error || count == 0)
    return Status(Code::Unsupported, "the NVIDIA driver finds no GPU" +
                                         (error ? ": cuDeviceGetCount answers " + driver.value().nameOf(error) : "") +
                                         ": look at nvidia-smi and CUDA_VISIBLE_DEVICES, or create a context on device "
                                         "\"cpu\"");
  if (options.ordinal < 0 || options.ordinal >= count)
    return Status(Code::InvalidArgument, "there is no GPU " + std::to_string(options.ordinal) + ": use one of 0 to " +
                                             std::to_string(count - 1));
  auto core = Core::create(driver.value(), options.ordinal, options.cubins);
  if (!core.isOk())
    return core.status();
  const Core::Figures figures = core.value()->figures();
  return Gpu{std::make_unique<CudaAccelerator>(std::move(core.value())), figures.major, figures.minor};
}

} // namespace kvq::cuda
