// SPDX-License-Identifier: Apache-2.0
//
// What a cubin says about its kernels: NVIDIA's machine code is an ELF file whose sections .nv.info describe it
// (undocumented; what is read here was compared with what ptxas -v prints, docs/nvidia.md).
#pragma once

#include "runtime/format/status.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvq {

struct CubinKernel {
  struct Parameter {
    int64_t offset, size; // bytes in the parameter buffer
  };
  std::string name;
  int registers = 0; // of a thread
  int barriers = 0;
  int64_t frameBytes = 0;  // of the kernel on the stack of a thread, spilled registers among them
  int64_t stackBytes = 0;  // with what it calls
  int64_t sharedBytes = 0; // static, of a block, as declared
  int64_t localBytes = 0;  // of the kernel's section of local memory
  int64_t codeBytes = 0;
  int64_t parameterBytes = 0;
  uint32_t maxThreads[3] = {0, 0, 0};      // of a block; 0: nothing is said
  uint32_t requiredThreads[3] = {0, 0, 0}; // the only size of a block; 0: any
  std::vector<Parameter> parameters;
};

struct CubinInfo {
  int processor = 0; // 80 for sm_80
  std::vector<CubinKernel> kernels;

  const CubinKernel *find(std::string_view name) const; // NULL: none
};

// Corrupt: the bytes are no cubin, or its tables point outside of it.
Result<CubinInfo> readCubin(std::span<const uint8_t> cubin);

// Bytes of registers that the compiler could not keep, which only its log tells.
struct Spills {
  int64_t stores = 0, loads = 0;
};
std::optional<Spills> readSpills(std::string_view log, std::string_view kernel);

} // namespace kvq
