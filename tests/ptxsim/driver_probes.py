# SPDX-License-Identifier: Apache-2.0
"""What a CUDA driver answers to right and wrong calls: one line of JSON, probe to list of answers.

It runs on the look-alike (LD_LIBRARY_PATH) and on a real GPU alike, with nothing but ctypes; each probe has a process of
its own, since some leave their context unusable. `python3 driver_probes.py > golden/driver_answers.json` records a GPU.
"""
import ctypes
import json
import os
import sys
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p

HEAD = ".version 7.0\n.target sm_80\n.address_size 64\n"
KERNELS = HEAD + """
.visible .global .align 4 .b32 counter[4];
.visible .entry store(.param .u64 to, .param .u32 value, .param .u32 count)
{
  .reg .pred %p<2>; .reg .b32 %r<8>; .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [to];
  ld.param.u32 %r1, [value];
  ld.param.u32 %r2, [count];
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mov.u32 %r5, %tid.x;
  mad.lo.s32 %r6, %r3, %r4, %r5;
  setp.ge.u32 %p1, %r6, %r2;
  @%p1 bra DONE;
  cvta.to.global.u64 %rd2, %rd1;
  mul.wide.u32 %rd3, %r6, 4;
  add.s64 %rd4, %rd2, %rd3;
  add.s32 %r7, %r1, %r6;
  st.global.u32 [%rd4], %r7;
DONE:
  ret;
}
.visible .entry twice(.param .u64 to)
{
  .reg .b32 %r<4>; .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [to];
  cvta.to.global.u64 %rd2, %rd1;
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd3, %r1, 4;
  add.s64 %rd4, %rd2, %rd3;
  ld.global.u32 %r2, [%rd4];
  shl.b32 %r3, %r2, 1;
  st.global.u32 [%rd4], %r3;
  ret;
}
.visible .entry small() .maxntid 64, 1, 1 { ret; }
.visible .entry exact() .reqntid 32, 2, 1 { ret; }
.visible .entry shared()
{
  .shared .align 4 .b8 own[1024];
  .reg .b32 %r<2>;
  mov.u32 %r1, %tid.x;
  st.volatile.shared.u32 [own], %r1;
  ret;
}
.visible .entry trapping() { trap; ret; }
"""


