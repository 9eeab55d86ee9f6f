// SPDX-License-Identifier: Apache-2.0
#include "runtime/format/split_policy.h"

#include "runtime/format/knobs.h"

namespace kvq {

namespace {

constexpr Knob<SplitPolicy> kKnobs[] = {{"tokens", &SplitPolicy::tokens},
                                        {"programs", &SplitPolicy::programs},
                                        {"least", &SplitPolicy::least},
                                        {"most", &SplitPolicy::most}};
// Partial results are memory: 512 splits of 32 queries of 32 heads of 128 channels are 256 MiB.
constexpr int kMostSplits = 512;
constexpr int kFewestTokens = 16, kMostTokens = 1 << 20, kMostPrograms = 1 << 16;

} // namespace

std::string toText(const SplitPolicy &policy) { return knobsToText(kKnobs, policy); }

Result<SplitPolicy> parseSplitPolicy(std::string_view text) {
  auto parsed = parseKnobs(kKnobs, "split policy", text);
  if (!parsed.isOk())
    return parsed;
  const SplitPolicy &policy = parsed.value();
  const struct {
    const char *name;
    int value, from, to;
  } bounds[] = {{"tokens", policy.tokens, kFewestTokens, kMostTokens},
                {"programs", policy.programs, 1, kMostPrograms},
                {"least", policy.least, 1, kMostSplits},
                {"most", policy.most, policy.least, kMostSplits}};
  for (const auto &[name, value, from, to] : bounds)
    if (value < from || value > to)
      return Status(Code::InvalidArgument, "the split policy " + text::quote(text) + " has " + name + " " +
                                               std::to_string(value) + ": it can be " + std::to_string(from) + " to " +
                                               std::to_string(to));
  return parsed;
}

} // namespace kvq
