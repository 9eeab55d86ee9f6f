// SPDX-License-Identifier: Apache-2.0
//
// Texts of formats, the commit rules and the sizes that follow from them: docs/format-spec.md sections 1, 4, 5 and 6.
#include "runtime/format/format.h"

#include "runtime/format/text.h"

#include <algorithm>
#include <array>

namespace kvq {

using text::parseDecimal;
using text::quote;

static Status invalid(std::string message) { return {Code::InvalidArgument, std::move(message)}; }

static constexpr int kMaxWindow = 65536, kMaxKeep = 1024;
static constexpr int kMinPage = 32, kMaxPage = 256;
static constexpr int kMaxHeadDim = 256;

// ---- parsing ----

static Status checkGroup(const SideFormat &side, std::string_view group, std::string_view whole) {
  const int g = side.group;
  if (side.perChannel() && g == kWholeHead)
    return invalid("group 'h' of " + quote(whole) +
                   " is not legal: the whole head is a group per token only, a per-channel group is 32, 64, 128 or 256 "
                   "tokens");
  if (side.perChannel() && g != 32 && g != 64 && g != 128 && g != 256)
    return invalid("group " + quote(group) + " of " + quote(whole) +
                   " is not legal: a per-channel group is 32, 64, 128 or 256 tokens");
  if (!side.perChannel() && g != kWholeHead && (g == 0 || g % 16 != 0 || g > 256))
    return invalid("group " + quote(group) + " of " + quote(whole) +
                   " is not legal: a per-token group is h or a multiple of 16 channels, at most 256");
  return Status::ok();
}

Result<SideFormat> parseSide(std::string_view text) {
  SideFormat side;
  const std::string_view width = text::leadingDigits(text);
  const std::string_view rest = text.substr(width.size());
  if (width != "2" && width != "3" && width != "4" && width != "8")
    return invalid("width " + quote(width) + " of " + quote(text) + " is not legal: use 2, 3, 4 or 8 bits");
  side.bits = width[0] - '0';
  if (rest.empty() || (rest[0] != 'c' && rest[0] != 't'))
    return invalid("axis " + quote(rest.substr(0, 1)) + " of " + quote(text) +
                   " is not legal: use 'c' (per channel) or 't' (per token)");
  side.axis = rest[0] == 'c' ? Axis::Channel : Axis::Token;
  const std::string_view group = rest.substr(1);
  // A text that is no number is refused by the check of the values: 0 is never a legal group.
  side.group = group == "h" ? kWholeHead : parseDecimal(group).value_or(0);
  KVQ_RETURN_IF_ERROR(checkGroup(side, group, text));
  return side;
}

Result<PairFormat> parsePair(std::string_view text) {
  const size_t dash = text.find('-');
  if (text.empty() || text[0] != 'k' || dash == std::string_view::npos || text.substr(dash).substr(0, 2) != "-v")
    return invalid("format " + quote(text) + " is not a pair: write K and V as in k4c32-v4t32");
  Result<SideFormat> k = parseSide(text.substr(1, dash - 1));
  if (!k.isOk())
    return invalid("K of " + quote(text) + ": " + k.status().message());
  Result<SideFormat> v = parseSide(text.substr(dash + 2));
  if (!v.isOk())
    return invalid("V of " + quote(text) + ": " + v.status().message());
  return PairFormat{k.value(), v.value()};
}

static constexpr std::array<std::pair<CommitRule, std::string_view>, 3> kRules = {
    {{CommitRule::Block, "block"}, {CommitRule::Sliding, "sliding"}, {CommitRule::Flush, "flush"}}};

static std::string_view toText(CommitRule rule) { return kRules[static_cast<size_t>(rule)].second; }

static Status parseRule(std::string_view text, CommitRule &rule) {
  for (const auto &[value, name] : kRules)
    if (text == name) {
      rule = value;
      return Status::ok();
    }
  return invalid("commit rule " + quote(text) + " is not legal: use block, sliding or flush");
}

// A part like `w128`: its name, then a number up to `most`.
static std::optional<int> namedNumber(std::string_view part, std::string_view name, int most) {
  if (part.substr(0, name.size()) != name)
    return std::nullopt;
  std::optional<int> number = parseDecimal(part.substr(name.size()));
  return number && *number <= most ? number : std::nullopt;
}

static Status parsePolicy(std::string_view policy, CacheFormat &format) {
  std::vector<std::string_view> parts = text::split(policy, ',');
  std::optional<int> window = namedNumber(parts[0], "w", kMaxWindow);
  if (!window)
    return invalid("window " + quote(parts[0]) + " is not legal: write w and 0 to 65536 tokens, as in w128");
  format.window = *window;
  size_t next = 1;
  if (next < parts.size() && parts[next].substr(0, 4) == "keep") {
    std::optional<int> keep = namedNumber(parts[next], "keep", kMaxKeep);
    if (!keep)
      return invalid("part " + quote(parts[next]) + " is not legal: write keep and 0 to 1024 tokens, as in keep4");
    format.keep = *keep;
    ++next;
  }
  if (next < parts.size())
    KVQ_RETURN_IF_ERROR(parseRule(parts[next++], format.rule));
  if (next < parts.size())
    return invalid("part " + quote(parts[next]) + " is too many: write a window, keep and a rule, as in " +
                   "w128,keep4,sliding");
  return Status::ok();
}

// text_c4: of `flush`.
static Status checkFlush(const CacheFormat &format, const std::string &canonical) {
  for (const SideFormat &side : {format.pair.k, format.pair.v})
    if (side.perChannel() && (format.window < 1 || format.window % side.group != 0))
      return invalid("window " + std::to_string(format.window) + " of " + canonical +
                     " is not a multiple of the per-channel group of " + std::to_string(side.group) +
                     " tokens, which flush needs: change one of the two, or use block");
  return Status::ok();
}

// text_c4.
static Status checkPolicy(const CacheFormat &format) {
  if (format.rule == CommitRule::Block)
    return Status::ok();
  const std::string canonical = quote(toText(format));
  if (format.rule == CommitRule::Flush)
    return checkFlush(format, canonical);
  if (format.window < 1)
    return invalid("window 0 of " + canonical + " is not legal with sliding: use at least w1, or block");
  if (!format.pair.k.perChannel())
    return invalid("K of " + canonical + " is per token, but sliding needs K per channel: use 'c' for K, or block");
  if (format.window % format.pair.k.group != 0)
    return invalid("window " + std::to_string(format.window) + " of " + canonical +
                   " is not a multiple of K's group of " + std::to_string(format.pair.k.group) +
                   " tokens, which sliding needs: change one of the two, or use block");
  if (format.pair.v.perChannel())
    return invalid("V of " + canonical + " is per channel, but sliding needs V per token: use 't' for V, or block");
  return Status::ok();
}

static Status unknownFormat(std::string_view text) {
  std::vector<std::string_view> all;
  std::string names;
  for (const Preset &preset : presets()) {
    all.push_back(preset.name);
    names += (names.empty() ? "" : ", ") + std::string(preset.name);
  }
  std::string near;
  for (std::string_view name : text::nearest(text, all))
    near += (near.empty() ? "; did you mean " : " or ") + std::string(name);
  return invalid("cache format " + quote(text) + " is neither a preset (" + names +
                 ") nor a text like k4c32-v4t32/w128,sliding" + (near.empty() ? near : near + "?"));
}

Result<CacheFormat> parseCache(std::string_view text) {
  for (const Preset &preset : presets())
    if (text == preset.name)
      text = preset.text;
  if (text.substr(0, 1) != "k" || text::leadingDigits(text.substr(1)).empty())
    return unknownFormat(text);
  const size_t slash = text.find('/');
  Result<PairFormat> pair = parsePair(text.substr(0, slash));
  KVQ_RETURN_IF_ERROR(pair.status());
  CacheFormat format;
  format.pair = pair.value();
  if (slash != std::string_view::npos)
    KVQ_RETURN_IF_ERROR(parsePolicy(text.substr(slash + 1), format));
  KVQ_RETURN_IF_ERROR(checkPolicy(format));
  return format;
}

// ---- printing ----

std::string toText(const SideFormat &side) {
  const std::string group = side.group == kWholeHead ? "h" : std::to_string(side.group);
  return std::to_string(side.bits) + (side.perChannel() ? "c" : "t") + group;
}

std::string toText(const PairFormat &pair) { return "k" + toText(pair.k) + "-v" + toText(pair.v); }

std::string toText(const CacheFormat &format) {
  std::string text = toText(format.pair) + "/w" + std::to_string(format.window);
  if (format.keep > 0)
    text += ",keep" + std::to_string(format.keep);
  return text + "," + std::string(toText(format.rule));
}

const std::vector<Preset> &presets() {
  static const std::vector<Preset> table = {
      {"kivi-2", "k2c32-v2t32/w128,sliding"}, {"kivi-4", "k4c32-v4t32/w128,sliding"},
      {"kvq-8", "k8c32-v8t32/w128,block"},    {"kvq-4", "k4c32-v4t32/w128,block"},
      {"kvq-k4v2", "k4c32-v2t32/w128,block"}, {"kvq-3", "k3c32-v3t32/w128,block"},
      {"kvq-2", "k2c32-v2t32/w128,block"},
  };
  return table;
}

// ---- commit, tail, pages ----

SideFormat resolve(const SideFormat &side, int headDim) {
  return side.group == kWholeHead ? SideFormat{side.bits, side.axis, headDim} : side;
}

PairFormat resolve(const PairFormat &pair, int dk, int dv) { return {resolve(pair.k, dk), resolve(pair.v, dv)}; }

int commitGroup(const PairFormat &pair) {
  int group = 32;
  for (const SideFormat &side : {pair.k, pair.v})
    if (side.perChannel())
      group = std::max(group, side.group);
  return group;
}

// Tokens that `flush` commits at once; also the window in which every rule but `block` keeps tokens.
static int64_t flushTokens(const CacheFormat &format) { return std::max(format.window, 1); }

Frontier bodyFrontier(const CacheFormat &format, int64_t bodyTokens) {
  const int64_t n = std::max<int64_t>(bodyTokens, 0);
  const int64_t window = flushTokens(format);
  const int64_t windows = n / window * window;
  if (format.rule == CommitRule::Sliding)
    return {windows, std::max<int64_t>(n - window, 0)};
  if (format.rule == CommitRule::Flush)
    return {windows, windows};
  const int64_t group = commitGroup(format.pair);
  const int64_t whole = std::max<int64_t>(n - format.window, 0) / group * group;
  return {whole, whole};
}

Frontier cutUnits(const CacheFormat &format) {
  const int64_t group = commitGroup(format.pair);
  const bool anyPerChannel = format.pair.k.perChannel() || format.pair.v.perChannel();
  switch (format.rule) {
  case CommitRule::Block:
    return {group, group};
  case CommitRule::Sliding:
    return {format.pair.k.group, 1};
  case CommitRule::Flush:
    return anyPerChannel ? Frontier{group, group} : Frontier{1, 1};
  }
  return {};
}

static int roundTo16(int64_t tokens) { return static_cast<int>((tokens + 15) / 16 * 16); }

int tailCapacity(const CacheFormat &format) {
  if (format.rule == CommitRule::Block)
    return roundTo16(format.window + commitGroup(format.pair) + kChunkTokens);
  return roundTo16(flushTokens(format) + kChunkTokens);
}

int tailRows(const CacheFormat &format) { return tailCapacity(format) + roundTo16(format.keep); }

// Per-channel groups are powers of two not above the commit group, so a multiple of that is one of them all.
std::vector<int> legalPageTokens(const PairFormat &pair) {
  std::vector<int> legal;
  const int step = commitGroup(pair);
  for (int tokens = step; tokens <= kMaxPage; tokens += step)
    if (tokens >= kMinPage)
      legal.push_back(tokens);
  return legal;
}

int defaultPageTokens(const PairFormat &pair) { return std::max(64, commitGroup(pair)); }

static Status checkHeadDim(const SideFormat &side, std::string_view name, int headDim) {
  const std::string value = std::string(name) + "'s head size " + std::to_string(headDim);
  if (headDim < 16 || headDim > kMaxHeadDim || headDim % 16 != 0)
    return invalid(value + " is not legal: use a multiple of 16 from 16 to 256");
  if (!side.perChannel() && headDim % resolve(side, headDim).group != 0)
    return invalid(value + " is not a multiple of its per-token group of " + std::to_string(side.group) +
                   " channels: use a group that divides it");
  return Status::ok();
}

Status checkShape(const PairFormat &pair, int dk, int dv, int pageTokens) {
  KVQ_RETURN_IF_ERROR(checkHeadDim(pair.k, "K", dk));
  KVQ_RETURN_IF_ERROR(checkHeadDim(pair.v, "V", dv));
  const std::vector<int> legal = legalPageTokens(pair);
  if (std::find(legal.begin(), legal.end(), pageTokens) != legal.end())
    return Status::ok();
  std::string list;
  for (int tokens : legal)
    list += (list.empty() ? "" : ", ") + std::to_string(tokens);
  return invalid("page size " + std::to_string(pageTokens) + " is not legal for " + toText(pair) + ": use one of " +
                 list + " tokens");
}

Status checkShape(const PairFormat &pair, int headDim, int pageTokens) {
  return checkShape(pair, headDim, headDim, pageTokens);
}

} // namespace kvq
