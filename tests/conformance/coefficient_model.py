# SPDX-License-Identifier: Apache-2.0
"""accuracy_c1 in f64: attention over packed keys with coefficients rounded to integers, and the same with one mistake.

It shows that the arithmetic which the specification describes keeps the budgets of tests/tolerances.py, and that a
mistake in it does not. No kernel is compared with it.
"""

from dataclasses import dataclass

import numpy as np

from kvq_oracle import attention, text

Q_BITS = {
    "full": lambda bits: 32, "exact": lambda bits: 16, "normal": lambda bits: 8 if bits <= 4 else 16,
    "fast": lambda bits: 8,
}  # fmt: skip
P_BITS = {"full": 32, "exact": 16, "normal": 16, "fast": 8}

MISTAKES = (
    "correction from unrounded coefficients of q",
    "correction from unrounded coefficients of p",
    "centre of K left out",
    "centre of V left out",
    "low limb of q dropped",
    "low limb of p dropped",
)


def rounded(values, bits, signed, drop_low_limb=False):
    """Integers times one factor along the last axis, nearest to values. Where all are 0, so is the factor."""
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    most = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    factor = largest / most
    whole = np.rint(np.divide(values, factor, out=np.zeros_like(values), where=factor > 0))
    if drop_low_limb and bits == 16:
        whole = 256 * np.floor(whole / 256)
    return whole, factor


@dataclass(frozen=True)
class Integers:
    """An arithmetic for prepare_attend's "partials by". p is rounded per tile: the packed keys of one page."""

    accuracy: str
    mistake: str = ""

    def __call__(self, case, q, keys):
        scores = self._scores(case, q, keys)
        if case.shape.cap:
            scores = case.cap * np.tanh(scores / case.cap)
        if not len(scores):
            return np.zeros(case.shape.dv), -np.inf
        top = scores.max()
        p = np.exp(scores - top)
        lse = top + np.log(p.sum())
        return self._values(case, p, keys) / p.sum(), lse

    def _dropped(self, which):
        return self.mistake == f"low limb of {which} dropped"

    def _sum(self, codes, side, coefficients, bits, which):
        """sum over codes minus the centre times the coefficients, over the last axis of codes; one factor."""
        kv = {"q": "K", "p": "V"}[which]
        centre = ((1 << side.bits) - 1) / 2
        whole, factor = rounded(coefficients, bits, which == "q", self._dropped(which))
        total = factor[..., 0] * (codes * whole).sum(-1)
        if self.mistake == f"centre of {kv} left out":
            return total
        if self.mistake == f"correction from unrounded coefficients of {which}":
            return total - centre * (coefficients + 0 * codes).sum(-1)
        return total - centre * factor[..., 0] * (whole + 0 * codes).sum(-1)

    def _scores(self, case, q, keys):
        side = text.parse_pair(case.shape.pair).k
        inside, codes = keys.packed["K"], keys.quantized["K"]
        scores = keys.dense["K"] @ q
        if inside.any():
            scale, minimum, code = (getattr(codes, name).astype(np.float64) for name in "smq")
            bits = Q_BITS[self.accuracy](side.bits)
            middle = minimum + scale * ((1 << side.bits) - 1) / 2
            packed = middle @ q
            if side.per_channel:
                packed += self._sum(code, side, q * scale, bits, "q")
            else:
                groups = (-1, len(q) // side.group, side.group)
                parts = self._sum(code.reshape(groups), side, q.reshape(groups[1:]), bits, "q")
                packed += (parts * scale[:, :: side.group]).sum(-1)
            scores[inside] = packed
        return case.scale * scores

    def _values(self, case, p, keys):
        side = text.parse_pair(case.shape.pair).v
        inside = keys.packed["V"]
        total = p[~inside] @ keys.dense["V"][~inside]
        pages, quantized = keys.tokens[inside] // case.shape.page, keys.quantized["V"]
        for page in np.unique(pages):
            here = pages == page
            scale, minimum, code = (getattr(quantized, name)[here].astype(np.float64) for name in "smq")
            middle = minimum + scale * ((1 << side.bits) - 1) / 2
            weight = p[inside][here]
            total = total + weight @ middle + self._page(code, scale, weight, keys.tokens[inside][here], side)
        return total

    def _page(self, code, scale, p, tokens, side):
        """[Dv]: p times (code - centre) times scale, over one page's tokens."""
        bits = P_BITS[self.accuracy]
        if not side.per_channel:
            return self._sum(code.T, side, p * scale.T, bits, "p")
        groups = tokens // side.group
        parts = [self._sum(code[groups == g].T, side, p[groups == g], bits, "p") * scale[groups == g][0]
                 for g in np.unique(groups)]  # fmt: skip
        return np.sum(parts, axis=0)
