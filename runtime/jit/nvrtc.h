// SPDX-License-Identifier: Apache-2.0
//
// NVRTC, NVIDIA's compiler as a library: PTX text to machine code (a cubin), in process, without a toolkit, a header of
// CUDA or a GPU. It is opened where it is found at run time; nothing is linked (docs/nvidia.md, "From PTX to cubin").
#pragma once

#include "runtime/format/status.h"
#include "runtime/jit/cuda_library.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kvq {

struct WrappedKernel;

struct CubinOptions {
  // Of a thread; 0: what the kernel's launch bounds leave. With a number the cubin does not carry the bounds.
  uint32_t maxRegisters = 0;
};

// A cubin and what the compiler said about it (registers, spills: cubin.h reads both).
struct CubinBinary {
  std::vector<uint8_t> bytes;
  std::string log;
};

// All calls are thread-safe. The same input gives the same bytes.
class Nvrtc {
public:
  // Unsupported where there is none: one sentence that says what to install or to set.
  static Result<std::shared_ptr<const Nvrtc>> load(const CudaLibrarySearch &search = {});

  const std::string &file() const { return file_; }
  int major() const { return major_; }
  int minor() const { return minor_; }
  std::string version() const { return std::to_string(major_) + "." + std::to_string(minor_); }
  // Names the compiler in keys of the store: its version, and the size of its file because the version does not count
  // patches.
  const std::string &identity() const { return identity_; }

  // `ptx`: a module; `entry`: the kernel of it that is compiled, with the functions that it calls; `arch`: "sm_80" and
  // so on. InvalidArgument names the kernel, the line of `ptx` and its text. Unsupported: the PTX is for another
  // processor, or the kernel does not fit into the registers of the options.
  Result<CubinBinary> compilePtx(std::string_view ptx, const std::string &entry, const std::string &arch,
                                 const CubinOptions &options = {}) const;
  // CUDA C++ to a PTX module with every function that has external linkage. InvalidArgument: the compiler's first error
  // with the line of `source`; `name` stands for its file. stdint.h, math.h and their C++ names may be included.
  Result<std::string> compileCuda(const std::string &source, const std::string &name, const std::string &arch) const;

private:
  struct Calls;
  struct Output;
  Nvrtc() = default;
  Status bind(const Library &library);
  Status loadBuiltins() const;
  Output compile(const std::string &source, const std::string &name, const std::vector<std::string> &options,
                 bool toPtx) const;
  Status checkArch(const std::string &arch) const;
  Status explain(const Output &failed, const WrappedKernel &wrapped, std::string_view ptx, const std::string &entry,
                 const std::string &arch) const;

  std::shared_ptr<const Calls> calls_;
  std::vector<int> archs_; // that it compiles for: 80 and so on
  std::string file_, identity_;
  int major_ = 0, minor_ = 0;
};

} // namespace kvq
