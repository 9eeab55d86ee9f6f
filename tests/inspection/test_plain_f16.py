# SPDX-License-Identifier: Apache-2.0
"""The kernels that stand beside ours in ./dev bench nvidia are attention, and every line of them is executed."""

import sys
from pathlib import Path

import numpy as np
import ptx_run
import tolerances
import toolchain
from kvq import lowlevel
from kvq.inspect import tools, workload

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

from gpu import plain  # noqa: E402

pytestmark = toolchain.needs_toolkit


def attention(q, k, v):
    """[heads][group][128] in f64."""
    scores = np.einsum("hgc,htc->hgt", *(a.astype(np.float64) for a in (q, k))) / plain.CHANNELS**0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hgt,htc->hgc", weights / weights.sum(-1, keepdims=True), v.astype(np.float64))


def merged(parts, statistics):
    """Of [heads][splits * warps][group]: partial results and their (maximum in base 2, sum)."""
    maximum, total = statistics[..., 0], statistics[..., 1]
    factor = np.where(total > 0, np.exp2(maximum - maximum.max(1, keepdims=True)), 0.0)
    return (factor[..., None] * parts).sum(1) / (factor * total).sum(1)[..., None]


def test_it_is_attention():
    ptx = toolchain.ptx(plain.KERNEL, folder=plain.FOLDER)
    missed = []
    for tokens, heads, group, splits in ((330, 2, 4, 2), (64, 1, 8, 1), (5, 1, 7, 4), (200, 1, 1, 1)):
        given = plain.arrays(tokens, heads, group, seed=tokens)
        programs = heads, splits * plain.WARPS, group
        shape = ptx_run.Bytes(plain.shape_bytes(tokens, heads, group, splits))
        (parts, statistics), report = ptx_run.run(
            ptx, (splits, heads), plain.THREADS, *map(ptx_run.In, given.values()),
            ptx_run.Out((*programs, plain.CHANNELS), "float32"), ptx_run.Out((*programs, 2), "float32"), shape,
            kernel=plain.KERNEL, shared=plain.SHARED,
        )  # fmt: skip
        missed.append(set(report["coverage"]["missed"]))
        found = merged(parts.astype(np.float64), statistics.astype(np.float64))
        assert tolerances.relative_rms(found, attention(**given)) <= tolerances.HALF_WEIGHTS_RMS
    assert set.intersection(*missed) == set()


def test_workload(tmp_path):
    work = workload.read(plain.write_workload(tmp_path, 256, 2, 4, 2))
    counts = workload.count(work, toolchain.ptx(plain.KERNEL, folder=plain.FOLDER), plain.KERNEL)
    assert (counts.status, counts.findings) == ("ok", 0)
    # Every half of K and V once, and q.
    assert counts.counters["unique_global_bytes_read"] == 2 * work.elements + 2 * 4 * 128 * 2


def test_the_tile_program_is_attention():
    context = lowlevel.Context("ptxsim", threads=1, store_dir="")
    kernel = lowlevel.compile(context, plain.TILE_PROGRAM.read_text(encoding="utf-8"))
    for tokens, heads, group, splits in ((256, 2, 4, 2), (64, 1, 8, 1), (320, 3, 1, 5)):
        given = plain.arrays(tokens, heads, group, seed=tokens)
        parts = np.zeros((heads, splits, plain.ROWS, plain.CHANNELS), np.float32)
        statistics = np.zeros((heads, splits, plain.ROWS, 2), np.float32)
        buffers = [context.buffer(array.nbytes) for array in (*given.values(), parts, statistics)]
        for buffer, array in zip(buffers, given.values()):
            buffer.upload(array)
        kernel.launch([*buffers, *plain.tile_arguments(tokens, group, splits)], grid=[splits, heads, 1])
        buffers[3].download(parts)
        buffers[4].download(statistics)
        found = merged(*(array[:, :, :group].astype(np.float64) for array in (parts, statistics)))
        assert tolerances.relative_rms(found, attention(**given)) <= tolerances.HALF_WEIGHTS_RMS


def test_workload_of_the_tile_program(tmp_path):
    work = workload.read(plain.write_tile_workload(tmp_path, 256, 2, 4, 2))
    ptx = tools.run("kvqc", [str(plain.TILE_PROGRAM), "--target=nvptx:sm_80", "--no-bundle"]).stdout
    counts = workload.count(work, ptx, "kvq_entry")
    assert (counts.status, counts.findings) == ("ok", 0)
    assert counts.lines_executed == counts.lines_of_kernel
    assert counts.counters["unique_global_bytes_read"] == 2 * work.elements + 2 * 4 * 128 * 2
