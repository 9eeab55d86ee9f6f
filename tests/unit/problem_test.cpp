// SPDX-License-Identifier: Apache-2.0
//
// The canonical text of a kernel request.
#include "runtime/format/problem.h"

#include <gtest/gtest.h>

using namespace kvq;

namespace {

constexpr const char *kExample = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact";

std::string refusal(std::string_view text) {
  Result<KernelRequest> request = parseKernelRequest(text);
  EXPECT_FALSE(request.isOk()) << text;
  EXPECT_EQ(request.status().code(), Code::InvalidArgument);
  return request.status().message();
}

// The example with one of its fields replaced.
std::string with(std::string_view field, std::string_view replacement) {
  std::string text = kExample;
  return text.replace(text.find(field), field.size(), replacement);
}

} // namespace

TEST(KernelRequest, fields_of_the_example) {
  Result<KernelRequest> request = parseKernelRequest(kExample);
  ASSERT_TRUE(request.isOk()) << request.status().message();
  EXPECT_EQ(request.value().op, KernelOp::Attend);
  EXPECT_EQ(toText(request.value().pair), "k4c32-v4t32");
  EXPECT_EQ(request.value().profile, Profile::Vnni);
  EXPECT_EQ(request.value().pageTokens, 64);
  EXPECT_EQ(request.value().ratio, 3);
  EXPECT_EQ(request.value().type, ElementType::F32);
  EXPECT_EQ(request.value().rows, 3);
  EXPECT_FALSE(request.value().lag);
  EXPECT_FALSE(request.value().window);
  EXPECT_FALSE(request.value().scoreCap);
  EXPECT_EQ(toText(request.value()), kExample);
}

TEST(KernelRequest, every_canonical_text_round_trips) {
  for (KernelOp op : {KernelOp::Append, KernelOp::QuantizeK, KernelOp::QuantizeV, KernelOp::Attend, KernelOp::Merge,
                      KernelOp::DequantizeK, KernelOp::DequantizeV})
    for (const char *pair : {"k4c32-v4t32", "k2t16-v8c128"})
      for (Profile profile : kAllProfiles)
        for (int dk : {64, 80})
          for (int dv : {96, 128})
            for (int ratio : {1, 3, 64})
              for (ElementType type : {ElementType::F32, ElementType::BF16, ElementType::F16})
                for (int flags = 0; flags < 8; ++flags) {
                  const KernelRequest request{op,
                                              parsePair(pair).value(),
                                              profile,
                                              128,
                                              dk,
                                              dv,
                                              ratio,
                                              type,
                                              64,
                                              (flags & 1) != 0,
                                              (flags & 2) != 0,
                                              (flags & 4) != 0};
                  Result<KernelRequest> again = parseKernelRequest(toText(request));
                  ASSERT_TRUE(again.isOk()) << again.status().message();
                  EXPECT_EQ(again.value(), request) << toText(request);
                }
}

TEST(KernelRequest, conversions_name_two_profiles) {
  for (KernelOp op : {KernelOp::ConvertK, KernelOp::ConvertV})
    for (Profile from : kAllProfiles)
      for (Profile to : kAllProfiles) {
        if (from == to)
          continue;
        KernelRequest request;
        request.op = op;
        request.from = from;
        request.profile = to;
        const std::string text = toText(request);
        EXPECT_EQ(text, std::string(toText(op)) + ":k4c32-v4c32:" + std::string(toText(from)) + "-" +
                            std::string(toText(to)) + ":p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact");
        Result<KernelRequest> again = parseKernelRequest(text);
        ASSERT_TRUE(again.isOk()) << again.status().message();
        EXPECT_EQ(again.value(), request);
      }
  const auto convert = [](std::string_view pair, std::string_view profiles) {
    return "convert_k:" + std::string(pair) + ":" + std::string(profiles) +
           ":p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact";
  };
  for (const char *profiles : {"mma", "mma-mma", "vnni-mma-kivi", "-"})
    EXPECT_EQ(refusal(convert("k4c32-v4t32", profiles)),
              "profiles '" + std::string(profiles) +
                  "' of convert_k are not legal: write what the pages were, '-' and another that they become, as in "
                  "vnni-mma");
  EXPECT_EQ(refusal(convert("k4c32-v4t32", "vnni-row")), "layout profile 'row' is unknown: use vnni, kivi or mma");
  EXPECT_EQ(refusal(with("vnni", "vnni-mma")), "layout profile 'vnni-mma' is unknown: use vnni, kivi or mma");
  // layout_c6: in either place.
  for (const char *profiles : {"vnni-mma", "mma-vnni", "kivi-vnni"})
    EXPECT_NE(refusal(convert("k3c32-v4t32", profiles)).find("use 2, 4 or 8 bits, or the profile vnni"),
              std::string::npos);
}

