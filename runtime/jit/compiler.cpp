// SPDX-License-Identifier: Apache-2.0
//
// Loading of the compiler plug-in by dlopen, and its calls.
#include "runtime/jit/compiler.h"

#include <cstdlib>
#include <dlfcn.h>
#include <sstream>

namespace kvq {

static std::string defaultPath() {
  if (const char *path = std::getenv("KVQ_COMPILER"); path && *path)
    return path;
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void *>(&defaultPath), &info) || !info.dli_fname)
    return "libkvq-compiler.so";
  std::string self = info.dli_fname;
  size_t slash = self.rfind('/');
  return (slash == std::string::npos ? std::string("./") : self.substr(0, slash + 1)) + "libkvq-compiler.so";
}

template <typename Fn> static bool find(void *library, const char *name, Fn &fn) {
  fn = reinterpret_cast<Fn>(dlsym(library, name));
  return fn != nullptr;
}

Result<std::shared_ptr<const Compiler>> Compiler::load(const char *path) {
  const std::string file = path ? path : defaultPath();
  // RTLD_NODELETE: code of LLVM registers destructors and thread-local state that do not survive an unload.
  void *library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!library) {
    const char *why = dlerror();
    return Status(Code::Unsupported, "the compiler plug-in " + file + " cannot be loaded (" + (why ? why : "unknown") +
                                         "): set KVQ_COMPILER to libkvq-compiler.so or use device \"ref\"");
  }
  kvq_compiler_plugin_version_fn version;
  kvq_compiler_hash_fn hash;
  kvq_compiler_host_levels_fn levels;
  std::shared_ptr<Compiler> compiler(new Compiler);
  if (!find(library, "kvq_compiler_plugin_version", version) || !find(library, "kvq_compiler_hash", hash) ||
      !find(library, "kvq_compiler_host_levels", levels) ||
      !find(library, "kvq_compiler_compile", compiler->compile_) ||
      !find(library, "kvq_compiler_free", compiler->free_))
    return Status(Code::Unsupported, file + " is no kvq compiler: set KVQ_COMPILER to libkvq-compiler.so");
  if (version() != KVQ_COMPILER_PLUGIN_VERSION)
    return Status(Code::Unsupported, "the compiler plug-in " + file + " has version " + std::to_string(version()) +
                                         " but this library needs " + std::to_string(KVQ_COMPILER_PLUGIN_VERSION) +
                                         ": install both from one build");
  compiler->hash_ = hash();
  std::istringstream words(levels());
  for (std::string level; words >> level;)
    compiler->levels_.push_back(level);
  if (compiler->levels_.empty())
    return Status(Code::Unsupported,
                  "the compiler plug-in " + file + " has no level that this processor can run: use device \"ref\"");
  return std::shared_ptr<const Compiler>(std::move(compiler));
}

Result<CompiledKernel> Compiler::compile(const std::string &text, bool isSource, const std::string &level) const {
  kvq_compile_input input{};
  (isSource ? input.source : input.request) = text.c_str();
  input.level = level.c_str();
  kvq_compile_output *output = compile_(&input);
  if (!output)
    return Status(Code::Internal,
                  "the compiler gave no answer for " + (isSource ? "a user kernel" : text) + ": please report it");
  Result<CompiledKernel> result = Status(Code::Internal, "");
  if (output->object) {
    const auto *bytes = static_cast<const uint8_t *>(output->object);
    result =
        CompiledKernel{{bytes, bytes + output->object_bytes}, output->entry, output->signature, output->compile_ms};
  } else {
    // A mistake in a user's text is the user's to change; a built-in request that fails is ours.
    result = Status(isSource ? Code::InvalidArgument : Code::Internal, output->message ? output->message : "");
  }
  free_(output);
  return result;
}

} // namespace kvq
