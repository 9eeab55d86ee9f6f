# SPDX-License-Identifier: Apache-2.0
"""Caches of kvq.lowlevel on a device with memory and streams of its own: buffers as tensors, and the reference's answers.

The device is the fake of tests/unit/fakes: the scalar reference over memory that the host cannot touch. With
KVQ_TEST_ACCELERATOR=cuda a GPU takes its place; how near its attention is to the reference's, test_three_devices.py says.
"""
import os
import pathlib

import numpy as np
import pytest
import torch
from device_tensor import empty_tensor, random_tensor

import kvq
from kvq import lowlevel

LAYERS, Q_HEADS, KV_HEADS, D = 2, 4, 2, 32
FAKE = pathlib.Path(kvq.__file__).absolute().parents[2] / "tests/unit/fakes/libfake_accelerator.so"


DEVICE = os.environ.get("KVQ_TEST_ACCELERATOR", "fake")


def open_context(device, monkeypatch):
    if device != "fake":
        return lowlevel.Context(device, threads=1)
    assert FAKE.exists(), "build the tests: the target fake_accelerator is not there"
    monkeypatch.setenv("KVQ_PTXSIM", str(FAKE))
    return lowlevel.Context("ptxsim", threads=1)


@pytest.fixture(params=["ref", DEVICE])
def context(request, monkeypatch):
    return open_context(request.param, monkeypatch)


def make_cache(context, **options):
    return lowlevel.Cache(context, "k4c32-v4t32/w32,sliding", layers=LAYERS, q_heads=Q_HEADS, kv_heads=KV_HEADS, dk=D,
                          dv=D, dtype="float16", blocks=16, sequences=3, **options)


def tensor(context, shape, rng=None, dtype=torch.float16):
    return empty_tensor(context, shape, dtype) if rng is None else random_tensor(context, shape, rng, dtype)


def step(context, cache, sequences, tokens, rng, stream=None):
    results = []
    with cache.plan(sequences, [tokens] * len(sequences)) as opened:
        for layer in range(LAYERS):
            batch = len(sequences)
            q = tensor(context, (batch, Q_HEADS, tokens, D), rng)
            k, v = (tensor(context, (batch, KV_HEADS, tokens, D), rng) for _ in "kv")
            out = tensor(context, (batch, Q_HEADS, tokens, D))
            lse = tensor(context, (batch, Q_HEADS, tokens), dtype=torch.float32)
            if layer == 0 and tokens <= 32:
                opened.append(layer, k.array, v.array)
                opened.attend(layer, q.array, 0.25, out.array, lse.array, stream=stream)
            else:
                opened.forward(layer, q.array, k.array, v.array, 0.25, out.array, lse.array, stream=stream)
            if stream is not None:
                stream.synchronize()
            results += [out.fetch(), lse.fetch()]
    return results


def read(context, cache, sequence):
    shape = (KV_HEADS, cache.length(sequence), D)
    result = []
    for layer in range(LAYERS):
        k, v = tensor(context, shape), tensor(context, shape)
        cache.read(sequence, layer, k.array, v.array)
        result += [k.fetch(), v.fetch()]
    return result


def run(context, stream=None):
    """Everything that a sequence goes through; all answers and all stored bytes."""
    rng, cache, results = np.random.default_rng(5), make_cache(context), []
    first = cache.add()
    results += step(context, cache, [first], 130, rng, stream)
    second = cache.fork(first)
    for _ in range(3):
        results += step(context, cache, [first, second], 1, rng, stream)
    assert cache.crop(second, 70) > 0
    cache.grow(20, 4)
    results += step(context, cache, [second, first], 20, rng, stream)
    third = cache.restore(cache.snapshot(second))
    for sequence in (first, second, third):
        results += read(context, cache, sequence)
    results += [np.frombuffer(cache.snapshot(third), np.uint8)]
    return results


@pytest.mark.skipif(DEVICE != "fake", reason="the sums of a GPU are not the reference's bit by bit")
def test_answers_are_those_of_the_reference(context):
    expected, given = run(lowlevel.Context("ref", threads=1)), run(context)
    assert len(given) == len(expected)
    for one, other in zip(given, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_on_a_stream(monkeypatch):
    context = open_context(DEVICE, monkeypatch)
    for one, other in zip(run(context, context.stream()), run(context), strict=True):
        np.testing.assert_array_equal(one, other)


def test_arrays_of_buffers(context):
    buffer, host = context.buffer(64), np.arange(16, dtype=np.float32)
    buffer.upload(host)
    part = buffer.array([2, 3], "float32", offset=8)
    with pytest.raises(kvq.InvalidArgument, match="does not lie in the buffer of 64"):
        buffer.array([17], "float32")
    with pytest.raises(kvq.InvalidArgument, match="multiple of 2"):
        buffer.array([2], "bfloat16", offset=3)
    with pytest.raises(kvq.InvalidArgument, match="does not lie"):
        buffer.array([1 << 40, 1 << 40], "float32")
    if context.level == "ref":
        np.testing.assert_array_equal(np.from_dlpack(part), host[2:8].reshape(2, 3))
    assert part.__dlpack_device__()[0] == (1 if context.level == "ref" else 2)


def test_what_lies_elsewhere_is_refused(context):
    cache = make_cache(context)
    sequence, rng = cache.add(), np.random.default_rng(1)
    pages = cache.pages(0)
    assert pages.__dlpack_device__()[0] == (1 if context.level == "ref" else 2)
    host = rng.standard_normal((1, KV_HEADS, 1, D)).astype(np.float16)
    with cache.plan([sequence], [1]) as opened:
        shown = tensor(context, host.shape, rng)
        if context.level != "ref":
            with pytest.raises(kvq.Unsupported, match="k lies in the host's memory"):
                opened.append(0, host, shown.array)
        for layer in range(LAYERS):
            opened.append(layer, shown.array, shown.array)
    assert cache.length(sequence) == 1
