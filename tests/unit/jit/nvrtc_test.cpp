// SPDX-License-Identifier: Apache-2.0
//
// Finding NVRTC, and what its answers become, over libraries that answer in its place (fakes/fake_nvrtc.c).
#include "runtime/jit/nvrtc.h"

#include "tests/unit/jit/nvrtc_home.h"

#include "runtime/jit/score_hook.h"

using namespace kvq;
using kvq_test::NvrtcHome;

namespace {

constexpr const char *kKernel = R"(.version 7.0
.target sm_80
.address_size 64

// A comment in front of the kernel.
.visible .entry k(.param .u64 k_param_0)
.maxntid 128, 1, 1
{
  .reg .b32 %r<3>; /* a comment
     of two lines */
  mov.u32 %r1, 0;
  INSTRUCTION
  ret;
}
)";

std::string kernelWith(const std::string &instruction) {
  std::string text = kKernel;
  return text.replace(text.find("INSTRUCTION"), 11, instruction);
}

class Nvrtcs : public NvrtcHome {
protected:
  // What loading from the environment says, or the version that it found.
  static std::string found(const CudaLibrarySearch &search = {}) {
    auto nvrtc = Nvrtc::load(search);
    if (nvrtc.isOk())
      return nvrtc.value()->version();
    EXPECT_EQ(nvrtc.status().code(), Code::Unsupported);
    return nvrtc.status().message();
  }
};

TEST_F(Nvrtcs, NothingInstalledSaysWhatToInstallOrToSet) {
  const std::string message = found();
  EXPECT_NE(message.find("NVRTC is not installed"), std::string::npos) << message;
  EXPECT_NE(message.find("pip install nvidia-cuda-nvrtc"), std::string::npos) << message;
  EXPECT_NE(message.find("KVQ_NVRTC"), std::string::npos) << message;
}

