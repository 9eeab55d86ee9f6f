// SPDX-License-Identifier: Apache-2.0
//
// Layouts of a page's code sections, their text, the profiles and the map of a page: docs/format-spec.md sections
// 3 and 4. The linear algebra they stand on is in linear_map.cpp.
#include "runtime/format/layout.h"

#include "runtime/format/text.h"

#include <algorithm>
#include <bit>

namespace kvq {

using text::parseDecimal;
using text::quote;

static Status invalid(std::string message) { return {Code::InvalidArgument, std::move(message)}; }

// Bounds of what a text may describe; far above any page, and low enough that no product of extents overflows.
static constexpr int kMaxIndexBit = 15, kMaxInnerBits = 16, kMaxLoops = 16, kMaxExtent = 65536;

// ---- the map ----

int Layout::innerBits(Dim dim) const {
  int bits = 0;
  for (const std::vector<IndexBit> &addressBit : inner)
    for (const IndexBit &index : addressBit)
      if (index.dim == dim)
        bits = std::max(bits, index.bit + 1);
  return bits;
}

int Layout::extent(Dim dim) const {
  int extent = 1 << innerBits(dim);
  for (const OuterLoop &loop : loops)
    if (loop.dim == dim)
      extent *= loop.count;
  return extent;
}

LinearMap Layout::innerMap() const {
  const int tokenBits = innerBits(Dim::Token);
  LinearMap map(tokenBits + innerBits(Dim::Channel), static_cast<int>(inner.size()));
  for (size_t out = 0; out < inner.size(); ++out)
    for (const IndexBit &index : inner[out]) {
      const int in = index.dim == Dim::Token ? index.bit : tokenBits + index.bit;
      map.setColumn(in, map.column(in) ^ uint64_t{1} << out);
    }
  return map;
}

int64_t Layout::address(int64_t token, int64_t channel) const {
  const int64_t indices[2] = {token, channel};
  int64_t address = 0;
  for (size_t out = 0; out < inner.size(); ++out)
    for (const IndexBit &index : inner[out])
      address ^= (indices[static_cast<int>(index.dim)] >> index.bit & 1) << out;
  int64_t rest[2] = {token >> innerBits(Dim::Token), channel >> innerBits(Dim::Channel)};
  int64_t stride = int64_t{1} << inner.size();
  for (const OuterLoop &loop : loops) {
    int64_t &index = rest[static_cast<int>(loop.dim)];
    address += index % loop.count * stride;
    index /= loop.count;
    stride *= loop.count;
  }
  return address;
}

std::array<int64_t, 2> Layout::index(int64_t address) const {
  Result<LinearMap> inverse = innerMap().inverse();
  if (!inverse.isOk())
    return {-1, -1};
  const int bits[2] = {innerBits(Dim::Token), innerBits(Dim::Channel)};
  const int64_t low = static_cast<int64_t>(inverse.value().apply(address & ((int64_t{1} << inner.size()) - 1)));
  std::array<int64_t, 2> indices = {low & ((int64_t{1} << bits[0]) - 1), low >> bits[0]};
  int64_t rest = address >> inner.size();
  int64_t stride[2] = {int64_t{1} << bits[0], int64_t{1} << bits[1]};
  for (const OuterLoop &loop : loops) {
    const int dim = static_cast<int>(loop.dim);
    indices[dim] += rest % loop.count * stride[dim];
    stride[dim] *= loop.count;
    rest /= loop.count;
  }
  return indices;
}

// The loops are digits of one mixed-radix number and each dim's digits cover what its inner bits leave, so a layout
// whose extents match is a bijection exactly when its inner map is one.
Status Layout::checkBijective(int tokens, int channels) const {
  const LinearMap map = innerMap();
  if (!map.isBijective())
    return invalid("layout " + quote(toText()) + " is not a bijection: its inner part maps " +
                   std::to_string(map.inputs()) + " index bits to " + std::to_string(map.outputs()) +
                   " address bits with rank " + std::to_string(map.rank()) +
                   "; use each of the low index bits in independent address bits");
  for (const OuterLoop &loop : loops)
    if (loop.count < 1)
      return invalid("layout " + quote(toText()) + " has a loop of " + std::to_string(loop.count) +
                     " iterations: use at least 1");
  if (extent(Dim::Token) != tokens || extent(Dim::Channel) != channels)
    return invalid("layout " + quote(toText()) + " covers " + std::to_string(extent(Dim::Token)) + " tokens x " +
                   std::to_string(extent(Dim::Channel)) + " channels, but the page has " + std::to_string(tokens) +
                   " x " + std::to_string(channels) + ": change its loops");
  return Status::ok();
}

// ---- text ----

static std::string_view dimText(Dim dim) { return dim == Dim::Token ? "tok" : "ch"; }

static std::optional<Dim> parseDim(std::string_view text) {
  if (text == "tok")
    return Dim::Token;
  if (text == "ch")
    return Dim::Channel;
  return std::nullopt;
}

std::string Layout::toText() const {
  std::string text = "[";
  for (size_t out = 0; out < inner.size(); ++out) {
    text += out ? " " : "";
    for (size_t i = 0; i < inner[out].size(); ++i)
      text += (i ? "^" : "") + std::string(dimText(inner[out][i].dim)) + "." + std::to_string(inner[out][i].bit);
  }
  text += "]";
  for (const OuterLoop &loop : loops)
    text += " " + std::string(dimText(loop.dim)) + ":" + std::to_string(loop.count);
  return text;
}

// One address bit: `tok.0`, or `tok.0^ch.3` where it is the XOR of several.
static Result<std::vector<IndexBit>> parseAddressBit(std::string_view text) {
  std::vector<IndexBit> bits;
  for (std::string_view term : text::split(text, '^')) {
    const std::vector<std::string_view> parts = text::split(term, '.');
    std::optional<Dim> dim = parseDim(parts[0]);
    std::optional<int> bit = parts.size() == 2 ? parseDecimal(parts[1]) : std::nullopt;
    if (!dim || !bit || *bit > kMaxIndexBit)
      return invalid("index bit " + quote(term) + " is not legal: write tok.0 to tok.15 or ch.0 to ch.15");
    bits.push_back({*dim, *bit});
  }
  return bits;
}

static Result<OuterLoop> parseLoop(std::string_view text) {
  const std::vector<std::string_view> parts = text::split(text, ':');
  std::optional<Dim> dim = parseDim(parts[0]);
  std::optional<int> count = parts.size() == 2 ? parseDecimal(parts[1]) : std::nullopt;
  if (!dim || !count || *count < 1 || *count > kMaxExtent)
    return invalid("loop " + quote(text) + " is not legal: write tok or ch, a colon and 1 to 65536, as in tok:4");
  return OuterLoop{*dim, *count};
}

static Status checkExtents(const Layout &layout) {
  for (Dim dim : {Dim::Token, Dim::Channel}) {
    int64_t extent = int64_t{1} << layout.innerBits(dim);
    for (const OuterLoop &loop : layout.loops)
      if (loop.dim == dim && extent <= kMaxExtent)
        extent *= loop.count;
    if (extent > kMaxExtent)
      return invalid("the layout covers more than 65536 indices of " + std::string(dimText(dim)) +
                     ": use fewer or smaller loops");
  }
  return Status::ok();
}

Result<Layout> parseLayout(std::string_view text) {
  const size_t close = text.find(']');
  if (text.empty() || text[0] != '[' || close == std::string_view::npos)
    return invalid("layout " + quote(text) + " does not begin with its inner bits: write [tok.0 ch.0] tok:4 ch:8");
  Layout layout;
  if (std::string_view inner = text.substr(1, close - 1); !inner.empty())
    for (std::string_view word : text::split(inner, ' ')) {
      Result<std::vector<IndexBit>> bit = parseAddressBit(word);
      KVQ_RETURN_IF_ERROR(bit.status());
      layout.inner.push_back(bit.value());
    }
  if (std::string_view loops = text.substr(close + 1); !loops.empty()) {
    if (loops[0] != ' ')
      return invalid("layout " + quote(text) + " has no space after its inner bits: write [..] tok:4");
    for (std::string_view word : text::split(loops.substr(1), ' ')) {
      Result<OuterLoop> loop = parseLoop(word);
      KVQ_RETURN_IF_ERROR(loop.status());
      layout.loops.push_back(loop.value());
    }
  }
  if (layout.inner.size() > kMaxInnerBits || layout.loops.size() > kMaxLoops)
    return invalid("layout " + quote(text) + " has more than 16 inner bits or loops: use fewer");
  KVQ_RETURN_IF_ERROR(checkExtents(layout));
  return layout;
}

// ---- planes ----

int SectionLayout::planeShift(size_t plane) const {
  int shift = 0;
  for (size_t i = 0; i < plane; ++i)
    shift += planes[i].bits;
  return shift;
}

int SectionLayout::bits() const { return planeShift(planes.size()); }

int64_t SectionLayout::planeOffset(size_t plane) const {
  return int64_t{extent(Dim::Token)} * extent(Dim::Channel) * planeShift(plane) / 8;
}

Status SectionLayout::checkBijective(int tokens, int channels) const {
  for (const Plane &plane : planes)
    KVQ_RETURN_IF_ERROR(plane.map.checkBijective(tokens, channels));
  return Status::ok();
}

std::string SectionLayout::toText() const {
  if (planes.size() == 1)
    return planes.front().map.toText();
  std::string text;
  for (const Plane &plane : planes)
    text += (text.empty() ? "" : " + ") + std::to_string(plane.bits) + ":" + plane.map.toText();
  return text;
}

static bool isPlaneWidth(int bits) { return bits == 1 || bits == 2 || bits == 4 || bits == 8; }

// One of several planes: `2:[..] tok:4`.
static Result<Plane> parsePlane(std::string_view text) {
  const std::string_view digits = text::leadingDigits(text);
  const int bits = parseDecimal(digits).value_or(0);
  if (!isPlaneWidth(bits) || text.substr(digits.size()).substr(0, 1) != ":")
    return invalid("plane " + quote(text) + " is not legal: write 1, 2, 4 or 8 bits, a colon and a map, as in 2:[..]");
  Result<Layout> map = parseLayout(text.substr(digits.size() + 1));
  KVQ_RETURN_IF_ERROR(map.status());
  return Plane{bits, map.value()};
}

static Result<SectionLayout> parseOnePlane(std::string_view text, int bits) {
  Result<Layout> map = parseLayout(text);
  KVQ_RETURN_IF_ERROR(map.status());
  if (bits != 0 && !isPlaneWidth(bits))
    return invalid("layout " + quote(text) + " is one plane, which codes of " + std::to_string(bits) +
                   " bits are not: write planes of 1, 2, 4 or 8 bits, as in 2:[..] tok:4 + 1:[..] tok:2");
  return SectionLayout{{{bits, map.value()}}};
}

Result<SectionLayout> parseSectionLayout(std::string_view text, int bits) {
  constexpr std::string_view separator = " + ";
  if (text.find(separator) == std::string_view::npos)
    return parseOnePlane(text, bits);
  SectionLayout section;
  for (size_t begin = 0, end = 0; end != std::string_view::npos; begin = end + separator.size()) {
    end = text.find(separator, begin);
    Result<Plane> plane = parsePlane(text.substr(begin, end == std::string_view::npos ? end : end - begin));
    KVQ_RETURN_IF_ERROR(plane.status());
    section.planes.push_back(plane.value());
  }
  for (const Plane &plane : section.planes)
    for (Dim dim : {Dim::Token, Dim::Channel})
      if (plane.map.extent(dim) != section.extent(dim))
        return invalid("the planes of layout " + quote(text) + " cover " + std::to_string(section.extent(dim)) +
                       " and " + std::to_string(plane.map.extent(dim)) + " indices of " + std::string(dimText(dim)) +
                       ": make them as many");
  if (bits != 0 && section.bits() != bits)
    return invalid("the planes of layout " + quote(text) + " have " + std::to_string(section.bits()) +
                   " bits in all, not the " + std::to_string(bits) + " of a code: use others");
  return section;
}

// ---- profiles ----

static constexpr std::array<std::pair<Profile, std::string_view>, 3> kProfiles = {{
    {Profile::Vnni, "vnni"},
    {Profile::Kivi, "kivi"},
    {Profile::Mma, "mma"},
}};

std::string_view toText(Profile profile) { return kProfiles[static_cast<size_t>(profile)].second; }

Result<Profile> parseProfile(std::string_view text) {
  for (const auto &[profile, name] : kProfiles)
    if (text == name)
      return profile;
  return invalid("layout profile " + quote(text) + " is unknown: use vnni, kivi or mma");
}

// `step` is the dim whose indices share a 32-bit word (channels for K, tokens for V), `lane` the other one.
static Layout vnniLayout(Dim step, Dim lane, int bits, int stepExtent, int laneExtent) {
  const int codesPerByte = 8 / bits;
  const int byteBits = std::countr_zero(static_cast<unsigned>(codesPerByte));
  const int panel = laneExtent % 64 == 0 ? 64 : laneExtent;
  Layout layout;
  for (int bit = 0; bit < byteBits; ++bit)
    layout.inner.push_back({{step, 2 + bit}});
  for (int bit = 0; bit < 2; ++bit)
    layout.inner.push_back({{step, bit}});
  for (int bit = 0; bit < 4; ++bit)
    layout.inner.push_back({{lane, bit}});
  layout.loops = {{lane, panel / 16}, {step, stepExtent / (4 * codesPerByte)}, {lane, laneExtent / panel}};
  return layout;
}

static Layout kiviLayout(Dim along, Dim other, int bits, int alongExtent, int otherExtent) {
  const int wordBits = std::countr_zero(static_cast<unsigned>(32 / bits));
  Layout layout;
  for (int bit = 0; bit < wordBits; ++bit)
    layout.inner.push_back({{along, bit}});
  layout.loops = {{along, alongExtent * bits / 32}, {other, otherExtent}};
  return layout;
}

// A word holds 16 step indices of two lanes, 16 apart, for K; 32 of one lane for V.
static Layout oneBitLayout(Side side, int pageTokens, int headDim) {
  const bool isK = side == Side::K;
  const Dim step = isK ? Dim::Channel : Dim::Token, lane = isK ? Dim::Token : Dim::Channel;
  const int laneExtent = isK ? pageTokens : headDim;
  const int panel = laneExtent % 64 == 0 ? 64 : laneExtent;
  Layout layout;
  layout.inner = {{{step, 2}}, {{step, 3}}, {{Dim::Token, 4}}, {{step, 0}}, {{step, 1}}};
  for (int bit = 0; bit < 4; ++bit)
    layout.inner.push_back({{lane, bit}});
  layout.loops = isK ? std::vector<OuterLoop>{{lane, panel / 32}, {step, headDim / 16}, {lane, pageTokens / panel}}
                     : std::vector<OuterLoop>{{lane, panel / 16}, {step, pageTokens / 32}, {lane, headDim / panel}};
  return layout;
}

// layout_c7: each part takes the first bits of its list that exist and are in no part before it. layout_c8: words, then
// lanes, so that a warp reads one run.
static Layout mmaLayout(Side side, int bits, int pageTokens, int headDim) {
  using Bits = std::vector<IndexBit>;
  const auto tok = [](int bit) { return IndexBit{Dim::Token, bit}; };
  const auto ch = [](int bit) { return IndexBit{Dim::Channel, bit}; };
  Layout layout;
  const auto take = [&](int count, const Bits &wishes) {
    for (IndexBit bit : wishes) {
      const Bits address = {bit};
      const bool isTaken = std::find(layout.inner.begin(), layout.inner.end(), address) != layout.inner.end();
      const bool exists = (bit.dim == Dim::Token ? pageTokens : headDim) % (2 << bit.bit) == 0;
      if (count > 0 && exists && !isTaken) {
        layout.inner.push_back(address);
        --count;
      }
    }
  };
  const int byteBits = std::countr_zero(8u / static_cast<unsigned>(bits));
  if (side == Side::K) {
    const bool isLong = headDim % 32 == 0; // enough channels for four lanes with 8 in a row
    take(byteBits, {tok(1), tok(2)});
    take(2, {isLong ? ch(2) : ch(1), ch(0)});
    take(2, isLong ? Bits{tok(1), ch(1), ch(5), tok(2), tok(5)} : Bits{tok(1), tok(2), tok(5)});
    take(5, isLong ? Bits{ch(3), ch(4), tok(0), tok(3), tok(4)} : Bits{ch(2), ch(3), tok(0), tok(3), tok(4)});
    take(1, {tok(2)}); // loops count what is above all inner bits
  } else {
    take(byteBits, {ch(3), ch(4), tok(1)});
    take(2, {tok(2), tok(0)});
    take(2, {ch(3), tok(1), tok(5), ch(4), ch(5)});
    take(5, {tok(3), tok(4), ch(0), ch(1), ch(2)});
  }
  layout.loops = {{Dim::Channel, headDim >> layout.innerBits(Dim::Channel)},
                  {Dim::Token, pageTokens >> layout.innerBits(Dim::Token)}};
  return layout;
}

Layout makeLayout(Profile profile, Side side, int bits, int pageTokens, int headDim) {
  const bool isK = side == Side::K;
  if (profile == Profile::Mma)
    return mmaLayout(side, bits, pageTokens, headDim);
  if (profile == Profile::Vnni && bits == 1)
    return oneBitLayout(side, pageTokens, headDim);
  if (profile == Profile::Vnni)
    return isK ? vnniLayout(Dim::Channel, Dim::Token, bits, headDim, pageTokens)
               : vnniLayout(Dim::Token, Dim::Channel, bits, pageTokens, headDim);
  return isK ? kiviLayout(Dim::Token, Dim::Channel, bits, pageTokens, headDim)
             : kiviLayout(Dim::Channel, Dim::Token, bits, headDim, pageTokens);
}

SectionLayout makeSectionLayout(Profile profile, Side side, int bits, int pageTokens, int headDim) {
  SectionLayout section;
  for (int planeBits : bits == 3 ? std::vector<int>{2, 1} : std::vector<int>{bits})
    section.planes.push_back({planeBits, makeLayout(profile, side, planeBits, pageTokens, headDim)});
  return section;
}

Status checkProfile(Profile profile, const PairFormat &pair) {
  for (const SideFormat &side : {pair.k, pair.v})
    if (profile != Profile::Vnni && side.bits == 3)
      return invalid("width 3 of " + quote(toText(pair)) + " is not legal in the profile " +
                     std::string(toText(profile)) + ": use 2, 4 or 8 bits, or the profile vnni");
  return Status::ok();
}

// ---- pages ----

PageMap pageMap(const PairFormat &format, int pageTokens, int dk, int dv) {
  const PairFormat pair = resolve(format, dk, dv);
  int64_t next = 0;
  auto section = [&next](int64_t bytes) {
    const int64_t begin = next;
    next = (next + bytes + 63) / 64 * 64;
    return begin;
  };
  const int64_t kElements = int64_t{pageTokens} * dk, vElements = int64_t{pageTokens} * dv;
  PageMap map{};
  map.kCodes = section(kElements * pair.k.bits / 8);
  map.kScale = section(kElements / pair.k.group * 2);
  map.kMin = section(kElements / pair.k.group * 2);
  map.vCodes = section(vElements * pair.v.bits / 8);
  map.vScale = section(vElements / pair.v.group * 2);
  map.vMin = section(vElements / pair.v.group * 2);
  map.bytes = next;
  return map;
}

int64_t groupIndex(const SideFormat &side, int pageTokens, int headDim, int64_t token, int64_t channel) {
  return side.perChannel() ? token / side.group * headDim + channel : channel / side.group * pageTokens + token;
}

} // namespace kvq
