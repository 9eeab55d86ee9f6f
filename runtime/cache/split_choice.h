// SPDX-License-Identifier: Apache-2.0
//
// Split policies that were chosen for caches like one (runtime/jit/choice_store.h): which caches are alike, and how a
// cache finds its policy when it is made.
#pragma once

#include "runtime/cache/config.h"

#include <optional>
#include <string_view>

namespace kvq {

// What a policy is chosen for, as a text: the request of the cache's attention with "split" in the place of its name
// and the KV heads in that of its rows, on which neither the time of a token nor the number of programs depends:
//   split:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:heads2:lag0:win0:cap0:exact
// Lengths, sequences and threads are not part of it: a policy answers for all of them. Nor is a score function.
std::string splitRequest(const CacheConfig &config); // onDevice
// InvalidArgument where a text is none of these.
Status checkSplitRequest(std::string_view text);

// The policy that was chosen for caches like this one on this machine; none where nothing was, or where there is no
// kernel store. Writes nothing.
std::optional<SplitPolicy> chosenSplits(const Device &device, const CacheConfig &config);

} // namespace kvq
