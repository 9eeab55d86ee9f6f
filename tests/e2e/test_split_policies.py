# SPDX-License-Identifier: Apache-2.0
"""A split policy changes into how many parts attention's keys are cut and nothing else: each gives the reference's
answer within the class, the same bits with any number of threads and beside any other sequence, and goes on with what
was stored under another."""

import numpy as np
import pytest
import torch
from device_tensor import empty_tensor, random_tensor
from tolerances import attention_rms, budget, relative_rms, two_devices_rms

import kvq
from kvq import lowlevel

FORMAT, BITS = "k4c32-v2t32/w32,block", 2
SHAPE = dict(layers=1, q_heads=6, kv_heads=2, dk=64, dv=64, blocks=40, sequences=2, page_tokens=64)
TOKENS, SCALE = 900, 0.3
DEFAULT = "tokens=1024,programs=128,least=16,most=64"
POLICIES = (
    DEFAULT, "tokens=64,programs=1,least=512,most=512", "tokens=200,programs=8,least=1,most=4",
    "tokens=1048576,programs=1,least=1,most=1",
)  # fmt: skip
REQUEST = "split:k4c32-v2t32:vnni:p64:dk64:dv64:g3:f32:heads2:lag0:win0:cap0:exact"


def rows(rng, heads, tokens, batch=1):
    return rng.standard_normal((batch, heads, tokens, 64)).astype(np.float32)


def filled(context, policy=None, accuracy="exact"):
    """A cache with one sequence, always the same."""
    cache = lowlevel.Cache(context, FORMAT, accuracy=accuracy, split_policy=policy, **SHAPE)
    rng = np.random.default_rng(3)
    sequence = cache.add()
    with cache.plan([sequence], [TOKENS]) as step:
        step.append(0, rows(rng, 2, TOKENS), rows(rng, 2, TOKENS))
    return cache, sequence


def answer(cache, sequence, among=()):
    """Of one token that is not kept, and its log-sum-exp; `among`: other sequences of the step."""
    rng = np.random.default_rng(4)
    k, v, q = rows(rng, 2, 1), rows(rng, 2, 1), rows(rng, 6, 1)
    others = 1 + len(among)
    k, v, q = (np.concatenate([each] * others) for each in (k, v, q))
    out, lse = np.empty_like(q), np.empty(q.shape[:3], np.float32)
    step = cache.plan([sequence, *among], [1] * others)
    step.append(0, k, v)
    step.attend(0, q, SCALE, out, lse)
    step.abort()
    return np.concatenate([out[0].ravel(), lse[0].ravel()])


@pytest.fixture
def context(tmp_path):
    return lowlevel.Context("cpu", store_dir=str(tmp_path / "store"), threads=1)


@pytest.mark.parametrize("accuracy", lowlevel.ACCURACY_CLASSES)
def test_every_policy_gives_the_references_answer(context, accuracy):
    expected = answer(*filled(lowlevel.Context("ref"), accuracy=accuracy))
    bound = two_devices_rms(budget(accuracy, BITS))
    for policy in POLICIES:
        cache, sequence = filled(context, policy, accuracy)
        assert cache.split_policy == policy
        assert relative_rms(answer(cache, sequence), expected) <= bound, policy


@pytest.mark.parametrize("policy", POLICIES)
def test_threads_and_other_sequences_change_no_bit(context, policy, tmp_path):
    expected = answer(*filled(context, policy))
    many = lowlevel.Context("cpu", store_dir=str(tmp_path / "store"), threads=3)
    cache, sequence = filled(many, policy)
    assert np.array_equal(answer(cache, sequence), expected)
    other = cache.fork(sequence)
    assert np.array_equal(answer(cache, sequence, [other]), expected)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_snapshot_goes_on_under_another_policy(context, policy):
    cache, sequence = filled(context)
    other = lowlevel.Cache(context, FORMAT, accuracy="exact", split_policy=policy, **SHAPE)
    restored = other.restore(cache.snapshot(sequence))
    assert np.array_equal(answer(other, restored), answer(*filled(context, policy)))


