# SPDX-License-Identifier: Apache-2.0
"""What documents promise of the attend kernels, read from the report of the kernels that are shipped: heads of 128, four
query heads a KV head, pages of 128 tokens, decoding from a long context. The steady state is what a launch over more
tokens counts more, so that the length of the context has no part in it."""

import functools
import tempfile
from pathlib import Path

import pytest
import schema
from inspect_tools import needs_machine_code
from kvq import lowlevel
from kvq.inspect import attend, gpus, inspect_kernel, requests

pytestmark = needs_machine_code
HEAD, PAGE = 128, 128
CASES = [(bits, group) for bits in (2, 4, 8) for group in (128, 32)]
SIZE = attend.AttendSize(tokens=2048, heads=1, splits=2)  # two tiles a warp, one of them in half of it
# GPU: (target, bytes in flight a multiprocessor). Bandwidth times 800 ns over multiprocessors, by the figures and sources
# of gpus.py: 2,039 GB/s and 108, 3,350 GB/s and 132.
NEEDED = {"A100": ("sm_80", 15104), "H100": ("sm_90", 20303)}


@functools.cache
def compiled_request(target, bits, group):
    pair = f"k{bits}c{group}-v{bits}t{group}"
    request = f"attend:{pair}:mma:p{PAGE}:dk{HEAD}:dv{HEAD}:g4:f16:rows8:lag0:win0:cap0:exact"
    return request, requests.compile_request(request, f"nvptx:{target}")


@functools.cache
def report(target, bits, group):
    """Predictions for GPUs of exactly this target."""
    request, compiled = compiled_request(target, bits, group)
    own = [gpu for gpu in gpus.GPUS.values() if gpu.architecture == target]
    with tempfile.TemporaryDirectory(prefix="kvq-lean-") as folder:
        work, less = attend.workloads(request, compiled, SIZE, Path(folder))
        found = inspect_kernel(compiled.ptx, gpus.ARCHITECTURES[target], work=work, less=less, gpus=own, source=request)
    assert schema.wrong(found) == "" and (found["counters"]["status"], found["counters"]["findings"]) == ("ok", 0)
    return found


def predicted(gpu, target, bits, group):
    return next(row for row in report(target, bits, group)["predicted"]["gpus"] if row["gpu"] == gpu)


@pytest.mark.parametrize("bits, group", CASES)
def test_iterations_visit_every_element_once(bits, group):
    """Proves the number that all figures of the loop are divided by: a turn has a tile of the schedule, and turns times
    tiles are all packed tokens; the query's own token is in the loop over the tail."""
    loop = report("sm_80", bits, group)["loop"]
    assert loop["elements_per_iteration"] == loop["ptx_iterations"] * 128 * 2 * HEAD
    assert loop["share_of_elements"] == pytest.approx(SIZE.tokens / (SIZE.tokens + 1), rel=1e-9)


@pytest.mark.parametrize("bits, group", CASES)
def test_no_bank_conflicts(bits, group):
    """Proves that neither the steady state nor what comes before and behind it has any."""
    counters = report("sm_80", bits, group)["counters"]
    assert counters["shared_requests"] > 0
    assert counters["bank_conflicts"] == counters["steady_state"]["bank_conflicts"] == 0


@pytest.mark.parametrize("bits, group", CASES)
def test_sectors_are_full(bits, group):
    """Proves that each tile's accesses use every byte of their sectors but for a word of the block table,
    and another one where the tile ahead is prefetched."""
    words = 1 + ("prefetch=0" not in compiled_request("sm_80", bits, group)[1].schedule)
    steady = report("sm_80", bits, group)["counters"]["steady_state"]
    tiles = steady["elements"] / (PAGE * 2 * HEAD)
    unused = (1 - steady["sector_share_used"]) * steady["bytes_per_element"]["requested"] * steady["elements"]
    assert unused / tiles == pytest.approx(words * (32 - 4))


@pytest.mark.parametrize("bits, group", CASES)
def test_bytes_are_those_of_the_format(bits, group):
    """Proves that memory gives each byte of a page once, with at most 3 % of anything else. Of the whole launch too,
    with the query, its own token, lists and results."""
    counters = report("sm_80", bits, group)["counters"]
    page = lowlevel.format_page_bytes(f"k{bits}c{group}-v{bits}t{group}", HEAD, HEAD, PAGE)
    size = page / (PAGE * 2 * HEAD)
    assert size <= counters["steady_state"]["bytes_per_element"]["read_unique"] <= 1.03 * size
    assert counters["steady_state"]["bytes_per_element"]["written_unique"] == 0
    assert size <= counters["bytes_per_element"]["read_unique"] <= 1.03 * size


@pytest.mark.parametrize("gpu", NEEDED)
@pytest.mark.parametrize("bits, group", CASES)
def test_enough_bytes_in_flight(bits, group, gpu):
    """Proves that resident warps ask for the product of bandwidth and latency."""
    target, needed = NEEDED[gpu]
    row = predicted(gpu, target, bits, group)
    assert row["predicted_bytes_in_flight_needed"] == pytest.approx(needed, abs=1)
    assert row["predicted_bytes_in_flight"] >= needed
    assert row["predicted_bytes_in_flight_from"] in ("loads until their first use", "prefetches of one iteration")


@pytest.mark.parametrize("gpu", ["A100", "RTX 4090", "H100", "H200"])
def test_memory_is_the_limiter_at_four_bits(gpu):
    """Proves that issue slots, pipes and bytes in flight all leave room, by the model."""
    assert predicted(gpu, gpus.GPUS[gpu].architecture, 4, 128)["predicted_limiter"] == "memory"
    assert predicted(gpu, gpus.GPUS[gpu].architecture, 4, 32)["predicted_limiter"] == "memory"
