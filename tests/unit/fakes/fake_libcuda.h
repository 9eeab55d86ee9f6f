// SPDX-License-Identifier: Apache-2.0
//
// What fake_libcuda.cpp exports besides the driver's functions, to be found by name.
#pragma once

// Objects that were handed out and not given back.
struct FakeCudaCounts {
  int contexts, allocations, modules, streams, events;
  bool operator==(const FakeCudaCounts &) const = default;
};

extern "C" {
// `function` answers `code` from now on; 0: it works again. "cubin": loading what is no text. Codes after which a GPU
// answers nothing else stay until the reset.
using FakeCudaFail = void(const char *function, int code);
using FakeCudaReset = void(); // all but the counts
// "version" of CUDA, "count" of GPUs, "major" and "minor" of their compute capability.
using FakeCudaSet = void(const char *what, int value);
// Those and "parameter", the first of the last launch; "cubin", whether the last module was one; "stream flags";
// "allowed", the dynamic shared memory that was opted in to.
using FakeCudaGet = int(const char *what);
using FakeCudaLog = void(const char *text); // of the compiler of PTX
using FakeCudaCalls = int(const char *function);
using FakeCudaLive = FakeCudaCounts();
using FakeCudaDepth = int(); // contexts that are current in this thread
}
