// SPDX-License-Identifier: Apache-2.0
//
// What every accelerator does: the simulated GPU, and device "cuda" over the simulator's look-alike of the driver.
#include "runtime/device/cuda/cuda_accelerator.h"
#include "runtime/device/ptxsim/ptxsim_accelerator.h"

#include <gtest/gtest.h>

#include <thread>

namespace kvq {
namespace {

const char *const kText = R"(.version 7.0
.target sm_80
.address_size 64
.visible .global .align 4 .u32 number = 5;
.visible .entry fill(.param .u64 to, .param .u32 value)
{
  .reg .b32 %r<4>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [to];
  ld.param.u32 %r1, [value];
  mov.u32 %r2, %tid.x;
  mul.wide.u32 %rd2, %r2, 4;
  add.s64 %rd3, %rd1, %rd2;
  add.s32 %r3, %r1, %r2;
  st.global.u32 [%rd3], %r3;
  ret;
}
)";

std::unique_ptr<Accelerator> makeCuda() {
  auto gpu = cuda::openGpu({LOOKALIKE, 0, nullptr});
  EXPECT_TRUE(gpu.isOk()) << gpu.status().message();
  return std::move(gpu.value().accelerator);
}

struct Kind {
  const char *name;
  std::unique_ptr<Accelerator> (*make)();
  bool downloadWaits; // memory of the host that is not pinned
  const char *failure;
};
const Kind kKinds[] = {
    {"ptxsim", [] { return makePtxsimAccelerator({}); }, false,
     "kernel fill, line 14, block (0, 0, 0), warp 1, lane 0: bounds: "},
    {"cuda", makeCuda, true,
     "kernel fill failed with CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)"},
};

class AcceleratorTest : public ::testing::TestWithParam<Kind> {
protected:
  std::vector<uint8_t> parameters(DeviceAddress to, uint32_t value) {
    const uint64_t words[] = {to, value};
    return packParameters(function_->info(), words).value();
  }
  std::unique_ptr<Accelerator> device_ = GetParam().make();
  DeviceModuleRef module_ = device_->load(kText, "test").value();
  DeviceFunctionRef function_ = module_->function("fill").value();
  DeviceAddress memory_ = device_->allocate(128, "memory").value();
};
INSTANTIATE_TEST_SUITE_P(All, AcceleratorTest, ::testing::ValuesIn(kKinds),
                         [](const auto &info) { return std::string(info.param.name); });

TEST_P(AcceleratorTest, FunctionsAndVariables) {
  EXPECT_EQ(module_->functions(), std::vector<std::string>{"fill"});
  EXPECT_EQ(function_->info().parameterBytes, 12);
  EXPECT_EQ(function_->blocksPerProcessor(1024, 0).value(), 2);
  EXPECT_EQ(device_->processors(), 108); // of an A100
  EXPECT_FALSE(module_->function("other").isOk());
  const auto [address, bytes] = module_->variable("number").value();
  EXPECT_EQ(bytes, 4);
  uint32_t value = 0;
  ASSERT_TRUE(device_->defaultStream().download(&value, address, 4).isOk());
  EXPECT_EQ(value, GetParam().downloadWaits ? 5u : 0u); // not before somebody waits
  ASSERT_TRUE(device_->defaultStream().synchronize().isOk());
  EXPECT_EQ(value, 5u);
}

TEST_P(AcceleratorTest, StreamsInOrder) {
  const StreamRef first = device_->createStream().value(), second = device_->createStream().value();
  const EventRef event = device_->createEvent().value();
  const DeviceAddress copy = device_->allocate(128, "copy").value();
  uint32_t words[32] = {};
  LaunchShape shape;
  shape.block[0] = 32;
  ASSERT_TRUE(first->launch(*function_, shape, parameters(memory_, 7)).isOk());
  ASSERT_TRUE(first->record(*event).isOk());
  ASSERT_TRUE(second->wait(*event).isOk());
  ASSERT_TRUE(second->copy(copy, memory_, 128).isOk());
  ASSERT_TRUE(second->fill(copy + 4, 4, 0xff).isOk());
  ASSERT_TRUE(second->download(words, copy, 128).isOk());
  EXPECT_EQ(event->done().value() && second->done().value(), GetParam().downloadWaits);
  ASSERT_TRUE(second->synchronize().isOk());
  EXPECT_EQ(words[0], 7u);
  EXPECT_EQ(words[1], 0xffffffffu);
  EXPECT_EQ(words[31], 38u);
  EXPECT_TRUE(event->synchronize().isOk() && event->done().value());
  EXPECT_EQ(event->millisecondsSince(*event).status().code(), Code::Unsupported);
}

TEST_P(AcceleratorTest, RefusedCallsChangeNothing) {
  Stream &stream = device_->defaultStream();
  uint32_t word = 0;
  LaunchShape shape;
  EXPECT_EQ(stream.upload(memory_ + 126, &word, 4).code(), Code::InvalidArgument);
  EXPECT_EQ(stream.download(&word, 0x1234, 4).code(), Code::InvalidArgument);
  EXPECT_EQ(stream.fill(memory_, -1, 0).code(), Code::InvalidArgument);
  EXPECT_EQ(device_->release(memory_ + 4).code(), Code::InvalidArgument);
  EXPECT_EQ(device_->allocate(int64_t(1) << 40, "all").status().code(), Code::ResourceExhausted);
  EXPECT_EQ(stream.launch(*function_, shape, std::vector<uint8_t>(5)).code(), Code::InvalidArgument);
  shape.block[0] = 1025;
  EXPECT_EQ(stream.launch(*function_, shape, parameters(memory_, 0)).code(), Code::InvalidArgument);
  const std::unique_ptr<Accelerator> other = GetParam().make();
  EXPECT_EQ(other->defaultStream().launch(*function_, {}, parameters(memory_, 0)).code(), Code::InvalidArgument);
  EXPECT_EQ(packParameters(function_->info(), std::vector<uint64_t>(3)).status().code(), Code::InvalidArgument);
  EXPECT_TRUE(stream.synchronize().isOk());
}

TEST_P(AcceleratorTest, Rows) {
  Stream &stream = device_->defaultStream();
  uint8_t bytes[128], out[128];
  for (int i = 0; i < 128; ++i)
    bytes[i] = static_cast<uint8_t>(i);
  const DeviceAddress copy = device_->allocate(128, "copy").value();
  ASSERT_TRUE(stream.upload(memory_, bytes, 128).isOk() && stream.fill(copy, 128, 0xff).isOk());
  ASSERT_TRUE(stream.copyRows(copy + 1, 10, memory_ + 3, 20, 5, 6).isOk());
  ASSERT_TRUE(stream.fillRows(copy + 8, 39, 2, 4, 0xee).isOk());
  ASSERT_TRUE(stream.copyRows(copy + 100, 0, memory_, 1, 1, 3).isOk()); // one upon the other, the last stays
  ASSERT_TRUE(stream.copyRows(copy, 1, memory_, 1, 0, 3).isOk() && stream.fillRows(copy, 1, 1, 0, 3).isOk());
  ASSERT_TRUE(stream.download(out, copy, 128).isOk() && stream.synchronize().isOk());
  for (int i = 0; i < 128; ++i) {
    const int row = (i - 1) / 10, at = (i - 1) % 10;
    const bool copied = i >= 1 && row < 6 && at < 5, filled = i >= 8 && (i - 8) % 39 < 2;
    EXPECT_EQ(out[i], i == 100 ? 2 : filled ? 0xee : copied ? 3 + 20 * row + at : 0xff) << i;
  }
  for (const Status &status :
       {stream.copyRows(copy, 32, memory_, 32, 33, 4), stream.copyRows(copy, 16, memory_, 43, 1, 4),
        stream.fillRows(copy, 32, 33, 4, 0), stream.fillRows(copy, 43, 1, 4, 0)})
    EXPECT_EQ(status.code(), Code::InvalidArgument) << status.message();
  EXPECT_TRUE(stream.synchronize().isOk());
}

TEST_P(AcceleratorTest, AFailureStays) {
  LaunchShape shape;
  shape.block[0] = 33;
  Stream &stream = device_->defaultStream();
  ASSERT_TRUE(stream.launch(*function_, shape, parameters(memory_, 0)).isOk());
  const Status status = stream.synchronize();
  EXPECT_EQ(status.code(), Code::InvalidArgument);
  EXPECT_NE(status.message().find(GetParam().failure), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("; the device answers nothing else: mend the kernel"), std::string::npos);
  EXPECT_EQ(stream.synchronize().message(), status.message());
  EXPECT_EQ(device_->allocate(4, "more").status().message(), status.message());
  EXPECT_EQ(device_->createStream().status().message(), status.message());
  EXPECT_EQ(device_->load(kText, "again").status().message(), status.message());
  EXPECT_TRUE(device_->release(memory_).isOk());
}

// 2048 threads of a multiprocessor are 16 blocks of 128; of blocks whose size is not known nothing is.
TEST_P(AcceleratorTest, WarpsThatRunAtOnce) {
  std::string text = kText;
  text.replace(text.find("{\n  .reg"), 0, ".reqntid 128, 1, 1\n");
  const DeviceFunctionRef function = device_->load(text, "blocks").value()->function("fill").value();
  EXPECT_EQ(residentWarps(*device_, *function).value(), 108 * 16 * 4);
  const Status status = residentWarps(*device_, *function_).status();
  EXPECT_EQ(status.code(), Code::InvalidArgument);
  EXPECT_NE(status.message().find("kernel fill was not made for one size of blocks (.reqntid)"), std::string::npos)
      << status.message();
}

TEST_P(AcceleratorTest, ObjectsOutliveTheirDevice) {
  const StreamRef stream = device_->createStream().value();
  device_.reset();
  uint32_t word = 1;
  ASSERT_TRUE(stream->upload(memory_, &word, 4).isOk());
  EXPECT_TRUE(stream->synchronize().isOk());
  module_.reset();
  EXPECT_EQ(function_->info().name, "fill");
}

TEST_P(AcceleratorTest, Description) {
  const std::string text = device_->description();
  EXPECT_TRUE(text.starts_with("ptxsim sm_80, compute capability 8.0, 8192 MiB")) << text;
  EXPECT_EQ(text.find('\n'), std::string::npos);
}

// Each thread on a stream of its own; the module is loaded and the memory is allocated by all of them at once.
TEST_P(AcceleratorTest, ThreadsAndStreams) {
  constexpr int kThreads = 4, kRounds = 20;
  const auto work = [&](uint32_t thread) {
    const StreamRef stream = device_->createStream().value();
    const DeviceFunctionRef function = device_->load(kText, "test").value()->function("fill").value();
    for (uint32_t round = 0; round < kRounds; ++round) {
      const DeviceAddress mine = device_->allocate(128, "memory of a thread").value(),
                          copy = device_->allocate(128, "").value();
      const EventRef event = device_->createEvent().value();
      LaunchShape shape;
      shape.block[0] = 32;
      uint32_t words[32] = {};
      const uint32_t value = 1000 * thread + round;
      ASSERT_TRUE(stream->launch(*function, shape, parameters(mine, value)).isOk());
      ASSERT_TRUE(stream->record(*event).isOk());
      ASSERT_TRUE(stream->copy(copy, mine, 128).isOk());
      ASSERT_TRUE(stream->download(words, copy, 128).isOk());
      ASSERT_TRUE(stream->synchronize().isOk());
      EXPECT_TRUE(event->done().value());
      for (uint32_t i = 0; i < 32; ++i)
        ASSERT_EQ(words[i], value + i) << "thread " << thread << ", round " << round;
      ASSERT_TRUE(device_->release(mine).isOk() && device_->release(copy).isOk());
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t thread = 0; thread < kThreads; ++thread)
    threads.emplace_back(work, thread);
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_TRUE(device_->synchronize().isOk());
}

} // namespace
} // namespace kvq
