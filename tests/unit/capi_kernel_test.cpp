// SPDX-License-Identifier: Apache-2.0
//
// The C API without a cache: merging partial results, opening and launching kernels.
#include "tests/unit/cache_harness.h"

#include <kvq/kernel_abi.h>

#include <bit>
#include <cmath>

using namespace kvq_test;

namespace {

// A harness has a cache, which these tests do not look at.
CacheSetup anyCache() {
  CacheSetup setup;
  setup.text = "k4c32-v4t16/w32,block";
  setup.model = kBlock;
  return setup;
}

// merge_c1: merging parts of a softmax gives the whole one; a part that saw no key weighs nothing.
TEST(Merge, PartsGiveTheWhole) {
  Harness harness(anyCache());
  const int splits = 3, n = 2, heads = 3, dv = 16;
  std::vector<float> o(splits * n * heads * dv), lse(splits * n * heads), merged(n * heads);
  for (float &value : o)
    value = std::normal_distribution<float>()(harness.random_);
  for (float &value : lse)
    value = std::normal_distribution<float>(0, 5)(harness.random_);
  for (int i = 0; i < n * heads; ++i)
    lse[i] = -INFINITY;
  Rows out(1, heads, n, dv, KVQ_BF16); // written through strides: [n, heads, dv] lies as [heads, n, dv]
  const kvq_tensor oT = {o.data(), KVQ_F32, KVQ_CPU, 4, {splits, n, heads, dv}, {n * heads * dv, heads * dv, dv, 1}};
  const kvq_tensor lseT = {lse.data(), KVQ_F32, KVQ_CPU, 3, {splits, n, heads, 0}, {n * heads, heads, 1, 0}};
  const kvq_tensor outT = {out.memory.data(), KVQ_BF16, KVQ_CPU, 3, {n, heads, dv, 0}, {dv, n * dv, 1, 0}};
  const kvq_tensor mergedT = {merged.data(), KVQ_F32, KVQ_CPU, 2, {n, heads, 0, 0}, {heads, 1, 0, 0}};
  KVQ_ASSERT_OK(kvq_merge(harness.context, &oT, &lseT, nullptr, &outT, &mergedT));
  for (int i = 0; i < n; ++i)
    for (int h = 0; h < heads; ++h) {
      double sum = 0;
      for (int s = 1; s < splits; ++s)
        sum += std::exp(double(lse[(s * n + i) * heads + h]));
      EXPECT_NEAR(merged[i * heads + h], std::log(sum), 1e-4);
      for (int c = 0; c < dv; ++c) {
        double expected = 0;
        for (int s = 1; s < splits; ++s)
          expected += std::exp(double(lse[(s * n + i) * heads + h])) / sum * o[((s * n + i) * heads + h) * dv + c];
        EXPECT_NEAR(out.get(out.index(0, h, i) + c), expected, 4e-3 * std::max(1.0, std::fabs(expected)));
      }
    }
  EXPECT_TRUE(out.memory.guardsIntact());
  KVQ_EXPECT_OK(kvq_merge(harness.context, &oT, &lseT, nullptr, &outT, nullptr));

  kvq_tensor wrong = oT;
  wrong.strides[0] *= 2;
  KVQ_EXPECT_ERROR(kvq_merge(harness.context, &wrong, &lseT, nullptr, &outT, nullptr), KVQ_INVALID_ARGUMENT,
                   "o is not contiguous");
  wrong = oT;
  wrong.shape[0] = 0;
  KVQ_EXPECT_ERROR(kvq_merge(harness.context, &wrong, &lseT, nullptr, &outT, nullptr), KVQ_INVALID_ARGUMENT,
                   "o has 0 splits");
  wrong = lseT;
  wrong.shape[0] = 2;
  KVQ_EXPECT_ERROR(kvq_merge(harness.context, &oT, &wrong, nullptr, &outT, nullptr), KVQ_INVALID_ARGUMENT,
                   "lse has shape");
  KVQ_EXPECT_ERROR(kvq_merge(harness.context, &oT, &lseT, nullptr, nullptr, nullptr), KVQ_INVALID_ARGUMENT,
                   "out is NULL");
}

TEST(Kernel, BuiltInKernelsOpenAndLaunch) {
  Harness harness(anyCache());
  kvq_kernel *kernel = nullptr;
  KVQ_EXPECT_ERROR(kvq_kernel_open(harness.context, "append", &kernel), KVQ_INVALID_ARGUMENT, "1 fields");
  KVQ_ASSERT_OK(kvq_kernel_open(harness.context,
                                "append:k4c32-v4t16:vnni:p64:dk16:dv16:g1:f32:rows1:lag0:win0:cap0:exact", &kernel));
  EXPECT_STREQ(kvq_kernel_signature(kernel),
               "ptr<i8> ptr<f32> i64 ptr<f32> i64 ptr<f32> ptr<f32> i64 i64 i64 ptr<i32>");
  std::vector<float> k(32, 1.0f), v(32, 2.0f), tailK(48 * 16, 0.0f), tailV(48 * 16, 0.0f);
  v[16 + 3] = NAN;
  const kvq_append_item items[2] = {{0, 0, 0, 33},
                                    {16, 16, 0, -1}}; // of a ring of 32 rows row 1, and the last kept one
  int32_t status[2] = {9, 9};
  uint64_t args[KVQ_APPEND_ARGS] = {};
  args[KVQ_APPEND_ITEMS] = reinterpret_cast<uint64_t>(items);
  args[KVQ_APPEND_K] = reinterpret_cast<uint64_t>(k.data());
  args[KVQ_APPEND_V] = reinterpret_cast<uint64_t>(v.data());
  args[KVQ_APPEND_TAIL_K] = reinterpret_cast<uint64_t>(tailK.data());
  args[KVQ_APPEND_TAIL_V] = reinterpret_cast<uint64_t>(tailV.data());
  args[KVQ_APPEND_TAIL_CAP] = 32;
  args[KVQ_APPEND_TAIL_ROWS] = 48;
  args[KVQ_APPEND_HEADS] = 1;
  args[KVQ_APPEND_STATUS] = reinterpret_cast<uint64_t>(status);
  const int64_t grid[3] = {2, 1, 1}, bad[3] = {2, -1, 1}, huge[3] = {1 << 30, 1 << 30, 1 << 30};
  KVQ_EXPECT_ERROR(kvq_kernel_launch(kernel, args, 10, grid, nullptr), KVQ_INVALID_ARGUMENT, "takes 11 arguments");
  KVQ_EXPECT_ERROR(kvq_kernel_launch(kernel, args, 11, bad, nullptr), KVQ_INVALID_ARGUMENT, "grid[1] is -1");
  KVQ_EXPECT_ERROR(kvq_kernel_launch(kernel, args, 11, huge, nullptr), KVQ_INVALID_ARGUMENT, "grid[2]");
  KVQ_EXPECT_ERROR(kvq_kernel_launch(kernel, nullptr, 11, grid, nullptr), KVQ_INVALID_ARGUMENT, "args is NULL");
  KVQ_ASSERT_OK(kvq_kernel_launch(kernel, args, 11, grid, nullptr));
  EXPECT_EQ(status[0], 0);
  EXPECT_EQ(status[1], 1);
  EXPECT_EQ(tailK[16], 1.0f);
  EXPECT_EQ(tailV[47 * 16], 2.0f);
  int kernels = 0;
  kvq_context_kernels(
      harness.context,
      [](void *data, const kvq_kernel_info *info) {
        ++*static_cast<int *>(data);
        EXPECT_STREQ(info->source, "ref");
      },
      &kernels);
  EXPECT_EQ(kernels, 1);
  kvq_kernel_destroy(kernel);
  kvq_kernel_destroy(nullptr);
}

} // namespace
