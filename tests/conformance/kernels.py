# SPDX-License-Identifier: Apache-2.0
"""Launches of the built-in kernels by the argument lists of kernel_abi.h, over guarded memory, and what they must give.

`prepare_*` builds a launch from a shape and random values and returns (args, grid, memory, outputs, expected): the
same launch can be made anew for each device. Expected values come from the oracle only.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from kvq_oracle import attention, text
from kvq_oracle.page import Page
from kvq_oracle.quantize import bad_values, round_to
from memory import ELEMENT, Memory, encode

KV_HEADS = 2
POISON = 0xFF  # a NaN in f32, bf16 and f16: memory "need not be cleared" (kvq.h), so it must not reach a result
SCRATCH = 0xC3

APPEND_ITEM = np.dtype([("k_offset", "<i8"), ("v_offset", "<i8"), ("tail_slot", "<i4"), ("position", "<i4")])
QUANTIZE_ITEM = np.dtype([(n, "<i4") for n in ("block", "kv_head", "tail_slot", "position", "count", "reserved")])
ATTEND_ITEM = np.dtype(
    [
        (name, "<i4")
        for name in (
            "kv_head", "query_base", "row_begin", "row_count", "packed_begin", "packed_end", "raw_begin", "raw_end",
            "v_raw_begin", "table_base", "tail_slot", "split",
        )
    ]
)  # fmt: skip
DEQUANTIZE_ITEM = np.dtype(
    [("out_offset", "<i8")] + [(name, "<i4") for name in ("block", "kv_head", "first", "count")]
)


@dataclass(frozen=True)
class Shape:
    """The fields of a kernel request (runtime/format/problem.h)."""

    pair: str
    page: int = 64
    dk: int = 64
    dv: int = 64
    ratio: int = 1
    dtype: str = "f32"
    rows: int = 1
    lag: bool = False

    def request(self, op):
        return (
            f"{op}:{self.pair}:vnni:p{self.page}:dk{self.dk}:dv{self.dv}:g{self.ratio}:{self.dtype}"
            f":rows{self.rows}:lag{int(self.lag)}:exact"
        )

    @property
    def head_dim(self):
        return {"K": self.dk, "V": self.dv}

    @property
    def q_heads(self):
        return KV_HEADS * self.ratio

    def cache(self):
        """A cache whose windows are short against the lengths of the tests."""
        pair = text.parse_pair(self.pair)
        if self.lag:
            return text.Cache(pair, max(64, pair.k.group), "sliding")
        return text.Cache(pair, 40, "block")


def as_dlpack(arg):
    """The same memory as something that DLPack can name: NumPy has records, which it has not, and no bf16."""
    if not isinstance(arg, np.ndarray):
        return arg
    if arg.dtype.names:
        return arg.view(np.uint8)
    if arg.dtype == ELEMENT["bf16"]:
        return torch.from_numpy(arg.view(np.int16)).view(torch.bfloat16)
    return arg


@dataclass(frozen=True)
class Launch:
    args: list
    grid: tuple
    memory: Memory
    outputs: dict
    expected: dict

    def run(self, kernel):
        kernel.launch([as_dlpack(arg) for arg in self.args], grid=self.grid)
        self.memory.check()
        return self.outputs


def random_rows(rng, shape, which, tokens):
    """[Hkv, tokens, D] as the dtype holds them: channels of different size, one with a large offset."""
    head_dim = shape.head_dim[which]
    x = rng.standard_normal((KV_HEADS, tokens, head_dim)) * rng.uniform(0.2, 2.0, (KV_HEADS, 1, head_dim))
    x[:, :, head_dim // 3] += 8.0 if which == "K" else 0.0
    return round_to(x, shape.dtype)


def new_page(shape, data):
    return Page(shape.pair, shape.page, shape.dk, shape.dv, "vnni", data)


def random_pool(rng, shape, blocks):
    """uint8 [blocks, block_stride]: pages of all heads, then 64 bytes that belong to nobody."""
    page_bytes = text.page_bytes(text.parse_pair(shape.pair), shape.page, shape.dk, shape.dv)
    return rng.integers(0, 256, (blocks, KV_HEADS * page_bytes + 64), np.uint8)


def page_of(shape, pool, block, head):
    size = (pool.shape[1] - 64) // KV_HEADS
    return new_page(shape, pool[block, head * size : (head + 1) * size])


def poisoned_ring(shape, which, slots, cap):
    ring = np.empty((slots, KV_HEADS, cap, shape.head_dim[which]), ELEMENT[shape.dtype])
    ring.view(np.uint8)[...] = POISON
    return ring


def fill_ring(shape, ring, slot, rows, begin, end):
    """Tokens [begin, end) of rows [Hkv, tokens, D] into their slots."""
    tokens = np.arange(begin, end)
    ring[slot, :, tokens % ring.shape[2]] = encode(rows[:, begin:end], shape.dtype).swapaxes(0, 1)


# ---- append ---------------------------------------------------------------------------------------------------------


def prepare_append(rng, shape):
    slots, cap, memory = 3, 48, Memory()
    tokens = [(0, 0), (0, 1), (2, 47), (2, 48), (1, 1000), (0, 95)]  # (tail slot, position); 47, 48, 95: the ring's end
    source, rings = {}, {}
    for which in "KV":
        source[which] = random_rows(rng, shape, which, len(tokens) + 2)
        rings[which] = poisoned_ring(shape, which, slots, cap)
    source["K"][0, 1, 0] = np.nan
    source["K"][1, 1, -1] = np.inf
    source["V"][1, 1, 3] = -np.inf
    source["V"][0, 3, -1] = 65536.0
    source["K"][0, 4, 5] = -65536.0
    source["K"][1, 4, 5] = 65504.0 if shape.dtype == "f32" else 65280.0  # the largest good ones
    if shape.dtype == "f32":
        source["V"][0, 4, 0] = 65505.0
    bad = sum(bad_values(source[which]).sum(axis=(0, 2)) for which in "KV")[: len(tokens)].astype(np.int32)
    items = np.zeros(len(tokens), APPEND_ITEM)
    order = [3, 0, 5, 1, 4, 2]  # a program's token need not be where its index says
    expected = {"K": rings["K"].copy(), "V": rings["V"].copy(), "status": bad[order]}
    for program, token in enumerate(order):
        slot, position = tokens[token]
        items[program] = (token * shape.dk, token * shape.dv, slot, position)
        for which in "KV":
            expected[which][slot, :, position % cap] = encode(source[which][:, token], shape.dtype)
    tensors = {which: memory.put(which, encode(source[which], shape.dtype)) for which in "KV"}
    outputs = {which: memory.copied(f"tail of {which}", rings[which]) for which in "KV"}
    outputs["status"] = memory.filled("status", len(tokens), np.int32, SCRATCH)
    stride = lambda which: tensors[which].shape[1] * tensors[which].shape[2]
    args = [memory.put("items", items), tensors["K"], stride("K"), tensors["V"], stride("V")]
    args += [outputs["K"], outputs["V"], cap, KV_HEADS, outputs["status"]]
    return Launch(args, (len(items), 1, 1), memory, outputs, expected)


# ---- quantize, dequantize -------------------------------------------------------------------------------------------


def quantize_pieces(shape, which):
    """(block, head, first row, count): whole pages, first, middle and last parts; heads of a block differ."""
    side = text.parse_pair(shape.pair).side(which)
    page = shape.page
    if side.per_channel:
        g = side.group
        middle = g * ((page // g) // 2)
        return [(4, 0, 0, page), (4, 1, page - g, g), (1, 0, 0, g), (2, 1, middle, page - middle), (0, 1, 0, page)]
    return [(4, 0, 0, page), (4, 1, 5, 3), (1, 0, page - 1, 1), (2, 1, 15, page - 16), (0, 0, 0, 1), (0, 1, 0, 17)]


def prepare_quantize(rng, shape, which, rows_of=None):
    rows_of = rows_of or random_rows
    slots, cap, memory = 2, shape.page + 80, Memory()
    head_dim = shape.head_dim[which]
    pool = random_pool(rng, shape, 5)
    expected = pool.copy()
    pieces = quantize_pieces(shape, which)
    items = np.zeros(len(pieces), QUANTIZE_ITEM)
    launches = []
    for index, (block, head, first, count) in enumerate(pieces):
        # Positions whose slots wrap around the ring's end inside the piece for some of the pieces.
        position = shape.page * (index + 1) + first
        launches.append((position, count, rows_of(rng, shape, which, count)))
        items[index] = (block, head, 0, position, count, 0)
        page_of(shape, expected, block, head).write(which, first, launches[-1][2][head])
    # Each piece has a slot of its own: their positions would collide in one ring.
    rings = poisoned_ring(shape, which, slots * len(pieces), cap)
    for index, (position, count, rows) in enumerate(launches):
        items[index]["tail_slot"] = slots * index + 1
        at = np.arange(position, position + count) % cap
        rings[slots * index + 1, :, at] = encode(rows, shape.dtype).swapaxes(0, 1)
    outputs = {"pool": memory.copied("page pool", pool)}
    args = [memory.put("items", items), outputs["pool"], pool.shape[1], memory.put("tail", rings), cap, KV_HEADS]
    assert rings.shape[3] == head_dim
    return Launch(args, (len(items), 1, 1), memory, outputs, {"pool": expected})


def prepare_dequantize(rng, shape, which, rows_of=None):
    rows_of = rows_of or random_rows
    memory, page, head_dim = Memory(), shape.page, shape.head_dim[which]
    pool = random_pool(rng, shape, 3)
    pieces = [(2, 0, 0, page), (0, 1, 3, page - 7), (1, 1, page - 1, 1), (1, 0, 0, 16), (0, 0, 17, 1)]
    stride, total = head_dim + 16, sum(piece[3] for piece in pieces)
    out = memory.filled("out", (total, stride), ELEMENT[shape.dtype], SCRATCH)
    expected, items, row = out.copy(), np.zeros(len(pieces), DEQUANTIZE_ITEM), 0
    for index, (block, head, first, count) in enumerate(pieces):
        source = page_of(shape, pool, block, head)
        source.write(which, 0, rows_of(rng, shape, which, page)[head])
        items[index] = (row * stride, block, head, first, count)
        expected[row : row + count, :head_dim] = encode(source.read(which, first, count), shape.dtype)
        row += count
    args = [memory.put("items", items), memory.put("page pool", pool), pool.shape[1], out, stride]
    return Launch(args, (len(items), 1, 1), memory, {"out": out}, {"out": expected})


# ---- attend ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sequence:
    length: int  # tokens before the step
    queries: int
    splits: int = 1


def ragged_sequences(shape):
    """Nothing packed; a window only; a frontier that moves inside the step; partial pages; a ring that has wrapped."""
    cache = shape.cache()
    step = cache.window if shape.lag else text.commit_group(cache.pair)
    first = step if shape.lag else cache.window + step  # the length at which the frontier moves first
    return [
        Sequence(0, 1),
        Sequence(7, 4),
        Sequence(first - 2, 5, 2),
        Sequence(first + 3 * shape.page + step // 2 + 11, 2, 3),
        Sequence(first + 2 * shape.page, 1, 2),
    ]


@dataclass
class AttendCase:
    shape: Shape
    sequences: list
    exact_ranges: bool = False  # ranges of keys that fit each program's rows, instead of the sequence's
    scale: float = 0.0
    q_size: float = 1.0
    rows_of: object = None


def _table(rng, case, rows, cache):
    """The page pool, the block table and each sequence's base in it; pages hold what is quantized, else poison."""
    shape, tables = case.shape, []
    owned = []
    for sequence in case.sequences:
        last = text.frontier(cache, sequence.length + sequence.queries - 1)
        owned.append(-(-max(last) // shape.page))
    numbers = iter(rng.permutation(sum(owned) + 2))
    pool = random_pool(rng, shape, sum(owned) + 2)
    pool[...] = POISON
    for sequence, blocks, values in zip(case.sequences, owned, rows):
        table = [next(numbers) for _ in range(blocks)]
        last = text.frontier(cache, sequence.length + sequence.queries - 1)
        for which, end in zip("KV", last):
            for index, block in enumerate(table):
                begin = index * shape.page
                for head in range(KV_HEADS):
                    part = values[which][head, begin : min(begin + shape.page, end)]
                    if len(part):
                        page_of(shape, pool, block, head).write(which, 0, part)
        tables.append(table)
    bases = np.cumsum([0] + [len(table) for table in tables])[:-1]
    # One entry beyond the last, so that an empty table is an array too; nobody may follow it.
    return pool, np.array([block for table in tables for block in table] + [-1], np.int32), bases


def _programs(case, cache, query_bases, table_bases):
    """Items of all programs, with the positions of the sequence's queries beside each."""
    shape, items = case.shape, []
    for index, sequence in enumerate(case.sequences):
        positions = range(sequence.length, sequence.length + sequence.queries)
        total = sequence.queries * shape.ratio
        last_k = text.frontier(cache, positions[-1])[0]
        pages = -(-last_k // shape.page)
        cuts = [shape.page * (pages * i // sequence.splits) for i in range(sequence.splits)] + [last_k]
        for begin in range(0, total, shape.rows):
            count = min(shape.rows, total - begin)
            touched = positions
            if case.exact_ranges:
                touched = positions[begin // shape.ratio : (begin + count - 1) // shape.ratio + 1]
            fronts = [text.frontier(cache, t) for t in touched]
            packed_end = max(fk for fk, _ in fronts)
            raw_begin, v_raw_begin = min(fk for fk, _ in fronts), min(fv for _, fv in fronts)
            for split in range(sequence.splits):
                last = split == sequence.splits - 1
                raw = (raw_begin, touched[-1] + 1) if last else (raw_begin, raw_begin)
                packed = (cuts[split], max(cuts[split], min(cuts[split + 1], packed_end)))
                for head in range(KV_HEADS):
                    which = (head, query_bases[index], begin, count)
                    items.append((*which, *packed, *raw, v_raw_begin, table_bases[index], index, split))
    return np.array(items, ATTEND_ITEM)


def _expected_partials(case, cache, items, q, rows, packed, query_bases):
    """f64 partial results by (split, query, head), only where a program writes."""
    shape, expected = case.shape, {}
    for item in items:
        index = int(item["tail_slot"])
        sequence = case.sequences[index]
        for row in range(item["row_begin"], item["row_begin"] + item["row_count"]):
            query, head = row // shape.ratio, item["kv_head"] * shape.ratio + row % shape.ratio
            t = sequence.length + query
            fk, fv = text.frontier(cache, t)
            keys = [j for j in range(item["packed_begin"], item["packed_end"]) if j < fk]
            keys += [j for j in range(item["raw_begin"], item["raw_end"]) if fk <= j <= t]
            seen = {}
            for which, end in (("K", fk), ("V", fv)):
                came, quantized = rows[index][which][item["kv_head"]], packed[index][which][item["kv_head"]]
                seen[which] = np.array([quantized[j] if j < end else came[j] for j in keys], np.float64)
                seen[which] = seen[which].reshape(len(keys), shape.head_dim[which])
            where = (int(item["split"]), int(query_bases[index]) + query, int(head))
            expected[where] = attention.attend_keys(q[where[2], where[1]], seen["K"], seen["V"], case.scale)
    return expected


def prepare_attend(rng, case):
    """expected: "partials", f64 (o, lse) by (split, query, head); "splits" of each query; "sequence" of each query."""
    shape, memory, rows_of = case.shape, Memory(), case.rows_of or random_rows
    case = replace(case, scale=case.scale or float(np.float32(shape.dk**-0.5)))
    cache = shape.cache()
    totals = [s.length + s.queries for s in case.sequences]
    rows = [{which: rows_of(rng, shape, which, total) for which in "KV"} for total in totals]
    pool, table, table_bases = _table(rng, case, rows, cache)
    query_bases = np.cumsum([0] + [s.queries for s in case.sequences])
    queries = int(query_bases[-1])
    positions = np.concatenate([np.arange(s.length, n) for s, n in zip(case.sequences, totals)]).astype(np.int32)
    fronts = np.array([text.frontier(cache, int(t)) for t in positions], np.int32)
    cap = text.tail_capacity(cache)
    rings = {which: poisoned_ring(shape, which, len(case.sequences), cap) for which in "KV"}
    packed = []
    for index, total in enumerate(totals):
        ends = text.frontier(cache, total - 1)
        dense = {}
        for column, which in enumerate("KV"):
            fill_ring(shape, rings[which], index, rows[index][which], int(fronts[query_bases[index], column]), total)
            blocks = table[table_bases[index] :][: -(-max(ends) // shape.page)]
            pages = [[page_of(shape, pool, b, h).read(which) for b in blocks] for h in range(KV_HEADS)]
            dense[which] = np.array([np.concatenate(p) if p else np.zeros((0, 1)) for p in pages])
        packed.append(dense)
    q = round_to(case.q_size * rng.standard_normal((shape.q_heads, queries, shape.dk)), shape.dtype)
    items = _programs(case, cache, query_bases, table_bases)
    order = rng.permutation(queries)  # where each query lies in the tensor
    q_tensor = np.zeros((shape.q_heads, queries + 3, shape.dk), np.float32)
    q_tensor[:, order] = q
    splits = max(s.splits for s in case.sequences)
    outputs = {
        "o": memory.filled("partial o", (splits, queries, shape.q_heads, shape.dv), np.float32, SCRATCH),
        "lse": memory.filled("partial lse", (splits, queries, shape.q_heads), np.float32, SCRATCH),
    }
    args = [
        memory.put("items", items), memory.put("q", encode(q_tensor, shape.dtype)),
        memory.put("q offsets", order.astype(np.int64) * shape.dk), (queries + 3) * shape.dk,
        memory.put("page pool", pool), pool.shape[1], memory.put("block table", table),
        memory.put("tail of K", rings["K"]), memory.put("tail of V", rings["V"]), cap, KV_HEADS,
        memory.put("K frontiers", fronts[:, 0]), memory.put("V frontiers", fronts[:, 1]),
        memory.put("positions", positions), case.scale, outputs["o"], outputs["lse"], queries,
    ]  # fmt: skip
    with np.errstate(invalid="ignore"):
        partials = _expected_partials(case, cache, items, q.astype(np.float64), rows, packed, query_bases)
    expected = {
        "partials": partials,
        "splits": np.repeat([s.splits for s in case.sequences], [s.queries for s in case.sequences]).astype(np.int32),
        "sequence": np.repeat(range(len(case.sequences)), [s.queries for s in case.sequences]),
    }
    return Launch(args, (len(items), 1, 1), memory, outputs, expected)


# ---- merge ----------------------------------------------------------------------------------------------------------


def prepare_merge(rng, shape, o, lse, splits):
    """Partials f32 [parts, queries, Hq, Dv] and [parts, queries, Hq]; splits[query] of them count."""
    memory = Memory()
    _, queries, heads, dv = o.shape
    order = rng.permutation(queries)
    outputs = {
        "out": memory.filled("out", (heads, queries + 2, dv), ELEMENT[shape.dtype], SCRATCH),
        "lse": memory.filled("lse", (queries, heads), np.float32, SCRATCH),
    }
    merged_o, merged_lse = np.zeros((queries, heads, dv)), np.zeros((queries, heads))
    for query, parts in enumerate(splits):
        merged_o[query], merged_lse[query] = attention.merge(o[:parts, query], lse[:parts, query])
    args = [
        memory.put("partial o", np.asarray(o, np.float32)), memory.put("partial lse", np.asarray(lse, np.float32)),
        queries, heads, memory.put("splits", np.asarray(splits, np.int32)), outputs["out"],
        memory.put("out offsets", order.astype(np.int64) * dv), (queries + 2) * dv, outputs["lse"],
    ]  # fmt: skip
    expected = {"o": merged_o, "lse": merged_lse, "order": order}
    return Launch(args, (queries, 1, 1), memory, outputs, expected)


def subnormal_rows(rng, shape, which, tokens):
    """Groups whose f16 scales are subnormal."""
    return round_to(rng.standard_normal((KV_HEADS, tokens, shape.head_dim[which])) * 2.0**-18, shape.dtype)


def constant_rows(rng, shape, which, tokens):
    """Every group constant: scale 0. Per head and, for K, per token block another constant."""
    value = rng.standard_normal((KV_HEADS, 1, 1))
    return round_to(np.broadcast_to(value, (KV_HEADS, tokens, shape.head_dim[which])), shape.dtype)


def tie_rows(rng, shape, which, tokens):
    """Multiples of a quarter from a small range: many values exactly between two codes, and zeros of both signs."""
    x = rng.integers(-8, 9, (KV_HEADS, tokens, shape.head_dim[which])) / 4
    return round_to(np.where(x == 0, -0.0, x), shape.dtype)


def wide_rows(rng, shape, which, tokens):
    """The whole range of f16."""
    x = np.clip(rng.standard_normal((KV_HEADS, tokens, shape.head_dim[which])) * 4e4, -65280, 65280)
    return round_to(x, shape.dtype)


def tiny_rows(rng, shape, which, tokens):
    """f32 subnormals and values whose minimum is -0 in f16."""
    x = rng.standard_normal((KV_HEADS, tokens, shape.head_dim[which])) * 2.0**-140
    return round_to(x, shape.dtype)