TEST(KernelRequest, refusals) {
  EXPECT_EQ(refusal("attend"), "kernel request 'attend' has 1 fields, not 13: write it as in "
                               "attend:k4c32-v4c32:vnni:p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact");
  EXPECT_EQ(refusal(with("attend", "sum")), "operation 'sum' is unknown: use one of append, quantize_k, quantize_v, "
                                            "attend, merge, dequantize_k, dequantize_v, convert_k, convert_v");
  EXPECT_EQ(refusal(with("k4c32", "k4c33")), "K of 'k4c33-v4t32': group '33' of '4c33' is not legal: a per-channel "
                                             "group is 32, 64, 128 or 256 tokens");
  EXPECT_EQ(refusal(with("v4t32", "v4th")), "group 'h' of 'k4c32-v4th' is not legal in a kernel request: write the "
                                            "number of channels that a head has");
  EXPECT_EQ(refusal(with("k4c32-v4t32:vnni", "k3c32-v4t32:kivi")),
            "width 3 of 'k3c32-v4t32' is not legal in the profile kivi: use 2, 4 or 8 bits, or the profile vnni");
  EXPECT_EQ(refusal(with("vnni", "row")), "layout profile 'row' is unknown: use vnni, kivi or mma");
  EXPECT_EQ(refusal(with("p64", "64")), "field '64' is not legal: write p and a number from 32 to 256");
  EXPECT_EQ(refusal(with("p64", "p512")), "field 'p512' is not legal: write p and a number from 32 to 256");
  EXPECT_EQ(refusal(with("dk64", "dk064")), "field 'dk064' is not legal: write dk and a number from 16 to 256");
  EXPECT_EQ(refusal(with("dv64", "dk64")), "field 'dk64' is not legal: write dv and a number from 16 to 256");
  EXPECT_EQ(refusal(with("g3", "g65")), "field 'g65' is not legal: write g and a number from 1 to 64");
  EXPECT_EQ(refusal(with("g3", "g0")), "field 'g0' is not legal: write g and a number from 1 to 64");
  EXPECT_EQ(refusal(with("f32", "f64")), "element type 'f64' is unknown: use one of f32, bf16, f16");
  EXPECT_EQ(refusal(with("rows3", "rows65")), "field 'rows65' is not legal: write rows and a number from 1 to 64");
  EXPECT_EQ(refusal(with("lag0", "lag2")), "field 'lag2' is not legal: write lag and a number from 0 to 1");
  EXPECT_EQ(refusal(with("win0", "win")), "field 'win' is not legal: write win and a number from 0 to 1");
  EXPECT_EQ(refusal(with("cap0", "win0")), "field 'win0' is not legal: write cap and a number from 0 to 1");
  EXPECT_EQ(refusal(with("exact", "quick")), "accuracy class 'quick' is unknown: use one of full, exact, normal, fast");
  EXPECT_EQ(refusal(with("p64", "p48")), "page size 48 is not legal for k4c32-v4t32: use one of 32, 64, 96, 128, 160, "
                                         "192, 224, 256 tokens");
  EXPECT_EQ(refusal(with("dv64", "dv80")), "V's head size 80 is not a multiple of its per-token group of 32 channels: "
                                           "use a group that divides it");
  EXPECT_EQ(refusal(std::string(kExample) + ":"),
            "kernel request '" + std::string(kExample) +
                ":' has 14 fields, not 13: write it as in "
                "attend:k4c32-v4c32:vnni:p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact");
}