class Api:
    def __init__(self, init=True, context=True):
        self.library = ctypes.CDLL("libcuda.so.1")
        self.answers = []
        if init:
            self.ok("cuInit", c_uint(0))
        if context:
            self.context = c_void_p()
            self.ok("cuDevicePrimaryCtxRetain", byref(self.context), c_int(0))
            self.ok("cuCtxSetCurrent", self.context)

    def __call__(self, name, *arguments):
        """A call whose code is an answer of the probe."""
        self.answers.append(getattr(self.library, name)(*arguments))
        return self.answers[-1]

    def ok(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code:
            raise RuntimeError("%s answered %d" % (name, code))

    def module(self, text=KERNELS):
        module = c_void_p()
        self.ok("cuModuleLoadData", byref(module), c_char_p(text.encode()))
        return module

    def function(self, name, module=None):
        function = c_void_p()
        self.ok("cuModuleGetFunction", byref(function), module or self.module(), c_char_p(name.encode()))
        return function

    def buffer(self, size):
        pointer = c_uint64()
        self.ok("cuMemAlloc_v2", byref(pointer), c_size_t(size))
        return pointer

    def stream(self, flags=0):
        stream = c_void_p()
        self.ok("cuStreamCreate", byref(stream), c_uint(flags))
        return stream

    def launch(self, function, parameters=(), grid=(1, 1, 1), block=(32, 1, 1), shared=0, stream=None):
        self.parameters = parameters  # the call reads them through the pointers
        pointers = (c_void_p * (len(parameters) + 1))(*[ctypes.cast(byref(p), c_void_p) for p in parameters])
        return ("cuLaunchKernel", function, *[c_uint(n) for n in (*grid, *block)], c_uint(shared), stream, pointers, None)

    def words(self, pointer, count):
        out = (c_uint * count)()
        self.ok("cuMemcpyDtoH_v2", out, pointer, c_size_t(4 * count))
        return list(out)


def uninitialised():
    api = Api(init=False, context=False)
    api("cuDeviceGetCount", byref(c_int()))
    api("cuCtxSynchronize")
    api("cuInit", c_uint(1))
    return api.answers


def devices():
    api = Api(context=False)
    value, name = c_int(), ctypes.create_string_buffer(64)
    api("cuDeviceGet", byref(value), c_int(99))
    api("cuDeviceGet", byref(value), c_int(-1))
    api("cuDeviceGetCount", None)
    api("cuDeviceGetName", name, c_int(64), c_int(0))
    api("cuDeviceGetAttribute", byref(value), c_int(-1), c_int(0))
    api("cuDeviceGetAttribute", byref(value), c_int(0), c_int(0))
    api("cuDeviceGetAttribute", byref(value), c_int(16), c_int(7))
    for attribute in (1, 2, 4, 5, 6, 8, 10, 12, 39, 75, 76, 81, 97, 106, 111):
        api.ok("cuDeviceGetAttribute", byref(value), c_int(attribute), c_int(0))
        api.answers.append(value.value)
    return api.answers


def contexts():
    api = Api(context=False)
    pointer, context, other = c_uint64(), c_void_p(), c_void_p()
    api("cuMemAlloc_v2", byref(pointer), c_size_t(4))
    api("cuCtxSynchronize")
    api("cuCtxGetCurrent", byref(context))
    api("cuCtxPopCurrent_v2", byref(context))
    api("cuCtxCreate_v2", byref(context), c_uint(0), c_int(0))
    api("cuCtxGetCurrent", byref(other))
    api.answers.append(int(other.value == context.value))
    api("cuCtxPopCurrent_v2", byref(other))
    api("cuCtxSynchronize")
    api("cuCtxPushCurrent_v2", context)
    api("cuCtxSynchronize")
    api("cuCtxDestroy_v2", context)
    api("cuCtxGetCurrent", byref(other))
    api.answers.append(int(other.value is None))
    api("cuDevicePrimaryCtxRelease_v2", c_int(0))
    api("cuDevicePrimaryCtxRetain", byref(context), c_int(3))
    return api.answers


def memory():
    api = Api()
    pointer, data = c_uint64(), ctypes.create_string_buffer(64)
    api("cuMemAlloc_v2", byref(pointer), c_size_t(0))
    api("cuMemAlloc_v2", byref(pointer), c_size_t(1 << 50))
    api("cuMemFree_v2", c_uint64(0))
    api("cuMemFree_v2", c_uint64(0x1234))
    pointer = api.buffer(64)
    api("cuMemcpyHtoD_v2", pointer, data, c_size_t(64))
    api("cuMemcpyHtoD_v2", pointer, data, c_size_t(0))
    api("cuMemcpyHtoD_v2", c_uint64(0), data, c_size_t(4))
    api("cuMemcpyDtoH_v2", None, pointer, c_size_t(4))
    api("cuMemsetD32_v2", c_uint64(pointer.value + 2), c_uint(1), c_size_t(1))
    api("cuMemsetD32_v2", pointer, c_uint(7), c_size_t(3))
    api("cuMemsetD8_v2", c_uint64(pointer.value + 12), c_ubyte(255), c_size_t(4))
    api.answers += api.words(pointer, 4)
    api("cuMemFree_v2", c_uint64(pointer.value + 4))
    api("cuMemFree_v2", pointer)
    return api.answers


def images():
    api = Api()
    module, log = c_void_p(), ctypes.create_string_buffer(512)

    def load(image):
        options = (c_int * 2)(5, 6)
        values = (c_void_p * 2)(ctypes.cast(log, c_void_p), c_void_p(len(log)))
        api("cuModuleLoadDataEx", byref(module), image, c_uint(2), options, values)
        return log.value

    load(c_char_p(KERNELS.encode()))
    log.value = b""
    api.answers.append(int(len(load(c_char_p((HEAD + ".visible .entry k() { add.u99 1; ret; }").encode()))) > 0))
    api.answers.append(int(len(load(c_char_p((HEAD + ".visible .entry k() { bra NOWHERE; }").encode()))) > 0))
    load(c_char_p(b"not ptx at all"))
    load(c_char_p(b""))
    load(c_char_p(KERNELS.replace("7.0", "99.0").encode()))
    load(c_char_p(KERNELS.replace("sm_80", "sm_130").encode()))
    load(c_char_p(KERNELS.replace("7.0", "7.8").replace("sm_80", "sm_120").encode()))
    api("cuModuleLoad", byref(module), c_char_p(b"/nonexistent/file.ptx"))
    api("cuModuleLoadData", byref(module), None)
    return api.answers


def cubin():
    """An ELF image that is not one of the driver's: a header, and nothing behind it."""
    api = Api()
    module = c_void_p()
    elf = bytes([0x7F]) + b"ELF" + bytes([2, 1, 1, 0x33, 7]) + bytes(4096)
    api("cuModuleLoadData", byref(module), c_char_p(elf))
    return api.answers


def functions():
    api = Api()
    module, function, pointer, size, value = api.module(), c_void_p(), c_uint64(), c_size_t(), c_int()
    api("cuModuleGetFunction", byref(function), module, c_char_p(b"missing"))
    api("cuModuleGetGlobal_v2", byref(pointer), byref(size), module, c_char_p(b"missing"))
    api("cuModuleGetGlobal_v2", byref(pointer), byref(size), module, c_char_p(b"counter"))
    api.answers.append(size.value)
    api.answers += api.words(pointer, 4)
    shared, small = api.function("shared", module), api.function("small", module)
    api.ok("cuFuncGetAttribute", byref(value), c_int(0), small)
    api.answers.append(value.value)
    api("cuFuncGetAttribute", byref(value), c_int(99), small)
    api("cuFuncSetAttribute", shared, c_int(8), c_int(64 << 10))
    api.ok("cuFuncGetAttribute", byref(value), c_int(8), shared)
    api.answers.append(value.value)
    api("cuFuncSetAttribute", shared, c_int(8), c_int(512 << 10))
    api("cuFuncSetAttribute", shared, c_int(0), c_int(5))
    api("cuFuncSetCacheConfig", shared, c_int(1))
    for threads, dynamic in ((64, 0), (64, 20000), (33, 0)):
        api.ok("cuOccupancyMaxActiveBlocksPerMultiprocessor", byref(value), small, c_int(threads), c_size_t(dynamic))
        api.answers.append(value.value)
    api("cuOccupancyMaxActiveBlocksPerMultiprocessor", byref(value), small, c_int(0), c_size_t(0))
    api("cuModuleUnload", module)
    return api.answers


def launches():
    api = Api()
    module = api.module()
    store, small, exact, shared = [api.function(n, module) for n in ("store", "small", "exact", "shared")]
    pointer = api.buffer(400)
    parameters = (pointer, c_uint(5), c_uint(100))
    api(*api.launch(store, parameters, grid=(4, 1, 1)))
    api("cuCtxSynchronize")
    api.answers += api.words(pointer, 100)[::33]
    api(*api.launch(store, parameters, grid=(0, 1, 1)))
    api(*api.launch(store, parameters, grid=(1, 70000, 1)))
    api(*api.launch(store, parameters, block=(1025, 1, 1)))
    api(*api.launch(store, parameters, block=(32, 1, 65)))
    api(*api.launch(small, block=(65, 1, 1)))
    api(*api.launch(exact, block=(32, 1, 1)))
    api(*api.launch(exact, block=(32, 2, 1)))
    api(*api.launch(shared, block=(1, 1, 1), shared=47 << 10))
    api(*api.launch(shared, block=(1, 1, 1), shared=48 << 10))
    api(*api.launch(shared, shared=1 << 20))
    api("cuCtxSynchronize")
    return api.answers


def failure(grid, shift, count):
    def probe():
        api = Api()
        store, pointer = api.function("store"), api.buffer(400)
        spare = c_uint64()
        where = c_uint64(pointer.value + shift)
        api(*api.launch(store, (where, c_uint(0), c_uint(count)), grid=(grid, 1, 1)))
        api("cuCtxSynchronize")
        api("cuCtxSynchronize")
        api("cuMemAlloc_v2", byref(spare), c_size_t(16))
        api("cuMemcpyDtoH_v2", ctypes.create_string_buffer(4), pointer, c_size_t(4))
        api(*api.launch(store, (pointer, c_uint(0), c_uint(1))))
        api("cuStreamCreate", byref(c_void_p()), c_uint(0))
        return api.answers

    return probe


def trap():
    api = Api()
    api(*api.launch(api.function("trapping")))
    api("cuCtxSynchronize")
    api("cuCtxSynchronize")
    return api.answers


def streams():
    """Work of two streams is ordered by an event."""
    api = Api()
    module = api.module()
    store, twice = api.function("store", module), api.function("twice", module)
    first, second, event, pointer = api.stream(1), api.stream(1), c_void_p(), api.buffer(128)
    api("cuEventCreate", byref(event), c_uint(2))
    api("cuEventQuery", event)
    api(*api.launch(store, (pointer, c_uint(10), c_uint(32)), stream=first))
    api("cuEventRecord", event, first)
    api("cuStreamWaitEvent", second, event, c_uint(0))
    api(*api.launch(twice, (pointer,), stream=second))
    api("cuStreamSynchronize", second)
    api.answers += api.words(pointer, 32)[::31]
    api("cuEventQuery", event)
    api("cuStreamQuery", first)
    api("cuEventSynchronize", event)
    api("cuEventElapsedTime", byref(c_float()), event, event)
    api("cuStreamDestroy_v2", first)
    api("cuEventDestroy_v2", event)
    api("cuStreamCreate", byref(first), c_uint(9))
    api("cuStreamSynchronize", None)
    return api.answers


def default_stream():
    """The default stream waits for blocking streams and they for it."""
    api = Api()
    module = api.module()
    store, twice = api.function("store", module), api.function("twice", module)
    stream, pointer = api.stream(0), api.buffer(128)
    api(*api.launch(store, (pointer, c_uint(1), c_uint(32)), stream=stream))
    api(*api.launch(twice, (pointer,)))
    api(*api.launch(twice, (pointer,), stream=stream))
    api("cuStreamSynchronize", stream)
    api.answers += api.words(pointer, 32)[::31]
    return api.answers


def symbols():
    api = Api(context=False)
    function, status = c_void_p(), c_int()
    for name in (b"cuMemAlloc", b"cuLaunchKernel", b"cuNothing"):
        api("cuGetProcAddress_v2", c_char_p(name), byref(function), c_int(12000), c_uint64(0), byref(status))
        api.answers += [status.value, int(bool(function.value))]
    text = c_char_p()
    for code in (0, 1, 2, 3, 101, 200, 201, 209, 218, 222, 301, 400, 500, 600, 700, 701, 702, 709, 716, 719, 801, 999):
        api.ok("cuGetErrorName", c_int(code), byref(text))
        api.answers.append(text.value.decode())
        api.ok("cuGetErrorString", c_int(code), byref(text))
        api.answers.append(text.value.decode())
    api("cuGetErrorName", c_int(12345), byref(text))
    return api.answers


PROBES = {
    "uninitialised": uninitialised, "devices": devices, "contexts": contexts, "memory": memory, "images": images,
    "cubin": cubin, "functions": functions, "launches": launches, "illegal address": failure(1 << 16, 0, 1 << 21),
    "misaligned": failure(1, 2, 32), "trap": trap, "streams": streams, "default stream": default_stream,
    "symbols": symbols}


def answers(probe):
    """Of a probe, from a process of its own; a string says how that one ended instead."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            result = PROBES[probe]()
        except Exception as error:  # noqa: BLE001 - the answer of the probe
            result = repr(error)
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    status = os.waitpid(child, 0)[1]
    return json.loads(text) if text else "ended with status %d" % status


if __name__ == "__main__":
    print(json.dumps({probe: answers(probe) for probe in sys.argv[1:] or PROBES}, indent=0))
