# SPDX-License-Identifier: Apache-2.0
"""The plain C++ of references.cpp for NumPy arrays."""

import ctypes

import numpy as np

from sim_env import BUILD

LIBRARY = BUILD / "tests/ptxsim/libptx_kernel_references.so"


def _call(name, *arguments):
    function = getattr(ctypes.CDLL(str(LIBRARY)), name)
    function.restype = None
    function(*[ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray)
               else ctypes.c_double(a) if isinstance(a, float) else ctypes.c_int(a) for a in arguments])


def _array(values, dtype):
    return np.ascontiguousarray(values, dtype)


def gemm(a, b):
    """a [m][k] times b [k][n] in f64, and the sums of absolute products."""
    a, b = _array(a, np.float64), _array(b, np.float64)
    c, absolute = np.empty((2, a.shape[0], b.shape[1]))
    _call("reference_gemm", a, b, c, absolute, a.shape[0], b.shape[1], a.shape[1])
    return c, absolute


def reduce(values):
    """Sum, sum of absolute values, code of the maximum, number of negatives."""
    values = _array(values, np.float32)
    total, absolute, maximum, negatives = np.empty(1), np.empty(1), np.empty(1, np.uint32), np.empty(1, np.uint32)
    _call("reference_reduce", values, values.size, total, absolute, maximum, negatives)
    return total[0], absolute[0], maximum[0], negatives[0]


def scan(values):
    values = _array(values, np.uint32)
    sums = np.empty_like(values)
    _call("reference_scan", values, sums, values.size)
    return sums


def histogram(values):
    values = _array(values, np.uint8)
    counters = np.empty(256, np.uint32)
    _call("reference_histogram", values, values.size, counters)
    return counters


def transpose(values):
    values = _array(values, np.uint32)
    out = np.empty(values.shape[::-1], np.uint32)
    _call("reference_transpose", values, out, *values.shape)
    return out


def quantize(values, bits):
    """Words [rows][groups][2 * bits] and (scale, minimum) [rows][groups][2] in f16."""
    values = _array(values, np.float32)
    groups = -(-values.shape[1] // 64)
    words = np.empty((values.shape[0], groups, 2 * bits), np.uint32)
    parameters = np.empty((values.shape[0], groups, 2))
    _call("reference_quantize", values, words, parameters, *values.shape, bits)
    return words, parameters.astype(np.float16)


def decode(q, k_words, k_parameters, v_words, v_parameters, scale_log2):
    """Attention of one head over the given tokens: o, log2 of the sum of the weights, absolute sum of a score."""
    arrays = [_array(q, np.float64), _array(k_words, np.uint32), _array(k_parameters, np.float64),
              _array(v_words, np.uint32), _array(v_parameters, np.float64)]
    o, log_sum, absolute = np.empty(64), np.empty(1), np.empty(1)
    _call("reference_decode", *arrays, len(k_words), float(scale_log2), o, log_sum, absolute)
    return o, log_sum[0], absolute[0]


def combine(parts, statistics):
    """parts [heads][splits][64], statistics [heads][splits][2]: o [heads][64], and the same of absolute values."""
    parts, statistics = _array(parts, np.float32), _array(statistics, np.float32)
    o, absolute = np.empty((2, parts.shape[0], 64))
    _call("reference_combine", parts, statistics, o, absolute, *parts.shape[:2])
    return o, absolute