def test_a_cache_that_grows_keeps_its_policy(context):
    cache, sequence = filled(context, POLICIES[1])
    before = answer(cache, sequence)
    context.set_split_policy(REQUEST, POLICIES[2])
    cache.grow(80, 3)
    assert cache.split_policy == POLICIES[1] and np.array_equal(answer(cache, sequence), before)


def test_a_choice_is_taken_by_caches_that_are_made_later(context, tmp_path):
    assert context.default_split_policy == DEFAULT and context.split_policy(REQUEST) is None
    assert filled(context)[0].split_policy == DEFAULT
    context.set_split_policy(REQUEST, POLICIES[1])
    later = lowlevel.Context("cpu", store_dir=str(tmp_path / "store"), threads=1)
    assert later.split_policy(REQUEST) == POLICIES[1]
    cache, sequence = filled(later)
    assert cache.split_policy == POLICIES[1]
    assert np.array_equal(answer(cache, sequence), answer(*filled(context, POLICIES[1])))
    given, _ = filled(later, POLICIES[2])
    assert given.split_policy == POLICIES[2] and given.config["split_policy"] == POLICIES[2]
    later.set_split_policy(REQUEST, None)
    assert filled(context)[0].split_policy == DEFAULT and context.split_policy(REQUEST) is None


def test_bad_policies_are_one_sentence(context):
    with pytest.raises(kvq.InvalidArgument, match="has tokens 8: it can be 16 to 1048576"):
        filled(context, "tokens=8,programs=128,least=16,most=64")
    with pytest.raises(kvq.InvalidArgument, match="has most 3: it can be 16 to 512"):
        context.set_split_policy(REQUEST, "tokens=64,programs=128,least=16,most=3")
    with pytest.raises(kvq.InvalidArgument, match="is none of a split policy"):
        context.split_policy("attend:k4c32")
    with pytest.raises(kvq.Unsupported, match="compiles no kernels"):
        lowlevel.Context("ref").set_split_policy(REQUEST, None)


def device_answer(context, policy=None):
    """Of one token behind 300, in f16, and the policy that the cache has."""
    cache = lowlevel.Cache(context, FORMAT, accuracy="exact", dtype="float16", split_policy=policy, **SHAPE)
    rng, half = np.random.default_rng(3), torch.float16
    sequence, q = cache.add(), random_tensor(context, (1, 6, 1, 64), rng, torch.float16)
    out = empty_tensor(context, (1, 6, 1, 64), half)
    for tokens in (300, 1):
        k, v = (random_tensor(context, (1, 2, tokens, 64), rng, half) for _ in "kv")
        with cache.plan([sequence], [tokens]) as step:
            step.append(0, k.array, v.array)
            if tokens == 1:
                step.attend(0, q.array, SCALE, out.array)
    return out.fetch(), cache.split_policy


def test_a_gpu_has_a_default_of_its_own_and_takes_choices(tmp_path):
    default = "tokens=1024,programs=256,least=4,most=128"
    gpu = lowlevel.Context("ptxsim", store_dir=str(tmp_path / "store"))
    expected, _ = device_answer(lowlevel.Context("ref"))
    bound = two_devices_rms() + 2 * attention_rms("f16", 0.0)
    assert gpu.default_split_policy == default
    found, policy = device_answer(gpu)
    assert policy == default and relative_rms(found, expected) <= bound
    request = REQUEST.replace(":vnni:", ":mma:").replace(":f32:", ":f16:")
    gpu.set_split_policy(request, POLICIES[1])
    found, policy = device_answer(gpu)
    assert policy == POLICIES[1] and relative_rms(found, expected) <= bound
    assert device_answer(gpu, POLICIES[2])[1] == POLICIES[2]
