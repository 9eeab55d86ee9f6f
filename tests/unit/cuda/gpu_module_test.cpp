// SPDX-License-Identifier: Apache-2.0
//
// Modules over a driver that executes nothing: cubins and the way back to the text, logs, parameters, checks of
// launches.
#include "runtime/device/cuda/module.h"
#include "tests/unit/cuda/fake_driver.h"

using namespace kvq;
using kvq_test::FakeDriver;
using kvq_test::kOneKernel;
using kvq_test::kPtx;

namespace {

bool has(const Status &status, const std::string &part) { return status.message().find(part) != std::string::npos; }

TEST_F(FakeDriver, CubinsOfTextsWithOneKernel) {
  std::vector<std::string> asked;
  bool fails = false;
  const cuda::CubinCompiler compiler = [&](std::string_view text, const std::string &entry,
                                           const std::string &arch) -> Result<std::vector<uint8_t>> {
    asked.push_back(entry + " " + arch + " " + std::to_string(text.size()));
    if (fails)
      return Status(Code::Unsupported, "no compiler of cubins here");
    return std::vector<uint8_t>{0x7f, 'E', 'L', 'F'};
  };
  auto gpu = open(0, compiler);
  ASSERT_TRUE(gpu.isOk());
  Accelerator &device = *gpu.value().accelerator;
  EXPECT_TRUE(device.load(kOneKernel, "ptx").isOk());
  EXPECT_EQ(asked, std::vector<std::string>{"one sm_89 " + std::to_string(std::string(kOneKernel).size())});
  EXPECT_EQ(get("cubin"), 1);
  EXPECT_TRUE(device.load(kPtx, "ptx").isOk()); // two kernels
  EXPECT_EQ(asked.size(), 1u);
  EXPECT_EQ(get("cubin"), 0);
  fail("cubin", 209); // a driver that does not know the image's architecture
  EXPECT_TRUE(device.load(kOneKernel, "ptx").isOk());
  EXPECT_EQ(asked.size(), 2u);
  EXPECT_EQ(get("cubin"), 0);
  fail("cubin", 0);
  fails = true;
  EXPECT_TRUE(device.load(kOneKernel, "ptx").isOk());
  EXPECT_EQ(get("cubin"), 0);
}

TEST(JitLog, LinesAreThoseOfTheText) {
  using cuda::jitMessage;
  EXPECT_EQ(jitMessage("ptxas application ptx input, line 5; error   : Not a name of any known instruction: 'frob'\n"
                       "ptxas fatal   : Ptx assembly aborted due to errors\n",
                       "mine"),
            "mine:5: Not a name of any known instruction: 'frob'");
  EXPECT_EQ(jitMessage("ptx input:17: no such thing: x", "mine"), "mine:17: no such thing: x");
  EXPECT_EQ(jitMessage("ptxas fatal   : Memory allocation failure", "mine"),
            "mine: ptxas fatal   : Memory allocation failure");
  for (const char *log : {"", "ptx input", "ptx input, line ", "ptx input, line 5", "ptx input:x: y"})
    EXPECT_EQ(jitMessage(log, "mine"), std::string("mine: ") + log);
}

TEST_F(FakeDriver, TextsThatTheDriverRefuses) {
  auto gpu = open();
  Accelerator &device = *gpu.value().accelerator;
  log("ptxas application ptx input, line 3; error   : wrong");
  fail("cuModuleLoadDataEx", 218);
  EXPECT_EQ(device.load(kPtx, "mine").status().code(), Code::Unsupported);
  EXPECT_EQ(device.load(kPtx, "mine").status().message(), "mine:3: wrong");
  fail("cuModuleLoadDataEx", 222);
  EXPECT_TRUE(has(device.load(kPtx, "mine").status(), "driver, for CUDA 13.0, does not know: update the driver"));
  fail("cuModuleLoadDataEx", 200);
  EXPECT_EQ(device.load(kPtx, "mine").status().code(), Code::InvalidArgument);
  fail("cuModuleLoadDataEx", 0);
  const Status newer = device.load(".version 8.0\n.target sm_90\n", "mine").status();
  EXPECT_EQ(newer.code(), Code::Unsupported);
  EXPECT_TRUE(has(newer, "mine is made for sm_90, which sm_89 does not run")) << newer.message();
}

TEST_F(FakeDriver, ParametersAreThoseThatTheDriverHas) {
  auto gpu = open();
  const DeviceModuleRef module = gpu.value().accelerator->load(kPtx, "ptx").value();
  EXPECT_EQ(module->functions(), (std::vector<std::string>{"add", "free"}));
  const DeviceFunctionRef add = module->function("add").value();
  EXPECT_EQ(add->info().parameterBytes, 4); // of the fake; the text has 12
  EXPECT_EQ(add->info().block[0], 32u);     // of the text: the driver cannot tell
  fail("cuFuncGetParamInfo", 801);
  EXPECT_EQ(module->function("add").value()->info().parameterBytes, 12);
  EXPECT_EQ(module->function("free").value()->info().parameters.size(), 0u);
  EXPECT_TRUE(has(module->function("none").status(), "no kernel 'none'"));
}

TEST_F(FakeDriver, LaunchesAreCheckedAtOnce) {
  auto gpu = open();
  Accelerator &device = *gpu.value().accelerator;
  Stream &stream = device.defaultStream();
  const DeviceModuleRef module = device.load(kPtx, "ptx").value();
  const DeviceFunctionRef add = module->function("add").value(), free = module->function("free").value();
  const uint8_t parameters[8] = {42};
  const auto launch = [&](const DeviceFunction &function, std::array<uint32_t, 3> grid, std::array<uint32_t, 3> block,
                          int64_t shared = 0, size_t bytes = 4) {
    LaunchShape shape;
    std::copy(grid.begin(), grid.end(), shape.grid);
    std::copy(block.begin(), block.end(), shape.block);
    shape.dynamicShared = shared;
    return stream.launch(function, shape, std::span(parameters).first(bytes));
  };
  EXPECT_TRUE(launch(*free, {1, 1, 1}, {1024, 1, 1}).isOk());
  EXPECT_TRUE(launch(*free, {2147483647, 65535, 65535}, {4, 4, 64}).isOk());
  EXPECT_TRUE(launch(*add, {1, 1, 1}, {32, 1, 1}).isOk());
  EXPECT_EQ(get("parameter"), 42);
  EXPECT_TRUE(launch(*add, {1, 1, 1}, {32, 1, 1}, 99 << 10).isOk());
  const int launches = calls("cuLaunchKernel");
  const std::pair<Status, const char *> refused[] = {
      {launch(*free, {0, 1, 1}, {32, 1, 1}), "a grid must have 1 to"},
      {launch(*free, {1, 65536, 1}, {32, 1, 1}), "along dimension 1"},
      {launch(*free, {1, 1, 70000}, {32, 1, 1}), "along dimension 2"},
      {launch(*free, {1, 1, 1}, {1025, 1, 1}), "1 to 1024 threads"},
      {launch(*free, {1, 1, 1}, {1, 1, 65}), "at most 64 along z"},
      {launch(*free, {1, 1, 1}, {1024, 1024, 4294967295u}), "1 to 1024 threads"},
      {launch(*free, {1, 1, 1}, {0, 1, 1}), "1 to 1024 threads"},
      {launch(*add, {1, 1, 1}, {64, 1, 1}), ".reqntid"},
      {launch(*free, {1, 1, 1}, {32, 1, 1}, 0, 8), "takes 4 bytes of parameters and was given 8"},
      {launch(*free, {1, 1, 1}, {32, 1, 1}, -1), "-1 bytes of dynamic shared memory"},
      {launch(*free, {1, 1, 1}, {32, 1, 1}, (99 << 10) + 1), "at most 101376"},
  };
  for (const auto &[status, part] : refused) {
    EXPECT_EQ(status.code(), Code::InvalidArgument) << part;
    EXPECT_TRUE(has(status, part)) << status.message();
  }
  EXPECT_EQ(calls("cuLaunchKernel"), launches);
  auto other = open();
  EXPECT_TRUE(has(other.value().accelerator->defaultStream().launch(*free, {}, parameters), "another device"));
}

TEST_F(FakeDriver, RangesAreChecked) {
  auto gpu = open();
  Accelerator &device = *gpu.value().accelerator;
  Stream &stream = device.defaultStream();
  const DeviceAddress memory = device.allocate(256, "the pool").value();
  uint8_t host[512] = {};
  EXPECT_TRUE(stream.upload(memory, host, 256).isOk());
  EXPECT_TRUE(stream.upload(memory + 256, host, 0).isOk());
  for (const Status &status :
       {stream.upload(memory, host, 257), stream.download(host, memory + 200, 57), stream.fill(memory + 255, 2, 0),
        stream.copy(memory, memory + 1, 256), stream.copy(memory + 1, memory, 256), stream.upload(memory, host, -1),
        stream.copyRows(memory, 64, memory + 1, 64, 64, 4), stream.copyRows(memory + 1, 64, memory, 64, 64, 4),
        stream.fillRows(memory + 8, 64, 57, 4, 0)}) {
    EXPECT_EQ(status.code(), Code::InvalidArgument);
    EXPECT_TRUE(has(status, "outside of the pool, which has 256") || has(status, "-1 bytes")) << status.message();
  }
  EXPECT_EQ(device.release(memory + 4).code(), Code::InvalidArgument);
  EXPECT_TRUE(device.release(memory).isOk());
}

TEST_F(FakeDriver, EventsSayWhatIsMissing) {
  auto gpu = open();
  Accelerator &device = *gpu.value().accelerator;
  const EventRef begin = device.createEvent().value(), end = device.createEvent().value();
  EXPECT_EQ(end->millisecondsSince(*begin).value(), 1.5);
  fail("cuEventElapsedTime", 400);
  EXPECT_TRUE(has(end->millisecondsSince(*begin).status(), "never recorded"));
  fail("cuEventElapsedTime", 600);
  EXPECT_TRUE(has(end->millisecondsSince(*begin).status(), "wait for both"));
  fail("cuEventQuery", 600);
  EXPECT_FALSE(end->done().value());
  auto other = open();
  EXPECT_TRUE(
      has(end->millisecondsSince(*other.value().accelerator->createEvent().value()).status(), "another device"));
}

} // namespace
