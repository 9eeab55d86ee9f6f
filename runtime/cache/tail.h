// SPDX-License-Identifier: Apache-2.0
//
// Undo of the tail. New tokens overwrite ring slots that the state before the step still counts as there (format-spec
// section 8): one row a token once the ring is full. These rows are saved before a layer appends and put back when the
// step does not happen.
#pragma once

#include "runtime/cache/planner.h"

namespace kvq {

class TailUndo {
public:
  TailUndo(const CacheConfig &config, const Geometry &geometry)
      : config_(config), geometry_(geometry), saved_(config.layers, 0) {}
  // For a step of these parts, which stay until it ends. Nothing is saved yet.
  void begin(std::span<const StepPart> parts);
  // ringK, ringV: the layer's tails, all slots. Saving a layer twice keeps the first.
  void save(int layer, const uint8_t *ringK, const uint8_t *ringV);
  // Puts the saved rows of a layer back and forgets them.
  void restore(int layer, uint8_t *ringK, uint8_t *ringV);
  // After an append that failed in chunk `index`: clears all rows that it wrote, so that no bad value stays. Those that
  // the old state needs are among the saved ones.
  void clearWritten(int index, uint8_t *ringK, uint8_t *ringV) const;

private:
  struct Row {
    int slot;
    int64_t token;
  };
  int64_t place(const Row &row, int head, bool isK) const; // byte offset in the layer's tail
  int64_t rowBytes(bool isK) const { return int64_t(byteSize(config_.type)) * (isK ? config_.dk : config_.dv); }
  std::vector<Row> &rows(bool isK) { return isK ? rowsK_ : rowsV_; }

  const CacheConfig &config_;
  const Geometry &geometry_;
  std::span<const StepPart> parts_;
  std::vector<Row> rowsK_, rowsV_;
  int64_t layerBytes() const {
    return config_.kvHeads * (int64_t(rowsK_.size()) * rowBytes(true) + int64_t(rowsV_.size()) * rowBytes(false));
  }
  std::vector<uint8_t> rowsOfLayers_; // per layer: K's rows, then V's; never becomes smaller
  std::vector<char> saved_;           // per layer
};

} // namespace kvq
