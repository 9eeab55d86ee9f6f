// SPDX-License-Identifier: Apache-2.0
//
// Layouts: where each code of a page lives (docs/format-spec.md section 3), and the algebra of linear maps over GF(2)
// that their inner part is made of.
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

// The map of one section of codes: (token, channel) -> address in codes.
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

enum class Profile { Vnni, Kivi };
std::string_view toText(Profile);
Result<Profile> parseProfile(std::string_view);
// The layout of a section in a profile. side: K or V.
enum class Side { K, V };
Layout makeLayout(Profile, Side, int bits, int pageTokens, int headDim);

// page_c2, page_c3: where the sections of a page begin, in bytes; its size is what a token costs (page_c5).
struct PageMap {
  int64_t kCodes, kScale, kMin, vCodes, vScale, vMin, bytes;
};
PageMap pageMap(const PairFormat &, int pageTokens, int dk, int dv);
// Index of (token, channel)'s scale and minimum in their sections.
int64_t groupIndex(const SideFormat &, int pageTokens, int headDim, int64_t token, int64_t channel);

} // namespace kvq
