// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/fakes/fake_accelerator.h"

#include "runtime/device/ptxsim/plugin.h"
#include "runtime/reference/reference.h"
#include "tests/unit/fakes/fake_memory.h"

#include <kvq/kernel_abi.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <sstream>

using namespace kvq;

namespace kvq_test {

namespace {

FakeControl control;
constexpr int64_t kWarpsOfABlock = 4;

bool countsDown(int64_t &left) { return left >= 0 && left-- == 0; }

// ---- work ----

struct Work {
  std::function<Status()> task; // empty: waits for the mark
  uint64_t stream = 0, position = 0;
};
struct Queue {
  std::deque<Work> work;
  uint64_t pushed = 0, done = 0;
};

struct Core {
  Core() : memory(control.memoryBytes) {}
  // Everything that a stream was handed up to a position, and what that waits for.
  Status run(uint64_t stream, uint64_t position) {
    Queue &queue = queues[stream];
    while (failure.isOk() && queue.done < position && !queue.work.empty()) {
      Work work = std::move(queue.work.front());
      queue.work.pop_front();
      ++queue.done;
      --control.pending;
      if (work.task)
        failure = work.task();
      else
        (void)run(work.stream, work.position);
    }
    return failure;
  }
  Status runAll() {
    for (auto &[stream, queue] : queues)
      (void)run(stream, queue.pushed);
    return failure;
  }
  Status push(uint64_t stream, std::function<Status()> task) {
    queues[stream].work.push_back({std::move(task), 0, 0});
    ++queues[stream].pushed;
    ++control.pending;
    return Status::ok();
  }

  std::recursive_mutex mutex;
  FakeMemory memory;
  std::map<uint64_t, Queue> queues;
  uint64_t streams = 0;
  Status failure;
};
using CoreRef = std::shared_ptr<Core>;

// Runs a function under the lock, unless the device has failed.
template <typename Function> auto locked(const CoreRef &core, const Function &function) -> decltype(function()) {
  std::lock_guard<std::recursive_mutex> lock(core->mutex);
  if (!core->failure.isOk())
    return core->failure;
  return function();
}

// ---- kernels ----

// Which arguments are pointers, and how they are aligned on a device: page pools and tails to 64 bytes, items to 8.
int64_t alignmentOf(KernelOp op, int argument, const std::string &type) {
  const bool isPool =
      (op == KernelOp::Attend &&
       (argument == KVQ_ATTEND_PAGES || argument == KVQ_ATTEND_TAIL_K || argument == KVQ_ATTEND_TAIL_V)) ||
      (op == KernelOp::Append && (argument == KVQ_APPEND_TAIL_K || argument == KVQ_APPEND_TAIL_V)) ||
      ((op == KernelOp::QuantizeK || op == KernelOp::QuantizeV) &&
       (argument == KVQ_QUANTIZE_PAGES || argument == KVQ_QUANTIZE_TAIL)) ||
      ((op == KernelOp::DequantizeK || op == KernelOp::DequantizeV) && argument == KVQ_DEQUANTIZE_PAGES) ||
      (isConvert(op) && (argument == KVQ_CONVERT_SOURCE || argument == KVQ_CONVERT_PAGES));
  if (isPool)
    return 64;
  return type == "ptr<i8>" || type == "ptr<i64>" ? 8 : type == "ptr<f32>" || type == "ptr<i32>" ? 4 : 2;
}

class FakeFunction : public DeviceFunction {
public:
  explicit FakeFunction(const KernelRequest &request) : request_(request) {
    info_.name = "kvq_entry";
    std::istringstream words(builtinSignature(request));
    for (std::string word; words >> word;)
      types_.push_back(word);
    for (size_t i = 0; i <= types_.size(); ++i) // and the number of programs
      info_.parameters.push_back({static_cast<int64_t>(8 * i), 8});
    info_.parameterBytes = static_cast<int64_t>(8 * info_.parameters.size());
    info_.block[0] = 32 * kWarpsOfABlock;
    info_.block[1] = info_.block[2] = 1;
  }
  const FunctionInfo &info() const override { return info_; }
  Result<int> blocksPerProcessor(int, int64_t) const override { return 1; }

