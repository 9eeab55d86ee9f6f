# SPDX-License-Identifier: Apache-2.0
"""The few calls of the CUDA driver that execute a form, through ctypes. Nothing else is needed on the GPU machine."""
import ctypes
import os
import struct

import forms

ERROR_LOG, ERROR_LOG_BYTES = 5, 6  # CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
MAJOR, MINOR = 75, 76              # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
REFUSALS = (200, 209, 218, 222, 223, 300, 301)  # a module's image, binary, PTX or version does not suit


class DriverError(Exception):
    def __init__(self, call, code, text):
        super().__init__("%s: %d %s" % (call, code, text))
        self.code = code


class Driver:
    """The primary context of device 0. A kernel that faults leaves it unusable: the process has to end."""

    def __init__(self):
        self.library = ctypes.CDLL(os.environ.get("KVQ_LIBCUDA", "libcuda.so.1"))
        self.call("cuInit", ctypes.c_uint(0))
        self.device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(self.device), ctypes.c_int(0))
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
        self.call("cuCtxSetCurrent", context)
        self.buffers = {}

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self.library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
            raise DriverError(name, code, (text.value or b"?").decode())

    def information(self):
        name, number = ctypes.create_string_buffer(256), ctypes.c_int()
        self.call("cuDeviceGetName", name, ctypes.c_int(256), self.device)
        self.call("cuDriverGetVersion", ctypes.byref(number))
        capability = []
        for attribute in (MAJOR, MINOR):
            value = ctypes.c_int()
            self.call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), self.device)
            capability.append(value.value)
        return {"device": name.value.decode(), "sm": capability[0] * 10 + capability[1], "cuda": number.value,
                "driver": display_version()}

    def buffer(self, role, size):
        """Device memory that later forms use again."""
        held, address = self.buffers.get(role, (0, None))
        if held < size:
            if address:
                self.call("cuMemFree_v2", address)
            address = ctypes.c_uint64()
            size = max(size, 1 << 20)
            self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
            self.buffers[role] = (size, address)
        return self.buffers[role][1]

    def load(self, text):
        """A module from PTX; DriverError carries the compiler's log."""
        module, log = ctypes.c_void_p(), ctypes.create_string_buffer(8192)
        options = (ctypes.c_int * 2)(ERROR_LOG, ERROR_LOG_BYTES)
        values = (ctypes.c_void_p * 2)(ctypes.cast(log, ctypes.c_void_p), ctypes.c_void_p(len(log)))
        try:
            self.call("cuModuleLoadDataEx", ctypes.byref(module), ctypes.c_char_p(text.encode()), ctypes.c_uint(2),
                      options, values)
        except DriverError as error:
            raise DriverError(str(error), error.code, log.value.decode(errors="replace").strip()) from None
        return module

    def execute(self, form, text):
        """The output words of a form, executed twice: a kernel must give the same both times."""
        module, function = self.load(text), ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, ctypes.c_char_p(b"form"))
        first = self.launch(form, function)
        second = self.launch(form, function)
        self.call("cuModuleUnload", module)
        if first != second:
            raise DriverError("two launches", 0, "gave different results")
        return first

    def launch(self, form, function):
        given = forms.pack_inputs(form)
        size = 8 * form.count * len(form.outs)
        source, target = self.buffer("in", len(given)), self.buffer("out", size)
        self.call("cuMemcpyHtoD_v2", source, ctypes.c_char_p(given), ctypes.c_size_t(len(given)))
        self.call("cuMemsetD8_v2", target, ctypes.c_ubyte(0), ctypes.c_size_t(size))
        parameters = (ctypes.c_void_p * 2)(ctypes.cast(ctypes.byref(source), ctypes.c_void_p),
                                           ctypes.cast(ctypes.byref(target), ctypes.c_void_p))
        one = ctypes.c_uint(1)
        self.call("cuLaunchKernel", function, ctypes.c_uint(form.count // form.block), one, one,
                  ctypes.c_uint(form.block), one, one, ctypes.c_uint(0), ctypes.c_void_p(None), parameters,
                  ctypes.c_void_p(None))
        self.call("cuCtxSynchronize")
        answer = ctypes.create_string_buffer(size)
        self.call("cuMemcpyDtoH_v2", answer, target, ctypes.c_size_t(size))
        return list(struct.unpack("<%dQ" % (size // 8), answer.raw))


def display_version():
    """The driver's own version, where it can be read."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        text = ctypes.create_string_buffer(96)
        if library.nvmlInit_v2() == 0 and library.nvmlSystemGetDriverVersion(text, ctypes.c_uint(96)) == 0:
            return text.value.decode()
    except (OSError, AttributeError):
        pass
    try:
        with open("/proc/driver/nvidia/version") as file:
            return file.readline().strip()
    except OSError:
        return "unknown"
