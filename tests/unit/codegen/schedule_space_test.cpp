// SPDX-License-Identifier: Apache-2.0
//
// What is legal compiles, each schedule to code of its own, and the default is among it; what is not is refused.

#include "codegen/Compile.h"
#include "codegen/ScheduleSpace.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/TargetSelect.h"

#include <gtest/gtest.h>

#include <set>

using namespace mlir::kvq;

namespace {

const Target *targetOf(const char *name) {
  llvm::InitializeAllTargetInfos();
  llvm::InitializeAllTargets();
  llvm::InitializeAllTargetMCs();
  llvm::InitializeAllAsmPrinters();
  return llvm::cantFail(findTarget(name));
}

llvm::Expected<CompileResult> compileWith(const std::string &request, const Target *target, const std::string &schedule,
                                          const char *phase = "") {
  CompileInput input;
  input.request = request;
  input.target = target;
  input.schedule = schedule;
  input.stopAfter = phase;
  input.writeBundle = false;
  return compile(input);
}

// Every schedule to text, which is what it becomes, the first and the last also to what is given out.
void expectEachItsOwnCode(const std::string &text, const char *target, const char *phase) {
  const auto request = ::kvq::parseKernelRequest(text);
  ASSERT_TRUE(request.isOk()) << request.status().message();
  const ::kvq::ScheduleSpace space = getScheduleSpace(request.value(), *targetOf(target)).value();
  EXPECT_EQ(llvm::count(space.schedules, space.standard), 1) << toText(space);
  std::set<std::string> programs;
  for (const ::kvq::Schedule &schedule : space.schedules) {
    auto result = compileWith(text, targetOf(target), toText(schedule), phase);
    ASSERT_TRUE(static_cast<bool>(result)) << toText(schedule) << ": " << llvm::toString(result.takeError());
    EXPECT_TRUE(programs.insert(result->output).second) << toText(schedule) << " makes the code of another schedule";
  }
  for (const ::kvq::Schedule &schedule : {space.schedules.front(), space.schedules.back()}) {
    auto result = compileWith(text, targetOf(target), toText(schedule));
    EXPECT_TRUE(static_cast<bool>(result)) << toText(schedule) << ": " << llvm::toString(result.takeError());
  }
  // The default in words is the default.
  auto given = compileWith(text, targetOf(target), toText(space.standard)),
       left = compileWith(text, targetOf(target), "");
  ASSERT_TRUE(given && left);
  EXPECT_EQ(given->output, left->output);
}

TEST(ScheduleSpace, EveryLegalScheduleIsCodeOfItsOwnOnCpus) {
  expectEachItsOwnCode("attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact", "x86-64-v4-vnni",
                       "vector");
  expectEachItsOwnCode("attend:k2c32-v4t32:vnni:p32:dk64:dv128:g4:f16:rows12:lag1:win0:cap0:full", "x86-64", "vector");
}

TEST(ScheduleSpace, TilesDivideThePageIntoWholeGroups) {
  const auto request =
      ::kvq::parseKernelRequest("attend:k4c64-v4t32:vnni:p192:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact");
  std::set<int> tiles;
  const auto space = getScheduleSpace(request.value(), *targetOf("x86-64-v3"));
  for (const ::kvq::Schedule &schedule : space.value().schedules)
    tiles.insert(schedule.tileTokens);
  EXPECT_EQ(tiles, (std::set<int>{16, 32, 64, 192})); // 48 and 96 would cut a group of 64
}

TEST(ScheduleSpace, AGpuHasTilesPagesAheadAndBlocks) {
  expectEachItsOwnCode("attend:k4c32-v4t32:mma:p128:dk64:dv64:g4:f16:rows8:lag0:win0:cap0:exact", "nvptx:sm_80", "ptx");
}

TEST(ScheduleSpace, ARequestWithoutAKernelHasNone) {
  const std::string head = "attend:k4c32-v4t32:mma:p64:dk64:dv";
  for (const char *tail : {"160:g4:f16:rows16", "96:g4:f16:rows24"}) {
    const auto request = ::kvq::parseKernelRequest(head + tail + ":lag0:win0:cap0:exact");
    ASSERT_TRUE(request.isOk()) << request.status().message();
    const ::kvq::Status status = getScheduleSpace(request.value(), *targetOf("nvptx:sm_90")).status();
    EXPECT_EQ(status.code(), ::kvq::Code::Unsupported);
    auto compiled = compileWith(toText(request.value()), targetOf("nvptx:sm_90"), "");
    ASSERT_FALSE(static_cast<bool>(compiled));
    EXPECT_EQ(llvm::toString(compiled.takeError()), status.message());
    EXPECT_TRUE(getScheduleSpace(request.value(), *targetOf("x86-64-v4")).isOk());
  }
  const auto request = ::kvq::parseKernelRequest(head + "160:g4:f16:rows16:lag0:win0:cap0:exact");
  EXPECT_EQ(getScheduleSpace(request.value(), *targetOf("nvptx:sm_90")).status().message(),
            "16 rows of a head of 160 do not fit the registers of a warp, which hold 2048 elements of a query or an "
            "output on nvptx:sm_90: use 8 rows");
}

TEST(ScheduleSpace, OtherOperationsHaveTheDefaultAlone) {
  for (const char *op : {"append", "quantize_k", "quantize_v", "merge", "dequantize_k", "dequantize_v"}) {
    const auto request = ::kvq::parseKernelRequest(std::string(op) +
                                                   ":k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact");
    const ::kvq::ScheduleSpace space = getScheduleSpace(request.value(), *targetOf("x86-64-v4")).value();
    EXPECT_EQ(space.schedules, std::vector{space.standard}) << op;
  }
}

TEST(ScheduleSpace, IllegalOnesAreRefusedInASentence) {
  const std::string request = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact";
  const auto refusal = [&](const char *schedule) {
    auto result = compileWith(request, targetOf("x86-64-v3"), schedule);
    EXPECT_FALSE(static_cast<bool>(result)) << schedule;
    return llvm::toString(result.takeError());
  };
  EXPECT_NE(refusal("tile_tokens=128,rows=8,vectors=8,prefetch=1").find("has tile_tokens 128, which can be 16, 32, 64"),
            std::string::npos);
  EXPECT_NE(refusal("tile_tokens=64,rows=9,vectors=8,prefetch=1").find("has rows 9, which can be"), std::string::npos);
  EXPECT_NE(refusal("tile_tokens=64,rows=8,vectors=8,prefetch=1,blocks=3").find("has blocks 3, which can be 0 here"),
            std::string::npos);
  EXPECT_NE(refusal("fast").find("has no knob tile_tokens"), std::string::npos);
}

} // namespace
