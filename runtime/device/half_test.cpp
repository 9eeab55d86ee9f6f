// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/half_test.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

namespace kvq {

namespace {

// Each lane writes the four sums that it has of a product with subnormal A, then of one with subnormal B. 0x0007 is
// 7 * 2^-24, 0x3c00 is 1.
constexpr std::string_view kText = R"(.version 7.0
.target sm_80
.address_size 64
.visible .entry kvq_half_test(.param .u64 kvq_half_test_out)
.reqntid 32, 1, 1
{
  .reg .b32 %r<4>;
  .reg .b64 %rd<4>;
  .reg .f32 %f<9>;
  ld.param.u64 %rd1, [kvq_half_test_out];
  cvta.to.global.u64 %rd1, %rd1;
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd2, %r1, 32;
  add.s64 %rd3, %rd1, %rd2;
  mov.b32 %r2, 0x00070007;
  mov.b32 %r3, 0x3c003c00;
  mov.f32 %f1, 0f00000000;
  mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
    {%f1, %f2, %f3, %f4}, {%r2, %r2, %r2, %r2}, {%r3, %r3}, {%f1, %f1, %f1, %f1};
  mov.f32 %f5, 0f00000000;
  mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
    {%f5, %f6, %f7, %f8}, {%r3, %r3, %r3, %r3}, {%r2, %r2}, {%f5, %f5, %f5, %f5};
  st.global.v4.f32 [%rd3], {%f1, %f2, %f3, %f4};
  st.global.v4.f32 [%rd3+16], {%f5, %f6, %f7, %f8};
  ret;
}
)";
constexpr int kLanes = 32, kSums = 8;           // of a lane
constexpr float kSum = 16 * 7 / float(1 << 24); // of 16 products
using Sums = std::array<float, kLanes * kSums>;

Status launch(Accelerator &accelerator, DeviceAddress out, Sums &sums) {
  auto module = accelerator.load(kText, "the test of halves");
  if (!module.isOk())
    return module.status();
  auto function = module.value()->function("kvq_half_test");
  if (!function.isOk())
    return function.status();
  const uint64_t words[] = {out};
  auto parameters = packParameters(function.value()->info(), words);
  if (!parameters.isOk())
    return parameters.status();
  Stream &stream = accelerator.defaultStream();
  if (Status status = stream.launch(*function.value(), {{1, 1, 1}, {kLanes, 1, 1}}, parameters.value()); !status.isOk())
    return status;
  if (Status status = stream.download(sums.data(), out, sizeof sums); !status.isOk())
    return status;
  return stream.synchronize();
}

} // namespace

Result<SubnormalHalves> testHalves(Accelerator &accelerator) {
  Sums sums = {};
  auto out = accelerator.allocate(sizeof sums, "the test of halves");
  if (!out.isOk())
    return out.status();
  const Status status = launch(accelerator, out.value(), sums);
  const Status released = accelerator.release(out.value());
  if (!status.isOk() || !released.isOk())
    return status.isOk() ? released : status;
  const auto wrong = std::find_if(sums.begin(), sums.end(), [](float sum) { return sum != kSum && sum != 0; });
  if (wrong != sums.end()) {
    char text[200];
    std::snprintf(text, sizeof text,
                  "the GPU multiplies halves wrongly: 16 products of 7 * 2^-24 and 1 add up to %.9g and not to %.9g; "
                  "use another GPU or driver",
                  double(*wrong), double(kSum));
    return Status(Code::Internal, text);
  }
  return std::find(sums.begin(), sums.end(), 0.0f) == sums.end() ? SubnormalHalves::Kept : SubnormalHalves::Flushed;
}

} // namespace kvq
