// SPDX-License-Identifier: Apache-2.0
//
// What a kernel is asked for, as plain data with one canonical text: the compiler's input, and with the compiler's
// hash the key of the store. Example:
//   attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact
// The profile of convert_k and convert_v is two, what pages were and what they become: `vnni-mma`.
#pragma once

#include "runtime/format/layout.h"

#include <optional>

namespace kvq {

enum class KernelOp { Append, QuantizeK, QuantizeV, Attend, Merge, DequantizeK, DequantizeV, ConvertK, ConvertV };
inline bool isConvert(KernelOp op) { return op == KernelOp::ConvertK || op == KernelOp::ConvertV; }
enum class ElementType { F32, BF16, F16 };
inline int byteSize(ElementType t) { return t == ElementType::F32 ? 4 : 2; }
// How far a kernel's arithmetic may be from the exact answer (attention_c4): a budget, not a method; accuracy_c1 says
// which arithmetic keeps it.
enum class Accuracy { Full, Exact, Normal, Fast };
inline constexpr Accuracy kAllAccuracies[] = {Accuracy::Full, Accuracy::Exact, Accuracy::Normal, Accuracy::Fast};
inline constexpr Accuracy kDefaultAccuracy = Accuracy::Exact; // of a cache for which none is asked

struct KernelRequest {
  KernelOp op = KernelOp::Attend;
  PairFormat pair;
  Profile profile = Profile::Vnni;
  int pageTokens = 64;
  int dk = 64, dv = 64;
  int ratio = 1;                       // query heads per KV head (attend)
  ElementType type = ElementType::F32; // of K, V, tail, q and out
  int rows = 1;                        // query rows of one program (attend)
  bool lag = false;                    // V's frontier may lie below K's (`sliding`)
  bool window = false;                 // queries see a window of keys (window_c1); its length is an argument (attend)
  bool scoreCap = false;               // scores are capped (attention_c11); the cap is an argument (attend)
  Accuracy accuracy = Accuracy::Exact;
  std::optional<Profile> from = {}; // of pages that become pages of `profile`, which is another (convert; there only)
  bool operator==(const KernelRequest &) const = default;
};

std::string toText(const KernelRequest &);
Result<KernelRequest> parseKernelRequest(std::string_view text); // also checks shapes: page, D, ratio 1..64, rows 1..64

std::string_view toText(KernelOp);
std::string_view toText(ElementType);
std::string_view toText(Accuracy);
Result<Accuracy> parseAccuracy(std::string_view text);

} // namespace kvq
