// SPDX-License-Identifier: Apache-2.0
//
// Accesses of small kernels: regions, counters, orders that hold whatever the threads, copies behind an mbarrier.
#include "runtime/ptxsim/memory/global_memory.h"
#include "runtime/ptxsim/simulator.h"

#include <gtest/gtest.h>

#include <cstring>

using namespace kvq;
using namespace kvq::ptxsim;

namespace {

// A kernel with one pointer; %rd1 is it, %rd2 the address of this thread's word behind it, %r1 the thread, %r2 its byte
// offset, %r3 the address of `tile`, %r4 of this thread's word there.
std::string kernel(const std::string &body) {
  return R"(.version 8.0
.target sm_80
.address_size 64
.shared .align 16 .b8 tile[4096];
.shared .align 8 .b64 full;
.visible .entry kernel(.param .u64 data) {
  .reg .pred %p<9>;
  .reg .b32 %r<40>;
  .reg .b64 %rd<20>;
  ld.param.u64 %rd1, [data];
  mov.u32 %r1, %tid.x;
  shl.b32 %r2, %r1, 2;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd2, %rd1, %rd2;
  mov.u32 %r3, tile;
  add.u32 %r4, %r3, %r2;
)" + body +
         "\n  ret;\n}\n";
}

struct MemoryAccess : testing::Test {
  Simulator simulator;
  uint64_t data = 0;
  void SetUp() override {
    data = simulator.memory().allocate(4096, "data").value();
    ASSERT_TRUE(simulator.memory().fill(data, 4096, 1).isOk());
  }
  Report run(const std::string &body, Dim grid = {}, Dim block = {32, 1, 1}, Options options = {}) {
    const Result<ModuleRef> module = simulator.load(kernel(body), "test.ptx");
    EXPECT_TRUE(module.isOk()) << module.status().message();
    if (!module.isOk())
      return {};
    Launch launch;
    launch.kernel = "kernel";
    launch.grid = grid;
    launch.block = block;
    launch.params.resize(8);
    std::memcpy(launch.params.data(), &data, 8);
    const Result<Report> report = simulator.launch(*module.value(), launch, options);
    EXPECT_TRUE(report.isOk()) << report.status().message();
    return report.isOk() ? report.value() : Report();
  }
};

TEST_F(MemoryAccess, AnAccessStaysWithinItsRegion) {
  ASSERT_TRUE(simulator.memory().addRegion(data, 64, "page 0").isOk());
  ASSERT_TRUE(simulator.memory().addRegion(data + 64, 64, "page 1").isOk());
  ASSERT_TRUE(simulator.memory().addRegion(data + 256, 64, "page 4").isOk());
  EXPECT_TRUE(run("ld.global.b32 %r5, [%rd2];").clean()); // both pages, but each lane in one
  const Report crosses = run("add.s64 %rd3, %rd1, 56;\n ld.global.v4.b32 {%r5, %r6, %r7, %r8}, [%rd3];");
  ASSERT_EQ(crosses.findings.size(), 1u);
  EXPECT_EQ(crosses.findings[0].check, Check::Bounds);
  const Report between = run("ld.global.b32 %r5, [%rd1+128];");
  ASSERT_EQ(between.findings.size(), 1u);
  EXPECT_EQ(between.findings[0].check, Check::Bounds);
  EXPECT_NE(between.findings[0].message.find("none of its regions"), std::string::npos) << between.findings[0].message;
  const Report leaves = run("ld.global.b64 %rd3, [%rd1+60];", {}, {1, 1, 1});
  ASSERT_FALSE(leaves.findings.empty());
  EXPECT_EQ(leaves.findings[0].allocation, "page 0");
}

TEST_F(MemoryAccess, ALaneOutOfBoundsReadsZeroAndItsStoreIsDropped) {
  const Report report = run("add.s64 %rd2, %rd2, 3972;\n ld.global.b32 %r5, [%rd2];\n shl.b32 %r6, %r2, 0;\n"
                            "add.s64 %rd3, %rd1, 0;\n mul.wide.u32 %rd4, %r1, 4;\n add.s64 %rd3, %rd3, %rd4;\n"
                            "st.global.b32 [%rd3], %r5;");
  ASSERT_EQ(report.findings.size(), 1u);
  EXPECT_EQ(report.findings[0].lane, 31);
  uint32_t words[32];
  ASSERT_TRUE(simulator.memory().read(data, {reinterpret_cast<uint8_t *>(words), sizeof words}).isOk());
  EXPECT_EQ(words[30], 0x01010101u);
  EXPECT_EQ(words[31], 0u);
}

TEST_F(MemoryAccess, Sectors) {
  const auto sectors = [&](const std::string &body) { return run(body).counters.globalSectors; };
  EXPECT_EQ(sectors("ld.global.b32 %r5, [%rd2];"), 4u);
  EXPECT_EQ(sectors("ld.global.b32 %r5, [%rd2+4];"), 5u);
  EXPECT_EQ(sectors("ld.global.b32 %r5, [%rd1];"), 1u);
  EXPECT_EQ(sectors("mul.wide.u32 %rd3, %r1, 64;\n add.s64 %rd3, %rd1, %rd3;\n ld.global.b32 %r5, [%rd3];"), 32u);
  EXPECT_EQ(sectors("xor.b32 %r5, %r1, 31;\n mul.wide.u32 %rd3, %r5, 4;\n add.s64 %rd3, %rd1, %rd3;\n"
                    "ld.global.b32 %r5, [%rd3];"),
            4u);
  EXPECT_EQ(sectors("mul.wide.u32 %rd3, %r1, 16;\n add.s64 %rd3, %rd1, %rd3;\n"
                    "ld.global.v4.b32 {%r5, %r6, %r7, %r8}, [%rd3];"),
            16u);
}

TEST_F(MemoryAccess, BytesAskedFor) {
  const auto asked = [&](const std::string &body) { return run(body).counters.globalBytes; };
  EXPECT_EQ(asked("ld.global.b32 %r5, [%rd2];"), 128u);
  EXPECT_EQ(asked("ld.global.b32 %r5, [%rd1];"), 4u);
  EXPECT_EQ(asked("ld.global.b32 %r5, [%rd2+4];"), 128u);
  // One word of each sector; every word twice, in descending order; two of the same by four.
  EXPECT_EQ(asked("mul.wide.u32 %rd3, %r1, 64;\n add.s64 %rd3, %rd1, %rd3;\n ld.global.b32 %r5, [%rd3];"), 128u);
  EXPECT_EQ(asked("shr.u32 %r5, %r1, 1;\n xor.b32 %r5, %r5, 15;\n mul.wide.u32 %rd3, %r5, 4;\n"
                  "add.s64 %rd3, %rd1, %rd3;\n ld.global.b32 %r5, [%rd3];"),
            64u);
  EXPECT_EQ(asked("mul.wide.u32 %rd3, %r1, 16;\n add.s64 %rd3, %rd1, %rd3;\n"
                  "ld.global.v4.b32 {%r5, %r6, %r7, %r8}, [%rd3];"),
            512u);
}

TEST_F(MemoryAccess, Wavefronts) {
  const auto counters = [&](const std::string &body) {
    const Counters all = run(body).counters;
    return std::pair(all.sharedWavefronts, all.bankConflicts);
  };
  using Pair = std::pair<uint64_t, uint64_t>;
  EXPECT_EQ(counters("st.shared.b32 [%r4], %r1;"), Pair(1, 0));
  EXPECT_EQ(counters("shl.b32 %r5, %r2, 1;\n add.u32 %r5, %r3, %r5;\n st.shared.b32 [%r5], %r1;"), Pair(2, 1));
  EXPECT_EQ(counters("shl.b32 %r5, %r2, 5;\n add.u32 %r5, %r3, %r5;\n st.shared.b32 [%r5], %r1;"), Pair(32, 31));
  EXPECT_EQ(counters("shl.b32 %r5, %r2, 1;\n add.u32 %r5, %r3, %r5;\n st.shared.b64 [%r5], %rd1;"), Pair(2, 0));
  EXPECT_EQ(counters("shl.b32 %r5, %r2, 2;\n add.u32 %r5, %r3, %r5;\n st.shared.v4.b32 [%r5], {%r1, %r1, %r1, %r1};"),
            Pair(4, 0));
  EXPECT_EQ(counters("shl.b32 %r5, %r2, 3;\n add.u32 %r5, %r3, %r5;\n st.shared.v4.b32 [%r5], {%r1, %r1, %r1, %r1};"),
            Pair(8, 4));
  EXPECT_EQ(counters("shl.b32 %r5, %r2, 5;\n and.b32 %r5, %r5, 128;\n add.u32 %r5, %r3, %r5;\n"
                     "st.shared.b32 [%r5], 7;"),
            Pair(2, 1)); // two words of one bank
}

TEST_F(MemoryAccess, UniqueBytes) {
  const Counters counters =
      run("ld.global.b32 %r5, [%rd2];\n ld.global.b32 %r5, [%rd2+64];\n st.global.b8 [%rd1+1], 3;", {4, 1, 1}).counters;
  EXPECT_EQ(counters.uniqueGlobalBytesRead, 192u);
  EXPECT_EQ(counters.uniqueGlobalBytesWritten, 1u);
}

TEST_F(MemoryAccess, ThreadsDoNotChangeTheReport) {
  const std::string body = "mov.u32 %r5, %ctaid.x;\n shl.b32 %r6, %r5, 7;\n mul.wide.u32 %rd3, %r6, 1;\n"
                           "add.s64 %rd4, %rd2, %rd3;\n ld.global.b32 %r7, [%rd4];\n st.global.b32 [%rd4], %r5;\n"
                           "ld.global.b32 %r8, [%rd1];"; // the last one races with block 0
  Options one, four;
  four.threads = 4;
  const Report a = run(body, {32, 1, 1}, {32, 1, 1}, one), b = run(body, {32, 1, 1}, {32, 1, 1}, four);
  EXPECT_EQ(a.counters.uniqueGlobalBytesRead, b.counters.uniqueGlobalBytesRead);
  EXPECT_EQ(a.counters.globalSectors, b.counters.globalSectors);
  ASSERT_FALSE(a.findings.empty());
  ASSERT_FALSE(b.findings.empty());
  EXPECT_EQ(a.findings[0].check, Check::GlobalRace);
  EXPECT_EQ(b.findings[0].check, Check::GlobalRace);
}

// Warp 0 copies and lets the copies arrive; warp 1 waits for the phase and reads.
std::string copyBehindMbarrier(const std::string &wait) {
  return R"(setp.ne.u32 %p1, %r1, 0;
  mov.u32 %r7, full;
  @%p1 bra ready;
  mbarrier.init.shared.b64 [%r7], 32;
ready:
  bar.sync 0;
  setp.ge.u32 %p2, %r1, 32;
  @%p2 bra consumer;
  cp.async.ca.shared.global [%r4], [%rd2], 4;
  cp.async.mbarrier.arrive.noinc.shared.b64 [%r7];
  bra done;
consumer:
)" + wait +
         R"(
  sub.u32 %r8, %r4, 128;
  ld.shared.b32 %r9, [%r8];
  sub.s64 %rd3, %rd2, 128;
  add.u32 %r9, %r9, 1;
  st.global.b32 [%rd3+1024], %r9;
done:
)";
}

