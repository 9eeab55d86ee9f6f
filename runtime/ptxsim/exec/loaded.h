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
  const std::vector<uint8_t> &constants() const { return bank_ ? bank_->data : noConstants_; }

private:
  Status initialise(GlobalMemory &memory);
  uint64_t genericAddress(uint32_t variable) const; // as kernels see it
  uint64_t hostAddress(size_t variable) const;      // in the simulator's memory

  Module module_;
  std::string text_;
  ModuleAddresses addresses_;
  // The .const bank is an allocation that kernels do not write, so that the host reaches it as it does any other.
  const Allocation *bank_ = nullptr;
  std::vector<uint8_t> noConstants_;
  std::weak_ptr<GlobalMemory> memory_; // the simulator may go first
  std::vector<uint64_t> allocations_;
  std::vector<std::unique_ptr<Kernel>> kernels_;
};

} // namespace kvq::ptxsim
