// SPDX-License-Identifier: Apache-2.0
//
// Puts an ELF relocatable object of a kernel into memory and makes it callable. Takes x86-64 objects without undefined
// symbols and with the relocations that LLVM emits for position-independent code; everything else, and every object
// whose tables point outside of it, is refused with a Status. It resolves no library, runs no constructor and registers
// no unwind table: a kernel calls nothing and throws nothing.
#pragma once

#include "runtime/format/status.h"

#include <kvq/kernel_abi.h>

#include <memory>
#include <span>
#include <string>

namespace kvq {

// Code in memory: pages with code are executable and not writable. Unmapped with the last owner.
class LoadedObject {
public:
  // `entry` names the function that fn() gives.
  static Result<std::shared_ptr<const LoadedObject>> load(std::span<const uint8_t> object, const std::string &entry);
  ~LoadedObject();
  LoadedObject(const LoadedObject &) = delete;
  LoadedObject &operator=(const LoadedObject &) = delete;
  kvq_kernel_fn fn() const { return fn_; }

private:
  LoadedObject(void *memory, size_t bytes) : memory_(memory), bytes_(bytes) {}
  friend class ObjectReader;
  void *memory_;
  size_t bytes_;
  kvq_kernel_fn fn_ = nullptr;
};

} // namespace kvq
