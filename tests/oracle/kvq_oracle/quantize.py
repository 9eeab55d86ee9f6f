# SPDX-License-Identifier: Apache-2.0
"""Quantizing and dequantizing (spec section 2) with every f32 operation rounded on its own, and bf16 as uint16."""

from dataclasses import dataclass

import numpy as np

F32 = np.float32
MAX_F16 = 65504.0


@dataclass(frozen=True)
class Quantized:
    """Codes with the scale and minimum of each element's group, all of one shape [..., tokens, channels]."""

    q: np.ndarray  # uint8
    s: np.ndarray  # float16
    m: np.ndarray  # float16

    def tokens(self, begin, end):
        return Quantized(*(part[..., begin:end, :] for part in (self.q, self.s, self.m)))

    @staticmethod
    def concatenate(parts):
        return Quantized(*(np.concatenate([getattr(p, name) for p in parts], axis=-2) for name in "qsm"))


def bad_values(x):
    """quantize_c1: NaN, infinite or beyond the largest f16."""
    return ~(np.abs(np.asarray(x, F32)) <= F32(MAX_F16))


def quantize_groups(x, bits):
    """quantize_c2 on the last axis. Returns codes, and scale and minimum without that axis."""
    x = np.ascontiguousarray(x, F32)
    if bad_values(x).any():
        raise ValueError("A bad value reached quantize_groups; refuse it when its token is appended.")
    levels = F32((1 << bits) - 1)
    low = np.min(x, axis=-1) + F32(0)
    high = np.max(x, axis=-1) + F32(0)
    spread = high - low
    step = spread / levels
    scale = step.astype(np.float16)
    minimum = low.astype(np.float16)
    scale32 = scale.astype(F32)
    inverse = np.where(scale32 == 0, F32(0), F32(1) / np.where(scale32 == 0, F32(1), scale32))
    shifted = x - minimum.astype(F32)[..., None]
    scaled = shifted * inverse[..., None]
    codes = np.clip(np.rint(scaled), F32(0), levels).astype(np.uint8)
    return codes, scale, minimum


def quantize(x, side):
    """Quantizes x [..., tokens, channels] as one side of a pair; per channel, tokens must be whole groups."""
    x = np.ascontiguousarray(x, F32)
    axis = -2 if side.per_channel else -1
    if x.shape[axis] % side.group:
        raise ValueError(f"{x.shape[axis]} elements along the grouped axis are not whole groups of {side.group}.")
    moved = np.moveaxis(x, axis, -1)
    grouped = moved.reshape(*moved.shape[:-1], -1, side.group)
    codes, scale, minimum = quantize_groups(grouped, side.bits)

    def back(part):
        full = np.broadcast_to(part, grouped.shape).reshape(moved.shape)
        return np.ascontiguousarray(np.moveaxis(full, -1, axis))

    return Quantized(back(codes), back(scale[..., None]), back(minimum[..., None]))


def dequantize(quantized):
    """dequantize_c1 in f32: two roundings."""
    product = quantized.q.astype(F32) * quantized.s.astype(F32)
    return product + quantized.m.astype(F32)


def dequantize64(quantized):
    """The real number that codes, scale and minimum stand for: exact in f64."""
    return quantized.q.astype(np.float64) * quantized.s.astype(np.float64) + quantized.m.astype(np.float64)


def to_bf16(x):
    """f32 to bf16 as uint16, nearest even; a NaN stays a (quiet) NaN."""
    bits = np.ascontiguousarray(x, F32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(is_nan, quiet, rounded).astype(np.uint16)


def from_bf16(bits):
    return (np.ascontiguousarray(bits, np.uint16).astype(np.uint32) << np.uint32(16)).view(F32)


def round_to(x, dtype):
    """The f32 value that a tensor of that dtype keeps of x; beyond the largest f16 that is infinite in f16."""
    x = np.ascontiguousarray(x, F32)
    if dtype == "bf16":
        return from_bf16(to_bf16(x))
    if dtype == "f16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(F32)
    return x