TEST_F(Nvrtcs, ANamedFileThatIsUnusableIsNotPassedOver) {
  install("lib", FAKE_NVRTC_13, "libnvrtc.so.13", "13.0");
  set("KVQ_CUDA_LIB_PATH", path("lib"));
  EXPECT_EQ(found(), "13.0");
  set("KVQ_NVRTC", path("absent.so"));
  std::string message = found();
  EXPECT_NE(message.find("NVRTC cannot be loaded from " + path("absent.so") + ", which KVQ_NVRTC names"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("unset KVQ_NVRTC"), std::string::npos) << message;
  write("text.so", "no library");
  set("KVQ_NVRTC", path("text.so"));
  EXPECT_NE(found().find("text.so"), std::string::npos);
  unset("KVQ_NVRTC");
  message = found({path("absent.so"), {}});
  EXPECT_NE(message.find("NVRTC cannot be loaded from " + path("absent.so") + " ("), std::string::npos) << message;
}

TEST_F(Nvrtcs, LibrariesThatCannotServeSayWhy) {
  install("old", FAKE_NVRTC_11, "libnvrtc.so.12", "11.8");
  EXPECT_NE(found({path("old/libnvrtc.so.12"), {}}).find("is NVRTC 11.8 but one from 12.0 on is needed"),
            std::string::npos);
  install("cut", FAKE_NVRTC_CUT, "libnvrtc.so.12", "10.2");
  EXPECT_NE(found({path("cut/libnvrtc.so.12"), {}}).find("is NVRTC 10.2 without nvrtcGetCUBIN"), std::string::npos);
  EXPECT_NE(found({FAKE_OTHER_LIBRARY, {}}).find("is no NVRTC (it does not answer nvrtcVersion)"), std::string::npos);
  install("alone", FAKE_NVRTC_ALONE, "libnvrtc.so.13", "");
  const std::string message = found({path("alone/libnvrtc.so.13"), {}});
  EXPECT_NE(message.find("libnvrtc-builtins.so.13.7 is missing beside " + path("alone/libnvrtc.so.13")),
            std::string::npos)
      << message;
}

TEST_F(Nvrtcs, FoldersAreSearchedInTheirOrder) {
  install("toolkit/lib64", FAKE_NVRTC_12, "libnvrtc.so.12", "12.9");
  set("CUDA_HOME", path("toolkit"));
  EXPECT_EQ(found(), "12.9");
  install("env/lib/python3.11/site-packages/nvidia/cu13/lib", FAKE_NVRTC_13, "libnvrtc.so.13", "13.0");
  set("VIRTUAL_ENV", path("env"));
  EXPECT_EQ(found(), "13.0");
  set("KVQ_CUDA_LIB_PATH", path("none") + "::" + path("toolkit/lib64"));
  EXPECT_EQ(found(), "12.9");
  EXPECT_EQ(found({"", {path("env/lib/python3.11/site-packages/nvidia/cu13/lib")}}), "13.0");
  unset("KVQ_CUDA_LIB_PATH");
  install("env12/lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib", FAKE_NVRTC_12, "libnvrtc.so.12", "12.9");
  set("VIRTUAL_ENV", path("env12"));
  EXPECT_EQ(found(), "12.9");
}

TEST_F(Nvrtcs, AFileOfAFolderThatCannotBeOpenedIsNamedWhereNothingElseIsFound) {
  write("broken/libnvrtc.so.13", "no library");
  set("KVQ_CUDA_LIB_PATH", path("broken"));
  EXPECT_NE(found().find(path("broken/libnvrtc.so.13")), std::string::npos);
  install("toolkit/lib64", FAKE_NVRTC_12, "libnvrtc.so.12", "12.9");
  set("CUDA_PATH", path("toolkit"));
  EXPECT_EQ(found(), "12.9");
}

TEST_F(Nvrtcs, AnErrorOfTheAssemblerNamesKernelLineAndText) {
  auto cubin = load()->compilePtx(kernelWith("mistake.x %r1;"), "k", "sm_80");
  ASSERT_FALSE(cubin.isOk());
  EXPECT_EQ(cubin.status().code(), Code::InvalidArgument);
  EXPECT_EQ(
      cubin.status().message(),
      "kernel k cannot be compiled for sm_80: line 12 of the PTX ('mistake.x %r1;'): Unknown modifier '.x'; Not a "
      "name of any known instruction: 'mistake'");
}

TEST_F(Nvrtcs, AnErrorOfNewerPtxSaysSo) {
  std::string ptx = kernelWith("mistake.x %r1;");
  ptx.replace(ptx.find("7.0"), 3, "9.10");
  auto cubin = load()->compilePtx(ptx, "k", "sm_80");
  ASSERT_FALSE(cubin.isOk());
  EXPECT_NE(cubin.status().message().find("it has version 9.10, and NVRTC 13.0 knows PTX up to 9.0"), std::string::npos)
      << cubin.status().message();
}

TEST_F(Nvrtcs, TooFewRegistersAreNoMistakeInThePtx) {
  auto cubin = load()->compilePtx(kernelWith("greedy;"), "k", "sm_80", {16});
  EXPECT_EQ(cubin.status().code(), Code::Unsupported);
  EXPECT_NE(cubin.status().message().find("Register allocation failed"), std::string::npos);
}

TEST_F(Nvrtcs, ArchitecturesAreChecked) {
  const auto nvrtc = load();
  const auto message = [&](const std::string &arch, std::string ptx = kernelWith("")) {
    auto cubin = nvrtc->compilePtx(ptx, "k", arch);
    return cubin.isOk() ? "compiled" : cubin.status().message();
  };
  EXPECT_EQ(message("sm_80"), "compiled");
  EXPECT_EQ(message("sm_90a"), "compiled");
  EXPECT_NE(message("compute_80").find("'compute_80' is no architecture of a GPU"), std::string::npos);
  EXPECT_NE(message("sm_").find("is no architecture"), std::string::npos);
  EXPECT_NE(message("sm_123").find("does not compile for sm_123: use one of sm_80, sm_86, sm_90"), std::string::npos);
  const auto forTarget = [&](const char *target) {
    std::string ptx = kernelWith("");
    return ptx.replace(ptx.find("sm_80"), 5, target);
  };
  EXPECT_NE(message("sm_80", forTarget("sm_86")).find("the PTX is for sm_86 and cannot be compiled for sm_80"),
            std::string::npos);
  EXPECT_NE(message("sm_90", forTarget("sm_90a")).find("the PTX is for sm_90a"), std::string::npos);
  EXPECT_EQ(message("sm_90a", forTarget("sm_90a")), "compiled");
  EXPECT_EQ(message("sm_86", forTarget("sm_80, debug")), "compiled");
}

TEST_F(Nvrtcs, AScoreFunctionsErrorHasTheUsersLine) {
  auto joined = addScoreHook(*load(), kernelWith(""), "spoilt", "score.cu", "sm_80");
  EXPECT_EQ(joined.status().code(), Code::InvalidArgument);
  EXPECT_EQ(joined.status().message(), "the score function: score.cu(7): error: identifier \"spoilt\" is undefined");
}

} // namespace
