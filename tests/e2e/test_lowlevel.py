# SPDX-License-Identifier: Apache-2.0
"""The Python face of the C API: arrays without copies, exceptions, steps as transactions."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import kvq
from kvq import lowlevel

FORMAT = "k4c32-v4t16/w32,block"


@pytest.fixture
def cache(context):
    return lowlevel.Cache(context, FORMAT, layers=2, q_heads=4, kv_heads=2, dk=16, dv=16, blocks=4, sequences=2)


def states(tokens, seed=0, heads=2):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, heads, tokens, 16)).astype(np.float32) for _ in range(2)]


def fill(cache, sequence, k, v):
    with cache.plan([sequence], [k.shape[2]]) as step:
        for layer in range(2):
            step.append(layer, k, v)


def read(cache, sequence, layer=0):
    shape = (2, cache.length(sequence), 16)
    k, v = np.empty(shape, np.float32), np.empty(shape, np.float32)
    cache.read(sequence, layer, k, v)
    return k, v


def test_format_functions():
    assert lowlevel.format_canonical("kivi-2") == "k2c32-v2t32/w128,sliding"
    assert lowlevel.format_canonical("k8th-v3th") == "k8th-v3th/w128,block"
    assert lowlevel.format_page_bytes("k8th-v3th", 80, 48) == lowlevel.format_page_bytes("k8t80-v3t48", 80, 48)
    assert lowlevel.format_page_bytes("kvq-3", 64, 64, 64) * 8 / (64 * 128) == 4.0
    assert lowlevel.format_layouts("kivi-2", 64, 64, profile="kivi")[1] == "[ch.0 ch.1 ch.2 ch.3] ch:4 tok:64"
    assert lowlevel.format_layouts("kvq-4", 64, 64) == lowlevel.format_layouts("kvq-4", 64, 64, 64, "vnni")
    with pytest.raises(kvq.InvalidArgument, match="width 3 of .* not legal in the profile mma"):
        lowlevel.format_layouts("kvq-3", 64, 64, profile="mma")
    assert 64 in lowlevel.format_page_tokens("kivi-2")
    assert lowlevel.format_frontier("kivi-4", 300) == (256, 172)
    assert lowlevel.format_page_bytes("kvq-4", 64, 64, 64) * 8 / (64 * 128) == 5.0


def test_numpy_and_torch_give_the_same_cache(cache):
    k, v = states(70)
    a, b = cache.add(), cache.add()
    fill(cache, a, k, v)
    fill(cache, b, torch.from_numpy(k), torch.from_numpy(v))
    assert all(np.array_equal(x, y) for x, y in zip(read(cache, a), read(cache, b)))


def test_recent_tokens_come_back_as_they_were(cache):
    k, v = states(70)
    sequence = cache.add()
    fill(cache, sequence, k, v)
    frontier = lowlevel.format_frontier(FORMAT, 70)[0]
    assert frontier == 32
    got_k, got_v = read(cache, sequence)
    assert np.array_equal(got_k[:, frontier:], k[0][:, frontier:])
    assert np.array_equal(got_v[:, frontier:], v[0][:, frontier:])
    assert not np.array_equal(got_k[:, :frontier], k[0][:, :frontier])
    assert np.abs(got_k - k[0]).max() < 0.5


def test_strided_and_read_only_arrays_are_read_in_place(cache):
    k, v = states(40)
    wide = np.zeros((1, 40, 2, 16), np.float32)
    wide[:] = k.transpose(0, 2, 1, 3)
    wide.flags.writeable = False
    a, b = cache.add(), cache.add()
    fill(cache, a, k, v)
    fill(cache, b, wide.transpose(0, 2, 1, 3), v)
    assert np.array_equal(read(cache, a)[0], read(cache, b)[0])


def test_forward_writes_through_strides(cache):
    k, v = states(40)
    q = np.random.default_rng(1).standard_normal((1, 4, 40, 16)).astype(np.float32)
    outs = [np.empty((1, 4, 40, 16), np.float32), np.empty((1, 40, 4, 16), np.float32).transpose(0, 2, 1, 3)]
    for out in outs:
        with cache.plan([cache.add()], [40]) as step:
            for layer in range(2):
                step.forward(layer, q, k, v, 0.25, out)
    assert np.array_equal(*outs)
    keys, values = np.repeat(k, 2, axis=1), np.repeat(v, 2, axis=1)
    scores = np.einsum("bhqd,bhkd->bhqk", q, keys) * 0.25 + np.triu(np.full((40, 40), -np.inf), 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("bhqk,bhkd->bhqd", weights / weights.sum(-1, keepdims=True), values)
    # Positions below 64 see no quantized token: window 32 and commit group 32.
    assert np.abs(outs[0] - expected).max() < 1e-4


def test_with_block_that_raises_takes_the_step_back(cache):
    k, v = states(40)
    sequence = cache.add()
    before = cache.report()
    with pytest.raises(ZeroDivisionError), cache.plan([sequence], [40]) as step:
        step.append(0, k, v)
        raise ZeroDivisionError
    assert cache.length(sequence) == 0
    assert cache.report() == before
    with pytest.raises(kvq.FailedPrecondition, match="has ended"):
        step.append(1, k, v)


def test_commit_needs_every_layer(cache):
    k, v = states(8)
    step = cache.plan([cache.add()], [8])
    step.append(0, k, v)
    with pytest.raises(kvq.Error):
        step.commit()
    step.append(1, k, v)
    step.commit()
    assert cache.report()["tokens"] == 8


def test_with_block_that_cannot_commit_takes_the_step_back(cache):
    sequence = cache.add()
    step = cache.plan([sequence], [8])
    with pytest.raises(kvq.FailedPrecondition, match="layer 1 has not appended"), step:
        step.append(0, *states(8))
    assert not step.is_open
    with cache.plan([sequence], [0]) as step:
        step.abort()
    fill(cache, sequence, *states(8))
    assert cache.length(sequence) == 8


def test_pages_outlive_growing(cache):
    sequence = cache.add()
    fill(cache, sequence, *states(70))
    pages = cache.pages(0)
    before = pages.copy()
    cache.grow(64, 2)
    others = [np.full(pages.nbytes, 255, np.uint8) for _ in range(8)]
    assert np.array_equal(pages, before) and others
    assert np.array_equal(cache.pages(0)[: len(before)], before)


def test_page_c4_pages_by_run_head_and_block(context):
    """Against a snapshot, which has block after block and in each the pages of its heads."""
    cache = lowlevel.Cache(context, FORMAT, layers=1, q_heads=2, kv_heads=2, dk=16, dv=16, blocks=20, sequences=2)
    page_bytes = lowlevel.format_page_bytes(FORMAT, 16, 16, 64)
    pages = cache.pages(0)
    assert pages.shape == (2, 2, 16, page_bytes)  # runs, heads, blocks
    a, b = cache.add(), cache.add()
    for _ in range(3):  # in turns
        for sequence in (a, b):
            with cache.plan([sequence], [70]) as step:
                step.append(0, *states(70, seed=sequence))
    assert cache.block_table(a) == [0, 1, 2] and cache.block_table(b) == [32, 33, 34]
    for sequence in (a, b):
        data = cache.snapshot(sequence)
        tail = 2 * 2 * 96 * 16 * 4  # K and V, heads, tail_c1, channels, sizeof float
        packed = data[len(data) - tail - 3 * 2 * page_bytes : len(data) - tail]
        at = lambda number, head: number * pages.strides[2] + head * pages.strides[1]
        flat = pages.reshape(-1)
        found = [flat[at(n, h) : at(n, h) + page_bytes] for n in cache.block_table(sequence) for h in range(2)]
        assert np.concatenate(found).tobytes() == packed


@pytest.mark.parametrize(
    "text, digest",
    [
        ("k4c32-v4t32/w32,block", "88a566b9cdf445847135a37e3c9be9ec076060b2bfb41b8d4b79df1e2950648f"),
        ("k2c32-v2t32/w32,sliding", "9281b2d7d3b69582b1fd7770595aebf9c074d9c1ac69e2c69a7458e848e2e0d0"),
        ("k4t16-v4t16/w32,keep4,flush", "7c5780c858e64d2d685e6d589489e8a87487a1044592b939e6c4552ed625e439"),
    ],
)
def test_snapshot_c2_the_bytes_are_those_of_version_1(context, text, digest):
    """Digests of snapshots from when the pages of a block lay behind each other: those files stay readable."""
    cache = lowlevel.Cache(context, text, layers=2, q_heads=3, kv_heads=3, dk=32, dv=32, blocks=20, sequences=2)
    ids = [cache.add(), cache.add()]
    for number, tokens in enumerate((90, 33, 70)):
        values = (np.arange(3 * tokens * 32).reshape(1, 3, tokens, 32) * (number + 7919) % 2003 - 1001) / np.float32(64)
        k = np.repeat(values.astype(np.float32), 2, axis=0)
        with cache.plan(ids, [tokens, tokens - 7]) as step:
            for layer in range(2):
                step.append(layer, k + layer, -k)
    assert hashlib.sha256(b"".join(cache.snapshot(sequence) for sequence in ids)).hexdigest() == digest


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not HUGE_PAGES.exists(), reason="this system has no huge pages to refuse")
def test_a_pool_is_not_of_huge_pages(cache):
    address, flags = cache.pages(0).ctypes.data, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        begin, _, end = line.split()[0].partition("-")
        if end:
            inside = int(begin, 16) <= address < int(end, 16)
        elif begin == "VmFlags:" and inside:
            flags = line
    assert "nh" in flags.split()


def test_a_full_pool_says_so_and_grows(cache):
    k, v = states(4 * 64 + 100)
    sequence = cache.add()
    with pytest.raises(kvq.PoolFull):
        cache.plan([sequence], [k.shape[2]])
    assert isinstance(kvq.PoolFull(), kvq.ResourceExhausted)
    fill(cache, sequence, k[:, :, :100], v[:, :, :100])
    before = read(cache, sequence)
    cache.grow(8, 3)
    assert all(np.array_equal(x, y) for x, y in zip(before, read(cache, sequence)))
    fill(cache, sequence, k[:, :, 100:], v[:, :, 100:])
    assert cache.length(sequence) == k.shape[2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_bad_values_name_their_place(cache, bad):
    k, v = states(10)
    k[0, 1, 7, 3] = bad
    sequence = cache.add()
    step = cache.plan([sequence], [10])
    with pytest.raises(kvq.BadValue, match="token 7.*head 1.*channel 3"):
        step.append(0, k, v)
    step.abort()
    assert cache.length(sequence) == 0
    fill(cache, sequence, *states(10))
    assert cache.length(sequence) == 10


def test_wrong_arrays_are_refused(cache):
    k, v = states(10)
    step = cache.plan([cache.add()], [10])
    with pytest.raises(kvq.Unsupported, match="float32, bfloat16 or float16"):
        step.append(0, k.astype(np.float64), v)
    with pytest.raises(kvq.InvalidArgument):
        step.append(0, states(10, heads=3)[0], v)
    with pytest.raises(kvq.InvalidArgument):
        step.append(5, k, v)
    with pytest.raises(kvq.InvalidArgument, match="one entry"):
        cache.plan([0, 1], [10])


def test_exceptions_are_pythons_own_too(context):
    with pytest.raises(ValueError, match="k5c32"):
        lowlevel.format_canonical("k5c32-v4t32")
    assert issubclass(kvq.BadValue, ValueError)
    assert issubclass(kvq.Unsupported, NotImplementedError)
    with pytest.raises(kvq.Error):
        lowlevel.Context("abacus")


def test_kernel_checks_its_arguments(context):
    request = "dequantize_k:k4c32-v4t32:vnni:p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact"
    kernel = lowlevel.open_kernel(context, request)
    words = kernel.signature.split()
    assert len(words) == 6
    with pytest.raises(kvq.InvalidArgument, match="takes 6"):
        kernel.launch([1, 2], grid=(1, 1, 1))
    index = next(i for i, word in enumerate(words) if word in ("i64", "i32"))
    arguments = [None if word.startswith("ptr") else 0 for word in words]
    arguments[index] = "x"
    with pytest.raises(kvq.InvalidArgument, match=f"argument {index}"):
        kernel.launch(arguments, grid=(1, 1, 1))


def test_kernel_refuses_arrays_it_could_not_use(context):
    request = "dequantize_k:k4c32-v4t32:vnni:p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact"
    kernel = lowlevel.open_kernel(context, request)
    words = kernel.signature.split()
    index = next(i for i, word in enumerate(words) if word.startswith("ptr"))
    dtype = {"ptr<f32>": np.float32, "ptr<i32>": np.int32, "ptr<i64>": np.int64}.get(words[index], np.uint8)
    read_only = np.zeros(8, dtype)
    read_only.flags.writeable = False
    arguments = [None if word.startswith("ptr") else 0 for word in words]
    for array, reason in (
        (np.zeros(16, dtype)[::2], "not C-contiguous"),
        (np.zeros(8, dtype)[::-1], "not C-contiguous"),
        (np.zeros((4, 2), dtype).T, "not C-contiguous"),
        (read_only, "read-only"),
    ):
        arguments[index] = array
        with pytest.raises(kvq.InvalidArgument, match=f"argument {index} is {reason}"):
            kernel.launch(arguments, grid=(1, 1, 1))
