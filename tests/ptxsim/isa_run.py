# SPDX-License-Identifier: Apache-2.0
"""What the tests of isa/ share: a body of instructions is run on arrays, and codes are compared."""

import numpy as np

import ptx_run
from isa import kernels
from isa.formats import decode

KINDS = {1: "b8", 2: "b16", 4: "b32", 8: "b64"}
DTYPES = {"b8": "uint8", "b16": "uint16", "b32": "uint32", "b64": "uint64"}


def run_lanes(body, arrays, outputs, block=32, **options):
    """Runs the body in one thread for each row of the arrays; returns the outputs, [rows][count].

    The arrays are of unsigned codes, [rows] or [rows][count]; outputs is a list as lane_kernel takes it.
    """
    text = {name: options.pop(name) for name in ("registers", "target", "shared") if name in options}
    if "shared" in text:
        text["shared"] = f".shared .align 16 .b8 buffer[{text['shared']}];"
    arrays = [np.asarray(a).reshape(len(a), -1) for a in arrays]
    count = len(arrays[0])
    # Every block is whole: the last rows are repeated, and left out of what comes back.
    padded = -(-count // block) * block
    arrays = [np.concatenate([a, np.repeat(a[-1:], padded - count, axis=0)]) for a in arrays]
    inputs = [(KINDS[a.dtype.itemsize], a.shape[1]) for a in arrays]
    ptx = kernels.lane_kernel(body, inputs, outputs, **text)
    arguments = [ptx_run.In(a) for a in arrays]
    arguments += [ptx_run.Out((padded, row[1]), DTYPES[row[0]]) for row in outputs]
    found, _ = ptx_run.run(ptx, padded // block, block, *arguments, **options)
    return [f[:count] for f in found]


def assert_codes(found, expected, inputs, what):
    """Equal codes, all of them; the first difference is named with its inputs."""
    found, expected = np.asarray(found).ravel(), np.asarray(expected).ravel()
    wrong = np.flatnonzero(found != expected)
    if len(wrong):
        i = wrong[0]
        operands = ", ".join(hex(int(np.asarray(x).ravel()[i])) for x in inputs)
        raise AssertionError(
            f"{what}({operands}): {int(found[i]):#x}, by the manual {int(expected[i]):#x}; {len(wrong)} of {len(found)}"
        )


def assert_same_numbers(form, found, expected, zero_sign=True):
    """Codes of a format are equal; NaN equals NaN whatever its payload, and zeros their signs only if asked to."""
    for place, (f, e) in enumerate(zip(np.asarray(found).ravel(), np.asarray(expected).ravel(), strict=True)):
        if int(f) == int(e):
            continue
        x, y = decode(form, int(f)), decode(form, int(e))
        same_nan = x.kind == y.kind == "nan"
        same_zero = not zero_sign and x.kind == y.kind == "finite" and x.value == y.value == 0
        assert same_nan or same_zero, f"element {place}: {int(f):#x} ({x}), by the manual {int(e):#x} ({y})"


def split(form, packed):
    """The codes of packed registers, low half first, as one row each."""
    packed = np.asarray(packed).ravel()
    bits = form.bits
    return np.stack([packed & ((1 << bits) - 1), packed >> bits & ((1 << bits) - 1)], axis=1)


def words(rng, count, bits=32):
    """Random codes with the edges that bit operations care for among them."""
    edges = [0, 1, (1 << bits) - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1, 0x80 | 0x7F << 8, 0xAA, 0x55]
    values = rng.integers(0, 1 << bits, count, dtype=np.uint64, endpoint=False)
    values[: len(edges)] = [e & ((1 << bits) - 1) for e in edges][:count]
    rng.shuffle(values)
    return values.astype(DTYPES[KINDS[bits // 8]])
