// SPDX-License-Identifier: Apache-2.0
//
// The test of subnormal halves that a device begins with: what it makes of a GPU that keeps them, of one that takes
// them as zero, and of one that does neither.
#include "runtime/device/accelerator_device.h"
#include "runtime/device/half_test.h"
#include "runtime/device/ptxsim/ptxsim_accelerator.h"

#include <gtest/gtest.h>

namespace kvq {
namespace {

std::unique_ptr<Accelerator> simulated(bool flushes) {
  ptxsim::Settings settings;
  settings.options.flushSubnormals = flushes;
  return makePtxsimAccelerator(settings);
}

// A GPU on which a text of the module reads otherwise.
class Spoiled : public Accelerator {
public:
  Spoiled(std::string from, std::string to, bool flushes = false)
      : inner_(simulated(flushes)), from_(std::move(from)), to_(std::move(to)) {}
  Result<DeviceAddress> allocate(int64_t bytes, const std::string &name) override {
    return inner_->allocate(bytes, name);
  }
  Status release(DeviceAddress address) override { return inner_->release(address); }
  Result<int64_t> freeBytes() const override { return inner_->freeBytes(); }
  Stream &defaultStream() override { return inner_->defaultStream(); }
  Result<StreamRef> createStream() override { return inner_->createStream(); }
  Result<EventRef> createEvent() override { return inner_->createEvent(); }
  Result<DeviceModuleRef> load(std::string_view text, const std::string &file) override {
    std::string other(text);
    const size_t at = other.find(from_);
    EXPECT_NE(at, std::string::npos);
    other.replace(at, from_.size(), to_);
    return inner_->load(other, file);
  }
  Status synchronize() override { return inner_->synchronize(); }
  int processors() const override { return inner_->processors(); }
  std::string name() const override { return "spoiled"; }
  std::string description() const override { return "spoiled"; }

private:
  std::unique_ptr<Accelerator> inner_;
  const std::string from_, to_;
};

Result<std::unique_ptr<Device>> create(std::unique_ptr<Accelerator> accelerator, std::string level) {
  return AcceleratorDevice::create("gpu", std::move(accelerator), std::move(level), "nvptx:sm_80", {}, nullptr);
}

TEST(SubnormalHalves, AreKeptOrFlushed) {
  EXPECT_EQ(testHalves(*simulated(false)).value(), SubnormalHalves::Kept);
  EXPECT_EQ(testHalves(*simulated(true)).value(), SubnormalHalves::Flushed);
}

// Either operand: with zeros in place of one of them, its product alone is zero.
TEST(SubnormalHalves, OfEitherOperandCount) {
  for (const char *operands : {"{%r2, %r2, %r2, %r2}, {%r3, %r3}", "{%r3, %r3, %r3, %r3}, {%r2, %r2}"}) {
    Spoiled gpu(operands, "{%f1, %f1, %f1, %f1}, {%f1, %f1}");
    EXPECT_EQ(testHalves(gpu).value(), SubnormalHalves::Flushed);
  }
}

TEST(SubnormalHalves, TheFormOfKernelsFollows) {
  auto kept = create(simulated(false), "nvptx:sm_80");
  ASSERT_TRUE(kept.isOk());
  EXPECT_EQ(kept.value()->level(), "nvptx:sm_80");
  EXPECT_EQ(kept.value()->description(), kept.value()->accelerator()->description());
  for (const char *level : {"nvptx:sm_80", "nvptx:sm_80+magic"}) {
    auto flushed = create(simulated(true), level);
    ASSERT_TRUE(flushed.isOk());
    EXPECT_EQ(flushed.value()->level(), "nvptx:sm_80+magic");
    EXPECT_NE(flushed.value()->description().find("take halves below 2^-14 as zero"), std::string::npos);
  }
  EXPECT_EQ(create(simulated(false), "nvptx:sm_80+magic").value()->level(), "nvptx:sm_80+magic");
}

TEST(SubnormalHalves, AnythingElseIsRefused) {
  auto device = create(std::make_unique<Spoiled>("0x00070007", "0x00060006"), "nvptx:sm_80");
  ASSERT_FALSE(device.isOk());
  EXPECT_EQ(device.status().code(), Code::Internal);
  EXPECT_EQ(device.status().message(),
            "device \"gpu\": the GPU multiplies halves wrongly: 16 products of 7 * 2^-24 and 1 add up to "
            "5.7220459e-06 and not to 6.67572021e-06; use another GPU or driver");
  auto refused = create(std::make_unique<Spoiled>("mma.sync", "mma.sunk"), "nvptx:sm_80");
  ASSERT_FALSE(refused.isOk());
  EXPECT_EQ(refused.status().message().rfind("device \"gpu\": ", 0), 0u) << refused.status().message();
}

} // namespace
} // namespace kvq
