// SPDX-License-Identifier: Apache-2.0
//
// Built-in kernels of accelerators: from a compiler of PTX (fakes/fake_ptx_compiler.c) or the store to a launch over
// programs, on the simulated GPU and on device "cuda" over the look-alike of the driver.
#include "runtime/device/accelerator_device.h"
#include "runtime/device/cuda/cuda_accelerator.h"
#include "runtime/device/ptxsim/ptxsim_accelerator.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

namespace fs = std::filesystem;

namespace kvq {
namespace {

class NoThreads : public ParallelFor {
public:
  void run(int64_t count, ParallelTask task, void *data) override {
    for (int64_t i = 0; i < count; ++i)
      task(data, i);
  }
};

std::unique_ptr<Accelerator> make(const std::string &name) {
  if (name == "ptxsim")
    return makePtxsimAccelerator({});
  auto gpu = cuda::openGpu({LOOKALIKE, 0, nullptr});
  EXPECT_TRUE(gpu.isOk()) << gpu.status().message();
  return std::move(gpu.value().accelerator);
}

class BuiltinKernels : public ::testing::TestWithParam<const char *> {
protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "kvq-builtin-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
    store_ = (root_ / "store").string();
    log_ = root_ / "log";
    setenv("FAKE_COMPILER_LOG", log_.c_str(), 1);
  }
  void TearDown() override {
    unsetenv("FAKE_COMPILER_LOG");
    fs::remove_all(root_);
  }
  std::unique_ptr<Device> device(bool frozen = false, const char *compiler = FAKE_PTX_COMPILER) const {
    const DeviceOptions options = {nullptr, store_.c_str(), compiler, frozen};
    auto made = AcceleratorDevice::create(GetParam(), make(GetParam()), "nvptx:sm_80", "nvptx:sm_80", options,
                                          std::make_unique<NoThreads>());
    EXPECT_TRUE(made.isOk()) << made.status().message();
    return std::move(made.value());
  }
  int compiles() const {
    std::error_code missing;
    const auto bytes = fs::file_size(log_, missing);
    return missing ? 0 : static_cast<int>(bytes / 2);
  }

