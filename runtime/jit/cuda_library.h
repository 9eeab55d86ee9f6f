// SPDX-License-Identifier: Apache-2.0
//
// Where NVIDIA's libraries are found: a toolkit, the wheels of a Python environment, or what the system's loader knows.
#pragma once

#include "runtime/format/status.h"
#include "runtime/jit/library.h"

#include <string>
#include <vector>

namespace kvq {

struct CudaLibrarySearch {
  std::string file;                 // exactly this one; empty: as below
  std::vector<std::string> folders; // searched first, as those of $KVQ_CUDA_LIB_PATH are
};

} // namespace kvq
