# SPDX-License-Identifier: Apache-2.0
"""Ops of tile programs in NumPy, by the descriptions in dialect/tile/TileOps.td and docs/format-spec.md section 3.

f32 tiles are kept in float64 and hold integers below 2^24, so that every order of additions gives the same value.
"""

import numpy as np

EXACT = 2.0**24


class Inexact(Exception):
    """The program leaves the integers that f32 holds exactly: it shows nothing."""


def exact(value, size=None):
    if np.max(np.abs(value if size is None else size), initial=0) >= EXACT:
        raise Inexact
    return value.astype(np.float64)


def dot(x, coeff, acc, scale, contract):
    x = x if contract == 0 else x.T  # [C, N]
    coeff = coeff if coeff.ndim == 3 else coeff[None]
    spread = np.repeat(coeff, x.shape[1] // coeff.shape[0], axis=0)  # [N, R, C]
    scale = np.ones((1, x.shape[1])) if scale is None else scale
    scale = np.repeat(scale, x.shape[0] // scale.shape[0], axis=0)  # [C, N]
    sizes = np.abs(acc) + np.einsum("cn,nrc,cn->rn", np.abs(x), np.abs(spread), np.abs(scale))
    return exact(acc + np.einsum("cn,nrc,cn->rn", x, spread, scale), sizes)


def spread(source, shape, dims):
    for i, dim in enumerate(dims):
        source = np.repeat(source, shape[dim] // source.shape[i], axis=i)
    full = [1] * len(shape)
    for i, dim in enumerate(dims):
        full[dim] = source.shape[i]
    return np.broadcast_to(source.reshape(full), shape)


def unpack(page, bits, text):
    """Codes of a page of 64 tokens and 64 channels: planes one after the other, or one of `bits` bits."""
    code = begin = low = 0
    for plane in text.split(" + "):
        width, _, text = plane.rpartition(":[") if plane[0] != "[" else (bits, None, plane[1:])
        size = 64 * 64 * int(width) // 8
        code = code | unpack_plane(page[begin : begin + size], int(width), text) << low
        begin, low = begin + size, low + int(width)
    return code.astype(np.int32)


def unpack_plane(page, bits, text):
    inner, loops = text.split("]")
    t, c = np.meshgrid(np.arange(64), np.arange(64), indexing="ij")
    address, at = np.zeros_like(t), 1
    used = {"tok": 0, "ch": 0}
    for bit in inner.split():
        dim, i = bit.split(".")
        address += at * ((t if dim == "tok" else c) >> int(i) & 1)
        used[dim] += 1
        at *= 2
    rest = {"tok": t >> used["tok"], "ch": c >> used["ch"]}
    for loop in loops.split():
        dim, count = loop.split(":")
        address += at * (rest[dim] % int(count))
        rest[dim] = rest[dim] // int(count)
        at *= int(count)
    return (page[address * bits // 8] >> (address * bits % 8) & (2**bits - 1)).astype(np.int32)