  Status check(const FakeMemory &memory, const std::vector<uint64_t> &args) const {
    for (size_t i = 0; i < types_.size(); ++i)
      if (types_[i].starts_with("ptr"))
        if (!memory.check(args[i], 1).isOk() || args[i] % alignmentOf(request_.op, static_cast<int>(i), types_[i]) != 0)
          return {Code::InvalidArgument, "argument " + std::to_string(i) + " of " + toText(request_) + " is " +
                                             std::to_string(args[i]) +
                                             ", which is no address of the device, or not aligned"};
    return Status::ok();
  }
  // Along dimension 0 as many programs as the last argument says.
  void run(const std::vector<uint64_t> &args, int64_t rows) const {
    const auto programs = static_cast<int64_t>(args.back());
    if (request_.op == KernelOp::Merge)
      control.merges = programs * rows;
    for (int64_t program = 0; program < programs * rows; ++program) {
      const int64_t id[3] = {program % programs, program / programs, 0};
      runReference(request_, args.data(), id);
    }
  }

private:
  KernelRequest request_;
  std::vector<std::string> types_;
  FunctionInfo info_;
};

// ---- streams ----

class FakeEvent : public Event {
public:
  explicit FakeEvent(CoreRef core) : core_(std::move(core)) {}
  Status synchronize() override {
    return locked(core_, [&] { return core_->run(stream, position); });
  }
  Result<bool> done() override {
    return locked(core_, [&] { return Result<bool>(core_->queues[stream].done >= position); });
  }
  Result<double> millisecondsSince(const Event &) override { return Status(Code::Unsupported, "a fake has no time"); }
  uint64_t stream = 0, position = 0;

private:
  CoreRef core_;
};

class FakeStream : public Stream {
public:
  explicit FakeStream(CoreRef core) : core_(std::move(core)), id_(core_->streams++) {}
  ~FakeStream() override { (void)synchronize(); }

  Status upload(DeviceAddress to, const void *from, int64_t bytes) override {
    return onRange(to, bytes, [=] {
      ++control.uploads;
      if (std::memcmp(reinterpret_cast<void *>(to), from, bytes) == 0)
        return;
      ++control.changes;
      if (!countsDown(control.changesLeft))
        std::memcpy(reinterpret_cast<void *>(to), from, bytes);
    });
  }
  Status download(void *to, DeviceAddress from, int64_t bytes) override {
    return onRange(from, bytes, [=] { std::memcpy(to, reinterpret_cast<const void *>(from), bytes); });
  }
  Status copy(DeviceAddress to, DeviceAddress from, int64_t bytes) override {
    if (Status status = core_->memory.check(from, bytes); !status.isOk())
      return status;
    return onRange(to, bytes,
                   [=] { std::memcpy(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes); });
  }
  Status fill(DeviceAddress to, int64_t bytes, uint8_t value) override {
    return onRange(to, bytes, [=] { std::memset(reinterpret_cast<void *>(to), value, bytes); });
  }
  Status launch(const DeviceFunction &function, const LaunchShape &shape, std::span<const uint8_t> parameters) override;
  Status record(Event &event) override {
    return locked(core_, [&] {
      auto &fake = dynamic_cast<FakeEvent &>(event);
      fake.stream = id_;
      fake.position = core_->queues[id_].pushed;
      return Status::ok();
    });
  }
  Status wait(const Event &event) override {
    return locked(core_, [&] {
      const auto &fake = dynamic_cast<const FakeEvent &>(event);
      if (control.forgetsWaits)
        return Status::ok();
      core_->queues[id_].work.push_back({{}, fake.stream, fake.position});
      ++core_->queues[id_].pushed;
      ++control.pending;
      return Status::ok();
    });
  }
  Status synchronize() override {
    return locked(core_, [&] { return core_->run(id_, core_->queues[id_].pushed); });
  }
  Result<bool> done() override {
    return locked(core_, [&] { return Result<bool>(core_->queues[id_].work.empty()); });
  }

private:
  template <typename Function> Status onRange(DeviceAddress address, int64_t bytes, const Function &function) {
    return locked(core_, [&]() -> Status {
      if (Status status = core_->memory.check(address, bytes); !status.isOk())
        return status;
      return core_->push(id_, [core = core_.get(), function] {
        const FakeMemory::Open open(core->memory);
        function();
        return Status::ok();
      });
    });
  }