TEST_F(MemoryAccess, CopiesArriveAtAnMbarrier) {
  const std::string wait = "mbarrier.try_wait.parity.shared.b64 %p3, [%r7], 0;\n @!%p3 bra consumer;";
  for (const CpAsyncMode mode : {CpAsyncMode::Latest, CpAsyncMode::Earliest, CpAsyncMode::Random}) {
    Options options;
    options.cpAsync = mode;
    options.seed = mode == CpAsyncMode::Random ? 5 : 0;
    const Report report = run(copyBehindMbarrier(wait), {}, {64, 1, 1}, options);
    EXPECT_TRUE(report.clean()) << toJson(report);
    uint32_t word = 0;
    ASSERT_TRUE(simulator.memory().read(data + 1024 + 124, {reinterpret_cast<uint8_t *>(&word), 4}).isOk());
    EXPECT_EQ(word, 0x01010102u);
  }
  // Without the wait the bytes are in flight, or were never copied.
  const Report report = run(copyBehindMbarrier(""), {}, {64, 1, 1});
  EXPECT_FALSE(report.findings.empty());
}

TEST_F(MemoryAccess, GenericAddressesMixSpaces) {
  // Even lanes load from shared memory, odd ones from global memory, by one instruction.
  const Report report = run(R"(st.shared.b32 [%r4], 5;
  bar.warp.sync 0xffffffff;
  mul.wide.u32 %rd3, %r4, 1;
  cvta.shared.u64 %rd4, %rd3;
  and.b32 %r5, %r1, 1;
  setp.eq.u32 %p1, %r5, 0;
  selp.b64 %rd5, %rd4, %rd2, %p1;
  ld.b32 %r6, [%rd5];
  st.global.b32 [%rd2+512], %r6;)");
  EXPECT_TRUE(report.clean()) << toJson(report);
  uint32_t words[32];
  ASSERT_TRUE(simulator.memory().read(data + 512, {reinterpret_cast<uint8_t *>(words), sizeof words}).isOk());
  for (int lane = 0; lane < 32; ++lane)
    EXPECT_EQ(words[lane], lane % 2 ? 0x01010101u : 5u);
}

