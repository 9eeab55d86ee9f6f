# SPDX-License-Identifier: Apache-2.0
"""Launches of the kernels of a cache besides attend: append, quantize, dequantize, merge.

`sequences` tokens or commit groups: what one step that decodes brings. Argument lists are those of kernel_abi.h."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvq import lowlevel
from kvq.tune.attend_launch import block_number, page_of, pool_of, strides
from kvq.tune.check_data import keys_and_values
from kvq.tune.launch_data import packed, pieces, quantize_launch
from kvq.tune.launch_memory import NOBODY, Launch, LaunchMemory, element_bytes, encode
from kvq.tune.problem import CheckCase
from kvq.tune.request_fields import Fields

if TYPE_CHECKING:
    import numpy as np

Rows = Callable[[int, int], "dict[str, np.ndarray]"]  # K and V of (heads, tokens), float32


def rows_of(case: CheckCase, fields: Fields) -> Rows:
    def make(heads: int, tokens: int) -> dict[str, np.ndarray]:
        return dict(zip("kv", keys_and_values(case, heads, tokens, fields.dk, fields.dv), strict=True))

    return make


def append_launch(fields: Fields, rows: Rows, sequences: int, heads: int, memory: LaunchMemory) -> Launch:
    """A token of each sequence, at places all over the rings."""
    import numpy as np

    values, ring = rows(heads, sequences), fields.ring
    items = np.zeros(sequences, [("k", "<i8"), ("v", "<i8"), ("slot", "<i4"), ("position", "<i4")])
    for index in range(sequences):
        items[index] = (index * fields.dk, index * fields.dv, index, ring - 1 + 37 * index)
    tails = {
        side: memory.changed(
            np.full((sequences, heads, ring, size * element_bytes(fields.dtype)), NOBODY, np.uint8), "uint8"
        )
        for side, size in (("k", fields.dk), ("v", fields.dv))
    }
    status = memory.output((sequences,), "int32")
    arguments = (
        memory.put(items), memory.put(encode(values["k"], fields.dtype)), sequences * fields.dk,
        memory.put(encode(values["v"], fields.dtype)), sequences * fields.dv, tails["k"].buffer, tails["v"].buffer, ring,
        ring, heads, status.buffer,
    )  # fmt: skip
    outputs = {"tail of K": tails["k"], "tail of V": tails["v"], "counts of bad values": status}
    return Launch(arguments, (sequences, 1, 1), outputs)


def commit_launch(fields: Fields, rows: Rows, sequences: int, heads: int, memory: LaunchMemory) -> Launch:
    """One commit group of each sequence, each in another place of its page where a page has several."""
    import numpy as np

    side, group = fields.operation[-1], fields.commit_group
    ring = -(-fields.page // group) * group
    values = rows(heads * sequences, ring)[side]
    tail = encode(values, fields.dtype).reshape(sequences, heads, ring, -1)
    span = -(-ring // fields.page)
    pool = np.zeros_like(pool_of(sequences * span, heads, fields.page_bytes))
    items = []
    for slot in range(sequences):
        begin = slot % max(1, ring // group) * group
        for position, count in pieces(fields, begin, begin + group):
            block = block_number(pool, slot * span + position // fields.page)
            items += [(block, head, slot, position, count, 0) for head in range(heads)]
    return quantize_launch(fields, side, pool, items, tail, memory)


def dequantize_launch(
    fields: Fields, rows: Rows, tokens: int, sequences: int, heads: int, memory: LaunchMemory,
    reference: lowlevel.Context,
) -> Launch:  # fmt: skip
    """All tokens of each sequence. Pages repeat those of a few tokens."""
    import numpy as np

    side = fields.operation[-1]
    size = fields.dk if side == "k" else fields.dv
    count = -(-tokens // fields.page)
    made = min(count, 2) * fields.page
    some = packed(fields, rows(heads, made), {"k": made, "v": made}, reference)
    pool = pool_of(count * sequences, heads, fields.page_bytes)
    items = np.zeros((count * sequences, heads), [("out", "<i8"), *((name, "<i4") for name in "bhfc")])
    out = memory.output((sequences * heads * tokens, size), fields.dtype)
    for block in range(count * sequences):
        page_of(pool, block)[:] = some[block % len(some)]
        sequence, page = divmod(block, count)
        begin = page * fields.page
        for head in range(heads):
            row = (sequence * heads + head) * tokens + begin
            items[block, head] = (row * size, block_number(pool, block), head, 0, min(fields.page, tokens - begin))
    arguments = (memory.put(items), memory.put(pool), *strides(pool), out.buffer, size)
    return Launch(arguments, (items.size, 1, 1), {"rows": out})


def merge_launch(
    fields: Fields, seed: int, splits: list[int], q_heads: int, memory: LaunchMemory, spread: float = 1.0
) -> Launch:
    """Partial results of a query each; logarithms of sums stand `spread` apart."""
    import numpy as np

    rng, queries, parts = np.random.default_rng(seed), len(splits), max(splits)
    o = rng.standard_normal((parts, queries, q_heads, fields.dv), dtype=np.float32)
    lse = (rng.standard_normal((parts, queries, q_heads)) * spread).astype(np.float32)
    for query, count in enumerate(splits):  # what nobody wrote
        o[count:, query] = lse[count:, query] = np.nan
    out, out_lse = memory.output((queries, q_heads, fields.dv), fields.dtype), memory.output((queries, q_heads), "f32")
    offsets = np.arange(queries, dtype=np.int64) * q_heads * fields.dv
    sinks = np.full(q_heads, -np.inf, np.float32)
    arguments = (
        memory.put(o), memory.put(lse), queries, q_heads, memory.put(np.array(splits, np.int32)), out.buffer,
        memory.put(offsets), fields.dv, out_lse.buffer, memory.put(sinks), q_heads,
    )  # fmt: skip
    return Launch(arguments, (queries, 1, 1), {"o": out, "lse": out_lse})
