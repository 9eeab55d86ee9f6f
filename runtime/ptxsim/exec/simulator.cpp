// SPDX-License-Identifier: Apache-2.0
//
// Loading modules: their variables get memory, their kernels are decoded.
#include "runtime/ptxsim/simulator.h"

#include "runtime/ptxsim/decode/program.h"
#include "runtime/ptxsim/exec/launch.h"
#include "runtime/ptxsim/exec/loaded.h"
#include "runtime/ptxsim/memory/address.h"
#include "runtime/ptxsim/memory/global_memory.h"
#include "runtime/ptxsim/ptx/reader.h"

#include <algorithm>
#include <cstring>

namespace kvq::ptxsim {

Loaded::~Loaded() {
  if (const std::shared_ptr<GlobalMemory> memory = memory_.lock())
    for (uint64_t base : allocations_)
      (void)memory->release(base);
}

std::vector<std::string> Loaded::kernels() const {
  std::vector<std::string> names;
  for (const auto &kernel : kernels_)
    names.push_back(kernel->attributes.name);
  return names;
}

const Kernel *Loaded::kernel(std::string_view name) const {
  for (const auto &kernel : kernels_)
    if (kernel->attributes.name == name)
      return kernel.get();
  return nullptr;
}

Result<KernelAttributes> Loaded::attributes(std::string_view name) const {
  if (const Kernel *found = kernel(name))
    return found->attributes;
  return Status(Code::InvalidArgument, "the module has no kernel '" + std::string(name) + "'");
}

Result<std::pair<uint64_t, int64_t>> Loaded::variable(std::string_view name) const {
  for (size_t i = 0; i < module_.variables.size(); ++i) {
    const Variable &variable = module_.variables[i];
    if (variable.name == name && variable.space != Space::Shared)
      return std::pair(hostAddress(i), variable.size());
  }
  return Status(Code::InvalidArgument, "the module has no .global or .const variable '" + std::string(name) + "'");
}

uint64_t Loaded::hostAddress(size_t variable) const {
  const uint64_t base = module_.variables[variable].space == Space::Const ? bank_->base : 0;
  return base + addresses_.variables[variable];
}

uint64_t Loaded::genericAddress(uint32_t variable) const {
  const uint64_t base = module_.variables[variable].space == Space::Const ? genericBase(Space::Const) : 0;
  return base + addresses_.variables[variable];
}

Status Loaded::place(const std::shared_ptr<GlobalMemory> &memory) {
  memory_ = memory;
  int64_t constBytes = 0;
  for (const Variable &variable : module_.variables) {
    const int64_t align = std::max<int64_t>(variable.align, bytesOf(variable.type));
    uint64_t address = 0;
    if (variable.isExtern && variable.space != Space::Shared)
      return {Code::Unsupported, module_.file + ":" + std::to_string(variable.line) + ": '" + variable.name +
                                     "' is defined in another module; linking is not implemented"};
    if (variable.space == Space::Const) {
      address = uint64_t((constBytes + align - 1) / align * align);
      constBytes = int64_t(address) + variable.size();
    } else if (variable.space == Space::Global) {
      Result<uint64_t> base = memory->allocate(std::max<int64_t>(1, variable.size()), variable.name);
      KVQ_RETURN_IF_ERROR(base.status());
      allocations_.push_back(base.value());
      address = base.value();
    }
    addresses_.variables.push_back(address);
  }
  if (constBytes > 0) {
    Result<uint64_t> base = memory->allocate(constBytes, "constant memory of " + module_.file);
    KVQ_RETURN_IF_ERROR(base.status());
    allocations_.push_back(base.value());
    KVQ_RETURN_IF_ERROR(memory->setReadOnly(base.value(), true));
    bank_ = memory->find(base.value());
  }
  return initialise(*memory);
}

// Variables without an initialiser are zero, as the driver makes them.
Status Loaded::initialise(GlobalMemory &memory) {
  for (size_t i = 0; i < module_.variables.size(); ++i) {
    const Variable &variable = module_.variables[i];
    if (variable.space == Space::Shared)
      continue;
    std::vector<uint8_t> bytes = variable.bytes;
    bytes.resize(size_t(variable.size()), 0);
    for (const Variable::Address &pointer : variable.addresses) {
      if (pointer.function)
        return {Code::Unsupported,
                module_.file + ":" + std::to_string(variable.line) + ": '" + variable.name +
                    "' holds the address of a function; calls through registers are not implemented"};
      uint64_t value = pointer.generic ? genericAddress(pointer.variable) : addresses_.variables[pointer.variable];
      value += uint64_t(pointer.addend);
      if (pointer.offset + pointer.size <= int64_t(bytes.size()))
        std::memcpy(bytes.data() + pointer.offset, &value, size_t(pointer.size));
    }
    KVQ_RETURN_IF_ERROR(memory.write(hostAddress(i), bytes));
  }
  return Status::ok();
}

Status Loaded::decodeKernels() {
  for (const Function &function : module_.functions) {
    if (!function.entry || !function.defined)
      continue;
    Result<std::unique_ptr<Kernel>> kernel = decode(module_, function, addresses_);
    KVQ_RETURN_IF_ERROR(kernel.status());
    kernel.value()->attributes.constBytes = int64_t(constants().size());
    kernels_.push_back(std::move(kernel.value()));
  }
  return Status::ok();
}

struct Simulator::Impl {
  std::shared_ptr<GlobalMemory> memory = std::make_shared<GlobalMemory>();
};

Simulator::Simulator() : impl_(std::make_unique<Impl>()) {}
Simulator::~Simulator() = default;
GlobalMemory &Simulator::memory() { return *impl_->memory; }

Result<ModuleRef> Simulator::load(std::string_view text, std::string file) {
  Result<Module> module = parse(text, std::move(file));
  KVQ_RETURN_IF_ERROR(module.status());
  auto loaded = std::make_shared<Loaded>(std::move(module.value()), std::string(text));
  KVQ_RETURN_IF_ERROR(loaded->place(impl_->memory));
  KVQ_RETURN_IF_ERROR(loaded->decodeKernels());
  return ModuleRef(loaded);
}

Result<Report> Simulator::launch(const LoadedModule &module, const Launch &launch, const Options &options) {
  const auto *loaded = dynamic_cast<const Loaded *>(&module);
  if (!loaded)
    return Status(Code::InvalidArgument, "the module was not loaded by a simulator");
  return ptxsim::launch(*loaded, launch, options, *impl_->memory);
}

} // namespace kvq::ptxsim
