// SPDX-License-Identifier: Apache-2.0
//
// Cubins in the kernel store: compiled once, kept with the compiler's log, and one for each thing that they depend on.
#include "runtime/jit/cubin_store.h"

#include "tests/unit/jit/nvrtc_home.h"

#include "runtime/jit/cubin.h"

#include <thread>

using namespace kvq;

namespace {

constexpr const char *kKernel = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\n  ret;\n}\n";

class CubinStore : public kvq_test::NvrtcHome {
protected:
  void SetUp() override {
    NvrtcHome::SetUp();
    set("FAKE_NVRTC_LOG", path("log"));
    auto opened = KernelStore::open(path("store").c_str(), KernelStore::Access::ReadWrite);
    ASSERT_TRUE(opened.isOk()) << opened.status().message();
    store_ = opened.value();
  }
  // Whether this was compiled.
  bool obtain(const Nvrtc &nvrtc, const std::string &ptx = kKernel, const std::string &arch = "sm_80",
              uint32_t registers = 0) {
    bool compiled = false;
    auto cubin = obtainCubin(store_, nvrtc, ptx, "k", arch, {registers}, compiled);
    EXPECT_TRUE(cubin.isOk()) << cubin.status().message();
    if (cubin.isOk()) {
      const auto spills = readSpills(cubin.value().log, "k");
      EXPECT_TRUE(spills && spills->stores == 8 && spills->loads == 16) << cubin.value().log;
      EXPECT_EQ(cubin.value().entry, "k");
      const std::string source(cubin.value().object.begin(), cubin.value().object.end());
      EXPECT_NE(source.find("__global__"), std::string::npos);
    }
    return compiled;
  }
  int compiles() const {
    std::error_code missing;
    const auto bytes = std::filesystem::file_size(path("log"), missing);
    return missing ? 0 : static_cast<int>(bytes / 2);
  }
  KernelStore store_;
};

TEST_F(CubinStore, ACubinIsCompiledOnceForAllThatItDependsOn) {
  const auto nvrtc = load();
  EXPECT_TRUE(obtain(*nvrtc));
  EXPECT_FALSE(obtain(*nvrtc));
  EXPECT_TRUE(obtain(*nvrtc, kKernel, "sm_86"));
  EXPECT_TRUE(obtain(*nvrtc, kKernel, "sm_80", 32));
  std::string other = kKernel;
  other.insert(other.find("ret;"), "bar.sync 0; ");
  EXPECT_TRUE(obtain(*nvrtc, other));
  install("old", FAKE_NVRTC_12, "libnvrtc.so.12", "12.9");
  auto older = Nvrtc::load({path("old/libnvrtc.so.12"), {}});
  ASSERT_TRUE(older.isOk()) << older.status().message();
  EXPECT_TRUE(obtain(*older.value()));
  EXPECT_FALSE(obtain(*older.value()));
  EXPECT_FALSE(obtain(*nvrtc));
  EXPECT_EQ(compiles(), 5);
}

TEST_F(CubinStore, ACorruptCubinIsAMissAndReplaced) {
  const auto nvrtc = load();
  EXPECT_TRUE(obtain(*nvrtc));
  std::filesystem::path file;
  for (const auto &entry : std::filesystem::directory_iterator(path("store")))
    file = entry.path();
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary).seekp(200).put('!');
  EXPECT_TRUE(obtain(*nvrtc));
  EXPECT_FALSE(obtain(*nvrtc));
}

TEST_F(CubinStore, ADeviceGetsCubinsOnceThereIsANvrtc) {
  const CubinFunction none = cubinFunction(store_, false, {path("absent.so"), {}});
  for (int i = 0; i < 2; ++i)
    EXPECT_NE(none(kKernel, "k", "sm_80").status().message().find("NVRTC cannot be loaded"), std::string::npos);
  const CubinFunction late = cubinFunction(store_, false, {path("own/libnvrtc.so.13"), {}});
  (void)load(); // puts it there
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      auto cubin = late(kKernel, "k", "sm_80");
      EXPECT_TRUE(cubin.isOk() && !cubin.value().empty()) << cubin.status().message();
    });
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(compiles(), 1);
  EXPECT_EQ(late("no PTX", "k", "sm_80").status().code(), Code::InvalidArgument);
  std::string named = kKernel;
  named.insert(named.find(".visible"), ".visible .global .b32 shown;\n");
  EXPECT_NE(late(named, "k", "sm_80").status().message().find("would hide the variable shown"), std::string::npos);
  EXPECT_TRUE(obtain(*load(), named));
}

TEST_F(CubinStore, APreparedCubinServesDevicesWithoutAnNvrtc) {
  bool compiled = false;
  auto prepared = prepareCubin(store_, *load(), kKernel, "k", "sm_80", compiled);
  ASSERT_TRUE(prepared.isOk() && compiled) << prepared.status().message();
  EXPECT_EQ(compiles(), 1);
  const CudaLibrarySearch absent{path("absent.so"), {}}, present{path("own/libnvrtc.so.13"), {}};
  for (const CubinFunction &device : {cubinFunction(store_, false, absent), cubinFunction(store_, true, absent),
                                      cubinFunction(store_, false, present)})
    EXPECT_EQ(device(kKernel, "k", "sm_80").value(), prepared.value().object);
  EXPECT_EQ(cubinFunction(store_, true, present)(kKernel, "k", "sm_90").status().code(), Code::FailedPrecondition);
  EXPECT_EQ(compiles(), 1) << "a frozen device compiled";
  EXPECT_TRUE(cubinFunction(store_, false, present)(kKernel, "k", "sm_90").isOk());
  EXPECT_TRUE(prepareCubin(store_, *load(), kKernel, "k", "sm_80", compiled).isOk() && !compiled);
  EXPECT_EQ(compiles(), 2);
}

TEST_F(CubinStore, AnErrorIsNotKept) {
  bool compiled = false;
  std::string ptx = kKernel;
  ptx.insert(ptx.find("ret;"), "mistake; ");
  for (int i = 1; i <= 2; ++i) {
    auto cubin = obtainCubin(store_, *load(), ptx, "k", "sm_80", {}, compiled);
    EXPECT_EQ(cubin.status().code(), Code::InvalidArgument);
    EXPECT_NE(cubin.status().message().find("line 6 of the PTX ('mistake; ret;')"), std::string::npos)
        << cubin.status().message();
    EXPECT_EQ(compiles(), i);
  }
  EXPECT_FALSE(compiled);
  EXPECT_TRUE(std::filesystem::is_empty(path("store")));
}

} // namespace
