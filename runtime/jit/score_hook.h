// SPDX-License-Identifier: Apache-2.0
//
// A user's change of attention scores, given as CUDA C++, in a kernel given as PTX that calls it:
//
//   extern "C" __device__ float kvq_score_mod(float score, int batch, int head, int q, int k)
#pragma once

#include "runtime/jit/nvrtc.h"

#include <kvq/compiler_plugin.h>

#include <functional>

namespace kvq {

inline constexpr const char *kScoreHook = KVQ_SCORE_HOOK;

// The module `ptx` with the hook's body at each place where one of its kernels calls kvq_score_mod, and without any
// call left: functions that the hook calls are inlined as well. `name` stands for the file of `cuda` in messages.
// InvalidArgument: the compiler's error with the line of `cuda`; a hook that calls what cannot be inlined (recursion,
// function pointers, printf); a module that does not call it.
Result<std::string> addScoreHook(const Nvrtc &nvrtc, std::string_view ptx, const std::string &cuda,
                                 const std::string &name, const std::string &arch);

// addScoreHook for a device: NVRTC is looked for at the first call; where there is none, every call says so.
// Thread-safe.
using ScoreHookFunction = std::function<Result<std::string>(std::string_view ptx, const std::string &cuda,
                                                            const std::string &name, const std::string &arch)>;
ScoreHookFunction scoreHookFunction(CudaLibrarySearch search = {});

// The same with the hook as a PTX module. What it defines gets names that `ptx` does not have.
Result<std::string> linkScoreHook(std::string_view ptx, std::string_view hook);

} // namespace kvq
