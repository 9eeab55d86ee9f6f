// SPDX-License-Identifier: Apache-2.0
//
// Targets by name, and what each says of itself.

#include "codegen/Compile.h"
#include "codegen/cpu/Target.h"

#include <gtest/gtest.h>

#include <set>

using namespace mlir::kvq;

namespace {

TEST(Target, every_target_is_found_by_its_name) {
  std::set<std::string> names;
  for (const Target *target : allTargets()) {
    auto found = findTarget(target->name());
    ASSERT_TRUE(static_cast<bool>(found)) << llvm::toString(found.takeError());
    EXPECT_EQ(*found, target);
    EXPECT_TRUE(names.insert(target->name()).second) << target->name();
  }
  EXPECT_EQ(names.size(), cpu::allLevels().size() + 6);
}

TEST(Target, levels_of_other_machines_are_targets_too) {
  auto found = findTarget("x86-64-v4@host");
  ASSERT_TRUE(static_cast<bool>(found)) << llvm::toString(found.takeError());
  EXPECT_EQ((*found)->name(), "x86-64-v4@host");
  EXPECT_EQ(*found, cpu::targetOf(*cpu::findLevel("x86-64-v4@host")));
}

TEST(Target, an_unknown_name_lists_the_targets) {
  for (const char *name : {"", "nvptx", "nvptx:", "nvptx:sm_8", "nvptx:sm_800", "nvptx:80", "sm_80", "riscv"}) {
    auto found = findTarget(name);
    ASSERT_FALSE(static_cast<bool>(found)) << name;
    std::string message = llvm::toString(found.takeError());
    EXPECT_EQ(message.rfind("unknown target \"" + std::string(name) + "\"; use one of x86-64, ", 0), 0u) << message;
    EXPECT_NE(message.find(", nvptx:sm_80, "), std::string::npos) << message;
  }
}

TEST(Target, phases_have_names_of_their_own_and_the_last_is_given_out) {
  for (const Target *target : allTargets()) {
    std::set<std::string> names;
    for (const PhaseInfo &info : allPhases(*target))
      EXPECT_TRUE(names.insert(info.name.str()).second) << target->name() << " " << info.name.str();
    bool isCpu = cpu::findLevel(target->name());
    EXPECT_EQ(allPhases(*target).back().name, isCpu ? "object" : "ptx");
    EXPECT_EQ(target->model().coefficients, isCpu ? Coefficients::Integers : Coefficients::F16);
  }
}

TEST(Target, a_compile_says_what_is_missing) {
  CompileInput input;
  input.source = "module {}";
  auto result = compile(input);
  ASSERT_FALSE(static_cast<bool>(result));
  EXPECT_EQ(llvm::toString(result.takeError()), "no target is given to compile for; see findTarget");
}

} // namespace
