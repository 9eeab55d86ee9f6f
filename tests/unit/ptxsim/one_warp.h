// SPDX-License-Identifier: Apache-2.0
//
// One instruction on one warp, without a kernel around it: registers are set, the handler runs, registers are read.
#pragma once

#include "runtime/ptxsim/decode/registry.h"
#include "runtime/ptxsim/exec/warp.h"

#include <gtest/gtest.h>

#include <array>

namespace kvq::ptxsim {

using Lanes = std::array<uint32_t, kLanes>; // one register of 32 bits

class OneWarp {
public:
  Options options;

  // The results of the instruction, whose registers hold `before` beforehand; none if there is no such instruction.
  std::vector<Lanes> run(const std::string &name, const std::vector<Lanes> &sources, size_t results,
                         uint32_t mask = kFull, uint32_t before = 0) {
    const auto &forms = instructions().find(name);
    if (forms.empty()) {
      ADD_FAILURE() << name << " is not in the table";
      return {};
    }
    std::vector<Lanes> registers = sources;
    Lanes filled;
    filled.fill(before);
    registers.resize(sources.size() + results, filled);
    std::vector<Slot> slots(registers.size());
    for (size_t i = 0; i < slots.size(); ++i)
      slots[i].lanes = uint32_t(i * sizeof(Lanes));
    LaunchState launch;
    launch.options = options;
    Worker worker;
    worker.launch = &launch;
    Warp warp;
    warp.worker = &worker;
    warp.frame = reinterpret_cast<std::byte *>(registers.data());
    Op op;
    op.sources = slots.data();
    op.sourceCount = uint8_t(sources.size());
    op.results = slots.data() + sources.size();
    op.resultCount = uint8_t(results);
    op.form = forms[0].get();
    forms[0]->handler(warp, op, mask);
    return {registers.begin() + long(sources.size()), registers.end()};
  }
};

} // namespace kvq::ptxsim
