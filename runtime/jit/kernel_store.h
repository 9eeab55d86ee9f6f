// SPDX-License-Identifier: Apache-2.0
//
// The store of compiled kernels: a folder with one file per key. It holds native code that will be run, so a folder
// that others could write to is refused, and a file that does not carry its own key, version and checksum is a miss.
// Knows neither compiler nor loader. Several threads and processes may use one folder.
#pragma once

#include "runtime/format/sha256.h"
#include "runtime/jit/compiler.h"

#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

namespace kvq {

// The key of a kernel: everything that its code depends on.
std::string kernelKey(std::string_view text, bool isSource, std::string_view level, std::string_view compilerHash,
                      std::string_view schedule = {});
// The same of any list of parts; the first says what kind of code it is.
std::string kernelKey(std::span<const std::string_view> parts);
std::string kernelKey(std::initializer_list<std::string_view> parts);

class KernelStore {
public:
  enum class Access { ReadOnly, ReadWrite };
  // directory NULL: $KVQ_STORE, else kvq in the user's cache folder; "": no folder, nothing is kept. ReadWrite creates
  // the folder. Permission where it is untrusted or cannot be used.
  static Result<KernelStore> open(const char *directory, Access access);

  const std::string &directory() const { return directory_; } // "": none
  // Corrupt: the file is there and fails its checks. FailedPrecondition: there is none.
  Result<CompiledKernel> read(const std::string &key) const;
  Status write(const std::string &key, const CompiledKernel &kernel) const;
  // The entry of `key`; where it is missing or corrupt, what `compile` gives, after writing it. Of all threads and
  // processes only one compiles a key; the others wait for its entry. `compiled` says which it was.
  Result<CompiledKernel> readOrCompile(const std::string &key, const std::function<Result<CompiledKernel>()> &compile,
                                       bool &compiled) const;

private:
  std::string path(const std::string &key) const { return directory_ + "/" + key + ".kernel"; }
  std::string directory_;
};

} // namespace kvq
