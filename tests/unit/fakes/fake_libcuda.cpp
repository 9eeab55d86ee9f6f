// SPDX-License-Identifier: Apache-2.0
//
// A libcuda.so.1 for tests of device "cuda": it executes nothing, its memory is the host's, it counts what is handed
// out and not given back, and any of its functions can be told to fail. tests/unit/fakes/fake_libcuda.h says how.
#include "tests/unit/fakes/fake_libcuda.h"

#include "runtime/device/cuda/driver.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace {

struct State {
  std::mutex mutex;
  std::map<std::string, int> failures, calls; // by name
  std::map<std::string, std::string> texts;
  std::map<std::string, int> numbers = {{"version", 13000}, {"count", 2}, {"major", 8}, {"minor", 9}};
  FakeCudaCounts live{};
  int lost = 0; // the code of a failure that stays
};
State &state() {
  static State *one = new State;
  return *one;
}
thread_local int current = 0; // depth of this thread's stack of contexts

bool stays(int code) { return code == 700 || code == 716 || code == 719 || code == 214; }

// What a function answers before it does anything.
int answer(const char *name, bool needsContext) {
  std::lock_guard<std::mutex> lock(state().mutex);
  ++state().calls[name];
  if (const auto told = state().failures.find(name); told != state().failures.end()) {
    if (stays(told->second))
      state().lost = told->second;
    return told->second;
  }
  if (needsContext && current == 0)
    return 201; // CUDA_ERROR_INVALID_CONTEXT
  return needsContext ? state().lost : 0;
}

int count(int FakeCudaCounts::*member, int by) {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().live.*member += by;
  return 0;
}

// An object of its own address.
template <typename Handle> int make(Handle *out, int FakeCudaCounts::*member) {
  *out = static_cast<Handle>(std::malloc(1));
  return count(member, 1);
}
int drop(void *object, int FakeCudaCounts::*member) {
  std::free(object);
  return count(member, -1);
}

int number(const char *name) {
  std::lock_guard<std::mutex> lock(state().mutex);
  return state().numbers[name];
}

} // namespace

using namespace kvq::cuda;

#define FAKE extern "C" __attribute__((visibility("default")))
#define BEFORE(needsContext)                                                                                           \
  if (const int code = answer(__func__, needsContext))                                                                 \
  return code

FAKE void fake_cuda_fail(const char *function, int code) {
  std::lock_guard<std::mutex> lock(state().mutex);
  if (code)
    state().failures[function] = code;
  else
    state().failures.erase(function);
}
FAKE void fake_cuda_reset() {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().failures.clear();
  state().calls.clear();
  state().texts.clear();
  state().numbers = {{"version", 13000}, {"count", 2}, {"major", 8}, {"minor", 9}};
  state().lost = 0;
}
FAKE void fake_cuda_set(const char *what, int value) {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().numbers[what] = value;
}
FAKE void fake_cuda_log(const char *text) {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().texts["log"] = text;
}
FAKE int fake_cuda_calls(const char *function) {
  std::lock_guard<std::mutex> lock(state().mutex);
  return state().calls[function];
}
FAKE FakeCudaCounts fake_cuda_live() {
  std::lock_guard<std::mutex> lock(state().mutex);
  return state().live;
}
FAKE int fake_cuda_depth() { return current; }

// What gives something back does so even where it was told to fail: a test can tell a forgotten call from a failed one.

