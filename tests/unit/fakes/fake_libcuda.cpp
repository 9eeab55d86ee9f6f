// SPDX-License-Identifier: Apache-2.0
//
// A libcuda.so.1 for tests of device "cuda": it executes nothing, its memory is the host's, it counts what is handed
// out and not given back, and any of its functions can be told to fail. tests/unit/fakes/fake_libcuda.h says how.
#include "tests/unit/fakes/fake_libcuda.h"

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
int make(void **out, int FakeCudaCounts::*member) {
  *out = std::malloc(1);
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

FAKE int cuInit(unsigned) { return answer(__func__, false); }
FAKE int cuDriverGetVersion(int *version) {
  BEFORE(false);
  *version = number("version");
  return 0;
}
FAKE int cuGetErrorName(int error, const char **text) {
  BEFORE(false);
  *text = error == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : error == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OTHER";
  return 0;
}
FAKE int cuGetErrorString(int, const char **text) {
  BEFORE(false);
  *text = "told to";
  return 0;
}
FAKE int cuDeviceGetCount(int *devices) {
  BEFORE(false);
  *devices = number("count");
  return 0;
}
FAKE int cuDeviceGet(int *device, int ordinal) {
  BEFORE(false);
  *device = ordinal;
  return 0;
}
FAKE int cuDeviceGetName(char *name, int length, int) {
  BEFORE(false);
  std::strncpy(name, "Fake GPU", static_cast<size_t>(length));
  return 0;
}
FAKE int cuDeviceGetAttribute(int *value, int attribute, int) {
  BEFORE(false);
  *value = attribute == 75 ? number("major") : attribute == 76 ? number("minor") : 99 << 10;
  return 0;
}
FAKE int cuDeviceTotalMem_v2(size_t *bytes, int) {
  BEFORE(false);
  *bytes = size_t(1) << 30;
  return 0;
}
FAKE int cuDevicePrimaryCtxRetain(void **context, int) {
  BEFORE(false);
  *context = &state();
  return count(&FakeCudaCounts::contexts, 1);
}
FAKE int cuDevicePrimaryCtxRelease_v2(int) {
  count(&FakeCudaCounts::contexts, -1);
  return answer(__func__, false);
}
FAKE int cuCtxPushCurrent_v2(void *) {
  BEFORE(false);
  ++current;
  return 0;
}
FAKE int cuCtxPopCurrent_v2(void **) {
  --current;
  return answer(__func__, false);
}
FAKE int cuCtxSynchronize() { return answer(__func__, true); }
FAKE int cuMemAlloc_v2(uint64_t *pointer, size_t bytes) {
  BEFORE(true);
  *pointer = reinterpret_cast<uint64_t>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  return count(&FakeCudaCounts::allocations, 1);
}
FAKE int cuMemFree_v2(uint64_t pointer) {
  drop(reinterpret_cast<void *>(pointer), &FakeCudaCounts::allocations);
  return answer(__func__, true);
}
FAKE int cuMemGetInfo_v2(size_t *free, size_t *total) {
  BEFORE(true);
  *free = 12345;
  *total = size_t(1) << 30;
  return 0;
}
FAKE int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *) {
  BEFORE(true);
  std::memcpy(reinterpret_cast<void *>(to), from, bytes);
  return 0;
}
FAKE int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *) {
  BEFORE(true);
  std::memcpy(to, reinterpret_cast<void *>(from), bytes);
  return 0;
}
FAKE int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *) {
  BEFORE(true);
  std::memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
  return 0;
}
FAKE int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *) {
  BEFORE(true);
  std::memset(reinterpret_cast<void *>(to), value, bytes);
  return 0;
}
FAKE int cuModuleLoadDataEx(void **module, const void *image, unsigned options, int *option, void **values) {
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
  *module = std::malloc(1);
  ++state().live.modules;
  state().numbers["cubin"] = !isText;
  return 0;
}
FAKE int fake_cuda_get(const char *what) { return number(what); }
FAKE int cuModuleUnload(void *module) {
  drop(module, &FakeCudaCounts::modules);
  return answer(__func__, true);
}
FAKE int cuModuleGetFunction(void **function, void *module, const char *) {
  BEFORE(true);
  *function = module;
  return 0;
}
FAKE int cuModuleGetGlobal_v2(uint64_t *pointer, size_t *bytes, void *, const char *) {
  BEFORE(true);
  *pointer = 0x1000;
  *bytes = 4;
  return 0;
}
FAKE int cuFuncGetAttribute(int *value, int attribute, void *) {
  BEFORE(true);
  *value = attribute == 0 ? 1024 : attribute == 8 ? 48 << 10 : 0;
  return 0;
}
FAKE int cuFuncSetAttribute(void *, int attribute, int value) {
  BEFORE(true);
  fake_cuda_set(attribute == 8 ? "allowed" : "other", value);
  return 0;
}
// One parameter, of 4 bytes: another one than any text has.
FAKE int cuFuncGetParamInfo(void *, size_t index, size_t *offset, size_t *bytes) {
  BEFORE(true);
  *offset = 0;
  *bytes = 4;
  return index ? 1 : 0;
}
FAKE int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
                        void **parameters, void **) {
  BEFORE(true);
  int value = 0;
  std::memcpy(&value, parameters[0], sizeof value);
  fake_cuda_set("parameter", value);
  return 0;
}
FAKE int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *, int, size_t) {
  BEFORE(true);
  *blocks = 3;
  return 0;
}
FAKE int cuStreamCreate(void **stream, unsigned flags) {
  BEFORE(true);
  fake_cuda_set("stream flags", static_cast<int>(flags));
  return make(stream, &FakeCudaCounts::streams);
}
FAKE int cuStreamDestroy_v2(void *stream) {
  drop(stream, &FakeCudaCounts::streams);
  return answer(__func__, true);
}
FAKE int cuStreamSynchronize(void *) { return answer(__func__, true); }
FAKE int cuStreamQuery(void *) { return answer(__func__, true); }
FAKE int cuStreamWaitEvent(void *, void *, unsigned) { return answer(__func__, true); }
FAKE int cuEventCreate(void **event, unsigned) {
  BEFORE(true);
  return make(event, &FakeCudaCounts::events);
}
FAKE int cuEventDestroy_v2(void *event) {
  drop(event, &FakeCudaCounts::events);
  return answer(__func__, true);
}
FAKE int cuEventRecord(void *, void *) { return answer(__func__, true); }
FAKE int cuEventSynchronize(void *) { return answer(__func__, true); }
FAKE int cuEventQuery(void *) { return answer(__func__, true); }
FAKE int cuEventElapsedTime(float *milliseconds, void *, void *) {
  BEFORE(true);
  *milliseconds = 1.5f;
  return 0;
}
