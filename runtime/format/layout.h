// SPDX-License-Identifier: Apache-2.0
//
// Layouts: where each bit of a page's codes lives (docs/format-spec.md section 3), and the algebra of linear maps over
// GF(2) that their inner part is made of. The codes of a section are planes, one after the other, each with some bits
// of every code and a map of its own; 2, 4 and 8 bits are one plane.
//
// Example, `[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1`, K with 4 bits and D = 64:
//   address bit 0 is bit 2 of the channel: two codes of a byte are channels c and c + 4;
//   address bits 1, 2 are bits 0, 1 of the channel: the four bytes of a word are channels c .. c + 3;
//   address bits 3..6 are bits 0..3 of the token: sixteen words, one per token.
//   What is left of the indices, token / 16 and channel / 8, runs in the outer loops: first 4 tiles of tokens, then
//   the 8 remaining channel steps, then (once) further panels of tokens.
// Why not only bits: D = 80 or 96 has no power of two of channels, and an outer loop is a plain count.
#pragma once

#include "runtime/format/format.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvq {

// A linear map over GF(2) from `inputs` bits to `outputs` bits: column i is the image of input bit i.
class LinearMap {
public:
  LinearMap() = default;
  LinearMap(int inputs, int outputs) : outputs_(outputs), columns_(inputs, 0) {}
  static LinearMap identity(int bits);
  int inputs() const { return static_cast<int>(columns_.size()); }
  int outputs() const { return outputs_; }
  uint64_t column(int i) const { return columns_[i]; }
  void setColumn(int i, uint64_t image) { columns_[i] = image; }
  uint64_t apply(uint64_t x) const;                // XOR of the columns of x's set bits
  LinearMap compose(const LinearMap &inner) const; // (this o inner)(x) = this(inner(x)); inner.outputs == inputs
  int rank() const;
  bool isBijective() const { return inputs() == outputs() && rank() == outputs(); }
  Result<LinearMap> inverse() const; // InvalidArgument where the map is not bijective
  bool operator==(const LinearMap &) const = default;

private:
  int outputs_ = 0;
  std::vector<uint64_t> columns_;
};

enum class Dim { Token = 0, Channel = 1 };
struct IndexBit {
  Dim dim;
  int bit;
  bool operator==(const IndexBit &) const = default;
};
struct OuterLoop {
  Dim dim;
  int count;
  bool operator==(const OuterLoop &) const = default;
};

// The map of one plane: (token, channel) -> address, counted in the fields of the plane.
struct Layout {
  std::vector<std::vector<IndexBit>> inner; // per address bit, low first: the index bits XORed into it
  std::vector<OuterLoop> loops;             // fastest first

  int innerBits(Dim) const;   // how many low index bits of that dim the inner part uses
  int extent(Dim) const;      // tokens or channels that the map covers
  LinearMap innerMap() const; // inputs: token bits, then channel bits; outputs: address bits
  int64_t address(int64_t token, int64_t channel) const;
  std::array<int64_t, 2> index(int64_t address) const;   // the inverse: {token, channel}; layout must be bijective
  Status checkBijective(int tokens, int channels) const; // layout_c1: extents match and every address is hit once
  std::string toText() const;                            // layout_c4
  bool operator==(const Layout &) const = default;
};
Result<Layout> parseLayout(std::string_view text);

// layout_c5: some bits of every code, and where they lie.
struct Plane {
  int bits; // 1, 2, 4 or 8; 0 in the only plane of a text, which does not say it (layout_c4)
  Layout map;
  bool operator==(const Plane &) const = default;
};

// Where all bits of a section's codes live: its planes, the lowest bits of a code first.
struct SectionLayout {
  std::vector<Plane> planes;

  int bits() const; // of a code
  int extent(Dim dim) const { return planes.front().map.extent(dim); }
  int64_t planeOffset(size_t plane) const;               // layout_c2: bytes before that plane
  int planeShift(size_t plane) const;                    // bits of a code below those of that plane
  Status checkBijective(int tokens, int channels) const; // layout_c1, for each plane
  std::string toText() const;                            // layout_c4
  bool operator==(const SectionLayout &) const = default;
};
// bits: those of a code, of which the planes must be made up; 0 where they are not known and the text alone is checked.
Result<SectionLayout> parseSectionLayout(std::string_view text, int bits = 0);

// Vnni: for CPUs. Kivi: for exchange. Mma: for accelerators, in the order of a tensor core's fragments (layout_c7).
enum class Profile { Vnni, Kivi, Mma };
inline constexpr Profile kAllProfiles[] = {Profile::Vnni, Profile::Kivi, Profile::Mma};
std::string_view toText(Profile);
Result<Profile> parseProfile(std::string_view);
enum class Side { K, V };
// The map of a plane of so many bits, and the layout of a section of so wide codes. The profile has that width.
Layout makeLayout(Profile, Side, int planeBits, int pageTokens, int headDim);
SectionLayout makeSectionLayout(Profile, Side, int bits, int pageTokens, int headDim);
// layout_c6: whether a profile has the widths of a format.
Status checkProfile(Profile, const PairFormat &);

// page_c2, page_c3: where the sections of a page begin, in bytes; its size is what a token costs (page_c5).
struct PageMap {
  int64_t kCodes, kScale, kMin, vCodes, vScale, vMin, bytes;
};
// Groups may be `h`.
PageMap pageMap(const PairFormat &, int pageTokens, int dk, int dv);
// Index of (token, channel)'s scale and minimum in their sections.
int64_t groupIndex(const SideFormat &, int pageTokens, int headDim, int64_t token, int64_t channel);

} // namespace kvq
