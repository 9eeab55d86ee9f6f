// SPDX-License-Identifier: Apache-2.0
//
// The parameters of a launch from the --arg of a command line: buffers in the simulated device's memory, and what is
// written to files afterwards.
#pragma once

#include "runtime/ptxsim/memory/global_memory.h"
#include "runtime/ptxsim/tool/arguments.h"

namespace kvq::ptxsim {

class Buffers {
public:
  // Reads every file and checks every size before anything is allocated.
  static Result<Buffers> make(GlobalMemory &memory, const KernelAttributes &kernel,
                              const std::vector<ParameterSpec> &specs);
  const std::vector<uint8_t> &params() const { return params_; }
  Status writeOutputs(const GlobalMemory &memory) const;

private:
  struct Output {
    uint64_t address;
    const ScalarType *type;
    std::vector<int64_t> shape;
    int64_t bytes;
    std::string path;
  };
  std::vector<uint8_t> params_;
  std::vector<Output> outputs_;
};

} // namespace kvq::ptxsim
