// SPDX-License-Identifier: Apache-2.0
#include "runtime/cache/split_choice.h"

#include "runtime/device/kernel_source.h"
#include "runtime/format/text.h"

namespace kvq {

namespace {

constexpr std::string_view kAttend = "attend:", kSplit = "split:", kRows = "rows", kHeads = "heads";
constexpr size_t kPlace = 8; // of the rows among the fields of a request

// The text with another name in front and another field in the place of the rows.
std::string exchanged(std::string_view text, std::string_view field) {
  std::string result(text.starts_with(kAttend) ? kSplit.substr(0, kSplit.size() - 1)
                                               : kAttend.substr(0, kAttend.size() - 1));
  const std::vector<std::string_view> fields = text::split(text, ':');
  for (size_t i = 1; i < fields.size(); ++i)
    result += ":" + std::string(i == kPlace ? field : fields[i]);
  return result;
}

} // namespace

std::string splitRequest(const CacheConfig &config) {
  return exchanged(toText(kernelRequest(config, attendKernel(0))),
                   std::string(kHeads) + std::to_string(config.kvHeads));
}

Status checkSplitRequest(std::string_view text) {
  const auto refused = [&](const std::string &why) {
    return Status(Code::InvalidArgument,
                  "the request " + text::quote(text) + " is none of a split policy (" + why +
                      "): write it as in split:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:heads2:lag0:win0:cap0:exact");
  };
  const std::vector<std::string_view> fields = text::split(text, ':');
  if (!text.starts_with(kSplit) || fields.size() <= kPlace || !fields[kPlace].starts_with(kHeads))
    return refused("it has no name split, or no heads in place " + std::to_string(kPlace));
  const auto heads = text::parseDecimal(fields[kPlace].substr(kHeads.size()));
  if (!heads || *heads < 1 || *heads > kMostKvHeads)
    return refused("heads can be 1 to " + std::to_string(kMostKvHeads));
  const std::string attend = exchanged(text, std::string(kRows) + "1");
  auto parsed = parseKernelRequest(attend);
  if (!parsed.isOk())
    return refused(parsed.status().message());
  return toText(parsed.value()) == attend ? Status::ok() : refused("it is not in its canonical form");
}

std::optional<SplitPolicy> chosenSplits(const Device &device, const CacheConfig &config) {
  const auto kernels = device.compiledKernels();
  if (!kernels.isOk())
    return std::nullopt;
  const auto policy = parseSplitPolicy(kernels.value()->chosenSplits(splitRequest(config)));
  return policy.isOk() ? std::optional(policy.value()) : std::nullopt;
}

} // namespace kvq
