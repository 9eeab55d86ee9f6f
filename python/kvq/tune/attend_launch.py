# SPDX-License-Identifier: Apache-2.0
"""Launches of attend kernels over sequences in the middle of a step: programs as the planner of the runtime makes them
(runtime/cache/planner.cpp), pages in runs as a cache has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvq.tune.launch_memory import NOBODY, Launch, LaunchMemory, Output
from kvq.tune.request_fields import Fields
from kvq.tune.split_policy import SplitPolicy

if TYPE_CHECKING:
    import numpy as np

MOST_RUN = 16  # blocks, as in runtime/cache/config.cpp
RAW_COST = 4  # of a row in the tail, in packed tokens
ITEM = ("kv_head", "query_base", "row_begin", "row_count", "packed_begin", "packed_end", "raw_begin", "raw_end",
        "v_raw_begin", "table_base", "tail_slot", "split", "kept", "next_entry", "next_head", "reserved")  # fmt: skip
SCORE_CAP = 3.0  # a few scores reach it


@dataclass(frozen=True)
class Part:
    """A sequence: tokens before the step, and those of the step, each with its queries."""

    tokens: int
    queries: int


@dataclass(frozen=True)
class Plan:
    """Programs of a step over several sequences."""

    fields: Fields
    parts: tuple[Part, ...]
    heads: int
    window: int = 0  # of a request with one
    threads: int = 1
    policy: SplitPolicy = SplitPolicy()

    @property
    def queries(self) -> int:
        return sum(part.queries for part in self.parts)

    def lowest(self, position: int) -> int:
        return max(0, position - self.window + 1) if self.fields.window else 0

    def first_page(self, part: Part) -> int:
        return self.lowest(part.tokens) // self.fields.page

    def pages(self, part: Part) -> int:
        """Pages that the sequence owns."""
        last = max(self.fields.frontiers(part.tokens + part.queries - 1))
        return max(0, -(-last // self.fields.page) - self.first_page(part))

    def splits(self, part: Part) -> _Splits:
        page, first, last = self.fields.page, part.tokens, part.tokens + part.queries - 1
        packed_begin = self.lowest(first) // page * page
        raw_begin = max(self.fields.frontiers(first)[0], self.lowest(first))
        packed = max(0, self.fields.frontiers(last)[0] - packed_begin)
        raw = last + 1 - raw_begin
        length = self.policy.length(max(packed, raw), self.heads, page)
        return _Splits(-(-packed // length), -(-raw // length) if raw > length else 0, packed_begin, raw_begin, length)

    def items(self) -> np.ndarray:
        """kvq_attend_item of every program, the longest first."""
        import numpy as np

        groups: list[tuple[int, dict[str, int]]] = []
        query_base = table_base = 0
        for slot, part in enumerate(self.parts):
            rows, splits = part.queries * self.fields.ratio, self.splits(part)
            base = {"query_base": query_base, "table_base": table_base - self.first_page(part), "tail_slot": slot}
            for row in range(0, rows, self.fields.rows):
                for split in range(splits.total):
                    count = min(self.fields.rows, rows - row)
                    item = base | self._item(part, splits, row, count, split)
                    groups.append((_cost(item), item))
            query_base += part.queries
            table_base += self.pages(part)
        groups.sort(key=lambda group: (-group[0], *(group[1][name] for name in ("query_base", "row_begin", "split"))))
        items = [item | {"kv_head": head} for _, item in groups for head in range(self.heads)]
        self._link(items)
        return np.array([tuple(item.get(name, 0) for name in ITEM) for item in items], "<i4")

    def costs(self, part: Part) -> list[int]:
        """Packed tokens, or tail rows in place of them, that each split of one query reads of a KV head."""
        splits = self.splits(part)
        return [_cost(self._item(part, splits, 0, self.fields.ratio, split)) for split in range(splits.total)]

    def _item(self, part: Part, splits: _Splits, row: int, count: int, split: int) -> dict[str, int]:
        ratio, length = self.fields.ratio, splits.length
        first, last = part.tokens + row // ratio, part.tokens + (row + count - 1) // ratio
        low, lowest, keys = self.fields.frontiers(first), self.lowest(first), last + 1
        begin = end = raw_begin = raw_end = 0
        if split < splits.packed:
            begin = splits.packed_begin + split * length
            end = max(begin, min(begin + length, self.fields.frontiers(last)[0]))
        if splits.raw == 0 and split == splits.total - 1:
            raw_begin = max(low[0], lowest)
            raw_end = max(raw_begin, keys)
        elif split >= splits.packed:
            window = splits.raw_begin + (split - splits.packed) * length
            raw_begin = max(window, low[0])
            raw_end = max(raw_begin, min(window + length, keys))
        return {"row_begin": row, "row_count": count, "packed_begin": begin, "packed_end": end, "raw_begin": raw_begin,
                "raw_end": raw_end, "v_raw_begin": low[1], "split": split}  # fmt: skip

    def _link(self, items: list[dict[str, int]]) -> None:
        """Each program brings in the first page of the one that its thread takes next."""
        for index, item in enumerate(items):
            follower = items[index + self.threads] if index + self.threads < len(items) else item
            following = follower if follower["packed_begin"] < follower["packed_end"] else item
            item["next_entry"] = following["table_base"] + following["packed_begin"] // self.fields.page
            item["next_head"] = following["kv_head"]


@dataclass(frozen=True)
class _Splits:
    packed: int
    raw: int
    packed_begin: int
    raw_begin: int
    length: int

    @property
    def total(self) -> int:
        return max(1, self.packed + self.raw)


def _cost(item: dict[str, int]) -> int:
    packed, raw = (item[f"{kind}_end"] - item[f"{kind}_begin"] for kind in ("packed", "raw"))
    return packed + RAW_COST * raw


def pool_of(blocks: int, heads: int, page_bytes: int) -> np.ndarray:
    """[runs, heads, blocks of a run, bytes]: a head's pages lie together in runs (format-spec page_c4)."""
    import numpy as np

    run = min(MOST_RUN, 1 << max(1, blocks).bit_length() - 1)
    return np.full((max(1, -(-blocks // run)), heads, run, page_bytes), NOBODY, np.uint8)


def page_of(pool: np.ndarray, block: int) -> np.ndarray:
    """[heads, bytes] of a block, a view."""
    run = pool.shape[2]
    return pool[block // run, :, block % run]


def block_number(pool: np.ndarray, block: int) -> int:
    """As block tables and items have it."""
    _, heads, run, _ = pool.shape
    return block // run * run * heads + block % run


def strides(pool: np.ndarray) -> tuple[int, int]:
    """Bytes from block to block, and from head to head."""
    return pool.shape[3], pool.shape[2] * pool.shape[3]


@dataclass(frozen=True)
class AttendData:
    """What lies in memory. `places`: of the blocks in the order of the sequences' pages."""

    q: np.ndarray  # [queries, q_heads, dk], encoded
    pool: np.ndarray
    places: Sequence[int]
    tail_k: np.ndarray  # [sequences, heads, ring, dk], encoded
    tail_v: np.ndarray


def attend_launch(plan: Plan, data: AttendData, memory: LaunchMemory, shared: AttendShared | None = None) -> Launch:
    """`shared`: what copies of one workload have in common."""
    import numpy as np

    fields, heads = plan.fields, plan.heads
    shared = shared or AttendShared.of(plan, data, memory)
    table = np.array([block_number(data.pool, place) for place in data.places] + [-1], np.int32)
    arguments = (
        shared.items, shared.q, shared.offsets, fields.dk, memory.put(data.pool), *strides(data.pool),
        memory.put(table), memory.put(data.tail_k), memory.put(data.tail_v), fields.ring, fields.ring,
        heads, *shared.tables, fields.dk**-0.5, max(1, plan.window),
        SCORE_CAP if fields.cap else 0.0, shared.o.buffer, shared.lse.buffer, plan.queries,
    )  # fmt: skip
    return Launch(arguments, (shared.programs, 1, 1), {"o": shared.o, "lse": shared.lse})


@dataclass(frozen=True)
class AttendShared:
    programs: int
    items: object
    q: object
    offsets: object
    tables: tuple[object, ...]  # frontiers of K and V, positions
    o: Output
    lse: Output

    @classmethod
    def of(cls, plan: Plan, data: AttendData, memory: LaunchMemory) -> AttendShared:
        import numpy as np

        fields, items = plan.fields, plan.items()
        positions = [part.tokens + index for part in plan.parts for index in range(part.queries)]
        fronts = [fields.frontiers(position) for position in positions]
        tables = [[k for k, _ in fronts], [v for _, v in fronts], positions]
        q_heads = plan.heads * fields.ratio
        splits = max(plan.splits(part).total for part in plan.parts)
        offsets = np.arange(plan.queries, dtype=np.int64) * q_heads * fields.dk
        return cls(
            len(items), memory.put(items), memory.put(data.q), memory.put(offsets),
            tuple(memory.put(np.array(table, np.int32)) for table in tables),
            memory.output((splits, plan.queries, q_heads, fields.dv), "f32"),
            memory.output((splits, plan.queries, q_heads), "f32"),
        )  # fmt: skip
