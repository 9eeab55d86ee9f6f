// SPDX-License-Identifier: Apache-2.0
#include "runtime/jit/library.h"

#include <cstdlib>
#include <dlfcn.h>

namespace kvq {

std::string libraryPath(const char *path, const char *variable, const char *name) {
  if (path)
    return path;
  if (const char *set = std::getenv(variable); set && *set)
    return set;
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void *>(&libraryPath), &info) || !info.dli_fname)
    return name;
  const std::string self = info.dli_fname;
  const size_t slash = self.rfind('/');
  return (slash == std::string::npos ? std::string("./") : self.substr(0, slash + 1)) + name;
}

Result<Library> Library::open(const std::string &file) {
  if (void *handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE))
    return Library(handle);
  const char *why = dlerror();
  return Status(Code::Unsupported, why ? why : "unknown");
}

void *Library::symbol(const char *name) const { return dlsym(handle_, name); }

} // namespace kvq
