// SPDX-License-Identifier: Apache-2.0
//
// The form of a plane that is packed and unpacked by vectors: the profile vnni's.
#pragma once

#include "codegen/cpu/TileEmitter.h"

#include <vector>

namespace mlir::kvq::cpu {

// A plane in which 16 consecutive words are 16 consecutive tokens (K) or channels (V) and a word holds a rectangle of
// codes: of channels for K, and perhaps of tokens 16 apart; of tokens for V.
struct TileEmitter::WordBlock {
  static constexpr int64_t kWords = 16;
  PackedPlane plane;
  bool acrossTokens = false;                    // consecutive words are tokens
  std::array<int64_t, 2> extent = {1, 1};       // of the rectangle of 16 words: tokens, channels
  SmallVector<std::array<int64_t, 2>> position; // (token, channel) of each field of the first word

  int64_t fields() const { return 32 / plane.bits; }
  int64_t fieldMask() const { return (int64_t(1) << plane.bits) - 1; }
  // Fails where the plane has another form.
  static FailureOr<WordBlock> of(const PackedPlane &plane);
  // The same for all planes of a section, which also agree on what consecutive words are.
  static FailureOr<std::vector<WordBlock>> of(ArrayRef<PackedPlane> planes);
};

} // namespace mlir::kvq::cpu
