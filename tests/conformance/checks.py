# SPDX-License-Identifier: Apache-2.0
"""What the conformance tests do with a launch: run it on a level and on device `ref`, and compare with the oracle."""

import zlib
from functools import lru_cache

import numpy as np

import kernels
import tolerances
from attend_kernel import laid_out, prepare_attend
from kvq import lowlevel
from kvq_oracle import attention
from memory import decode
from simulated import device_of, is_simulated, simulated_kernel


@lru_cache(maxsize=None)
def context(device, level=None):
    return lowlevel.Context(device, level=level, threads=1, store_dir="")


@lru_cache(maxsize=1)
def levels():
    return list(context("cpu").levels)


@lru_cache(maxsize=None)
def kernel(device, level, request_text, mode=()):
    """mode: of the simulator, as the items of a dict."""
    if is_simulated(level):
        return simulated_kernel(level, request_text, **dict(mode))
    return lowlevel.open_kernel(context(device, level), request_text)


def kernel_of(level, op, shape, mode=()):
    """The built-in kernel of a level, which also says where it runs."""
    return kernel(device_of(level), level, shape.request(op), mode)


def seed_of(*what):
    return zlib.crc32(repr(what).encode())


def run_everywhere(level, op, shape, prepare, *args, mode=()):
    """The same launch on the level's device and on device ref: (launch, outputs of the level, outputs of ref)."""
    seed = seed_of(op, shape, len(args))
    launch = prepare(np.random.default_rng(seed), *args)
    reference = prepare(np.random.default_rng(seed), *args)
    ref = kernel("ref", None, shape.request(op))
    return launch, launch.run(kernel_of(level, op, shape, mode)), reference.run(ref)


def assert_same_bits(actual, expected, what):
    actual, expected = (np.ascontiguousarray(x).view(np.uint8) for x in (actual, expected))
    different = np.argwhere(actual != expected)
    assert not len(different), f"{what}: {len(different)} bytes differ, the first at index {different[0].tolist()}"


# ---- append, quantize, dequantize: bit-equal ------------------------------------------------------------------------


def compare_append(outputs, launch, device):
    assert outputs["status"].tolist() == launch.expected["status"].tolist(), device
    for which in "KV":
        assert_same_bits(outputs[which], launch.expected[which], f"{device}: tail of {which}")


def check_append(shape, level, mode=()):
    launch, cpu, ref = run_everywhere(level, "append", shape, kernels.prepare_append, shape, mode=mode)
    for device, outputs in (("cpu", cpu), ("ref", ref)):
        compare_append(outputs, launch, device)


def check_pages(shape, level, rows_of=None, mode=()):
    for which in "KV":
        for op, prepare, name in (
            ("quantize", kernels.prepare_quantize, "pool"),
            ("dequantize", kernels.prepare_dequantize, "out"),
        ):
            request = f"{op}_{which.lower()}"
            for layout in kernels.LAYOUTS:
                args = (shape, which, rows_of, layout)
                launch, cpu, ref = run_everywhere(level, request, shape, prepare, *args, mode=mode)
                assert_same_bits(ref[name], launch.expected[name], f"ref: {request}, {layout}")
                assert_same_bits(cpu[name], launch.expected[name], f"cpu: {request}, {layout}")


# ---- attend, merge: within the accuracy class -----------------------------------------------------------------------


def compare_partials(outputs, launch, device, budget=tolerances.EXACT):
    """Per split and sequence, so that a short sequence cannot hide in a long one. budget: of the arithmetic."""
    partials, sequence_of = launch.expected["partials"], launch.expected["sequence"]
    scratch = np.full(1, kernels.SCRATCH * 0x01010101, np.uint32).view(np.float32)[0]
    written = np.zeros(outputs["lse"].shape, bool)
    for split in range(written.shape[0]):
        for sequence in sorted(set(sequence_of)):
            where = [w for w in partials if w[0] == split and sequence_of[w[1]] == sequence]
            if not where:
                continue
            index = tuple(np.array(where).T)
            written[index] = True
            lse = np.array([partials[w][1] for w in where])
            seen = np.isfinite(lse)
            got = outputs["lse"][index].astype(np.float64)
            label = f"{device}: split {split} of sequence {sequence}"
            sizes = np.array([launch.expected["score rms"][w] for w in where])[seen]
            bound = tolerances.lse_tolerance(lse[seen], budget, sizes)
            assert np.isneginf(got[~seen]).all(), f"{label}: lse is not -inf where no key was seen"
            off = ~(np.abs(got[seen] - lse[seen]) <= bound)
            assert not off.any(), f"{label}: lse {got[seen][off][0]} instead of {lse[seen][off][0]}"
            if seen.any():
                o = np.stack([partials[w][0] for w in where])[seen]
                error = tolerances.relative_rms(outputs["o"][index][seen], o)
                assert error <= tolerances.over_rows(budget, len(o)), f"{label}: relative rms {error:.2e}"
    assert (outputs["lse"][~written] == scratch).all() and (outputs["o"][~written] == scratch).all(), device
    return written


