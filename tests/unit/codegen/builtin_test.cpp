// SPDX-License-Identifier: Apache-2.0
//
// Built-in kernels compiled for every CPU level, also for those that this host cannot run: an object that would call
// something is refused, and so is one that needs too much of the stack. What kernels compute is tests/conformance's.

#include "tests/unit/codegen/run_kernel.h"

#include "runtime/format/problem.h"
#include "llvm/Support/TargetSelect.h"

using namespace kvq_test;

namespace {

class Builtin : public testing::TestWithParam<const mlir::kvq::cpu::CpuLevel *> {};

std::vector<const mlir::kvq::cpu::CpuLevel *> allLevels() {
  llvm::InitializeAllTargetInfos();
  llvm::InitializeAllTargets();
  llvm::InitializeAllTargetMCs();
  llvm::InitializeAllAsmPrinters();
  std::vector<const mlir::kvq::cpu::CpuLevel *> levels;
  for (const mlir::kvq::cpu::CpuLevel &level : mlir::kvq::cpu::allLevels())
    levels.push_back(&level);
  return levels;
}
INSTANTIATE_TEST_SUITE_P(Levels, Builtin, testing::ValuesIn(allLevels()), levelName);

void expectCompiles(const std::string &request, const mlir::kvq::cpu::CpuLevel *level) {
  mlir::kvq::CompileInput input;
  input.request = request;
  input.target = mlir::kvq::cpu::targetOf(*level);
  input.writeBundle = false;
  auto result = mlir::kvq::compile(input);
  EXPECT_TRUE(static_cast<bool>(result)) << request << ": " << llvm::toString(result.takeError()).substr(0, 300);
}

TEST_P(Builtin, attention_c3_every_operation_on_every_type) {
  for (const char *op : {"append", "quantize_k", "quantize_v", "attend", "merge", "dequantize_k", "dequantize_v"})
    for (const char *type : {"f32", "bf16", "f16"})
      expectCompiles(std::string(op) + ":k4c32-v2t16:vnni:p64:dk96:dv80:g5:" + type + ":rows5:lag0:win1:cap1:exact",
                     GetParam());
}

TEST_P(Builtin, layout_c9_conversions_between_all_profiles) {
  for (const char *op : {"convert_k", "convert_v"})
    for (const char *profiles : {"vnni-mma", "mma-vnni", "vnni-kivi", "kivi-vnni", "kivi-mma", "mma-kivi"})
      expectCompiles(std::string(op) + ":k4c32-v2t16:" + profiles + ":p64:dk96:dv80:g1:f32:rows1:lag0:win0:cap0:exact",
                     GetParam());
}

// The largest heads with the most rows, on tiles of many groups, and V in pages and in the tail at once.
TEST_P(Builtin, problem_c2_the_largest_programs_fit_the_stack) {
  expectCompiles("attend:k4c32-v4t32:vnni:p256:dk256:dv256:g64:f16:rows64:lag1:win1:cap1:exact", GetParam());
  expectCompiles("attend:k8t16-v8t16:vnni:p256:dk256:dv256:g64:f16:rows64:lag0:win1:cap1:exact", GetParam());
}

} // namespace
