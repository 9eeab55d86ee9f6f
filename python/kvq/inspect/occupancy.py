# SPDX-License-Identifier: Apache-2.0
"""How many blocks of a kernel stand on a multiprocessor at once, by CUDA's rules of allocation, and what limits
them."""

from __future__ import annotations

from dataclasses import dataclass

from kvq.errors import InvalidArgument
from kvq.inspect.gpus import Architecture

WARP = 32
PARTITIONS = 4  # of a multiprocessor; each has a quarter of the registers and of the warps
REGISTER_UNIT = 256  # registers are given to a warp in units of so many
SHARED_UNIT = 128
RESERVED_SHARED = 1024  # of each block, for the system


@dataclass(frozen=True)
class Occupancy:
    blocks: int
    warps: int
    share: float  # of the warps that the multiprocessor can hold
    limits: dict[str, int]  # blocks by each resource alone
    limiter: str  # the resources that allow no more blocks, with commas between


def occupancy(architecture: Architecture, threads: int, registers: int, shared: int) -> Occupancy:
    """Of blocks of so many threads with `registers` a thread and `shared` bytes of static and dynamic shared memory.

    A kernel that cannot be launched has 0 blocks.
    """
    if not 1 <= threads <= architecture.threads_per_block:
        raise InvalidArgument(f"a block of {threads} threads: give 1 to {architecture.threads_per_block}")
    if registers < 0 or shared < 0:
        raise InvalidArgument(f"{registers} registers and {shared} bytes of shared memory: give none or more")
    warps = -(-threads // WARP)
    limits = {
        "warps": architecture.warps_per_sm // warps,
        "blocks": architecture.blocks_per_sm,
        "registers": _by_registers(architecture, warps, registers),
        "shared memory": _by_shared(architecture, shared),
    }
    blocks = min(limits.values())
    limiter = ", ".join(name for name, value in limits.items() if value == blocks)
    return Occupancy(blocks, blocks * warps, blocks * warps / architecture.warps_per_sm, limits, limiter)


def _by_registers(architecture: Architecture, warps: int, registers: int) -> int:
    if registers > architecture.registers_per_thread:
        return 0
    if registers == 0:
        return architecture.blocks_per_sm
    of_warp = -(-registers * WARP // REGISTER_UNIT) * REGISTER_UNIT
    return architecture.registers_per_sm // PARTITIONS // of_warp * PARTITIONS // warps


def _by_shared(architecture: Architecture, shared: int) -> int:
    if shared > architecture.shared_per_block:
        return 0
    return architecture.shared_per_sm // (-(-(shared + RESERVED_SHARED) // SHARED_UNIT) * SHARED_UNIT)
