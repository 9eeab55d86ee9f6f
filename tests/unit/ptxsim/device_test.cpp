// SPDX-License-Identifier: Apache-2.0
//
// The simulated GPU behind the interface of devices with memory and queues of their own.
#include "runtime/device/ptxsim/ptxsim_accelerator.h"

#include <gtest/gtest.h>

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

class PtxsimDevice : public ::testing::Test {
protected:
  std::vector<uint8_t> parameters(DeviceAddress to, uint32_t value) {
    const uint64_t words[] = {to, value};
    return packParameters(function_->info(), words).value();
  }
  std::unique_ptr<Accelerator> device_ = makePtxsimAccelerator({});
  DeviceModuleRef module_ = device_->load(kText, "test").value();
  DeviceFunctionRef function_ = module_->function("fill").value();
  DeviceAddress memory_ = device_->allocate(128, "memory").value();
};

TEST_F(PtxsimDevice, FunctionsAndVariables) {
  EXPECT_EQ(module_->functions(), std::vector<std::string>{"fill"});
  EXPECT_EQ(function_->info().parameterBytes, 12);
  EXPECT_EQ(function_->blocksPerProcessor(1024, 0).value(), 2);
  EXPECT_FALSE(module_->function("other").isOk());
  const auto [address, bytes] = module_->variable("number").value();
  EXPECT_EQ(bytes, 4);
  uint32_t value = 0;
  ASSERT_TRUE(device_->defaultStream().download(&value, address, 4).isOk());
  EXPECT_EQ(value, 0u); // not before somebody waits
  ASSERT_TRUE(device_->defaultStream().synchronize().isOk());
  EXPECT_EQ(value, 5u);
}

TEST_F(PtxsimDevice, StreamsInOrder) {
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
  EXPECT_FALSE(event->done().value() && second->done().value());
  ASSERT_TRUE(second->synchronize().isOk());
  EXPECT_EQ(words[0], 7u);
  EXPECT_EQ(words[1], 0xffffffffu);
  EXPECT_EQ(words[31], 38u);
  EXPECT_TRUE(event->synchronize().isOk() && event->done().value());
  EXPECT_EQ(event->millisecondsSince(*event).status().code(), Code::Unsupported);
}

TEST_F(PtxsimDevice, RefusedCallsChangeNothing) {
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
  const std::unique_ptr<Accelerator> other = makePtxsimAccelerator({});
  EXPECT_EQ(other->defaultStream().launch(*function_, {}, parameters(memory_, 0)).code(), Code::InvalidArgument);
  EXPECT_EQ(packParameters(function_->info(), std::vector<uint64_t>(3)).status().code(), Code::InvalidArgument);
  EXPECT_TRUE(stream.synchronize().isOk());
}

TEST_F(PtxsimDevice, AFailureStays) {
  LaunchShape shape;
  shape.block[0] = 33;
  Stream &stream = device_->defaultStream();
  ASSERT_TRUE(stream.launch(*function_, shape, parameters(memory_, 0)).isOk());
  const Status status = stream.synchronize();
  EXPECT_NE(status.message().find("kernel fill, line 14, block (0, 0, 0), warp 1, lane 0: bounds: "), std::string::npos)
      << status.message();
  EXPECT_EQ(stream.synchronize().message(), status.message());
  EXPECT_EQ(device_->allocate(4, "more").status().message(), status.message());
  EXPECT_EQ(device_->createStream().status().message(), status.message());
  EXPECT_EQ(device_->load(kText, "again").status().message(), status.message());
  EXPECT_TRUE(device_->release(memory_).isOk());
}

TEST_F(PtxsimDevice, ObjectsOutliveTheirDevice) {
  const StreamRef stream = device_->createStream().value();
  device_.reset();
  uint32_t word = 1;
  ASSERT_TRUE(stream->upload(memory_, &word, 4).isOk());
  EXPECT_TRUE(stream->synchronize().isOk());
  module_.reset();
  EXPECT_EQ(function_->info().name, "fill");
}

} // namespace
} // namespace kvq
