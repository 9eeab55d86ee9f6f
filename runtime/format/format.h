// SPDX-License-Identifier: Apache-2.0
//
// Formats: what the bits of a cache mean, as plain data with one canonical text. The rules are those of
// docs/format-spec.md sections 1, 4 and 5; labels in comments name them. Standard library only: the compiler and the
// runtime both stand on this folder.
#pragma once

#include "runtime/format/status.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvq {

inline constexpr int kWholeHead = -1; // text_c9: the group `h`, all channels of a head whatever the head size

enum class Axis { Channel, Token }; // per channel: a group is tokens of one channel; per token: channels of one token

// One of K and V: `4c32`.
struct SideFormat {
  int bits = 4;
  Axis axis = Axis::Channel;
  int group = 32;                                // a number, or kWholeHead until the head size is known
  int levels() const { return (1 << bits) - 1; } // Q
  bool perChannel() const { return axis == Axis::Channel; }
  bool operator==(const SideFormat &) const = default;
};

// K and V: `k4c32-v4t32`.
struct PairFormat {
  SideFormat k, v;
  bool operator==(const PairFormat &) const = default;
};

enum class CommitRule { Block, Sliding, Flush };

// A cache: `k4c32-v4t32/w128,block`.
struct CacheFormat {
  PairFormat pair;
  int window = 128;
  int keep = 0; // text_c8: first tokens that are never quantized
  CommitRule rule = CommitRule::Block;
  bool operator==(const CacheFormat &) const = default;
};

Result<SideFormat> parseSide(std::string_view text); // text_c1, text_c2, text_c7, text_c9
Result<PairFormat> parsePair(std::string_view text);
Result<CacheFormat> parseCache(std::string_view text); // accepts presets (text_c6); text_c3, text_c4, text_c8
std::string toText(const SideFormat &);
std::string toText(const PairFormat &);
std::string toText(const CacheFormat &); // canonical (text_c5)
struct Preset {
  std::string_view name, text;
};
const std::vector<Preset> &presets();

// text_c9: the same format with its groups as numbers, which pages and kernel requests are of.
SideFormat resolve(const SideFormat &, int headDim);
PairFormat resolve(const PairFormat &, int dk, int dv);

// commit_c1: tokens that leave the window together.
int commitGroup(const PairFormat &);
// A number of body tokens for K and one for V: how many are quantized, above all.
struct Frontier {
  int64_t k = 0, v = 0;
  bool operator==(const Frontier &) const = default;
};
// The part of a sequence that is quantized (commit_c2, commit_c3, commit_c8; commit_c6 is an example), given its body
// tokens (commit_c7), of which there are none where the number is negative.
Frontier bodyFrontier(const CacheFormat &, int64_t bodyTokens);
// The same, given all its tokens.
inline Frontier frontier(const CacheFormat &format, int64_t tokens) {
  return bodyFrontier(format, tokens - format.keep);
}
// crop_c1: the units in which a cut lowers the frontiers.
Frontier cutUnits(const CacheFormat &);

inline constexpr int kChunkTokens = 32; // tail_c1
int tailCapacity(const CacheFormat &);  // tail_c1: cap, the rows of the ring
int tailRows(const CacheFormat &);      // tail_c1: the ring's and those of kept tokens

// page_c1: the legal page sizes, ascending, and the default.
std::vector<int> legalPageTokens(const PairFormat &);
int defaultPageTokens(const PairFormat &);
// InvalidArgument unless D fits the format (text_c2; D a multiple of 16, at most 256) and P is legal. The group `h`
// fits.
Status checkShape(const PairFormat &, int headDim, int pageTokens);
Status checkShape(const PairFormat &, int dk, int dv, int pageTokens); // K's and V's head size differ

} // namespace kvq
