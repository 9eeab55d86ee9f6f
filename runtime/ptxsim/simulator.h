// SPDX-License-Identifier: Apache-2.0
//
// The simulator as its users see it: a module is loaded, buffers are allocated, kernels are launched, and a report says
// what was wrong and what it cost. One Simulator is one device; its calls come one at a time (the device "ptxsim" and
// the driver look-alike lock). Nothing throws and nothing aborts on bad input.
#pragma once

#include "runtime/format/status.h"
#include "runtime/ptxsim/options.h"
#include "runtime/ptxsim/report/report.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kvq::ptxsim {

class GlobalMemory; // memory/global_memory.h
class Program;      // decode/program.h: a decoded module

struct Dim {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t(x) * y * z; }
};

struct KernelParam {
  std::string name;
  int64_t offset, size, align; // bytes in the parameter buffer, as the driver lays it out
};

struct KernelAttributes {
  std::string name;
  std::vector<KernelParam> params;
  int64_t paramBytes = 0, sharedBytes = 0, localBytes = 0, constBytes = 0;
  uint32_t maxThreads = 1024; // from .maxntid or .reqntid
  uint32_t reqntid[3] = {0, 0, 0};
  int lines = 0; // lines with an instruction
};

// A loaded module with its .global and .const variables in the simulator's memory.
class LoadedModule {
public:
  virtual ~LoadedModule() = default;
  virtual std::vector<std::string> kernels() const = 0;
  virtual Result<KernelAttributes> attributes(std::string_view kernel) const = 0;
  // Address and bytes of a .global or .const variable.
  virtual Result<std::pair<uint64_t, int64_t>> variable(std::string_view name) const = 0;
  virtual std::string_view text() const = 0;
};
using ModuleRef = std::shared_ptr<const LoadedModule>;

struct Launch {
  std::string kernel;
  Dim grid, block;
  int64_t dynamicShared = 0;   // bytes
  std::vector<uint8_t> params; // exactly attributes().paramBytes, as KernelParam lays it out
};

class Simulator {
public:
  Simulator();
  ~Simulator();
  // Parses and decodes. The error of text that cannot be executed whole names the file and the line.
  Result<ModuleRef> load(std::string_view text, std::string file);
  // InvalidArgument if the launch cannot be made (no such kernel, too many threads, wrong parameters); what goes wrong
  // while it runs is in the report.
  Result<Report> launch(const LoadedModule &module, const Launch &launch, const Options &options);
  GlobalMemory &memory();

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace kvq::ptxsim
