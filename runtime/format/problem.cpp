// SPDX-License-Identifier: Apache-2.0
//
// The canonical text of a kernel request. Every field is written for every operation, also where the operation does
// not depend on it: one grammar, and a request never means two kernels.
#include "runtime/format/problem.h"

#include "runtime/format/text.h"

#include <array>

namespace kvq {

using text::quote;

static Status invalid(std::string message) { return {Code::InvalidArgument, std::move(message)}; }

static constexpr int kMaxRatio = 64, kMaxRows = 64;

static constexpr std::array<std::pair<KernelOp, std::string_view>, 9> kOps = {{
    {KernelOp::Append, "append"},
    {KernelOp::QuantizeK, "quantize_k"},
    {KernelOp::QuantizeV, "quantize_v"},
    {KernelOp::Attend, "attend"},
    {KernelOp::Merge, "merge"},
    {KernelOp::DequantizeK, "dequantize_k"},
    {KernelOp::DequantizeV, "dequantize_v"},
    {KernelOp::ConvertK, "convert_k"},
    {KernelOp::ConvertV, "convert_v"},
}};
static constexpr std::array<std::pair<ElementType, std::string_view>, 3> kTypes = {{
    {ElementType::F32, "f32"},
    {ElementType::BF16, "bf16"},
    {ElementType::F16, "f16"},
}};

static constexpr std::array<std::pair<Accuracy, std::string_view>, 4> kAccuracies = {{
    {Accuracy::Full, "full"},
    {Accuracy::Exact, "exact"},
    {Accuracy::Normal, "normal"},
    {Accuracy::Fast, "fast"},
}};

std::string_view toText(KernelOp op) { return kOps[static_cast<size_t>(op)].second; }
std::string_view toText(ElementType type) { return kTypes[static_cast<size_t>(type)].second; }

std::string_view toText(Accuracy accuracy) { return kAccuracies[static_cast<size_t>(accuracy)].second; }

std::string toText(const KernelRequest &request) {
  std::string text(toText(request.op));
  text += ":" + toText(request.pair);
  text += ":" + (request.from ? std::string(toText(*request.from)) + "-" : "") + std::string(toText(request.profile));
  text += ":p" + std::to_string(request.pageTokens);
  text += ":dk" + std::to_string(request.dk);
  text += ":dv" + std::to_string(request.dv);
  text += ":g" + std::to_string(request.ratio);
  text += ":" + std::string(toText(request.type));
  text += ":rows" + std::to_string(request.rows);
  text += request.lag ? ":lag1" : ":lag0";
  text += request.window ? ":win1" : ":win0";
  text += request.scoreCap ? ":cap1" : ":cap0";
  return text + ":" + std::string(toText(request.accuracy));
}

// A field that is one of several names.
template <typename Names, typename Value>
static Status parseName(const char *what, std::string_view text, const Names &known, Value &result) {
  std::string names;
  for (const auto &[value, name] : known) {
    if (text == name) {
      result = value;
      return Status::ok();
    }
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  return invalid(what + (" " + quote(text)) + " is unknown: use one of " + names);
}

// A field like `dk64`: its name, then a number from `low` to `high`.
static Status parseField(std::string_view text, std::string_view name, int low, int high, int &value) {
  const bool named = text.substr(0, name.size()) == name;
  std::optional<int> number = named ? text::parseDecimal(text.substr(name.size())) : std::nullopt;
  if (!number || *number < low || *number > high)
    return invalid("field " + quote(text) + " is not legal: write " + std::string(name) + " and a number from " +
                   std::to_string(low) + " to " + std::to_string(high));
  value = *number;
  return Status::ok();
}

// A field like `lag0`.
static Status parseFlag(std::string_view text, std::string_view name, bool &value) {
  int number = 0;
  KVQ_RETURN_IF_ERROR(parseField(text, name, 0, 1, number));
  value = number == 1;
  return Status::ok();
}

Result<Accuracy> parseAccuracy(std::string_view text) {
  Accuracy accuracy = Accuracy::Exact;
  KVQ_RETURN_IF_ERROR(parseName("accuracy class", text, kAccuracies, accuracy));
  return accuracy;
}

// `mma`; of a conversion `vnni-mma`, what pages were and what they become (layout_c10).
static Status parseProfiles(std::string_view text, KernelRequest &request) {
  std::vector<std::string_view> names = {text};
  if (isConvert(request.op))
    names = text::split(text, '-');
  if (isConvert(request.op) && (names.size() != 2 || names[0] == names[1]))
    return invalid("profiles " + quote(text) + " of " + std::string(toText(request.op)) +
                   " are not legal: write what the pages were, '-' and another that they become, as in vnni-mma");
  for (std::string_view name : names) {
    Result<Profile> profile = parseProfile(name);
    KVQ_RETURN_IF_ERROR(profile.status());
    KVQ_RETURN_IF_ERROR(checkProfile(profile.value(), request.pair));
    request.profile = profile.value();
  }
  if (isConvert(request.op))
    request.from = parseProfile(names[0]).value();
  return Status::ok();
}

Result<KernelRequest> parseKernelRequest(std::string_view text) {
  const std::vector<std::string_view> fields = text::split(text, ':');
  if (fields.size() != 13)
    return invalid("kernel request " + quote(text) + " has " + std::to_string(fields.size()) +
                   " fields, not 13: write it as in " + toText(KernelRequest()));
  KernelRequest request;
  KVQ_RETURN_IF_ERROR(parseName("operation", fields[0], kOps, request.op));
  Result<PairFormat> pair = parsePair(fields[1]);
  KVQ_RETURN_IF_ERROR(pair.status());
  request.pair = pair.value();
  for (const SideFormat &side : {request.pair.k, request.pair.v})
    if (side.group == kWholeHead) // text_c9
      return invalid("group 'h' of " + quote(fields[1]) +
                     " is not legal in a kernel request: write the number of channels that a head has");
  KVQ_RETURN_IF_ERROR(parseProfiles(fields[2], request));
  KVQ_RETURN_IF_ERROR(parseField(fields[3], "p", 32, 256, request.pageTokens));
  KVQ_RETURN_IF_ERROR(parseField(fields[4], "dk", 16, 256, request.dk));
  KVQ_RETURN_IF_ERROR(parseField(fields[5], "dv", 16, 256, request.dv));
  KVQ_RETURN_IF_ERROR(parseField(fields[6], "g", 1, kMaxRatio, request.ratio));
  KVQ_RETURN_IF_ERROR(parseName("element type", fields[7], kTypes, request.type));
  KVQ_RETURN_IF_ERROR(parseField(fields[8], "rows", 1, kMaxRows, request.rows));
  KVQ_RETURN_IF_ERROR(parseFlag(fields[9], "lag", request.lag));
  KVQ_RETURN_IF_ERROR(parseFlag(fields[10], "win", request.window));
  KVQ_RETURN_IF_ERROR(parseFlag(fields[11], "cap", request.scoreCap));
  Result<Accuracy> accuracy = parseAccuracy(fields[12]);
  KVQ_RETURN_IF_ERROR(accuracy.status());
  request.accuracy = accuracy.value();
  KVQ_RETURN_IF_ERROR(checkShape(request.pair, request.dk, request.dv, request.pageTokens));
  return request;
}

} // namespace kvq
