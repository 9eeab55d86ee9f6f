// SPDX-License-Identifier: Apache-2.0
//
// Where NVIDIA's compiler libraries are found: the wheels of a Python environment, a toolkit, or what the system's
// loader knows. The first that opens is taken.
#pragma once

#include "runtime/jit/library.h"

#include <string>
#include <vector>

namespace kvq {

struct CudaLibrarySearch {
  std::string file;                 // exactly this one; empty: $KVQ_NVRTC and so on, else the search
  std::vector<std::string> folders; // searched first, before those of $KVQ_CUDA_LIB_PATH
};

// A library of CUDA and how it is installed.
struct CudaLibraryName {
  const char *title;       // "NVRTC", for messages
  const char *stem;        // "libnvrtc.so", which a '.' and a major version follow
  const char *variable;    // "KVQ_NVRTC"
  const char *wheelFolder; // "cuda_nvrtc", where the wheels of CUDA 12 put it; those of CUDA 13 share one folder
  const char *package;     // "nvidia-cuda-nvrtc"
};

// The majors that are looked for, best first.
inline constexpr int kCudaMajors[] = {13, 12};

// Searched in this order: the file that is named, without going on where it is unusable; the folders that are given;
// those of $KVQ_CUDA_LIB_PATH, separated by ':'; the site-packages of the running Python ($VIRTUAL_ENV,
// $CONDA_PREFIX, the environment of the interpreter, the folder around this library); $CUDA_HOME, $CUDA_PATH; the
// system's loader; the usual folder of the toolkit. Unsupported: one sentence that says what to install or to set.
Result<Library> openCudaLibrary(const CudaLibraryName &name, const CudaLibrarySearch &search);

} // namespace kvq
