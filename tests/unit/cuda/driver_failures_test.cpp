// SPDX-License-Identifier: Apache-2.0
//
// Every function of the driver that fails: which call answers, with which Status, and that nothing leaks.
#include "tests/unit/cuda/fake_driver.h"

#include <atomic>
#include <functional>
#include <thread>

using namespace kvq;
using kvq_test::FakeDriver;
using kvq_test::kPtx;

namespace {

bool has(const Status &status, const std::string &part) { return status.message().find(part) != std::string::npos; }

struct Failed {
  std::string call; // of the accelerator; "": none
  Status status;
};

// Everything that an accelerator can do, one after the other, up to the first call that fails.
Failed runAll(const std::function<Result<cuda::Gpu>()> &open) {
  auto gpu = open();
  if (!gpu.isOk())
    return {"open", gpu.status()};
  Accelerator &device = *gpu.value().accelerator;
  auto memory = device.allocate(256, "some memory");
  if (!memory.isOk())
    return {"allocate", memory.status()};
  const std::shared_ptr<void> released(nullptr, [&](void *) { (void)device.release(memory.value()); });
  auto stream = device.createStream();
  auto event = device.createEvent();
  auto module = device.load(kPtx, "ptx");
  for (const auto &[call, status] : {std::pair("createStream", stream.status()),
                                     std::pair("createEvent", event.status()), std::pair("load", module.status())})
    if (!status.isOk())
      return {call, status};
  auto function = module.value()->function("free");
  if (!function.isOk())
    return {"function", function.status()};
  uint8_t host[64] = {};
  const DeviceAddress at = memory.value();
  LaunchShape shape;
  shape.dynamicShared = 64 << 10; // has to be opted in to
  const uint8_t parameters[4] = {};
  const std::pair<const char *, std::function<Status()>> calls[] = {
      {"freeBytes", [&] { return device.freeBytes().status(); }},
      {"variable", [&] { return module.value()->variable("x").status(); }},
      {"blocks", [&] { return function.value()->blocksPerProcessor(32, 0).status(); }},
      {"upload", [&] { return stream.value()->upload(at, host, 64); }},
      {"download", [&] { return stream.value()->download(host, at, 64); }},
      {"copy", [&] { return stream.value()->copy(at + 64, at, 64); }},
      {"fill", [&] { return stream.value()->fill(at, 64, 1); }},
      {"copy rows", [&] { return stream.value()->copyRows(at, 32, at + 128, 16, 8, 4); }},
      {"fill rows", [&] { return stream.value()->fillRows(at, 32, 8, 4, 1); }},
      {"launch", [&] { return stream.value()->launch(*function.value(), shape, parameters); }},
      {"record", [&] { return stream.value()->record(*event.value()); }},
      {"wait", [&] { return stream.value()->wait(*event.value()); }},
      {"event synchronize", [&] { return event.value()->synchronize(); }},
      {"event done", [&] { return event.value()->done().status(); }},
      {"time", [&] { return event.value()->millisecondsSince(*event.value()).status(); }},
      {"stream done", [&] { return stream.value()->done().status(); }},
      {"stream synchronize", [&] { return stream.value()->synchronize(); }},
      {"synchronize", [&] { return device.synchronize(); }},
      {"release", [&] { return device.release(at); }},
  };
  for (const auto &[call, run] : calls)
    if (Status status = run(); !status.isOk())
      return {call, status};
  return {"", Status::ok()};
}

TEST_F(FakeDriver, NothingFails) {
  const Failed none = runAll([&] { return open(); });
  EXPECT_EQ(none.call, "") << none.status.message();
  EXPECT_EQ(get("allowed"), 99 << 10);
  EXPECT_EQ(get("stream flags"), 1); // it does not wait for the default stream
}

struct FailingCall {
  const char *function, *call;
};
constexpr FailingCall kFailing[] = {
    {"cuInit", "open"},
    {"cuDriverGetVersion", "open"},
    {"cuDeviceGetCount", "open"},
    {"cuDeviceGet", "open"},
    {"cuDeviceGetName", "open"},
    {"cuDeviceTotalMem_v2", "open"},
    {"cuDeviceGetAttribute", "open"},
    {"cuDevicePrimaryCtxRetain", "open"},
    {"cuCtxPushCurrent_v2", "allocate"},
    {"cuMemAlloc_v2", "allocate"},
    {"cuStreamCreate", "createStream"},
    {"cuEventCreate", "createEvent"},
    {"cuModuleLoadDataEx", "load"},
    {"cuModuleGetFunction", "function"},
    {"cuFuncGetAttribute", "function"},
    {"cuMemGetInfo_v2", "freeBytes"},
    {"cuModuleGetGlobal_v2", "variable"},
    {"cuOccupancyMaxActiveBlocksPerMultiprocessor", "blocks"},
    {"cuMemcpyHtoDAsync_v2", "upload"},
    {"cuMemcpyDtoHAsync_v2", "download"},
    {"cuMemcpyDtoDAsync_v2", "copy"},
    {"cuMemsetD8Async", "fill"},
    {"cuMemcpy2DAsync_v2", "copy rows"},
    {"cuMemsetD2D8Async", "fill rows"},
    {"cuFuncSetAttribute", "launch"},
    {"cuLaunchKernel", "launch"},
    {"cuEventRecord", "record"},
    {"cuStreamWaitEvent", "wait"},
    {"cuEventSynchronize", "event synchronize"},
    {"cuEventQuery", "event done"},
    {"cuEventElapsedTime", "time"},
    {"cuStreamQuery", "stream done"},
    {"cuStreamSynchronize", "stream synchronize"},
    {"cuCtxSynchronize", "synchronize"},
    {"cuMemFree_v2", "release"},
};

TEST_F(FakeDriver, EveryCallsFailureIsItsStatus) {
  for (const auto &[function, call] : kFailing)
    for (const auto &[code, expected] : {std::pair(999, Code::Unsupported), std::pair(1, Code::InvalidArgument),
                                         std::pair(2, Code::ResourceExhausted)}) {
      reset();
      fail(function, code);
      const Failed failed = runAll([&] { return open(); });
      if (code == 1 && std::string(function) == "cuMemcpy2DAsync_v2") {
        EXPECT_EQ(failed.call, "") << failed.status.message(); // the rows go one by one
        EXPECT_EQ(calls("cuMemcpyDtoDAsync_v2"), 1 + 4);
        continue;
      }
      EXPECT_EQ(failed.call, call) << function << ": " << failed.status.message();
      // A GPU that cannot be opened is a wish that this machine cannot fulfil, whatever the driver says.
      const Code wanted = failed.call == "open" && expected == Code::InvalidArgument ? Code::Unsupported : expected;
      if (std::string(function) != "cuInit" && std::string(function) != "cuDriverGetVersion" &&
          std::string(function) != "cuDeviceGetCount")
        EXPECT_EQ(failed.status.code(), wanted) << function << " " << code << ": " << failed.status.message();
      if (code == 999)
        EXPECT_TRUE(has(failed.status, "answers CUDA_ERROR_OTHER (told to)")) << failed.status.message();
      EXPECT_EQ(live(), FakeCudaCounts{}) << function;
      EXPECT_EQ(depth(), 0) << function;
    }
}

TEST_F(FakeDriver, WhatCannotBeGivenBackIsNoFailure) {
  for (const char *function : {"cuStreamDestroy_v2", "cuEventDestroy_v2", "cuModuleUnload", "cuCtxPopCurrent_v2",
                               "cuDevicePrimaryCtxRelease_v2"}) {
    reset();
    fail(function, 999);
    const Failed none = runAll([&] { return open(); });
    EXPECT_EQ(none.call, "") << function << ": " << none.status.message();
    EXPECT_GT(calls(function), 0);
    EXPECT_EQ(live(), FakeCudaCounts{}) << function;
  }
}

// A failure of a kernel shows wherever somebody waits, and stays.
TEST_F(FakeDriver, AFailureOfAKernelStays) {
  uint8_t host[64] = {};
  DeviceAddress memory = 0;
  using Call = std::function<Status(Accelerator &, Stream &, Event &)>;
  const std::pair<const char *, Call> calls[] = {
      {"cuStreamSynchronize", [](Accelerator &, Stream &stream, Event &) { return stream.synchronize(); }},
      {"cuStreamQuery", [](Accelerator &, Stream &stream, Event &) { return stream.done().status(); }},
      {"cuEventSynchronize", [](Accelerator &, Stream &, Event &event) { return event.synchronize(); }},
      {"cuEventQuery", [](Accelerator &, Stream &, Event &event) { return event.done().status(); }},
      {"cuCtxSynchronize", [](Accelerator &device, Stream &, Event &) { return device.synchronize(); }},
      {"cuMemcpyDtoHAsync_v2",
       [&](Accelerator &, Stream &stream, Event &) { return stream.download(host, memory, 64); }},
  };
  for (const auto &[function, call] : calls) {
    reset();
    auto gpu = open();
    ASSERT_TRUE(gpu.isOk());
    Accelerator &device = *gpu.value().accelerator;
    memory = device.allocate(256, "some memory").value();
    const StreamRef stream = device.createStream().value();
    const EventRef event = device.createEvent().value();
    const DeviceFunctionRef kernel = device.load(kPtx, "ptx").value()->function("free").value();
    const uint8_t parameters[4] = {};
    ASSERT_TRUE(stream->launch(*kernel, {}, parameters).isOk());
    fail(function, 700);
    const Status status = call(device, *stream, *event);
    EXPECT_EQ(status.code(), Code::InvalidArgument) << function;
    EXPECT_TRUE(has(status, "kernel free failed with CUDA_ERROR_ILLEGAL_ADDRESS (told to); the device answers nothing "
                            "else: mend the kernel"))
        << function << ": " << status.message();
    fail(function, 0);
    EXPECT_EQ(device.synchronize().message(), status.message());
    EXPECT_EQ(device.allocate(4, "more").status().message(), status.message());
    EXPECT_EQ(device.createStream().status().message(), status.message());
    EXPECT_EQ(device.load(kPtx, "again").status().message(), status.message());
    EXPECT_EQ(stream->launch(*kernel, {}, parameters).message(), status.message());
    EXPECT_TRUE(device.release(memory).isOk());
    EXPECT_EQ(device.release(memory).code(), Code::InvalidArgument);
  }
}

TEST_F(FakeDriver, TheKernelsThatMayHaveFailedAreNamed) {
  auto gpu = open();
  ASSERT_TRUE(gpu.isOk());
  Accelerator &device = *gpu.value().accelerator;
  const DeviceModuleRef module = device.load(kPtx, "ptx").value();
  const StreamRef stream = device.createStream().value();
  const uint8_t parameters[4] = {};
  LaunchShape shape;
  shape.block[0] = 32;
  ASSERT_TRUE(stream->launch(*module->function("add").value(), shape, parameters).isOk());
  ASSERT_TRUE(stream->synchronize().isOk()); // so it is none of them
  ASSERT_TRUE(stream->launch(*module->function("free").value(), shape, parameters).isOk());
  ASSERT_TRUE(device.defaultStream().launch(*module->function("free").value(), shape, parameters).isOk());
  fail("cuStreamQuery", 719);
  EXPECT_TRUE(has(stream->done().status(), "kernel free failed with")) << stream->done().status().message();

  reset();
  auto other = open();
  const DeviceModuleRef two = other.value().accelerator->load(kPtx, "ptx").value();
  ASSERT_TRUE(
      other.value().accelerator->defaultStream().launch(*two->function("add").value(), shape, parameters).isOk());
  ASSERT_TRUE(other.value().accelerator->defaultStream().launch(*two->function("free").value(), {}, parameters).isOk());
  fail("cuCtxSynchronize", 716);
  const Status status = other.value().accelerator->synchronize();
  EXPECT_TRUE(has(status, "one of the kernels add, free failed with")) << status.message();
}

// One of them fails in the middle: all get the same sentence from then on, and everything is given back.
TEST_F(FakeDriver, ThreadsShareAGpuAndItsFailure) {
  constexpr int kThreads = 6, kRounds = 40;
  auto gpu = open();
  ASSERT_TRUE(gpu.isOk());
  Accelerator &device = *gpu.value().accelerator;
  std::vector<Status> last(kThreads);
  std::atomic<int> rounds{0};
  const auto work = [&](int thread) {
    const auto round = [&]() -> Status {
      auto memory = device.allocate(256, "memory of a thread");
      if (!memory.isOk())
        return memory.status();
      const std::shared_ptr<void> released(nullptr, [&](void *) {
        const Status status = device.release(memory.value()); // waits, and may be the first to hear of the failure
        EXPECT_TRUE(status.isOk() || has(status, "failed with")) << status.message();
      });
      auto stream = device.createStream();
      auto module = device.load(kPtx, "ptx");
      if (!stream.isOk() || !module.isOk())
        return stream.isOk() ? module.status() : stream.status();
      auto function = module.value()->function("free");
      if (!function.isOk())
        return function.status();
      const uint8_t parameters[4] = {};
      KVQ_RETURN_IF_ERROR(stream.value()->fill(memory.value(), 256, 7));
      KVQ_RETURN_IF_ERROR(stream.value()->launch(*function.value(), {}, parameters));
      KVQ_RETURN_IF_ERROR(device.defaultStream().launch(*function.value(), {}, parameters));
      return stream.value()->synchronize();
    };
    for (int i = 0; i < kRounds || last[size_t(thread)].isOk(); ++i) {
      last[size_t(thread)] = round();
      if (++rounds == kThreads * kRounds / 2)
        fail("cuStreamSynchronize", 719);
    }
  };
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread)
    threads.emplace_back(work, thread);
  for (std::thread &thread : threads)
    thread.join();
  for (const Status &status : last) {
    EXPECT_EQ(status.message(), last[0].message());
    EXPECT_TRUE(has(status, "kernel free failed with")) << status.message();
  }
}

