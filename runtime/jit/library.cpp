// SPDX-License-Identifier: Apache-2.0
#include "runtime/jit/library.h"

#include <cstdlib>
#include <dlfcn.h>
#include <link.h>

namespace kvq {

std::string libraryPath(const char *path, const char *variable, const char *name) {
  if (path)
    return path;
  if (const char *set = std::getenv(variable); set && *set)
    return set;
  return ownFolder() + name;
}

std::string ownFolder() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void *>(&libraryPath), &info) || !info.dli_fname)
    return {};
  const std::string self = info.dli_fname;
  const size_t slash = self.rfind('/');
  return slash == std::string::npos ? "./" : self.substr(0, slash + 1);
}

Result<Library> Library::open(const std::string &file) {
  if (void *handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE))
    return Library(handle);
  const char *why = dlerror();
  return Status(Code::Unsupported, why ? why : "unknown");
}

std::string Library::file() const {
  link_map *map = nullptr;
  return dlinfo(handle_, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name ? map->l_name : "";
}

void *Library::symbol(const char *name) const { return dlsym(handle_, name); }

} // namespace kvq
