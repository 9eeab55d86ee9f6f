# SPDX-License-Identifier: Apache-2.0
"""Launches of the attend kernel over a cache in the middle of a step, and its partial results in f64.

Pages and tails hold what the specification has there at that moment; everything else is poison. Tokens are counted as
body tokens (commit_c7): those that are kept in full precision have negative numbers.
"""

from dataclasses import dataclass, replace

import numpy as np

import tolerances
from kernels import (
    KV_HEADS, LAYOUTS, POISON, SCRATCH, Launch, fill_tail, poisoned_tail, random_pool, random_rows,
)  # fmt: skip
from kvq_oracle import attention
from kvq_oracle.quantize import Quantized, dequantize
from memory import Memory, encode, round_to

ATTEND_ITEM = np.dtype(
    [
        (name, "<i4")
        for name in (
            "kv_head", "query_base", "row_begin", "row_count", "packed_begin", "packed_end", "raw_begin", "raw_end",
            "v_raw_begin", "table_base", "tail_slot", "split", "kept", "next_entry", "next_head", "reserved",
        )
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Sequence:
    length: int  # body tokens before the step; negative where not all kept tokens are there
    queries: int
    splits: int = 1
    keep: int = 0
    frontiers: tuple = (0, 0)  # (FK, FV) before the step, where taking tokens back left them above the rule's

    @property
    def positions(self):
        return range(self.length, self.length + self.queries)

    @property
    def tokens(self):
        """All that there are after the step."""
        return range(-self.keep, self.length + self.queries)


def ragged_sequences(shape):
    """Nothing packed; a window only; a frontier that moves inside the step; partial pages; a ring that has wrapped; a
    sequence of kept tokens, of which the last is still to come."""
    step, first = shape.commit_step, shape.first_commit
    return [
        Sequence(0, 1),
        Sequence(7, 4, keep=5),
        Sequence(first - 2, 5, 2),
        Sequence(first + 3 * shape.page + step // 2 + 11, 2, 3, keep=33),
        Sequence(first + 2 * shape.page, 1, 2, keep=32),
        Sequence(-3, 2, keep=5),
    ]


@dataclass(frozen=True)
class AttendCase:
    shape: object
    sequences: list
    exact_ranges: bool = False  # ranges of keys that fit each program's rows, instead of the sequence's
    scale: float = 0.0
    q_size: float = 1.0
    rows_of: object = None
    window: int = 50  # of a shape with a window
    cap: float = 3.0  # of a shape with a score cap: a few scores reach it
    q_along: float = 0.0  # what all queries have in common, along `direction`
    q_peak: float = 0.0  # one channel of each query, the next one in each row; of every other row 2^-17 of it
    values: str = "ordinary"  # of tolerances.budget
    poison: int = POISON  # bytes of what is not there yet

    @property
    def budget(self):
        return tolerances.budget(self.shape.accuracy, self.shape.bits, self.values)

    def frontiers(self, sequence, position):
        """attention_c1"""
        return tuple(max(pair) for pair in zip(sequence.frontiers, self.shape.frontiers(position)))

    def last_frontiers(self, sequence):
        return self.frontiers(sequence, sequence.positions[-1])

    def pages(self, sequence):
        """Numbers of the pages that the sequence owns: under a window those that its queries see (window_c2)."""
        end = -(-max(self.last_frontiers(sequence)) // self.shape.page)
        begin = max(0, sequence.length - self.window + 1) // self.shape.page if self.shape.window else 0
        return range(min(begin, end), end)

    def sees(self, position, key):
        return key <= position and (not self.shape.window or key > position - self.window)


def _pages(rng, case, rows):
    """The page pool, the block table and where each sequence's page 0 would be in it. Pages hold what is quantized,
    else poison."""
    shape = case.shape
    owned = [case.pages(sequence) for sequence in case.sequences]
    blocks = sum(map(len, owned)) + 2
    places = rng.permutation(blocks)
    pool = random_pool(rng, shape, blocks, LAYOUTS[0])
    pool.data[...] = case.poison
    numbers = iter([pool.numbers[place] for place in places])
    table, bases = [], []
    for sequence, pages, values in zip(case.sequences, owned, rows):
        bases.append(len(table) - pages.start)
        for page in pages:
            block, begin = next(numbers), page * shape.page
            table.append(block)
            for which, end in zip("KV", case.last_frontiers(sequence)):
                body = values[which][:, sequence.keep :]
                part = body[:, begin : min(begin + shape.page, end)]
                for head in range(KV_HEADS if part.shape[1] else 0):
                    pool.page(block, head).write(which, 0, part[head])
    # One entry beyond the last, so that an empty table is an array too; nobody may follow it.
    return pool, np.array(table + [-1], np.int32), bases


def _packed_rows(case, sequence, pool, table, base):
    """Quantized [Hkv, body tokens, D] of K and of V by the pages; NaN where there is no page."""
    shape, pages, packed = case.shape, case.pages(sequence), {}
    for which in "KV":
        size = KV_HEADS, pages.stop * shape.page, shape.head_dim[which]
        parts = Quantized(np.zeros(size, np.uint8), *(np.full(size, np.nan, np.float16) for _ in "sm"))
        for page in pages:
            for head in range(KV_HEADS):
                found = pool.page(table[base + page], head).read_quantized(which)
                for name in "qsm":
                    getattr(parts, name)[head, page * shape.page :][: shape.page] = getattr(found, name)
        packed[which] = parts
    return packed


def _ranges(case, sequence, touched):
    """Per split (packed_begin, packed_end, raw_begin, raw_end), and v_raw_begin, for queries at these positions."""
    page, pages = case.shape.page, case.pages(sequence)
    cuts = [page * (pages.start + len(pages) * i // sequence.splits) for i in range(sequence.splits)]
    cuts.append(case.last_frontiers(sequence)[0])
    fronts = [case.frontiers(sequence, t) for t in touched]
    packed_end, raw_begin = max(fk for fk, _ in fronts), min(fk for fk, _ in fronts)
    if case.shape.window:
        raw_begin = max(raw_begin, touched[0] - case.window + 1)
    ranges = []
    for split in range(sequence.splits):
        raw_end = touched[-1] + 1 if split == sequence.splits - 1 else raw_begin
        packed = cuts[split], max(cuts[split], min(cuts[split + 1], packed_end))
        ranges.append((*packed, raw_begin, max(raw_begin, raw_end)))
    return ranges, min(fv for _, fv in fronts)


def _programs(case, query_bases, table_bases):
    """Items of all programs. Kept tokens are the first split's."""
    shape, items = case.shape, []
    for index, sequence in enumerate(case.sequences):
        total = sequence.queries * shape.ratio
        for begin in range(0, total, shape.rows):
            count = min(shape.rows, total - begin)
            touched = sequence.positions
            if case.exact_ranges:
                touched = touched[begin // shape.ratio : (begin + count - 1) // shape.ratio + 1]
            ranges, v_raw_begin = _ranges(case, sequence, touched)
            for split, keys in enumerate(ranges):
                kept = sequence.keep if split == 0 else 0
                place = (v_raw_begin, table_bases[index], index, split, kept, table_bases[index] + keys[0] // shape.page)
                for head in range(KV_HEADS):
                    following = (head + 1) % KV_HEADS
                    items.append((head, query_bases[index], begin, count, *keys, *place, following, 0))
    return np.array(items, ATTEND_ITEM)


def direction(channels):
    """+1 and -1 by channel, the same for queries and keys."""
    return np.where(np.arange(channels) * 7 % 5 < 2, 1.0, -1.0)


@dataclass(frozen=True)
class Keys:
    """What one row sees: tokens in order, K and V in f64, and where they are quantized, as what."""

    tokens: np.ndarray
    dense: dict  # by side, [tokens, D]
    packed: dict  # by side, bool [tokens]
    quantized: dict  # by side, Quantized [packed tokens, D]


def exact_arithmetic(case, q, keys):
    """One query row over keys, by the oracle: a cap (attention_c11) goes in as keys of one channel, the capped scores."""
    k, v = keys.dense["K"], keys.dense["V"]
    if not case.shape.cap or not len(k):
        return attention.attend_keys(q, k, v, case.scale)
    capped = case.cap * np.tanh(case.scale * (k @ q) / case.cap)
    return attention.attend_keys(np.ones(1), capped[:, None], v, 1.0)


def score_rms(case, q, keys):
    """Of all that the row sees, before a cap."""
    scores = case.scale * (keys.dense["K"] @ q)
    return np.sqrt(np.mean(scores**2)) if len(scores) else 0.0


def _keys(came, packed, keep, tokens, frontiers):
    """came [tokens, D] by side, packed: Quantized by side, both of one head."""
    tokens, found = np.array(tokens, np.int64), Keys(np.array(tokens, np.int64), {}, {}, {})
    for which, end in zip("KV", frontiers):
        inside = (tokens >= 0) & (tokens < end)
        dense = came[which][tokens + keep].astype(np.float64)
        quantized = Quantized(*(getattr(packed[which], name)[tokens[inside]] for name in "qsm"))
        dense[inside] = dequantize(quantized)
        found.dense[which], found.packed[which], found.quantized[which] = dense, inside, quantized
    return found


def _tokens(case, item, t, frontier):
    """Those that a program's row at position t attends to; K is packed before the frontier."""
    tokens = list(range(-item["kept"], 0))
    tokens += [j for j in range(item["packed_begin"], item["packed_end"]) if j < frontier]
    tokens += [j for j in range(item["raw_begin"], item["raw_end"]) if frontier <= j]
    return [j for j in tokens if case.sees(t, j)]


def _partials(case, items, q, rows, packed, query_bases, arithmetic):
    """What the arithmetic gives for each row, by (split, query, head), only where a program writes."""
    shape, expected = case.shape, {}
    for item in items:
        index, head = int(item["tail_slot"]), item["kv_head"]
        sequence = case.sequences[index]
        came = {which: rows[index][which][head] for which in "KV"}
        quantized = {
            which: Quantized(*(getattr(packed[index][which], name)[head] for name in "qsm")) for which in "KV"
        }
        keys = {}  # by position: of all rows of a query
        for row in range(item["row_begin"], item["row_begin"] + item["row_count"]):
            t = sequence.positions[row // shape.ratio]
            if t not in keys:
                frontiers = case.frontiers(sequence, t)
                tokens = _tokens(case, item, t, frontiers[0])
                keys[t] = _keys(came, quantized, sequence.keep, tokens, frontiers)
            where = (
                int(item["split"]),
                int(query_bases[index]) + row // shape.ratio,
                int(head * shape.ratio + row % shape.ratio),
            )
            expected[where] = arithmetic(case, q[where[2], where[1]], keys[t])
    return expected


def _tails(case, rows):
    """Tails of K and of V with all that is not quantized before the step, and the ring's length."""
    shape, cap = case.shape, case.shape.ring
    keep = -(-max(sequence.keep for sequence in case.sequences) // 16) * 16
    tails = {which: poisoned_tail(shape, which, len(case.sequences), cap, keep, case.poison) for which in "KV"}
    for index, sequence in enumerate(case.sequences):
        for which, frontier in zip("KV", case.frontiers(sequence, sequence.length)):
            tokens = [t for t in sequence.tokens if t < 0 or t >= frontier]
            places = [t + sequence.keep for t in tokens]
            fill_tail(shape, tails[which], cap, index, tokens, rows[index][which][:, places])
    return tails, cap


def forget(launch):
    """The launch as before it first ran."""
    for array in launch.outputs.values():
        array.view(np.uint8)[...] = SCRATCH


def prepare_attend(rng, case):
    """expected: "partials", f64 (o, lse) by (split, query, head); "partials by", a function that gives the same by
    another arithmetic; "score rms" of the same rows; "splits" of each query; "sequence" of each query."""
    shape, memory, rows_of = case.shape, Memory(), case.rows_of or random_rows
    case = replace(case, scale=case.scale or float(np.float32(shape.dk**-0.5)))
    counts = [s.queries for s in case.sequences]
    rows = [{which: rows_of(rng, shape, which, len(s.tokens)) for which in "KV"} for s in case.sequences]
    pool, table, table_bases = _pages(rng, case, rows)
    packed = [_packed_rows(case, s, pool, table, base) for s, base in zip(case.sequences, table_bases)]
    tails, cap = _tails(case, rows)
    query_bases = np.cumsum([0] + counts)
    queries = int(query_bases[-1])
    positions = np.concatenate([s.positions for s in case.sequences]).astype(np.int32)
    fronts = np.array([case.frontiers(s, t) for s in case.sequences for t in s.positions], np.int32)
    q = case.q_size * rng.standard_normal((shape.q_heads, queries, shape.dk)) + case.q_along * direction(shape.dk)
    if case.q_peak:
        head, query = np.indices((shape.q_heads, queries, 1))[:2]
        peaks = case.q_peak * np.where((head + query) % 2, 2.0**-17, 1.0)
        np.put_along_axis(q, (head * queries + query) % shape.dk, peaks, axis=2)
    q = round_to(q, shape.dtype)
    items = _programs(case, query_bases, table_bases)
    order = rng.permutation(queries)  # where each query lies in the tensor
    q_tensor = np.zeros((shape.q_heads, queries + 3, shape.dk), np.float32)
    q_tensor[:, order] = q
    splits = max(s.splits for s in case.sequences)
    outputs = {
        "o": memory.filled("partial o", (splits, queries, shape.q_heads, shape.dv), np.float32, SCRATCH),
        "lse": memory.filled("partial lse", (splits, queries, shape.q_heads), np.float32, SCRATCH),
    }
    # Without a window and a cap the two arguments are what would show if they were used.
    args = [
        memory.put("items", items), memory.put("q", encode(q_tensor, shape.dtype)),
        memory.put("q offsets", order.astype(np.int64) * shape.dk), (queries + 3) * shape.dk,
        memory.put("page pool", pool.data), *pool.strides, memory.put("block table", table),
        memory.put("tail of K", tails["K"]), memory.put("tail of V", tails["V"]), cap, tails["K"].shape[2], KV_HEADS,
        memory.put("K frontiers", fronts[:, 0]), memory.put("V frontiers", fronts[:, 1]),
        memory.put("positions", positions), case.scale, case.window if shape.window else 1,
        case.cap if shape.cap else 0.0, outputs["o"], outputs["lse"], queries,
    ]  # fmt: skip

    def partials(arithmetic):
        with np.errstate(invalid="ignore"):
            return _partials(case, items, q.astype(np.float64), rows, packed, query_bases, arithmetic)

    expected = {
        "partials": partials(exact_arithmetic),
        "partials by": partials,
        "score rms": partials(score_rms),
        "splits": np.repeat([s.splits for s in case.sequences], counts).astype(np.int32),
        "sequence": np.repeat(range(len(case.sequences)), counts),
    }
    return Launch(args, (len(items), 1, 1), memory, outputs, expected, pool)


def laid_out(launch, layout):
    """The launch over the same pages in another order, as before it first ran; it has the same outputs."""
    forget(launch)
    pool = launch.pool.laid_out(layout)
    renumbered = dict(zip(launch.pool.numbers, pool.numbers)) | {-1: -1}
    before, (_, _, _, table), after = launch.args[:4], launch.args[4:8], launch.args[8:]
    table = np.array([renumbered[number] for number in table], np.int32)
    put = launch.memory.put
    args = [*before, put("page pool", pool.data), *pool.strides, put("block table", table), *after]
    return replace(launch, args=args, pool=pool)