TEST_F(FakeDriver, AFailureOfTheHardwareBlamesNoKernel) {
  auto gpu = open();
  ASSERT_TRUE(gpu.isOk());
  fail("cuCtxSynchronize", 214);
  const Status status = gpu.value().accelerator->synchronize();
  EXPECT_EQ(status.code(), Code::FailedPrecondition);
  EXPECT_TRUE(has(status, "waiting for the GPU failed with") && has(status, "nvidia-smi")) << status.message();
}

TEST_F(FakeDriver, NoDriver) {
  const Status none = cuda::openGpu({"libkvq-no-such-libcuda.so.1", 0, nullptr}).status();
  EXPECT_EQ(none.code(), Code::Unsupported);
  EXPECT_TRUE(has(none, "libkvq-no-such-libcuda.so.1: cannot open") && has(none, "install it")) << none.message();
  // Any library that is no driver.
  EXPECT_TRUE(has(cuda::openGpu({FAKE_COMPILER, 0, nullptr}).status(), "is too old: it lacks cu"));
  fail("cuInit", 34);
  EXPECT_TRUE(has(open().status(), "is the stub of a CUDA toolkit")) << open().status().message();
  fail("cuInit", 100);
  EXPECT_TRUE(has(open().status(), "no GPU that this process may use")) << open().status().message();
  fail("cuInit", 0);
  set("version", 10020);
  EXPECT_TRUE(has(open().status(), "supports CUDA 10.2, and device \"cuda\" needs one for CUDA 11.0"))
      << open().status().message();
  set("version", 11000);
  set("count", 0);
  EXPECT_EQ(open().status().code(), Code::Unsupported);
  EXPECT_TRUE(has(open().status(), "finds no GPU")) << open().status().message();
  set("count", 2);
  EXPECT_TRUE(open(1).isOk());
  EXPECT_EQ(open(2).status().code(), Code::InvalidArgument);
  EXPECT_TRUE(has(open(2).status(), "there is no GPU 2: use one of 0 to 1")) << open(2).status().message();
  EXPECT_EQ(open(-1).status().code(), Code::InvalidArgument);
}

TEST_F(FakeDriver, AFullDeviceSaysWhatIsFree) {
  auto gpu = open();
  fail("cuMemAlloc_v2", 2);
  const Status status = gpu.value().accelerator->allocate(500, "the pool").status();
  EXPECT_TRUE(has(status, "the device has 12345 bytes free but the pool needs 500")) << status.message();
  fail("cuMemGetInfo_v2", 999);
  EXPECT_TRUE(has(gpu.value().accelerator->allocate(500, "the pool").status(), "too few bytes free"));
  EXPECT_EQ(gpu.value().accelerator->allocate(0, "the pool").status().code(), Code::InvalidArgument);
}

} // namespace
