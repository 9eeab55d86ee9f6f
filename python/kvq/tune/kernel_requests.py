# SPDX-License-Identifier: Apache-2.0
"""The kernel requests of a cache: the texts that the runtime asks the compiler for, made as runtime/cache/config.cpp
makes them, and how many bytes their kernels read."""

from __future__ import annotations

from dataclasses import dataclass

from kvq import lowlevel
from kvq.errors import InvalidArgument, Unsupported
from kvq.tune.problem import Conditions

OPERATIONS = ("attend", "append", "quantize_k", "quantize_v", "dequantize_k", "dequantize_v", "merge")
DTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "f32": "f32", "bf16": "bf16", "f16": "f16"}
MOST_RATIO = 64
ACCELERATORS = "nvptx:"  # what the names of their targets begin with


@dataclass(frozen=True)
class Shape:
    """What a cache's kernels depend on of a model's layers."""

    q_heads: int
    kv_heads: int
    dk: int
    dv: int
    dtype: str = "f32"
    window: int = 0  # tokens of sliding attention; 0: none
    score_cap: bool = False


def is_accelerator(target: str) -> bool:
    return target.startswith(ACCELERATORS)


def request(
    operation: str,
    format: str,
    shape: Shape,
    target: str,
    accuracy: str | None = None,
    *,
    page: int | None = None,
    rows: int | None = None,
) -> str:
    """The request of one kernel; kvq's own errors where there is no such cache. `page`: None for the default one;
    `rows`: None for those of decoding one token a sequence."""
    ratio, left = divmod(shape.q_heads, shape.kv_heads)
    if left or ratio > MOST_RATIO:
        raise Unsupported(
            f"{shape.q_heads} query heads over {shape.kv_heads} KV heads are not supported: a multiple, up to "
            f"{MOST_RATIO}"
        )
    canonical = lowlevel.format_canonical(format)
    pair, _, policy = canonical.partition("/")
    k, v = pair.split("-")
    pair = f"{_resolved(k, shape.dk)}-{_resolved(v, shape.dv)}"
    profile = "mma" if is_accelerator(target) else "vnni"
    page = page or default_page(format, shape.dk, shape.dv)
    lowlevel.format_layouts(canonical, shape.dk, shape.dv, page, profile)  # refuses what has no layout
    head = f"{operation}:{pair}:{profile}:p{page}:dk{shape.dk}:dv{shape.dv}"
    if operation != "attend":
        return _independent(head, shape.dtype)
    accuracy = lowlevel.check_accuracy(accuracy)
    rows = rows or decode_rows(ratio, target, max(shape.dk, shape.dv), shape.dtype, accuracy)
    lag = int("sliding" in policy.split(","))
    flags = f"lag{lag}:win{int(shape.window > 0)}:cap{int(shape.score_cap)}"
    return f"{head}:g{ratio}:{shape.dtype}:rows{rows}:{flags}:{accuracy}"


def bare_request(operation: str, attend: str) -> str:
    """Of another kernel of the cache whose attend kernel that is."""
    _, *parts = attend.split(":")
    return _independent(":".join([operation, *parts[:5]]), parts[6])


def _independent(head: str, dtype: str) -> str:
    """Fields that only attention depends on keep their defaults."""
    return f"{head}:g1:{dtype}:rows1:lag0:win0:cap0:exact"


def attend_rows(ratio: int, target: str, head: int, dtype: str, accuracy: str) -> list[int]:
    """Rows of the attend kernels of a cache, as AttendRows of runtime/cache/config.cpp has them."""
    if is_accelerator(target):
        is_wide = dtype == "f32" or accuracy == "full"
        return [8, 16] if head <= (64 if is_wide else 128) else [8]
    few = list(range(ratio, max(8, ratio) + 1, ratio))
    return few + [rows for rows in (12, 16, 20, 24, 28, 32) if rows > few[-1]]


def decode_rows(ratio: int, target: str, head: int, dtype: str, accuracy: str) -> int:
    """Of the kernel that attends by one query; more heads than it has rows are several programs."""
    known = attend_rows(ratio, target, head, dtype, accuracy)
    return next(each for each in known if each >= min(ratio, known[-1]))


def cache_requests(
    format: str, shape: Shape, target: str, accuracy: str | None = None, *, page: int | None = None
) -> list[str]:
    """Of all kernels of a cache: attention of one token first, which a model that decodes waits for most."""
    ratio, head = max(1, shape.q_heads // shape.kv_heads), max(shape.dk, shape.dv)
    rows = attend_rows(ratio, target, head, shape.dtype, lowlevel.check_accuracy(accuracy))
    attend = [request("attend", format, shape, target, accuracy, page=page)]
    attend += [request("attend", format, shape, target, accuracy, page=page, rows=each) for each in rows]
    others = [request(each, format, shape, target, page=page) for each in OPERATIONS if each != "attend"]
    return list(dict.fromkeys([attend[0], *others, *attend]))


def default_page(format: str, dk: int, dv: int) -> int:
    """Tokens of a page where nobody chooses."""
    size = lowlevel.format_page_bytes(format, dk, dv)
    return next(n for n in lowlevel.format_page_tokens(format) if lowlevel.format_page_bytes(format, dk, dv, n) == size)


def bytes_read(text: str, conditions: Conditions) -> int | None:
    """Bytes of the packed pages that attention of one step reads; None for other operations."""
    operation, pair, _, page, dk, dv = text.split(":")[:6]
    if operation != "attend":
        return None
    tokens = min(conditions.tokens, conditions.window or conditions.tokens)
    each = lowlevel.format_page_bytes(pair, int(dk[2:]), int(dv[2:]), int(page[1:])) / int(page[1:])
    return int(conditions.batch * conditions.heads * tokens * each)


def elements_read(text: str, conditions: Conditions) -> int:
    """Elements of K and V behind those bytes."""
    dk, dv = (int(field[2:]) for field in text.split(":")[4:6])
    tokens = min(conditions.tokens, conditions.window or conditions.tokens)
    return conditions.batch * conditions.heads * tokens * (dk + dv)


def _resolved(side: str, size: int) -> str:
    """text_c9: the group `h` is as many channels as a head has."""
    return f"{side[:-1]}{size}" if side.endswith("h") else side


def check_operation(name: str) -> str:
    if name not in OPERATIONS:
        raise InvalidArgument(f"there is no kernel '{name}': use one of {', '.join(OPERATIONS)}")
    return name
