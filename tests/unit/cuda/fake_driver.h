// SPDX-License-Identifier: Apache-2.0
//
// A GPU over fakes/fake_libcuda.cpp, and a test that nothing of it was kept.
#pragma once

#include "runtime/device/cuda/cuda_accelerator.h"
#include "runtime/jit/library.h"
#include "tests/unit/fakes/fake_libcuda.h"

#include <gtest/gtest.h>

namespace kvq_test {

inline constexpr const char *kPtx = R"(.version 7.0
.target sm_80
.address_size 64
.visible .entry add(.param .u64 from, .param .u32 count) .reqntid 32, 1, 1 { ret; }
.visible .entry free() { ret; }
)";
inline constexpr const char *kOneKernel =
    ".version 7.0\n.target sm_80\n.visible .entry one(.param .u64 from) { ret; }\n";

class FakeDriver : public ::testing::Test {
protected:
  FakeDriver() {
    const kvq::Library library = kvq::Library::open(FAKE_LIBCUDA).value();
    EXPECT_TRUE(library.find("fake_cuda_fail", fail) && library.find("fake_cuda_reset", reset) &&
                library.find("fake_cuda_set", set) && library.find("fake_cuda_get", get) &&
                library.find("fake_cuda_log", log) && library.find("fake_cuda_calls", calls) &&
                library.find("fake_cuda_live", live) && library.find("fake_cuda_depth", depth));
    reset();
  }
  ~FakeDriver() override {
    EXPECT_EQ(live(), FakeCudaCounts{}) << "something was not given back";
    EXPECT_EQ(depth(), 0) << "a context was left current";
  }
  kvq::Result<kvq::cuda::Gpu> open(int ordinal = 0, kvq::cuda::CubinCompiler cubins = nullptr) {
    return kvq::cuda::openGpu({FAKE_LIBCUDA, ordinal, std::move(cubins)});
  }

  FakeCudaFail *fail;
  FakeCudaReset *reset;
  FakeCudaSet *set;
  FakeCudaGet *get;
  FakeCudaLog *log;
  FakeCudaCalls *calls;
  FakeCudaLive *live;
  FakeCudaDepth *depth;
};

} // namespace kvq_test
