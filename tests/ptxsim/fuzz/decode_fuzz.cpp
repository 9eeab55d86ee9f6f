// SPDX-License-Identifier: Apache-2.0
//
// libFuzzer target: any text is answered by an error or by a loaded module with a decoded kernel for each of its
// entries.
#include "runtime/ptxsim/simulator.h"

#include <cstdio>
#include <cstdlib>

using namespace kvq::ptxsim;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Simulator simulator;
  kvq::Result<ModuleRef> module = simulator.load({reinterpret_cast<const char *>(data), size}, "fuzz.ptx");
  if (!module.isOk()) {
    if (module.status().message().starts_with("fuzz.ptx:"))
      return 0;
    std::fprintf(stderr, "a message without its place: %s\n", module.status().message().c_str());
    std::abort();
  }
  for (const std::string &kernel : module.value()->kernels())
    if (!module.value()->attributes(kernel).isOk())
      std::abort();
  return 0;
}