  CoreRef core_;
  uint64_t id_;
};

Status FakeStream::launch(const DeviceFunction &function, const LaunchShape &shape,
                          std::span<const uint8_t> parameters) {
  const auto *fake = dynamic_cast<const FakeFunction *>(&function);
  if (!fake || static_cast<int64_t>(parameters.size()) != fake->info().parameterBytes)
    return {Code::InvalidArgument, "the kernel, or its parameters, are of another device"};
  std::vector<uint64_t> args(parameters.size() / 8);
  std::memcpy(args.data(), parameters.data(), parameters.size());
  const int64_t blocks = (static_cast<int64_t>(args.back()) + kWarpsOfABlock - 1) / kWarpsOfABlock;
  if (shape.grid[0] != blocks || shape.grid[2] != 1 || !std::equal(shape.block, shape.block + 3, fake->info().block))
    return {Code::InvalidArgument, std::to_string(args.back()) + " programs do not fit the grid"};
  return locked(core_, [&]() -> Status {
    if (Status status = fake->check(core_->memory, args); !status.isOk())
      return status;
    return core_->push(id_, [core = core_.get(), fake, args, rows = int64_t(shape.grid[1])]() -> Status {
      if (countsDown(control.launchesLeft))
        return {Code::InvalidArgument, "a kernel failed while it ran; the device answers nothing else"};
      const FakeMemory::Open open(core->memory);
      fake->run(args, rows);
      return Status::ok();
    });
  });
}

class FakeAccelerator : public Accelerator {
public:
  FakeAccelerator() : core_(std::make_shared<Core>()), default_(core_) {}
  Result<DeviceAddress> allocate(int64_t bytes, const std::string &name) override {
    return locked(core_, [&]() -> Result<DeviceAddress> {
      if (countsDown(control.allocationsLeft))
        return Status(Code::ResourceExhausted, "no room for " + name + ": 0 bytes are free");
      auto address = core_->memory.allocate(bytes, name);
      control.live += address.isOk();
      return address;
    });
  }
  Status release(DeviceAddress address) override {
    std::lock_guard<std::recursive_mutex> lock(core_->mutex); // after a failure too
    (void)core_->runAll();
    Status status = core_->memory.release(address);
    control.live -= status.isOk();
    return status;
  }
  Result<int64_t> freeBytes() const override { return core_->memory.freeBytes(); }
  int processors() const override { return 1; }
  std::string name() const override { return "fake"; }
  std::string description() const override { return "a fake"; }
  Stream &defaultStream() override { return default_; }
  Result<StreamRef> createStream() override {
    return locked(core_, [&] { return Result<StreamRef>(std::make_shared<FakeStream>(core_)); });
  }
  Result<EventRef> createEvent() override {
    return locked(core_, [&] { return Result<EventRef>(std::make_shared<FakeEvent>(core_)); });
  }
  Result<DeviceModuleRef> load(std::string_view, const std::string &) override {
    return Status(Code::Unsupported, "a fake has no modules");
  }
  Status synchronize() override {
    return locked(core_, [&] { return core_->runAll(); });
  }

private:
  CoreRef core_;
  FakeStream default_;
};

class FakeDevice : public Device {
public:
  explicit FakeDevice(std::unique_ptr<ParallelFor> parallel) : Device(std::move(parallel)) {}
  Result<KernelRef> open(const KernelRequest &request, const ScoreFunction *) override {
    std::lock_guard<std::mutex> lock(mutex_);
    KernelRef &kernel = kernels_[toText(request)];
    if (!kernel)
      kernel =
          std::make_shared<AcceleratorKernel>(KernelInfo{toText(request), "fake", "", builtinSignature(request), 0, 0},
                                              std::make_shared<FakeFunction>(request));
    return kernel;
  }
  Result<KernelRef> compile(const std::string &, const std::string &) override {
    return Status(Code::Unsupported, "a fake runs built-in kernels only");
  }
  Status available(const KernelRequest &, const ScoreFunction *) const override { return Status::ok(); }
  std::vector<KernelRef> kernels() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<KernelRef> all;
    for (const auto &[name, kernel] : kernels_)
      all.push_back(kernel);
    return all;
  }
  const std::string &level() const override { return name_; }
  const std::string &levels() const override { return name_; }
  std::string machine() const override { return "{}"; }
  Result<KernelSource *> compiledKernels() const override {
    return Status(Code::Unsupported, "a fake compiles no kernels");
  }
  Accelerator *accelerator() const override { return &accelerator_; }
  Profile profile() const override { return profile_; }

private:
  mutable FakeAccelerator accelerator_;
  const std::string name_ = "fake";
  const Profile profile_ = control.profile;
  mutable std::mutex mutex_;
  std::map<std::string, KernelRef> kernels_;
};

} // namespace

} // namespace kvq_test

extern "C" {

kvq_test::FakeControl *kvq_fake_control() { return &kvq_test::control; }

__attribute__((visibility("default"))) void kvq_ptxsim_device_1(const char *,
                                                                std::unique_ptr<kvq::ParallelFor> *parallel,
                                                                std::unique_ptr<kvq::Device> *device, kvq::Status *) {
  *device = std::make_unique<kvq_test::FakeDevice>(std::move(*parallel));
}

} // extern "C"
static_assert(std::is_same_v<decltype(&kvq_ptxsim_device_1), kvq::MakePtxsimDevice>);
