# SPDX-License-Identifier: Apache-2.0
"""Launches of the built-in kernels by the argument lists of kernel_abi.h, over guarded memory, and what they must give.

`prepare_*` builds a launch from a shape and random values and returns (args, grid, memory, outputs, expected): the
same launch can be made anew for each device. Expected values come from the oracle only. attend is in attend_kernel.py.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from kvq_oracle import attention, text
from kvq_oracle.page import Page
from kvq_oracle.quantize import bad_values
from memory import ELEMENT, Memory, encode, round_to

KV_HEADS = 2
KEEP_ROWS = 16  # of tails that hold kept tokens (tail_c1)
FLUSH_WINDOW = 37  # of caches under the rule flush: no multiple of anything
POISON = 0xFF  # a NaN in f32, bf16 and f16: memory "need not be cleared" (kvq.h), so it must not reach a result
SCRATCH = 0xC3

LARGEST_GOOD = {"f32": 65504.0, "bf16": 65280.0, "f16": 65504.0}  # quantize_c1
LEAST_BAD = {"f32": np.nextafter(np.float32(65504), np.float32(1e9)), "bf16": 65536.0, "f16": np.inf}

APPEND_ITEM = np.dtype([("k_offset", "<i8"), ("v_offset", "<i8"), ("tail_slot", "<i4"), ("position", "<i4")])
QUANTIZE_ITEM = np.dtype([(n, "<i4") for n in ("block", "kv_head", "tail_slot", "position", "count", "reserved")])
DEQUANTIZE_ITEM = np.dtype(
    [("out_offset", "<i8")] + [(name, "<i4") for name in ("block", "kv_head", "first", "count")]
)

CONVERT_ITEM = np.dtype([(name, "<i4") for name in ("source_block", "block", "kv_head", "reserved")])


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
    window: bool = False
    cap: bool = False
    accuracy: str = "exact"
    profile: str = "vnni"
    before: str = ""  # the profile of pages that are converted into such ones

    def request(self, op):
        """The accuracy class is attend's: every other kernel there is once."""
        accuracy = self.accuracy if op == "attend" else "exact"
        profile = f"{self.before}-{self.profile}" if op.startswith("convert") else self.profile
        return (
            f"{op}:{self.pair}:{profile}:p{self.page}:dk{self.dk}:dv{self.dv}:g{self.ratio}:{self.dtype}"
            f":rows{self.rows}:lag{int(self.lag)}:win{int(self.window)}:cap{int(self.cap)}:{accuracy}"
        )

    @property
    def head_dim(self):
        return {"K": self.dk, "V": self.dv}

    @property
    def bits(self):
        """Of the narrower of K and V, after which the budgets go."""
        pair = text.parse_pair(self.pair)
        return min(pair.k.bits, pair.v.bits)

    @property
    def q_heads(self):
        return KV_HEADS * self.ratio

    @property
    def flushes(self):
        """Both sides per token: tested under the rule flush, where a frontier may be any number."""
        pair = text.parse_pair(self.pair)
        return not (self.lag or pair.k.per_channel or pair.v.per_channel)

    def cache(self):
        """A cache whose windows are short against the lengths of the tests; not for `flushes`."""
        pair = text.parse_pair(self.pair)
        if self.lag:
            return text.Cache(pair, max(64, pair.k.group), "sliding")
        return text.Cache(pair, 40, "block")

    def frontiers(self, tokens):
        """(fK, fV) of so many body tokens; none where some kept token is not there yet."""
        tokens = max(0, tokens)
        if self.flushes:
            return (FLUSH_WINDOW * (tokens // FLUSH_WINDOW),) * 2  # commit_c8
        return text.frontier(self.cache(), tokens)

    @property
    def ring(self):
        """tail_c1: tokens of one ring."""
        return -(-(FLUSH_WINDOW + 32) // 16) * 16 if self.flushes else text.tail_capacity(self.cache())

    @property
    def commit_step(self):
        """By how many tokens K's frontier moves."""
        if self.flushes:
            return FLUSH_WINDOW
        cache = self.cache()
        return cache.window if self.lag else text.commit_group(cache.pair)

    @property
    def first_commit(self):
        """The length at which a frontier moves first."""
        return self.commit_step + (0 if self.lag or self.flushes else self.cache().window)


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
    pool: "Pool | None" = None  # as it was when the launch was made

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
    return Page(shape.pair, shape.page, shape.dk, shape.dv, shape.profile, data)


LAYOUTS = ("blocks", "runs")  # of a pool
RUN = 4  # blocks


@dataclass
class Pool:
    """The pages of one layer (page_c4): block by block with 64 bytes behind each that belong to nobody, or in runs of RUN
    blocks, as a cache has them."""

    shape: Shape
    layout: str
    data: np.ndarray  # uint8
    numbers: list  # of its blocks

    @classmethod
    def of(cls, shape, blocks, layout):
        size = page_bytes(shape)
        if layout == "blocks":
            return cls(shape, layout, np.zeros(blocks * (KV_HEADS * size + 64), np.uint8), list(range(blocks)))
        numbers = [i // RUN * RUN * KV_HEADS + i % RUN for i in range(blocks)]
        return cls(shape, layout, np.zeros(-(-blocks // RUN) * RUN * KV_HEADS * size, np.uint8), numbers)

    @property
    def strides(self):
        """(block_stride, head_stride)"""
        size = page_bytes(self.shape)
        return (size, RUN * size) if self.layout == "runs" else (KV_HEADS * size + 64, size)

    def page(self, number, head):
        begin = number * self.strides[0] + head * self.strides[1]
        return new_page(self.shape, self.data[begin : begin + page_bytes(self.shape)])

    def copy(self):
        return replace(self, data=self.data.copy())

    def laid_out(self, layout):
        """The same pages in another order."""
        other = Pool.of(self.shape, len(self.numbers), layout)
        for here, there in zip(self.numbers, other.numbers):
            for head in range(KV_HEADS):
                other.page(there, head).data[...] = self.page(here, head).data
        return other


def page_bytes(shape):
    return text.page_bytes(text.parse_pair(shape.pair), shape.page, shape.dk, shape.dv)


def random_pool(rng, shape, blocks, layout):
    pool = Pool.of(shape, blocks, layout)
    pool.data[...] = rng.integers(0, 256, pool.data.shape, np.uint8)
    return pool


def poisoned_tail(shape, which, slots, cap, keep=KEEP_ROWS, poison=POISON):
    tail = np.empty((slots, KV_HEADS, cap + keep, shape.head_dim[which]), ELEMENT[shape.dtype])
    tail.view(np.uint8)[...] = poison
    return tail


def fill_tail(shape, tail, cap, slot, tokens, rows):
    """rows [Hkv, tokens, D] into their places (tail_c1). Tokens are body indices, negative for kept ones."""
    at = [token % cap if token >= 0 else tail.shape[2] + token for token in tokens]
    tail[slot, :, at] = encode(rows, shape.dtype).swapaxes(0, 1)


# ---- append ---------------------------------------------------------------------------------------------------------


def prepare_append(rng, shape):
    slots, cap, memory = 3, 48, Memory()
    # (tail slot, position): the ring's begin and end (47, 48, 95), and kept tokens, of which -16 is the first that fits.
    tokens = [(0, 0), (0, 1), (2, 47), (2, 48), (1, 1000), (0, 95), (0, -1), (1, -16), (2, -5)]
    source, tails = {}, {}
    for which in "KV":
        source[which] = random_rows(rng, shape, which, len(tokens) + 2)
        tails[which] = poisoned_tail(shape, which, slots, cap)
    source["K"][0, 1, 0] = np.nan
    source["K"][1, 1, -1] = np.inf
    source["V"][1, 1, 3] = -np.inf
    source["V"][0, 3, -1] = 65536.0
    source["K"][0, 4, 5] = -65536.0
    source["K"][1, 4, 5] = LARGEST_GOOD[shape.dtype]
    source["K"][1, 7, 2] = np.nan
    # The largest good value and the least bad one in every place.
    source["K"][0, 5] = source["V"][0, 6] = LARGEST_GOOD[shape.dtype]
    source["K"][1, 6] = source["V"][1, 5] = LEAST_BAD[shape.dtype]
    if shape.dtype == "f32":
        source["V"][0, 4, 0] = 65505.0
    kept = {which: round_to(source[which], shape.dtype) for which in "KV"}
    bad = sum(bad_values(kept[which]).sum(axis=(0, 2)) for which in "KV")[: len(tokens)].astype(np.int32)
    items = np.zeros(len(tokens), APPEND_ITEM)
    order = [3, 0, 8, 5, 1, 6, 4, 2, 7]  # a program's token need not be where its index says
    expected = {"K": tails["K"].copy(), "V": tails["V"].copy(), "status": bad[order]}
    for program, token in enumerate(order):
        slot, position = tokens[token]
        items[program] = (token * shape.dk, token * shape.dv, slot, position)
        for which in "KV":
            fill_tail(shape, expected[which], cap, slot, [position], source[which][:, [token]])
    tensors = {which: memory.put(which, encode(source[which], shape.dtype)) for which in "KV"}
    outputs = {which: memory.copied(f"tail of {which}", tails[which]) for which in "KV"}
    outputs["status"] = memory.filled("status", len(tokens), np.int32, SCRATCH)
    stride = lambda which: tensors[which].shape[1] * tensors[which].shape[2]
    args = [memory.put("items", items), tensors["K"], stride("K"), tensors["V"], stride("V")]
    args += [outputs["K"], outputs["V"], cap, cap + KEEP_ROWS, KV_HEADS, outputs["status"]]
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
    pieces = [(4, 0, 0, page), (4, 1, 5, 3), (1, 0, page - 1, 1), (2, 1, 15, page - 16), (0, 0, 0, 1), (0, 1, 0, 17)]
    return pieces + [(1, 1, 1, page - 1), (2, 0, 2, page - 2), (3, 0, 3, page - 3), (3, 1, 7, page - 7)]


def wrapping_position(page, cap, index, first, count):
    """A position of the row `first` of a page; from the third piece on the ring ends within the piece, if it may."""
    positions = [page * (index + 1 + more) + first for more in range(cap // 16 if index > 1 else 1)]
    return next((position for position in positions if cap - position % cap < count), positions[0])


def prepare_quantize(rng, shape, which, rows_of=None, layout=LAYOUTS[0]):
    rows_of = rows_of or random_rows
    slots, cap, memory = 2, shape.page + 80, Memory()
    head_dim = shape.head_dim[which]
    pool = random_pool(rng, shape, 5, layout)
    expected = pool.copy()
    pieces = quantize_pieces(shape, which)
    items = np.zeros(len(pieces), QUANTIZE_ITEM)
    launches = []
    for index, (block, head, first, count) in enumerate(pieces):
        position = wrapping_position(shape.page, cap, index, first, count)
        launches.append((position, count, rows_of(rng, shape, which, count)))
        items[index] = (pool.numbers[block], head, 0, position, count, 0)
        expected.page(pool.numbers[block], head).write(which, first, launches[-1][2][head])
    # Each piece has a slot of its own: their positions would collide in one ring.
    tails = poisoned_tail(shape, which, slots * len(pieces), cap)
    for index, (position, count, rows) in enumerate(launches):
        items[index]["tail_slot"] = slots * index + 1
        fill_tail(shape, tails, cap, slots * index + 1, range(position, position + count), rows)
    outputs = {"pool": memory.copied("page pool", pool.data)}
    args = [memory.put("items", items), outputs["pool"], *pool.strides, memory.put("tail", tails), cap]
    args += [cap + KEEP_ROWS, KV_HEADS]
    assert tails.shape[3] == head_dim
    return Launch(args, (len(items), 1, 1), memory, outputs, {"pool": expected.data})


def prepare_dequantize(rng, shape, which, rows_of=None, layout=LAYOUTS[0]):
    rows_of = rows_of or random_rows
    memory, page, head_dim = Memory(), shape.page, shape.head_dim[which]
    pool = random_pool(rng, shape, 3, layout)
    pieces = [(2, 0, 0, page), (0, 1, 3, page - 7), (1, 1, page - 1, 1), (1, 0, 0, 16), (0, 0, 17, 1)]
    pieces += [(i % 3, i % 2, i, 16) for i in range(16)]  # every remainder of begin and end
    stride, total = head_dim + 16, sum(piece[3] for piece in pieces)
    out = memory.filled("out", (total, stride), ELEMENT[shape.dtype], SCRATCH)
    expected, items, row = out.copy(), np.zeros(len(pieces), DEQUANTIZE_ITEM), 0
    for block, head in dict.fromkeys(piece[:2] for piece in pieces):
        pool.page(pool.numbers[block], head).write(which, 0, rows_of(rng, shape, which, page)[head])
    for index, (block, head, first, count) in enumerate(pieces):
        source = pool.page(pool.numbers[block], head)
        items[index] = (row * stride, pool.numbers[block], head, first, count)
        expected[row : row + count, :head_dim] = encode(source.read(which, first, count), shape.dtype)
        row += count
    args = [memory.put("items", items), memory.put("page pool", pool.data), *pool.strides, out, stride]
    return Launch(args, (len(items), 1, 1), memory, {"out": out}, {"out": expected})


# ---- convert --------------------------------------------------------------------------------------------------------


def prepare_convert(rng, shape, which, layout=LAYOUTS[0]):
    """Pages of random bytes, so that scales and minima are any 16 bits, NaN too, into others."""
    memory = Memory()
    source = random_pool(rng, replace(shape, profile=shape.before), 3, layout)
    pool = random_pool(rng, shape, 5, LAYOUTS[1 - LAYOUTS.index(layout)])
    expected = pool.copy()
    pieces = [(2, 4, 0), (0, 1, 1), (1, 1, 0), (1, 0, 1)]  # blocks, a KV head; some pages stay as they are
    items = np.zeros(len(pieces), CONVERT_ITEM)
    for index, (before, after, head) in enumerate(pieces):
        items[index] = (source.numbers[before], pool.numbers[after], head, 0)
        page = source.page(source.numbers[before], head)
        expected.page(pool.numbers[after], head).write_quantized(which, 0, page.read_quantized(which))
    outputs = {"pool": memory.copied("page pool", pool.data)}
    args = [memory.put("items", items), memory.put("source", source.data), *source.strides]
    args += [outputs["pool"], *pool.strides]
    return Launch(args, (len(items), 1, 1), memory, outputs, {"pool": expected.data})


# ---- merge ----------------------------------------------------------------------------------------------------------


def prepare_merge(rng, shape, o, lse, splits, sinks=None, together=None):
    """Partials f32 [parts, queries, Hq, Dv] and [parts, queries, Hq]; splits[query] of them count. sinks [Hq]: sink
    logits, a part without a value each (attention_c12). together: heads of one program; None: all."""
    memory = Memory()
    _, queries, heads, dv = o.shape
    sinks = np.full(heads, -np.inf) if sinks is None else sinks
    sinks = np.asarray(sinks, np.float32)
    order = rng.permutation(queries)
    outputs = {
        "out": memory.filled("out", (heads, queries + 2, dv), ELEMENT[shape.dtype], SCRATCH),
        "lse": memory.filled("lse", (queries, heads), np.float32, SCRATCH),
    }
    merged_o, merged_lse = np.zeros((queries, heads, dv)), np.zeros((queries, heads))
    for query, parts in enumerate(splits):
        parts_o = np.concatenate([o[:parts, query], np.zeros((1, heads, dv))])
        parts_lse = np.concatenate([lse[:parts, query], sinks[None]])
        merged_o[query], merged_lse[query] = attention.merge(parts_o, parts_lse)
    args = [
        memory.put("partial o", np.asarray(o, np.float32)), memory.put("partial lse", np.asarray(lse, np.float32)),
        queries, heads, memory.put("splits", np.asarray(splits, np.int32)), outputs["out"],
        memory.put("out offsets", order.astype(np.int64) * dv), (queries + 2) * dv, outputs["lse"],
        memory.put("sinks", sinks), together or heads,
    ]  # fmt: skip
    expected = {"o": merged_o, "lse": merged_lse, "order": order}
    return Launch(args, (queries, -(-heads // (together or heads)), 1), memory, outputs, expected)


def subnormal_rows(rng, shape, which, tokens):
    """Groups whose f16 scales are subnormal."""
    return round_to(rng.standard_normal((KV_HEADS, tokens, shape.head_dim[which])) * 2.0**-18, shape.dtype)


def constant_rows(rng, shape, which, tokens):
    """Every group constant: scale 0. Per head and, for K, per token block another constant."""
    value = rng.standard_normal((KV_HEADS, 1, 1))
    return round_to(np.broadcast_to(value, (KV_HEADS, tokens, shape.head_dim[which])), shape.dtype)


def tie_rows(rng, shape, which, tokens):
    """Every second value exactly between two codes, and zeros of both signs. Each group has both ends of its range, so
    that its scale is a power of two."""
    bits = text.parse_pair(shape.pair).side(which).bits
    levels = 2**bits - 1
    halves = rng.integers(0, 2 * levels + 1, (KV_HEADS, tokens, shape.head_dim[which]))
    place = (np.arange(halves.shape[1])[:, None] + np.arange(halves.shape[2])) % 16
    halves = np.where(place == 0, 0, np.where(place == 8, 2 * levels, halves))
    x = (halves - levels) * 2.0 ** (2 - bits)  # 8 significant bits: bf16 holds them
    zeros = np.where(rng.integers(0, 2, x.shape), -0.0, 0.0)
    return round_to(np.where(x == 0, zeros, x), shape.dtype)


def clipped_rows(rng, shape, which, tokens):
    """Groups whose scale is rounded down so far that many codes are beyond the largest (quantize_c2)."""
    levels = 2 ** text.parse_pair(shape.pair).side(which).bits - 1
    x = rng.uniform(0, 1, (KV_HEADS, tokens, shape.head_dim[which])) * levels * 1.45 * 2.0**-24
    return round_to(x, shape.dtype)


def zero_rows(rng, shape, which, tokens):
    """Groups whose least value is a zero of either sign, and groups of nothing but -0."""
    x = np.abs(rng.standard_normal((KV_HEADS, tokens, shape.head_dim[which])))
    x[:, ::3, ::2] = x[:, 1::5, 1::2] = -0.0
    x[0] = np.where(rng.integers(0, 2, (1, x.shape[2])), x[0], -0.0)
    x[1] = np.where(rng.integers(0, 2, (x.shape[1], 1)), x[1], -0.0)
    return round_to(x, shape.dtype)


def wide_rows(rng, shape, which, tokens):
    """The whole range of f16."""
    x = np.clip(rng.standard_normal((KV_HEADS, tokens, shape.head_dim[which])) * 4e4, -65280, 65280)
    return round_to(x, shape.dtype)


def tiny_rows(rng, shape, which, tokens):
    """f32 subnormals and values whose minimum is -0 in f16."""
    x = rng.standard_normal((KV_HEADS, tokens, shape.head_dim[which])) * 2.0**-140
    return round_to(x, shape.dtype)
