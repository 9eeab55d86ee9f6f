// SPDX-License-Identifier: Apache-2.0
// A stand-in for libcuda.so.1 that executes nothing: it exercises the recorder's ways around refusals, faults, hangs.
// A kernel's output is a checksum of its PTX; environment variables name texts in the PTX that make it misbehave.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int broken;

static int mentions(const char *variable, const char *text) {
  const char *marker = getenv(variable);
  return marker && strstr(text, marker) != NULL;
}

int cuInit(unsigned flags) { return flags != 0; }
int cuDeviceGet(int *device, int ordinal) { return (*device = ordinal) != 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return (*context = &broken) == NULL || device != 0; }
int cuCtxSetCurrent(void *context) { return context != &broken; }
int cuDeviceGetName(char *name, int size, int device) { return snprintf(name, (size_t)size, "fake %d", device) < 0; }
int cuDriverGetVersion(int *version) { return (*version = 12040) == 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 9 : 0;
  return device != 0;
}
int cuGetErrorName(int code, const char **text) {
  *text = code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : code == 218 ? "CUDA_ERROR_INVALID_PTX" : "CUDA_ERROR_UNKNOWN";
  return 0;
}
int cuMemAlloc_v2(uint64_t *address, size_t size) { return (*address = (uint64_t)malloc(size)) == 0; }
int cuMemFree_v2(uint64_t address) {
  free((void *)address);
  return 0;
}
int cuMemcpyHtoD_v2(uint64_t target, const void *source, size_t size) {
  memcpy((void *)target, source, size);
  return broken;
}
int cuMemcpyDtoH_v2(void *target, uint64_t source, size_t size) {
  memcpy(target, (void *)source, size);
  return broken;
}
int cuMemsetD8_v2(uint64_t target, unsigned char value, size_t size) {
  memset((void *)target, value, size);
  return broken;
}
int cuModuleLoadDataEx(void **module, const char *text, unsigned count, int *options, void **values) {
  if (broken)
    return broken;
  if (mentions("FAKE_REFUSE", text)) {
    for (unsigned i = 0; i < count; ++i)
      if (options[i] == 5)
        strcpy(values[i], "ptxas: fake refusal");
    return 218;
  }
  return (*module = strdup(text)) == NULL;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
  *function = module;
  return strcmp(name, "form") != 0;
}
int cuModuleUnload(void *module) {
  free(module);
  return 0;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
  const char *text = function;
  if (mentions("FAKE_HANG", text))
    for (;;)
      pause();
  if (mentions("FAKE_ABORT", text))
    abort();
  if (mentions("FAKE_FAULT", text))
    broken = 700;
  uint32_t sum = 0;
  for (; *text; ++text)
    sum = sum * 31 + (unsigned char)*text;
  uint64_t *out = *(uint64_t **)parameters[1];
  for (unsigned i = 0; i < gx * bx; ++i)
    out[i] = sum + i;
  return gy * gz * by * bz != 1 || shared || stream || extra;
}
int cuCtxSynchronize(void) { return broken; }
