// SPDX-License-Identifier: Apache-2.0
//
// The race check once more, as slow and as plain as possible: every access of a byte is kept with its agent and clock,
// and compared with every later one. It is what the histories of the simulator are tested against.
#pragma once

#include "runtime/ptxsim/memory/history.h"

#include <algorithm>
#include <map>
#include <vector>

namespace kvq::ptxsim {

class RaceModel {
public:
  using Clock = std::map<uint64_t, uint32_t>;
  RaceModel(size_t agents, size_t bytes) : seen_(agents), own_(agents, 1), past_(bytes) {}

  bool wouldRace(size_t agent, AccessKind kind, size_t begin, size_t bytes) const {
    bool conflict = false;
    for (size_t at = begin; at < begin + bytes; ++at)
      for (const One &one : past_[at]) {
        const auto seen = seen_[agent].find(one.agent);
        const bool ordered = seen != seen_[agent].end() && seen->second >= one.clock;
        conflict |= one.agent != agent && conflicts(one.kind, kind) && !ordered;
      }
    return conflict;
  }
  void access(size_t agent, AccessKind kind, size_t begin, size_t bytes) {
    for (size_t at = begin; at < begin + bytes; ++at)
      past_[at].push_back({agent, own_[agent], kind});
  }
  Clock snapshot(size_t agent) const {
    Clock clock = seen_[agent];
    clock[agent] = own_[agent];
    return clock;
  }
  // What the agent does from now on is not part of a snapshot that was taken.
  void advance(size_t agent) { ++own_[agent]; }
  void learn(size_t agent, const Clock &clock) { join(seen_[agent], clock); }
  static void join(Clock &into, const Clock &from) {
    for (const auto &[agent, time] : from)
      into[agent] = std::max(into[agent], time);
  }

private:
  struct One {
    size_t agent;
    uint32_t clock;
    AccessKind kind;
  };
  std::vector<Clock> seen_;
  std::vector<uint32_t> own_;
  std::vector<std::vector<One>> past_;
};

} // namespace kvq::ptxsim