FAKE CUresult cuInit(unsigned) { return answer(__func__, false); }
FAKE CUresult cuDriverGetVersion(int *version) {
  BEFORE(false);
  *version = number("version");
  return 0;
}
FAKE CUresult cuGetErrorName(int error, const char **text) {
  BEFORE(false);
  *text = error == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : error == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OTHER";
  return 0;
}
FAKE CUresult cuGetErrorString(int, const char **text) {
  BEFORE(false);
  *text = "told to";
  return 0;
}
FAKE CUresult cuDeviceGetCount(int *devices) {
  BEFORE(false);
  *devices = number("count");
  return 0;
}
FAKE CUresult cuDeviceGet(int *device, int ordinal) {
  BEFORE(false);
  *device = ordinal;
  return 0;
}
FAKE CUresult cuDeviceGetName(char *name, int length, int) {
  BEFORE(false);
  std::strncpy(name, "Fake GPU", static_cast<size_t>(length));
  return 0;
}
FAKE CUresult cuDeviceGetAttribute(int *value, int attribute, int) {
  BEFORE(false);
  *value = attribute == 75 ? number("major") : attribute == 76 ? number("minor") : 99 << 10;
  return 0;
}
FAKE CUresult cuDeviceTotalMem_v2(size_t *bytes, int) {
  BEFORE(false);
  *bytes = size_t(1) << 30;
  return 0;
}
FAKE CUresult cuDevicePrimaryCtxRetain(CUcontext *context, int) {
  BEFORE(false);
  *context = reinterpret_cast<CUcontext>(&state());
  return count(&FakeCudaCounts::contexts, 1);
}
FAKE CUresult cuDevicePrimaryCtxRelease_v2(int) {
  count(&FakeCudaCounts::contexts, -1);
  return answer(__func__, false);
}
FAKE CUresult cuCtxPushCurrent_v2(CUcontext) {
  BEFORE(false);
  ++current;
  return 0;
}
FAKE CUresult cuCtxPopCurrent_v2(CUcontext *) {
  --current;
  return answer(__func__, false);
}
FAKE CUresult cuCtxSynchronize() { return answer(__func__, true); }
FAKE CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
  BEFORE(true);
  *pointer = reinterpret_cast<CUdeviceptr>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  return count(&FakeCudaCounts::allocations, 1);
}
FAKE CUresult cuMemFree_v2(CUdeviceptr pointer) {
  drop(reinterpret_cast<void *>(pointer), &FakeCudaCounts::allocations);
  return answer(__func__, true);
}
FAKE CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
  BEFORE(true);
  *free = 12345;
  *total = size_t(1) << 30;
  return 0;
}
FAKE CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream) {
  BEFORE(true);
  std::memcpy(reinterpret_cast<void *>(to), from, bytes);
  return 0;
}
FAKE CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream) {
  BEFORE(true);
  std::memcpy(to, reinterpret_cast<void *>(from), bytes);
  return 0;
}
FAKE CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream) {
  BEFORE(true);
  std::memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
  return 0;
}
FAKE CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream) {
  BEFORE(true);
  std::memset(reinterpret_cast<void *>(to), value, bytes);
  return 0;
}
FAKE CUresult cuMemsetD2D8Async(CUdeviceptr to, size_t pitch, unsigned char value, size_t width, size_t height,
                                CUstream) {
  BEFORE(true);
  for (size_t row = 0; row < height; ++row)
    std::memset(reinterpret_cast<char *>(to) + row * pitch, value, width);
  return 0;
}
FAKE CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D_st *rows, CUstream) {
  BEFORE(true);
  for (size_t row = 0; row < rows->height; ++row)
    std::memmove(reinterpret_cast<char *>(rows->toDevice) + row * rows->toPitch,
                 reinterpret_cast<const char *>(rows->fromDevice) + row * rows->fromPitch, rows->width);
  return 0;
}
FAKE CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned options, int *option, void **values) {
  const bool isText = *static_cast<const char *>(image) == '.';
  int code = answer(__func__, true);
  if (!code && !isText)
    code = answer("cubin", true);
  std::lock_guard<std::mutex> lock(state().mutex);
  for (unsigned i = 0; i < options; ++i)
    if (option[i] == 5)
      std::strcpy(static_cast<char *>(values[i]), state().texts["log"].c_str());
  if (code)
    return code;
  *module = static_cast<CUmodule>(std::malloc(1));
  ++state().live.modules;
  state().numbers["cubin"] = !isText;
  return 0;
}
FAKE int fake_cuda_get(const char *what) { return number(what); }
FAKE CUresult cuModuleUnload(CUmodule module) {
  drop(module, &FakeCudaCounts::modules);
  return answer(__func__, true);
}
FAKE CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *) {
  BEFORE(true);
  *function = reinterpret_cast<CUfunction>(module);
  return 0;
}
FAKE CUresult cuModuleGetGlobal_v2(CUdeviceptr *pointer, size_t *bytes, CUmodule, const char *) {
  BEFORE(true);
  *pointer = 0x1000;
  *bytes = 4;
  return 0;
}
FAKE CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction) {
  BEFORE(true);
  *value = attribute == 0 ? 1024 : attribute == 8 ? 48 << 10 : 0;
  return 0;
}
FAKE CUresult cuFuncSetAttribute(CUfunction, int attribute, int value) {
  BEFORE(true);
  fake_cuda_set(attribute == 8 ? "allowed" : "other", value);
  return 0;
}
// One parameter, of 4 bytes: another one than any text has.
FAKE CUresult cuFuncGetParamInfo(CUfunction, size_t index, size_t *offset, size_t *bytes) {
  BEFORE(true);
  *offset = 0;
  *bytes = 4;
  return index ? 1 : 0;
}
FAKE CUresult cuLaunchKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                             void **parameters, void **) {
  BEFORE(true);
  int value = 0;
  std::memcpy(&value, parameters[0], sizeof value);
  fake_cuda_set("parameter", value);
  return 0;
}
FAKE CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction, int, size_t) {
  BEFORE(true);
  *blocks = 3;
  return 0;
}
FAKE CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
  BEFORE(true);
  fake_cuda_set("stream flags", static_cast<int>(flags));
  return make(stream, &FakeCudaCounts::streams);
}
FAKE CUresult cuStreamDestroy_v2(CUstream stream) {
  drop(stream, &FakeCudaCounts::streams);
  return answer(__func__, true);
}
FAKE CUresult cuStreamSynchronize(CUstream) { return answer(__func__, true); }
FAKE CUresult cuStreamQuery(CUstream) { return answer(__func__, true); }
FAKE CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned) { return answer(__func__, true); }
FAKE CUresult cuEventCreate(CUevent *event, unsigned) {
  BEFORE(true);
  return make(event, &FakeCudaCounts::events);
}
FAKE CUresult cuEventDestroy_v2(CUevent event) {
  drop(event, &FakeCudaCounts::events);
  return answer(__func__, true);
}
FAKE CUresult cuEventRecord(CUevent, CUstream) { return answer(__func__, true); }
FAKE CUresult cuEventSynchronize(CUevent) { return answer(__func__, true); }
FAKE CUresult cuEventQuery(CUevent) { return answer(__func__, true); }
FAKE CUresult cuEventElapsedTime(float *milliseconds, CUevent, CUevent) {
  BEFORE(true);
  *milliseconds = 1.5f;
  return 0;
}
