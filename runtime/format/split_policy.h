// SPDX-License-Identifier: Apache-2.0
//
// How attention splits the keys of a sequence over programs, as plain data with one canonical text:
// "tokens=1024,programs=128,least=16,most=64". It is a rule, not a table: it has an answer for every length, and knows
// neither the other sequences of a step nor the number of threads, so that a result depends on neither.
//
// The keys of a sequence are cut into splits of `tokens` tokens, whole pages of them; where that makes more than
// clamp(programs / KV heads, least, most) splits, their length is doubled until it does not. Each split of each KV head
// is a program, and what programs leave is merged by log-sum-exp: another policy changes an answer within the accuracy
// class alone, and nothing that is stored.
#pragma once

#include "runtime/format/status.h"

#include <string>
#include <string_view>

namespace kvq {

struct SplitPolicy {
  int tokens = 1024;  // packed tokens of the shortest split, 16 to 1048576
  int programs = 128; // of one sequence, where they suffice, 1 to 65536; longer contexts have longer splits
  int least = 16;     // splits that may be had for it, 1 to 512
  int most = 64;      // at least `least`, at most 512
  bool operator==(const SplitPolicy &) const = default;
};

std::string toText(const SplitPolicy &);
// All four numbers in their order, each once. InvalidArgument: which one is wrong, and what it can be.
Result<SplitPolicy> parseSplitPolicy(std::string_view text);

} // namespace kvq
