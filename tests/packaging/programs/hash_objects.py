# SPDX-License-Identifier: Apache-2.0
"""Compiles kernels with a compiler plug-in and prints a hash of every object.

    hash_objects.py PLUGIN < lines of "REQUEST LEVEL"
"""

import ctypes
import hashlib
import sys

PLUGIN_VERSION = 3  # the one whose structures are here


class Input(ctypes.Structure):
    """kvq_compile_input of compiler_plugin.h."""

    _fields_ = [(n, ctypes.c_char_p) for n in ("request", "source", "level", "score", "schedule", "bundle_dir")]


class Output(ctypes.Structure):
    """kvq_compile_output of compiler_plugin.h."""

    _fields_ = [
        ("object", ctypes.c_void_p),
        ("object_bytes", ctypes.c_size_t),
        ("entry", ctypes.c_char_p),
        ("signature", ctypes.c_char_p),
        ("message", ctypes.c_char_p),
        ("compile_ms", ctypes.c_double),
    ]


plugin = ctypes.CDLL(sys.argv[1])
if plugin.kvq_compiler_plugin_version() != PLUGIN_VERSION:
    sys.exit("kvq_compile_input has changed with the plug-in's version: bring Input and PLUGIN_VERSION up to date")
plugin.kvq_compiler_compile.restype = ctypes.POINTER(Output)
plugin.kvq_compiler_compile.argtypes = [ctypes.POINTER(Input)]
plugin.kvq_compiler_free.argtypes = [ctypes.POINTER(Output)]
for line in sys.stdin:
    request, level = line.split()
    output = plugin.kvq_compiler_compile(Input(request=request.encode(), level=level.encode()))
    if not output.contents.object:
        sys.exit(f"{request}: {output.contents.message.decode()}")
    code = ctypes.string_at(output.contents.object, output.contents.object_bytes)
    print(request, level, len(code), hashlib.sha256(code).hexdigest())
    plugin.kvq_compiler_free(output)
