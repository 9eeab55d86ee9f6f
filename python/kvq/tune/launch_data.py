# SPDX-License-Identifier: Apache-2.0
"""What launches run on: data of check cases, which differ in every page and token, and of workloads, in which one page
stands for all, as no kernel's time depends on what it holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kvq import lowlevel
from kvq.tune.attend_launch import AttendData, Plan, block_number, page_of, pool_of, strides
from kvq.tune.check_data import keys_and_values, queries
from kvq.tune.launch_memory import NOBODY, Launch, LaunchMemory, Output, element_bytes, encode
from kvq.tune.problem import CheckCase
from kvq.tune.request_fields import Fields

if TYPE_CHECKING:
    import numpy as np

PLAIN = CheckCase("plain", seed=0)
SAMPLE_ROWS = 64  # rows of noise that a tail is made of


def sibling(fields: Fields, operation: str) -> str:
    """Another kernel of the same cache."""
    assert operation != "attend"
    return (
        f"{operation}:{fields.pair}:{fields.profile}:p{fields.page}:dk{fields.dk}:dv{fields.dv}:g1:{fields.dtype}:rows1"
        ":lag0:win0:cap0:exact"
    )


def pieces(fields: Fields, begin: int, end: int) -> list[tuple[int, int]]:
    """(position, count) of the tokens [begin, end), cut where pages end."""
    found = []
    while begin < end:
        stop = min(end, (begin // fields.page + 1) * fields.page)
        found.append((begin, stop - begin))
        begin = stop
    return found


def quantize_launch(
    fields: Fields, side: str, pool: np.ndarray, items: list[tuple[int, ...]], tail: np.ndarray, memory: LaunchMemory
) -> Launch:
    """Items are (block, head, slot, position, count, 0); the tail's rings have all of its rows."""
    import numpy as np

    pages = memory.changed(pool, "uint8")
    heads, ring = tail.shape[1:3]
    arguments = (
        memory.put(np.array(items, "<i4")), pages.buffer, *strides(pool), memory.put(tail), ring, ring, heads,
    )  # fmt: skip
    return Launch(arguments, (len(items), 1, 1), {f"pages of {side}": pages})


def packed(
    fields: Fields, values: dict[str, np.ndarray], ends: dict[str, int], reference: lowlevel.Context
) -> np.ndarray:
    """Pages of one sequence as the reference packs them, [pages, heads, bytes]. values: {"k": [heads, tokens, dk],
    "v": ..}"""
    import numpy as np

    heads = values["k"].shape[0]
    count = -(-max(ends.values()) // fields.page)
    pool = pool_of(count, heads, fields.page_bytes)
    for side, end in ends.items():
        items = [(block_number(pool, position // fields.page), head, 0, position, many, 0)
                 for position, many in pieces(fields, 0, end) for head in range(heads)]  # fmt: skip
        if items:
            tail = encode(np.pad(values[side], ((0, 0), (0, -values[side].shape[1] % 16), (0, 0))), fields.dtype)[None]
            launch = quantize_launch(fields, side, pool, items, tail, LaunchMemory(reference))
            kernel = lowlevel.open_kernel(reference, sibling(fields, f"quantize_{side}"))
            (pool,) = launch.run(kernel).values()
    return np.array([page_of(pool, block) for block in range(count)])


def check_data(plan: Plan, case: CheckCase, reference: lowlevel.Context) -> AttendData:
    """Every sequence has values of its own; blocks lie in no order."""
    import numpy as np

    fields, heads = plan.fields, plan.heads
    blocks = sum(map(plan.pages, plan.parts))
    places = np.random.default_rng(case.seed).permutation(blocks)
    pool, free, q = pool_of(blocks, heads, fields.page_bytes), iter(places), []
    tails = [np.full((len(plan.parts), heads, fields.ring, size * element_bytes(fields.dtype)), NOBODY, np.uint8)
             for size in (fields.dk, fields.dv)]  # fmt: skip
    for slot, part in enumerate(plan.parts):
        own = replace(case, seed=case.seed + 100 * slot)
        tokens, last = part.tokens + part.queries, part.tokens + part.queries - 1
        k, v = keys_and_values(own, heads, tokens, fields.dk, fields.dv)
        ends = dict(zip("kv", fields.frontiers(last), strict=True))
        for page in packed(fields, {"k": k, "v": v}, ends, reference)[plan.first_page(part) :]:
            page_of(pool, next(free))[:] = page
        for tail, values in zip(tails, (k, v), strict=True):
            for token in range(max(0, tokens - fields.ring), tokens):
                row = encode(values[:, token], fields.dtype).view(np.uint8)
                tail[slot, :, token % fields.ring] = row.reshape(heads, -1)
        seen = k[:, plan.lowest(last) : part.tokens + 1]  # by every query
        q += [queries(replace(own, seed=own.seed + 7 * index), seen, fields.ratio) for index in range(part.queries)]
    return AttendData(encode(np.stack(q), fields.dtype), pool, places.tolist(), *tails)


def workload_data(plan: Plan, reference: lowlevel.Context) -> AttendData:
    import numpy as np

    fields, heads = plan.fields, plan.heads
    blocks = sum(map(plan.pages, plan.parts))
    k, v = keys_and_values(PLAIN, 1, fields.page, fields.dk, fields.dv)
    pool = pool_of(blocks, heads, fields.page_bytes)
    pool[:] = packed(fields, {"k": k, "v": v}, {"k": fields.page, "v": fields.page}, reference)[0, 0]
    q = np.stack([queries(replace(PLAIN, seed=index), np.repeat(k, heads, 0), fields.ratio)
                  for index in range(plan.queries)])  # fmt: skip
    tails = [noise((len(plan.parts), heads, fields.ring, size), fields.dtype) for size in (fields.dk, fields.dv)]
    return AttendData(encode(q, fields.dtype), pool, range(blocks), *tails)


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Rows of normal values, encoded; the same SAMPLE_ROWS again and again."""
    import numpy as np

    rows = int(np.prod(shape[:-1]))
    sample = np.random.default_rng(seed).standard_normal((min(rows, SAMPLE_ROWS), shape[-1]), dtype=np.float32)
    return np.resize(encode(sample, dtype), shape)
