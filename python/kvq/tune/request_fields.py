# SPDX-License-Identifier: Apache-2.0
"""The fields of a kernel request (runtime/format/problem.h), and what of a cache follows from them: which tokens are
packed, and where the others lie. A request says nothing of the cache's window of full precision: it is 128 here, as in
the presets, or as long as K's group where that is longer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kvq import lowlevel
from kvq.errors import InvalidArgument
from kvq.tune.kernel_requests import OPERATIONS

WINDOW = 128  # tokens in full precision
CHUNK = 32  # tokens of a step that are worked off at once (format-spec tail_c1)
_TEXT = re.compile(
    r"(?P<operation>\w+):(?P<pair>[^:]+):(?P<profile>vnni|mma):p(?P<page>\d+):dk(?P<dk>\d+):dv(?P<dv>\d+)"
    r":g(?P<ratio>\d+):(?P<dtype>f32|bf16|f16):rows(?P<rows>\d+):lag(?P<lag>[01]):win(?P<window>[01])"
    r":cap(?P<cap>[01]):(?P<accuracy>\w+)"
)
_SIDE = re.compile(r"k(\d)([ct])(\d+)-v(\d)([ct])(\d+)")


@dataclass(frozen=True)
class Fields:
    text: str
    operation: str
    pair: str
    profile: str
    page: int
    dk: int
    dv: int
    ratio: int
    dtype: str
    rows: int
    lag: bool
    window: bool
    cap: bool
    accuracy: str

    @property
    def bits(self) -> int:
        """Of the narrower of K and V."""
        k, _, _, v, _, _ = self._sides
        return min(int(k), int(v))

    @property
    def commit_group(self) -> int:
        """format-spec commit_c1"""
        _, k_axis, k_group, _, v_axis, v_group = self._sides
        groups = [int(group) for axis, group in ((k_axis, k_group), (v_axis, v_group)) if axis == "c"]
        return max(32, *groups, 0)

    @property
    def full_precision(self) -> int:
        _, axis, group, *_ = self._sides
        return max(WINDOW, int(group)) if axis == "c" else WINDOW

    @property
    def ring(self) -> int:
        """Tokens of a tail's ring (format-spec tail_c1)."""
        tokens = self.full_precision + CHUNK + (0 if self.lag else self.commit_group)
        return -(-tokens // 16) * 16

    @property
    def page_bytes(self) -> int:
        return lowlevel.format_page_bytes(self.pair, self.dk, self.dv, self.page)

    def frontiers(self, tokens: int) -> tuple[int, int]:
        """Packed tokens of K and of V of a sequence of so many."""
        policy = f"w{self.full_precision},{'sliding' if self.lag else 'block'}"
        return lowlevel.format_frontier(f"{self.pair}/{policy}", tokens)

    @property
    def _sides(self) -> tuple[str, ...]:
        found = _SIDE.fullmatch(self.pair)
        assert found is not None  # parse has looked
        return found.groups()


def parse(text: str) -> Fields:
    found = _TEXT.fullmatch(text)
    if found is None or found["operation"] not in OPERATIONS or not _SIDE.fullmatch(found["pair"]):
        raise InvalidArgument(
            f"the request '{text}' is not legal: write it as in "
            "attend:k4c32-v4t32:vnni:p64:dk128:dv128:g4:f32:rows4:lag0:win0:cap0:exact"
        )
    numbers = {name: int(found[name]) for name in ("page", "dk", "dv", "ratio", "rows")}
    flags = {name: found[name] == "1" for name in ("lag", "window", "cap")}
    words = {name: found[name] for name in ("operation", "pair", "profile", "dtype", "accuracy")}
    lowlevel.check_accuracy(words["accuracy"])
    return Fields(text, **words, **numbers, **flags)
