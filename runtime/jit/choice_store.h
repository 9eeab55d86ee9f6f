// SPDX-License-Identifier: Apache-2.0
//
// What was chosen for this machine: schedules of kernels, split policies of caches. One small text file a key in the
// folder of the kernel store. Reading one is a hash and a file of some hundred bytes. Knows neither compiler nor tuner:
// a choice is a text.
#pragma once

#include "runtime/jit/kernel_store.h"

namespace kvq {

// All that a choice is good for; what was chosen for another key is never taken.
struct ChoiceKey {
  std::string request;  // canonical text
  std::string score;    // hash of the score function, "": none
  std::string level;    // CPU level or another target
  std::string compiler; // its hash
  std::string machine;  // Device::machine()
};

// Of one kind. Thread-safe; several processes may use one folder.
class ChoiceStore {
public:
  // In the folder of a kernel store, which has looked at whom it belongs to.
  static ChoiceStore schedules(const KernelStore &store); // of requests for kernels
  static ChoiceStore splits(const KernelStore &store);    // of what split policies depend on

  // The choice of exactly that key; "" where there is none, or a file that is damaged, carries another key, holds no
  // legal text or may be written by others. Writes nothing.
  std::string read(const ChoiceKey &key) const;
  // In the place of what is there, atomically. FailedPrecondition: the store has no folder.
  Status write(const ChoiceKey &key, const std::string &choice) const;
  // Fine where there is none.
  Status forget(const ChoiceKey &key) const;

private:
  using Parses = bool (*)(std::string_view);
  ChoiceStore(std::string directory, const char *kind, Parses parses)
      : directory_(std::move(directory)), kind_(kind), parses_(parses) {}
  std::string path(const ChoiceKey &key) const;
  std::string linesOf(const ChoiceKey &key) const;
  std::string fileOf(const ChoiceKey &key, std::string_view choice) const;
  Status checkFolder() const;
  std::string directory_, kind_; // the kind is the files' ending and the name of their last line but one
  Parses parses_;
};

} // namespace kvq
