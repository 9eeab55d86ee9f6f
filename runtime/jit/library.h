// SPDX-License-Identifier: Apache-2.0
//
// Optional parts of the runtime as shared libraries: the one place that calls dlopen.
#pragma once

#include "runtime/format/status.h"

namespace kvq {

// `path`; where it is NULL, the value of the variable of the environment; where that is not set, `name` beside this
// library.
std::string libraryPath(const char *path, const char *variable, const char *name);
// The folder of the file that this code was loaded from, with a '/' at its end; empty where the system does not know.
std::string ownFolder();

class Library {
public:
  // It is never unloaded: code of LLVM registers destructors and thread-local state that do not survive that. The error
  // is the system's reason.
  static Result<Library> open(const std::string &file);
  std::string file() const; // the path that the system opened
  template <typename Function> bool find(const char *name, Function &function) const {
    function = reinterpret_cast<Function>(symbol(name));
    return function != nullptr;
  }

private:
  explicit Library(void *handle) : handle_(handle) {}
  void *symbol(const char *name) const;
  void *handle_;
};

} // namespace kvq
