// SPDX-License-Identifier: Apache-2.0
//
// Undo of the tail. New tokens overwrite ring slots that the state before the step still counts as there (format-spec
// section 8): one row a token once the ring is full. These rows are saved before a layer appends and put back when the
// step does not happen.
#pragma once

#include "runtime/cache/cache_memory.h"
#include "runtime/cache/planner.h"

namespace kvq {

class TailUndo {
public:
  TailUndo(const CacheConfig &config, const Geometry &geometry, CacheMemory &memory)
      : config_(config), geometry_(geometry), memory_(memory), rowsOfLayers_(memory, "saved tokens of a cache"),
        saved_(config.layers, 0) {}
  // For a step of these parts, which stay until it ends. Nothing is saved yet.
  void begin(std::span<const StepPart> parts);
  // ringK, ringV: the layer's tails, all slots. Saving a layer twice keeps the first.
  Status save(int layer, DeviceAddress ringK, DeviceAddress ringV);
  // Puts the saved rows of a layer back and forgets them.
  void restore(int layer, DeviceAddress ringK, DeviceAddress ringV);
  // After an append that failed in chunk `index`: clears all rows that it wrote, so that no bad value stays. Those that
  // the old state needs are among the saved ones.
  void clearWritten(int index, DeviceAddress ringK, DeviceAddress ringV);

private:
  struct Run { // of tokens whose rows in a head's part of a tail follow each other
    int slot;
    int64_t token, count;
  };
  int64_t place(const Run &run, bool isK) const;                           // byte offset in the layer's tail, of head 0
  int64_t pitch(bool isK) const { return geometry_.rows * rowBytes(isK); } // from one head to the next
  int64_t rowBytes(bool isK) const { return int64_t(byteSize(config_.type)) * (isK ? config_.dk : config_.dv); }
  // Calls function(address of a run in the tail, where it is saved, bytes of one head, isK) for all runs of a layer.
  template <typename Function>
  void forSaved(int layer, DeviceAddress ringK, DeviceAddress ringV, const Function &function) const;

  const CacheConfig &config_;
  const Geometry &geometry_;
  CacheMemory &memory_;
  std::span<const StepPart> parts_;
  std::vector<Run> runsK_, runsV_;
  int64_t layerBytes_ = 0;
  Scratch rowsOfLayers_;    // per layer: K's rows, then V's; of a run those of each head
  std::vector<char> saved_; // per layer
};

} // namespace kvq