TEST_F(MemoryAccess, ABlockScopeAtomicIsNoAtomicForOtherBlocks) {
  EXPECT_TRUE(run("atom.global.add.u32 %r5, [%rd1], 1;", {2, 1, 1}).clean());
  EXPECT_TRUE(run("red.relaxed.gpu.global.add.u32 [%rd1], 1;", {2, 1, 1}).clean());
  const Report report = run("atom.relaxed.cta.global.add.u32 %r5, [%rd1], 1;", {2, 1, 1});
  ASSERT_FALSE(report.findings.empty());
  EXPECT_EQ(report.findings[0].check, Check::GlobalRace);
}

TEST_F(MemoryAccess, ConstantsAmongWideElements) {
  EXPECT_TRUE(
      run("st.global.v2.u8 [%rd1], {%r1, 200};\n st.global.v4.b16 [%rd1+8], {7, 8, 9, 65535};", {}, {1, 1, 1}).clean());
  uint8_t bytes[16];
  ASSERT_TRUE(simulator.memory().read(data, bytes).isOk());
  EXPECT_EQ(bytes[0], 0);
  EXPECT_EQ(bytes[1], 200);
  EXPECT_EQ(bytes[8], 7);
  EXPECT_EQ(bytes[15], 255);
}

} // namespace
