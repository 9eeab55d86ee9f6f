# SPDX-License-Identifier: Apache-2.0
"""The named corners that every accuracy class must pass: values on which arithmetic of few bits goes wrong first."""

from dataclasses import replace

import numpy as np

import kernels
from attend_kernel import AttendCase, Sequence, direction, ragged_sequences
from kernels import KV_HEADS, Shape
from memory import round_to

AT = 5  # the token that dominates, among those that the shortest context has quantized
PAIRS = {
    "k8t64-v8c64": False,
    "k4c32-v4t32": False,
    "k4t32-v4t32": False,
    "k4c64-v2c64": False,
    "k2c32-v2t32": True,
    "k8c32-v4t128": False,
}


def _normal(rng, shape, which, tokens):
    return rng.standard_normal((KV_HEADS, tokens, shape.head_dim[which]))


def dominant_rows(rng, shape, which, tokens, flat=1.0, size=4.0):
    """One key along what the queries have in common; `flat` is the size of the others."""
    x = _normal(rng, shape, which, tokens)
    if which == "K":
        x *= flat
        x[:, AT : AT + 1] = size * direction(shape.head_dim[which])
    return round_to(x, shape.dtype)


def flat_rows(rng, shape, which, tokens):
    """Each of the other keys has some 600th of the weight of the dominant one, less than half a step of 8 bits, and
    all of them together a tenth and more; their values lie to one side of it."""
    if which == "K":
        return dominant_rows(rng, shape, which, tokens, flat=0.02, size=6.45 / shape.dk**0.5)
    x = _normal(rng, shape, which, tokens) + 1.0
    x[:, AT] -= 1.0
    return round_to(x, shape.dtype)


def outlier_rows(rng, shape, which, tokens, channels, size):
    """Some channels of K that much larger than the others, and biased by twice their spread."""
    x = _normal(rng, shape, which, tokens)
    if which == "K":
        at = np.linspace(3, shape.head_dim[which] - 2, channels).astype(int)
        x[:, :, at] = size * (x[:, :, at] + 2.0)
    return round_to(x, shape.dtype)


def four_outliers(rng, shape, which, tokens):
    return outlier_rows(rng, shape, which, tokens, 4, 10.0)


def huge_outlier(rng, shape, which, tokens):
    return outlier_rows(rng, shape, which, tokens, 1, 100.0)


def biased_channel(rng, shape, which, tokens):
    """As the bias of a model's projection makes it: far away, and no wider than the others."""
    x = _normal(rng, shape, which, tokens)
    x[:, :, shape.head_dim[which] // 3] += 100.0 if which == "K" else 0.0
    return round_to(x, shape.dtype)


def narrow_rows(rng, shape, which, tokens):
    """Groups far from 0 and narrow: 0 lies some thousand steps outside of their codes."""
    return round_to(_normal(rng, shape, which, tokens) * 0.05 + (30.0 if which == "K" else -30.0), shape.dtype)


def middle_rows(rng, shape, which, tokens):
    """Groups with a value at either end and all others in their middle: code minus centre is next to nothing where the
    code itself is not."""
    x = _normal(rng, shape, which, tokens) * 0.05
    token = np.arange(tokens)[:, None] % 16
    channel = np.arange(shape.head_dim[which])[None] % 16
    x[:, (token == 3) & (channel % 2 == 0) | (channel == 3) & (token % 2 == 0)] += 4.0
    x[:, (token == 9) & (channel % 2 == 0) | (channel == 9) & (token % 2 == 0)] -= 4.0
    return round_to(x, shape.dtype)


def equal_rows(rng, shape, which, tokens):
    """Every key the same; values as they come."""
    x = _normal(rng, shape, which, tokens)
    return round_to(np.broadcast_to(x[:, :1], x.shape) if which == "K" else x, shape.dtype)


def constant_value_rows(rng, shape, which, tokens):
    """Scale 0 on V's side alone: its coefficients are all 0 though the probabilities are not."""
    return (kernels.constant_rows if which == "V" else kernels.random_rows)(rng, shape, which, tokens)


def _case(**options):
    return lambda shape: AttendCase(shape, ragged_sequences(shape), **options)


def _short(shape):
    """Nothing but the first group, or page, is quantized."""
    return [Sequence(shape.first_commit + 1, 2), Sequence(shape.first_commit, 1, keep=3)]


def _long(shape):
    return [Sequence(shape.first_commit + 8 * shape.page, 1, 2), Sequence(shape.first_commit + 8 * shape.page + 9, 1)]


CORNERS = {
    "dominant token in a short context": lambda shape: AttendCase(
        shape, _short(shape), rows_of=dominant_rows, q_along=1.0, values="dominant"
    ),
    "dominant token in a short flat context": lambda shape: AttendCase(
        shape, _short(shape), rows_of=flat_rows, q_size=0.05, q_along=1.0, values="dominant"
    ),
    "dominant token in a long flat context": lambda shape: AttendCase(
        shape, _long(shape), rows_of=flat_rows, q_size=0.05, q_along=1.0, values="dominant"
    ),
    "four channels ten times larger": _case(rows_of=four_outliers, values="outliers"),
    "one channel a hundred times larger": _case(rows_of=huge_outlier, values="extreme"),
    "one channel biased by a hundred": _case(rows_of=biased_channel, values="extreme"),
    "far from 0 and narrow": _case(rows_of=narrow_rows),
    "in the middle of wide groups": _case(rows_of=middle_rows),
    "equal keys": _case(rows_of=equal_rows),
    "queries of zeros": _case(q_size=0.0),
    "probabilities underflow": _case(q_size=30.0, values="extreme"),
    "constant groups": _case(rows_of=kernels.constant_rows),
    "constant groups of V": _case(rows_of=constant_value_rows),
    "subnormal scales": _case(rows_of=kernels.subnormal_rows, q_size=2.0**18),
    "finite garbage in dead places": _case(poison=0x7B),
    "window": lambda shape: _case(window=45)(replace(shape, window=True)),
    "score cap": lambda shape: _case(q_size=4.0, cap=2.0)(replace(shape, cap=True)),
    "ranges that fit each program": _case(exact_ranges=True),
}
"""By name, a function of the shape. The last three and the garbage have values as in most tests."""


def shape_of(pair, accuracy):
    """Heads as in most models; programs whose rows are of several queries and not all there."""
    return Shape(pair, 64, 128, 128, 4, "f32", 6, PAIRS[pair], accuracy=accuracy)
