// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "runtime/ptxsim/decode/program.h"
#include "runtime/ptxsim/memory/global_memory.h"

namespace kvq::ptxsim {

// What Simulator::load makes.
class Loaded final : public LoadedModule {
public:
  Loaded(Module module, std::string text) : module_(std::move(module)), text_(std::move(text)) {}
  ~Loaded() override;
  std::vector<std::string> kernels() const override;
  Result<KernelAttributes> attributes(std::string_view kernel) const override;
  Result<std::pair<uint64_t, int64_t>> variable(std::string_view name) const override;
  std::string_view text() const override { return text_; }

  Status place(const std::shared_ptr<GlobalMemory> &memory); // variables, with their initial values
  Status decodeKernels();
  const Kernel *kernel(std::string_view name) const;
  const std::vector<uint8_t> &constants() const { return constants_; }

private:
  Status initialise(GlobalMemory &memory);
  uint64_t genericAddress(uint32_t variable) const;

  Module module_;
  std::string text_;
  ModuleAddresses addresses_;
  std::vector<uint8_t> constants_;     // the bank
  std::weak_ptr<GlobalMemory> memory_; // the simulator may go first
  std::vector<uint64_t> allocations_;
  std::vector<std::unique_ptr<Kernel>> kernels_;
};

} // namespace kvq::ptxsim
