# SPDX-License-Identifier: Apache-2.0
"""How attention splits the keys of a sequence over programs (runtime/format/split_policy.h), and the requests that
policies are chosen for (runtime/cache/split_choice.h)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from kvq.errors import InvalidArgument
from kvq.tune.kernel_requests import ACCELERATORS, Shape, decode_rows, request
from kvq.tune.problem import knobs
from kvq.tune.request_fields import parse

SPLIT = "split:"
MOST_SPLITS, MOST_PROGRAMS = 512, 1 << 16  # as in runtime/format/split_policy.cpp
_ROWS = 8  # place of the rows among the fields of a request, in which a split request has the KV heads


@dataclass(frozen=True)
class SplitPolicy:
    """The default one of hosts."""

    tokens: int = 1024
    programs: int = 128
    least: int = 16
    most: int = 64

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in asdict(self).items())

    def most_splits(self, heads: int) -> int:
        """That a sequence has, but for one of the tail."""
        return min(max(self.programs // heads, self.least), self.most)

    def length(self, longest: int, heads: int, page: int) -> int:
        """Tokens of a split where so many are to be split."""
        length = max(1, self.tokens // page) * page
        while longest > self.most_splits(heads) * length:
            length *= 2
        return length


ACCELERATOR = SplitPolicy(1024, 256, 4, 128)  # the default one there (runtime/cache/config.cpp)


def parse_policy(text: str) -> SplitPolicy:
    values = knobs(text)
    names = [field.name for field in fields(SplitPolicy)]
    if list(values) != names or not all(value.isdecimal() for value in values.values()):
        raise InvalidArgument(f"the split policy '{text}' is not legal: write it as in {SplitPolicy()}")
    return SplitPolicy(*map(int, values.values()))


def exactly(tokens: int) -> SplitPolicy:
    """Splits of so many tokens, as long as that makes no more than MOST_SPLITS."""
    return SplitPolicy(tokens, MOST_SPLITS, MOST_SPLITS, MOST_SPLITS)


def at_most(tokens: int, splits: int, heads: int, like: SplitPolicy) -> SplitPolicy:
    """Splits of at least so many tokens, and at most so many of them for so many heads: other numbers of heads keep to
    the bounds of another policy where these allow it."""
    programs = min(splits * heads, MOST_PROGRAMS)
    return SplitPolicy(tokens, programs, min(like.least, splits), max(like.most, splits))


def split_request(
    format: str, shape: Shape, target: str, accuracy: str | None = None, *, page: int | None = None
) -> str:  # fmt: skip
    """Of caches of that kind; kvq's own errors where there are none."""
    parts = request("attend", format, shape, target, accuracy, page=page).split(":")
    parts[0], parts[_ROWS] = SPLIT[:-1], f"heads{shape.kv_heads}"
    return ":".join(parts)


def attend_request(text: str) -> tuple[str, int]:
    """The request of attention of one query of such a cache, and its KV heads."""
    parts = text.split(":")
    heads = parts[_ROWS].removeprefix("heads") if len(parts) > _ROWS else ""
    if parts[0] != SPLIT[:-1] or not heads.isdecimal() or int(heads) < 1:
        raise InvalidArgument(
            f"the request '{text}' is not legal: write it as in "
            "split:k4c32-v4t32:vnni:p64:dk128:dv128:g4:f32:heads8:lag0:win0:cap0:exact"
        )
    parts[0], parts[_ROWS] = "attend", "rows1"
    kind = parse(":".join(parts))
    target = ACCELERATORS if kind.profile == "mma" else ""
    parts[_ROWS] = f"rows{decode_rows(kind.ratio, target, max(kind.dk, kind.dv), kind.dtype, kind.accuracy)}"
    return ":".join(parts), int(heads)