  fs::path root_, log_;
  std::string store_;
  KernelRequest request_;
};
INSTANTIATE_TEST_SUITE_P(All, BuiltinKernels, ::testing::Values("ptxsim", "cuda"),
                         [](const auto &info) { return std::string(info.param); });

std::vector<uint32_t> runPrograms(const Device &device, const Kernel &kernel, const int64_t grid[3]) {
  const int64_t count = 4 * (grid[0] * grid[1] + 1); // a word more than is written
  Accelerator &accelerator = *device.accelerator();
  const DeviceAddress out = accelerator.allocate(count, "out").value();
  Stream &stream = accelerator.defaultStream();
  EXPECT_TRUE(stream.fill(out, count, 0xff).isOk());
  const uint64_t args[] = {out, 5};
  const Status launched = launchPrograms(stream, *kernel.function(), args, grid);
  EXPECT_TRUE(launched.isOk()) << launched.message();
  std::vector<uint32_t> words(static_cast<size_t>(count / 4));
  EXPECT_TRUE(stream.download(words.data(), out, count).isOk());
  EXPECT_TRUE(stream.synchronize().isOk());
  EXPECT_TRUE(accelerator.release(out).isOk());
  return words;
}

TEST_P(BuiltinKernels, FromTheCompilerAndFromTheStore) {
  for (const char *source : {"compiled", "store"}) {
    const std::unique_ptr<Device> device = this->device();
    EXPECT_TRUE(device->available(request_).isOk());
    auto kernel = device->open(request_);
    ASSERT_TRUE(kernel.isOk()) << kernel.status().message();
    EXPECT_EQ(kernel.value()->info().source, source);
    EXPECT_EQ(kernel.value()->info().name, toText(request_));
    EXPECT_EQ(kernel.value()->info().signature, "ptr<i32> i64");
    EXPECT_EQ(kernel.value()->gridOf(), GridOf::Programs);
    EXPECT_EQ(device->open(request_).value(), kernel.value());
    EXPECT_EQ(device->kernels(), std::vector<KernelRef>{kernel.value()});
    const int64_t grid[3] = {5, 2, 1}; // the second block has one program and three warps without any
    EXPECT_EQ(runPrograms(*device, *kernel.value(), grid),
              (std::vector<uint32_t>{5, 6, 7, 8, 9, 1005, 1006, 1007, 1008, 1009, 0xffffffff}));
  }
  EXPECT_EQ(compiles(), 1);
}

TEST_P(BuiltinKernels, GridsAndArgumentsAreChecked) {
  const std::unique_ptr<Device> device = this->device();
  const KernelRef kernel = device->open(request_).value();
  Stream &stream = device->accelerator()->defaultStream();
  const uint64_t args[3] = {};
  const auto launch = [&](std::array<int64_t, 3> grid, size_t count = 2) {
    return launchPrograms(stream, *kernel->function(), std::span(args).first(count), grid.data());
  };
  EXPECT_TRUE(launch({0, 1, 1}).isOk() && launch({1, 0, 1}).isOk());
  for (const Status &status : {launch({-1, 1, 1}), launch({int64_t(4) * INT32_MAX + 1, 1, 1}), launch({1, 65536, 1}),
                               launch({1, 1, -5}), launch({1, 1, 1}, 1), launch({1, 1, 1}, 3), launch({0, 1, 1}, 3)})
    EXPECT_EQ(status.code(), Code::InvalidArgument) << status.message();
  const char *const free = ".version 7.0\n.target sm_80\n.visible .entry free() { ret; }\n";
  auto user = device->compile(free, "");
  ASSERT_TRUE(user.isOk()) << user.status().message();
  EXPECT_EQ(user.value()->gridOf(), GridOf::Blocks);
  const int64_t grid[3] = {1, 1, 1};
  const Status status = launchPrograms(stream, *user.value()->function(), {}, grid);
  EXPECT_NE(status.message().find("no blocks of whole warps"), std::string::npos) << status.message();
  EXPECT_EQ(device->kernels().size(), 2u);
}

TEST_P(BuiltinKernels, TheCompilersRefusalIsItsOwnSentence) {
  request_.pair.k = {3, Axis::Channel, 32};
  const std::unique_ptr<Device> device = this->device();
  for (int i = 0; i < 2; ++i) {
    const Status status = device->open(request_).status();
    EXPECT_EQ(status.code(), Code::Unsupported);
    EXPECT_EQ(status.message(), "there is no kernel for 3 bits on an accelerator: use 2, 4 or 8");
  }
  EXPECT_TRUE(device->kernels().empty());
  EXPECT_EQ(compiles(), 2);
}

TEST_P(BuiltinKernels, WhatTheDeviceDoesNotTakeIsAnError) {
  request_.pageTokens = 128;
  const std::unique_ptr<Device> device = this->device();
  const Status status = device->open(request_).status();
  EXPECT_FALSE(status.isOk());
  EXPECT_NE(status.message().find(toText(request_)), std::string::npos) << status.message();
}

TEST_P(BuiltinKernels, AFrozenDeviceNeverCompiles) {
  {
    ASSERT_TRUE(fs::create_directory(store_));
    fs::permissions(store_, fs::perms::owner_all);
    const std::unique_ptr<Device> frozen = device(true);
    for (const Status &status : {frozen->open(request_).status(), frozen->available(request_)}) {
      EXPECT_EQ(status.code(), Code::Unsupported);
      EXPECT_NE(status.message().find("for level nvptx:sm_80 is not in the kernel store"), std::string::npos)
          << status.message();
    }
  }
  ASSERT_TRUE(device()->open(request_).isOk());
  const std::unique_ptr<Device> frozen = device(true);
  EXPECT_TRUE(frozen->available(request_).isOk() && frozen->open(request_).isOk());
  EXPECT_EQ(compiles(), 1);
}

TEST_P(BuiltinKernels, WithoutACompilerUsersKernelsRunAllTheSame) {
  for (const char *compiler : {"", "/nonexistent/libkvq-compiler.so"}) {
    const std::unique_ptr<Device> device = this->device(false, compiler);
    EXPECT_EQ(device->open(request_).status().code(), Code::Unsupported);
    EXPECT_EQ(device->available(request_).code(), Code::Unsupported);
    EXPECT_NE(device->open(request_).status().message().find("compiler plug-in"), std::string::npos);
    EXPECT_TRUE(device->compile(".version 7.0\n.target sm_80\n.visible .entry k() { ret; }\n", "").isOk());
  }
}

TEST_P(BuiltinKernels, OneOfManyThreadsCompiles) {
  const std::unique_ptr<Device> device = this->device();
  std::vector<KernelRef> kernels(6);
  std::vector<std::thread> threads;
  for (KernelRef &kernel : kernels)
    threads.emplace_back([&] { kernel = device->open(request_).value(); });
  for (std::thread &thread : threads)
    thread.join();
  for (const KernelRef &kernel : kernels)
    EXPECT_EQ(kernel, kernels[0]);
  EXPECT_EQ(compiles(), 1);
}

} // namespace
} // namespace kvq