def check_attend(case, level, mode=()):
    launch, cpu, ref = run_everywhere(level, "attend", case.shape, prepare_attend, case, mode=mode)
    compare_partials(ref, launch, "ref")
    compare_attend(case, level, launch, cpu, ref, mode)
    check_layouts(level, case.shape, launch, mode)


def check_layouts(level, shape, launch, mode=()):
    """Where the pages lie changes no bit of what has just come out."""
    before = {name: output.copy() for name, output in launch.outputs.items()}
    for layout in kernels.LAYOUTS[1:]:
        outputs = laid_out(launch, layout).run(kernel_of(level, "attend", shape, mode))
        for name, output in outputs.items():
            assert_same_bits(output, before[name], f"cpu: {name} of pages in {layout}")


def compare_attend(case, level, launch, cpu, ref, mode=()):
    """Within the class's budget; device ref computes in f32 whatever the class is."""
    shape, budget = case.shape, case.budget
    written = compare_partials(cpu, launch, "cpu", budget)
    both = written & np.isfinite(ref["lse"])
    assert tolerances.relative_rms(cpu["o"][both], ref["o"][both]) <= tolerances.two_devices_rms(budget)
    check_whole_attention(shape, level, launch, cpu, budget, mode)


def check_whole_attention(shape, level, launch, outputs, budget, mode=()):
    """attend's own partial results through merge, against attention over all keys at once."""
    splits, partials = launch.expected["splits"], launch.expected["partials"]
    expected_o = np.zeros((len(splits), shape.q_heads, shape.dv))
    for query, parts in enumerate(splits):
        for head in range(shape.q_heads):
            o, lse = zip(*(partials[part, query, head] for part in range(parts)))
            expected_o[query, head] = attention.merge(o, lse)[0]
    merge = kernels.prepare_merge(np.random.default_rng(1), shape, outputs["o"], outputs["lse"], splits)
    result = merge.run(kernel_of(level, "merge", shape, mode))
    got = decode(result["out"], shape.dtype)[:, merge.expected["order"]].swapaxes(0, 1)
    for sequence in sorted(set(launch.expected["sequence"])):
        of = launch.expected["sequence"] == sequence
        allowed = tolerances.over_rows(budget, int(of.sum()) * shape.q_heads)
        error = tolerances.relative_rms(got[of], expected_o[of])
        assert error <= tolerances.attention_rms(shape.dtype, allowed), f"sequence {sequence}: relative rms {error:.2e}"


TOGETHER = (None, 1, 4)  # heads of a program of merge: all, one, four and what is left


def prepare_merge_with_holes(rng, shape, together=None):
    """merge_c1, attention_c12, also with parts that saw no key and hold rubbish."""
    parts, queries = 5, 7
    o = rng.standard_normal((parts, queries, shape.q_heads, shape.dv)).astype(np.float32)
    lse = (rng.standard_normal((parts, queries, shape.q_heads)) * 6).astype(np.float32)
    splits = [1, 2, 5, 3, 4, 5, 2]
    lse[1, 1], lse[0, 2, 0], lse[2:, 5] = -np.inf, -np.inf, -np.inf
    o[1, 1], o[0, 2, 0], o[2:, 5] = 1e30, -1e30, 3e38
    lse[:, 4] -= 300.0  # exp(lse) alone is 0 in f32
    for query, count in enumerate(splits):
        o[count:, query] = np.nan  # never written by anybody
    # attention_c12: some heads have sink logits, also above all others, also where no key was seen.
    sinks = np.where(np.arange(shape.q_heads) % 3, rng.standard_normal(shape.q_heads) * 8, -np.inf)
    return kernels.prepare_merge(rng, shape, o, lse, splits, sinks, together)


def compare_merge(outputs, launch, device, shape):
    order = launch.expected["order"]
    rest = np.setdiff1d(np.arange(outputs["out"].shape[1]), order)
    got = decode(outputs["out"], shape.dtype)[:, order].swapaxes(0, 1)
    error = tolerances.relative_rms(got, launch.expected["o"])
    assert error <= tolerances.MERGE_RMS[shape.dtype], f"{device}: relative rms {error:.2e}"
    off = np.abs(outputs["lse"] - launch.expected["lse"])
    bound = tolerances.merged_lse_tolerance(launch.expected["lse"])
    assert (off <= bound).all(), f"{device}: lse off by {off.max()}"
    untouched = np.ascontiguousarray(outputs["out"][:, rest]).view(np.uint8)
    assert (untouched == kernels.SCRATCH).all(), f"{device}: rows that no query owns were written"


def check_merge(shape, level, mode=()):
    for together in TOGETHER:
        launch, cpu, ref = run_everywhere(level, "merge", shape, prepare_merge_with_holes, shape, together, mode=mode)
        for device, outputs in (("cpu", cpu), ("ref", ref)):
            compare_merge(outputs, launch, f"{device}, {together} heads together", shape)
