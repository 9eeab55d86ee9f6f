// SPDX-License-Identifier: Apache-2.0
//
// Modules and functions. PTX text is loaded; an image that a driver would take without compiling (a cubin, a fat
// binary) gets the answer of a driver for another GPU than the image was made for.
#include "runtime/ptxsim/driver/state.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

using namespace kvq;
using namespace kvq::ptxsim;
using namespace kvq::ptxsim::lookalike;

namespace {

constexpr int kNewestPtx = 90; // of the driver version in device.cpp

// Where messages of the just-in-time compiler go.
struct JitLog {
  struct Buffer {
    char *text = nullptr;
    size_t size = 0;
    void **written = nullptr; // the value of the size's option
  } info, error;

  static JitLog from(unsigned count, const CUjit_option *options, void **values) {
    JitLog log;
    for (unsigned i = 0; i < count; ++i) {
      Buffer &buffer = options[i] <= CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES ? log.info : log.error;
      if (options[i] == CU_JIT_INFO_LOG_BUFFER || options[i] == CU_JIT_ERROR_LOG_BUFFER)
        buffer.text = static_cast<char *>(values[i]);
      if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES || options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) {
        buffer.size = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(values[i]));
        buffer.written = &values[i];
      }
    }
    return log;
  }

  static void write(const Buffer &buffer, const std::string &message) {
    size_t length = 0;
    if (buffer.text && buffer.size) {
      length = std::min(message.size(), buffer.size - 1);
      std::memcpy(buffer.text, message.data(), length);
      buffer.text[length] = 0;
    }
    if (buffer.written)
      *buffer.written = reinterpret_cast<void *>(length);
  }
};

// Images that are not text: SUCCESS for what may be PTX. Cubins are ELF images for the machine 190, of which no one
// runs here; of another machine the driver says that the image is none. Fat binaries begin with one of two numbers.
CUresult refusalOfBinary(const char *image) {
  static constexpr unsigned char kElf[] = {0x7f, 'E', 'L', 'F'}, kFatWrapper[] = {0xb1, 0x43, 0x62, 0x46},
                                 kFat[] = {0x50, 0xed, 0x55, 0xba};
  constexpr int kMachine = 18; // offset of e_machine in an ELF header
  constexpr unsigned char kCuda = 190;
  const auto begins = [&](const unsigned char *magic) {
    return std::strncmp(image, reinterpret_cast<const char *>(magic), 4) == 0;
  };
  if (begins(kElf))
    return static_cast<unsigned char>(image[kMachine]) == kCuda ? CUDA_ERROR_NO_BINARY_FOR_GPU
                                                                : CUDA_ERROR_INVALID_IMAGE;
  return begins(kFatWrapper) || begins(kFat) ? CUDA_ERROR_NO_BINARY_FOR_GPU : CUDA_SUCCESS;
}

CUresult refuse(const JitLog &log, CUresult code, const std::string &why) {
  JitLog::write(log.error, why);
  JitLog::write(log.info, "");
  return code;
}

CUresult load(CUcontext context, CUmodule *module, std::string_view text, const std::string &file, const JitLog &log) {
  const Arch &arch = *context->gpu.settings().arch;
  const PtxTarget target = ptxTarget(text);
  if (target.version == 0) // without .version the driver does not take it for PTX
    return refuse(log, CUDA_ERROR_INVALID_IMAGE, "");
  if (target.version > kNewestPtx)
    return refuse(log, CUDA_ERROR_UNSUPPORTED_PTX_VERSION, file + ": Unsupported .version; current version is '9.0'");
  if (!target.name.empty() && !runsPtx(arch.major, arch.minor, target.name))
    return refuse(log, CUDA_ERROR_INVALID_PTX, file + ": .target " + target.name + " does not run on " + arch.name);
  auto loaded = context->gpu.load(text, file);
  if (!loaded.isOk())
    return refuse(log, CUDA_ERROR_INVALID_PTX, loaded.status().message());
  auto made = std::make_unique<CUmod_st>();
  made->context = context;
  made->module = loaded.value();
  made->target = target;
  *module = made.get();
  context->modules.emplace(*module, std::move(made));
  JitLog::write(log.error, "");
  JitLog::write(log.info, "");
  return CUDA_SUCCESS;
}

} // namespace

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options, void **values) {
  return inContext([&](CUcontext context) -> CUresult {
    if (!module || !image || (count && (!options || !values)))
      return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; ++i)
      if (options[i] < 0 || options[i] >= CU_JIT_NUM_OPTIONS)
        return CUDA_ERROR_INVALID_VALUE;
    const JitLog log = JitLog::from(count, options, values);
    const auto *text = static_cast<const char *>(image);
    if (const CUresult error = refusalOfBinary(text))
      return refuse(log, error, "");
    if (!*text)
      return refuse(log, CUDA_ERROR_INVALID_IMAGE, "");
    return load(context, module, text, "ptx input", log);
  });
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}

CUresult cuModuleLoad(CUmodule *module, const char *file) {
  return inContext([&](CUcontext context) -> CUresult {
    if (!module || !file)
      return CUDA_ERROR_INVALID_VALUE;
    const std::unique_ptr<FILE, int (*)(FILE *)> stream(std::fopen(file, "rb"), std::fclose);
    if (!stream)
      return CUDA_ERROR_FILE_NOT_FOUND;
    std::string text;
    char part[1 << 14];
    while (const size_t got = std::fread(part, 1, sizeof(part), stream.get()))
      text.append(part, got);
    text.resize(std::max<size_t>(text.size(), 20)); // so that a short file can be compared
    if (const CUresult error = refusalOfBinary(text.c_str()))
      return error;
    text.resize(std::strlen(text.c_str()));
    return text.empty() ? CUDA_ERROR_INVALID_IMAGE : load(context, module, text, file, {});
  });
}

CUresult cuModuleUnload(CUmodule module) {
  return inContext([&](CUcontext) -> CUresult {
    if (!findModule(module))
      return CUDA_ERROR_INVALID_HANDLE;
    const CUcontext owner = module->context;
    (void)owner->gpu.synchronizeAll(); // its launches go first
    owner->modules.erase(module);
    return codeOf(owner->gpu.failure());
  });
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  return inContext([&](CUcontext) -> CUresult {
    if (!function || !name)
      return CUDA_ERROR_INVALID_VALUE;
    if (!findModule(module))
      return CUDA_ERROR_INVALID_HANDLE;
    auto attributes = module->module->attributes(name);
    if (!attributes.isOk())
      return CUDA_ERROR_NOT_FOUND;
    std::unique_ptr<CUfunc_st> &known = module->functions[name];
    if (!known)
      known.reset(new CUfunc_st{module, attributes.value(),
                                std::max(0, kDefaultShared - static_cast<int>(attributes.value().sharedBytes))});
    *function = known.get();
    return CUDA_SUCCESS;
  });
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *pointer, size_t *bytes, CUmodule module, const char *name) {
  return inContext([&](CUcontext) -> CUresult {
    if (!name || (!pointer && !bytes))
      return CUDA_ERROR_INVALID_VALUE;
    if (!findModule(module))
      return CUDA_ERROR_INVALID_HANDLE;
    auto variable = module->module->variable(name);
    if (!variable.isOk())
      return CUDA_ERROR_NOT_FOUND;
    if (pointer)
      *pointer = variable.value().first;
    if (bytes)
      *bytes = static_cast<size_t>(variable.value().second);
    return CUDA_SUCCESS;
  });
}
