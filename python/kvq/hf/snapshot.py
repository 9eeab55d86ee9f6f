# SPDX-License-Identifier: Apache-2.0
"""A KVQCache as a file and back.

    8 bytes    'KVQCACHE'
    4 bytes    version, little endian
    8 bytes    length of the header that follows the checksum
    32 bytes   SHA-256 of the header
    header     JSON: model, formats, rows, which tokens were stored, and the length of every snapshot
    snapshots  of each group of layers each row (kvq.lowlevel.Cache.snapshot, with checksums of their own)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedConfig

from kvq.errors import Corrupt, FailedPrecondition, InvalidArgument
from kvq.hf.batch import LayerGroup
from kvq.hf.pool import DTYPES, LayerKind

if TYPE_CHECKING:
    from kvq.hf.cache import KVQCache

MAGIC = b"KVQCACHE"
VERSION = 1
_HEAD = struct.Struct("<8sIQ32s")
_REMEDY = "take another copy of it, or prefill again"


def save(cache: KVQCache, path: str | os.PathLike) -> int:
    """Writes the file under a temporary name and renames it. Returns its bytes."""
    lengths = cache.lengths
    packed = cache.packed
    if packed is None or cache.layout is None or not lengths:
        raise FailedPrecondition("there is nothing to save: the cache is empty, or was made without a config")
    if packed.is_open:
        raise FailedPrecondition("the cache cannot be saved while a forward runs: let it end first")
    snapshots = [[group.cache.snapshot(row) for row in group.rows] for group in packed.groups]
    header = json.dumps(_describe(cache, snapshots)).encode()
    parts = [_HEAD.pack(MAGIC, VERSION, len(header), hashlib.sha256(header).digest()), header]
    parts += [data for group in snapshots for data in group]
    _write(Path(path), parts)
    return sum(map(len, parts))


def _describe(cache: KVQCache, snapshots: list[list[bytes]]) -> dict[str, Any]:
    packed, layout = cache.packed, cache.layout
    assert packed is not None and layout is not None and cache._kept is not None
    groups = [
        {"layers": list(group.layers), "kind": vars(group.pool.kind), "snapshots": [len(data) for data in rows]}
        for group, rows in zip(packed.groups, snapshots, strict=True)
    ]
    return {
        "model": layout.identity(),
        "dtype": DTYPES[packed.dtype],
        "prefill": cache.prefill,
        "formats": [cache.formats.of(layer, *_sizes(packed.group(layer))) for layer in range(packed.layers)],
        "page_tokens": cache.page_tokens,
        "lengths": packed.lengths,
        "kept": ["".join("01"[bit] for bit in row) for row in cache._kept.stored.tolist()],
        "groups": groups,
    }


def _sizes(group: LayerGroup) -> tuple[int, int]:
    return group.pool.kind.dk, group.pool.kind.dv


def _write(path: Path, parts: list[bytes]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent or Path("."))
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def load(cls: type[KVQCache], path: str | os.PathLike, config: PreTrainedConfig, options: dict[str, Any]) -> KVQCache:
    """The cache of a file, for the model of `config`."""
    data = Path(path).read_bytes()
    header, position = _read_header(data, path)
    cache = cls(
        config, header["formats"], prefill=header["prefill"], page_tokens=header["page_tokens"], **options
    )
    assert cache.layout is not None
    _check_model(header["model"], cache.layout.identity(), path)
    whole = position + sum(sum(group["snapshots"]) for group in header["groups"])
    if whole != len(data):
        raise Corrupt(f"{path} has {len(data)} bytes where {whole} were written: {_REMEDY}")
    dtype = next(dtype for dtype, name in DTYPES.items() if name == header["dtype"])
    kept = torch.tensor([[bit == "1" for bit in row] for row in header["kept"]], dtype=torch.bool)
    cache.restore_rows(dtype, kept, header["lengths"])
    assert cache.packed is not None
    for entry in header["groups"]:
        kind = LayerKind(**entry["kind"])
        k, v = (torch.empty(len(header["lengths"]), kind.kv_heads, 0, size, dtype=dtype) for size in (kind.dk, kind.dv))
        group = cache.packed.open_empty(entry["layers"][0], kind.q_heads, k, v)
        if list(group.layers) != entry["layers"] or group.pool.kind != kind:
            raise InvalidArgument(
                f"{path} was saved with other layers than this model's config has: open it with the config of the "
                "model that it was saved with"
            )
        for size in entry["snapshots"]:
            group.restore(data[position : position + size])
            position += size
    return cache


def _read_header(data: bytes, path: str | os.PathLike) -> tuple[dict[str, Any], int]:
    if len(data) < _HEAD.size or data[:8] != MAGIC:
        raise Corrupt(f"{path} is not a file that KVQCache.save wrote, or is cut short: {_REMEDY}")
    _, version, length, digest = _HEAD.unpack_from(data)
    if version != VERSION:
        raise Corrupt(
            f"{path} has version {version} where this kvq reads version {VERSION}: open it with the kvq that wrote it, "
            "or prefill again"
        )
    header = data[_HEAD.size : _HEAD.size + length]
    if len(header) != length or hashlib.sha256(header).digest() != digest:
        raise Corrupt(f"{path} is damaged or cut short: {_REMEDY}")
    return json.loads(header), _HEAD.size + length


def _check_model(saved: dict[str, Any], given: dict[str, Any], path: str | os.PathLike) -> None:
    differing = [name for name in saved if saved[name] != given.get(name)]
    if differing:
        name = differing[0]
        raise InvalidArgument(
            f"{path} is the cache of another model ({name} {saved[name]}, here {given.get(name)}): open it with the "
            "config of the model that it was saved with"
        )
