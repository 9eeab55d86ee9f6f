# SPDX-License-Identifier: Apache-2.0
"""A workload of a built-in attend kernel: one query over tokens that are all packed but its own, by the arguments of
kernel_abi.h as a device takes them: one parameter of 64 bits for each, then the number of programs.

Pages hold random bits, of which no scale and no minimum is infinite: what a kernel costs does not depend on them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from kvq import lowlevel
from kvq.errors import InvalidArgument
from kvq.inspect import machine_code
from kvq.inspect.arguments import Buffers, number, real
from kvq.inspect.requests import Compiled
from kvq.inspect.workload import Workload

_REQUEST = re.compile(
    r"^attend:(?P<format>[^:]+):(?P<profile>[^:]+):p(?P<page>\d+):dk(?P<dk>\d+):dv(?P<dv>\d+):g(?P<ratio>\d+)"
    r":(?P<dtype>f16|bf16|f32):rows(?P<rows>\d+):"
)
_BYTES = {"f16": 2, "bf16": 2, "f32": 4}
TAIL = 64  # tokens of one ring


@dataclass(frozen=True)
class AttendSize:
    tokens: int
    heads: int = 2  # of K and V
    splits: int = 4


def parse_size(text: str) -> AttendSize:
    """`tokens=4096,heads=2,splits=4`"""
    given = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in AttendSize.__dataclass_fields__ or not value.isdecimal() or int(value) < 1 or name in given:
            raise InvalidArgument(f"the workload '{text}': '{part}' is none of tokens=N, heads=N, splits=N")
        given[name] = int(value)
    if "tokens" not in given:
        raise InvalidArgument(f"the workload '{text}': tokens=N is missing")
    return AttendSize(**given)


def workloads(
    request: str, compiled: Compiled, size: AttendSize, folder: Path
) -> tuple[Workload, Workload | None]:
    """Of all tokens and of half of them."""
    half = folder / "half"
    half.mkdir()
    return (
        attend_workload(request, compiled.ptx, size, folder, compiled.tile_tokens),
        half_workload(request, compiled.ptx, size, half, compiled.tile_tokens),
    )


def half_workload(
    request: str, ptx: str, size: AttendSize, folder: Path, tile_tokens: int | None = None
) -> Workload | None:
    """The same launch over half of the pages: what is more in the whole one is the steady state. None where a split
    would have no page."""
    page = int(_parsed(request)["page"])
    tokens = size.tokens // (2 * page) * page
    if tokens < page * min(size.splits, -(-size.tokens // page)):
        return None
    return attend_workload(request, ptx, replace(size, tokens=tokens), folder, tile_tokens)


def attend_workload(
    request: str, ptx: str, size: AttendSize, folder: Path, tile_tokens: int | None = None
) -> Workload:
    """Of the request's kernel, whose PTX says what its blocks are. Writes its buffers into the folder. `tile_tokens`:
    of its schedule, which is what a warp visits in one turn of the key loop; None: not known."""
    found = _parsed(request)
    page, dk, dv, ratio, rows = (int(found[name]) for name in ("page", "dk", "dv", "ratio", "rows"))
    if ratio > rows:
        raise InvalidArgument(f"'{request}' has fewer rows than query heads of a KV head: {rows} of {ratio}")
    pages = -(-size.tokens // page)
    splits = min(size.splits, pages)
    buffers = Buffers(folder)
    element = _BYTES[found["dtype"]]
    page_bytes = lowlevel.format_page_bytes(found["format"], dk, dv, page)
    q_heads, programs = ratio * size.heads, size.heads * splits
    arguments = [
        buffers.read("items", _items(size, splits, page, ratio)),
        buffers.noise("q", q_heads * dk * element), buffers.read("q_offsets", struct.pack("<q", 0)), number(dk),
        buffers.noise("pages", pages * size.heads * page_bytes),
        number(size.heads * page_bytes), number(page_bytes),
        buffers.read("table", struct.pack(f"<{pages}i", *range(pages))),
        buffers.noise("tail_k", size.heads * TAIL * dk * element),
        buffers.noise("tail_v", size.heads * TAIL * dv * element),
        number(TAIL), number(TAIL), number(size.heads),
        *(buffers.read(name, struct.pack("<i", size.tokens)) for name in ("k_frontier", "v_frontier", "positions")),
        real(dk**-0.5), number(2**30), real(1.0),
        f"out:float32:{splits * q_heads * dv}:o.npy", f"out:float32:{splits * q_heads}:lse.npy", number(1),
        number(programs),
    ]  # fmt: skip
    grid, block = machine_code.of_programs(ptx, programs)
    return Workload(
        grid=grid, block=block,
        elements=(size.tokens + 1) * size.heads * (dk + dv), arguments=tuple(arguments),
        elements_per_iteration=tile_tokens and tile_tokens * (dk + dv),
        about=f"one query, {size.tokens} packed tokens, {size.heads} KV heads, {splits} splits",
    )  # fmt: skip


def _parsed(request: str) -> re.Match[str]:
    found = _REQUEST.match(request)
    if not found:
        raise InvalidArgument(f"'{request}' is no request for attend, of which alone a size is a workload: give a file")
    return found


def _items(size: AttendSize, splits: int, page: int, ratio: int) -> bytes:
    """kvq_attend_item of every program: pages are dealt out evenly, and the last split has the query's own token."""
    pages, items = -(-size.tokens // page), b""
    for split in range(splits):
        begin, end = (min(size.tokens, page * (pages * i // splits)) for i in (split, split + 1))
        raw_end = size.tokens + (split == splits - 1)
        for head in range(size.heads):
            following = (head + 1) % size.heads
            items += struct.pack(
                "<16i", head, 0, 0, ratio, begin, end, size.tokens, raw_end, size.tokens, 0, 0, split, 0,
                begin // page, following, 0,
            )  # fmt: skip
    return items
