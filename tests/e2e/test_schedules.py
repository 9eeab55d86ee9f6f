# SPDX-License-Identifier: Apache-2.0
"""A schedule changes how a kernel runs and nothing else: each one of a space gives the reference's answer within the
class, and a cache may change its schedules between two steps."""

import json

import numpy as np
import pytest
import torch
from device_tensor import empty_tensor, random_tensor
from tolerances import attention_rms, budget, relative_rms, two_devices_rms

import kvq
from kvq import lowlevel

FORMAT, BITS = "k4c32-v2t32/w32,block", 2
SHAPE = dict(layers=1, q_heads=6, kv_heads=2, dk=64, dv=64, blocks=12, sequences=1, page_tokens=64)
TOKENS, SCALE = 300, 0.3
ATTEND = "attend:k4c32-v2t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"


@pytest.fixture
def context(tmp_path):
    return lowlevel.Context("cpu", store_dir=str(tmp_path / "store"), threads=2)


def rows(rng, heads, tokens):
    return rng.standard_normal((1, heads, tokens, 64)).astype(np.float32)


def filled(context, accuracy, form=FORMAT, page_tokens=SHAPE["page_tokens"]):
    """A cache with one sequence, always the same."""
    cache = lowlevel.Cache(context, form, accuracy=accuracy, **{**SHAPE, "page_tokens": page_tokens})
    rng = np.random.default_rng(3)
    sequence = cache.add()
    k, v, q = rows(rng, 2, TOKENS), rows(rng, 2, TOKENS), rows(rng, 6, TOKENS)
    with cache.plan([sequence], [TOKENS]) as step:
        step.forward(0, q, k, v, SCALE, np.empty_like(q))
    return cache, sequence


def answer(cache, sequence):
    """Of one token that is not kept."""
    rng = np.random.default_rng(4)
    k, v, q = rows(rng, 2, 1), rows(rng, 2, 1), rows(rng, 6, 1)
    out = np.empty_like(q)
    step = cache.plan([sequence], [1])
    step.append(0, k, v)
    step.attend(0, q, SCALE, out)
    step.abort()
    return out


def attending(context):
    """Names of the attend kernels that are loaded, with the schedules of each."""
    found = {}
    for kernel in context.kernels():
        if kernel["name"].startswith("attend:"):
            found.setdefault(kernel["name"], set()).add(kernel["schedule"])
    return found


@pytest.mark.parametrize("accuracy", lowlevel.ACCURACY_CLASSES)
def test_every_schedule_gives_the_references_answer(context, accuracy):
    expected = answer(*filled(lowlevel.Context("ref"), accuracy))
    cache, sequence = filled(context, accuracy)
    answer(cache, sequence)
    request = next(name for name in attending(context) if ":rows3:" in name)
    default, schedules = context.schedule_space(request)
    assert default in schedules and len(schedules) > 8
    bound = two_devices_rms(budget(accuracy, BITS))
    for schedule in schedules[:: 1 if accuracy == "exact" else 7]:
        context.set_schedule(request, schedule)
        cache.refresh_kernels()
        assert relative_rms(answer(cache, sequence), expected) <= bound, schedule
        assert schedule in attending(context)[request]


@pytest.mark.parametrize("form, page_tokens", [("k4c32-v2t32/w64,sliding", 256), ("k4c32-v2t32/w32,sliding", 160)])
def test_tail_c1_tiles_longer_than_the_ring(context, form, page_tokens):
    """The last tile with packed K has its V in a ring that is shorter than a page."""
    expected = answer(*filled(lowlevel.Context("ref"), "exact", form, page_tokens))
    cache, sequence = filled(context, "exact", form, page_tokens)
    answer(cache, sequence)
    request = next(name for name in attending(context) if ":rows3:" in name)
    schedules = context.schedule_space(request)[1]
    context.set_schedule(request, next(text for text in schedules if f"tile_tokens={page_tokens}," in text))
    cache.refresh_kernels()
    assert relative_rms(answer(cache, sequence), expected) <= two_devices_rms(budget("exact", BITS))


def test_a_cache_that_is_made_later_has_the_chosen_schedule(context, tmp_path):
    default, schedules = context.schedule_space(ATTEND)
    chosen = next(schedule for schedule in schedules if schedule != default)
    context.set_schedule(ATTEND, chosen)
    later = lowlevel.Context("cpu", store_dir=str(tmp_path / "store"), threads=1)
    answer(*filled(later, "exact"))
    assert attending(later)[ATTEND] == {chosen}
    assert lowlevel.open_kernel(later, ATTEND).schedule == chosen
    context.set_schedule(ATTEND, None)
    assert lowlevel.open_kernel(later, ATTEND).schedule == ""


def test_kernels_change_between_steps_and_not_within_one(context):
    cache, sequence = filled(context, "exact")
    before = answer(cache, sequence)
    default, schedules = context.schedule_space(ATTEND)
    context.set_schedule(ATTEND, schedules[0])
    assert np.array_equal(answer(cache, sequence), before)
    with cache.plan([sequence], [0]):
        with pytest.raises(kvq.FailedPrecondition, match="a step of this cache is open"):
            cache.refresh_kernels()
    cache.refresh_kernels()
    assert relative_rms(answer(cache, sequence), before) <= two_devices_rms(budget("exact", BITS))


def test_a_kernel_with_exactly_one_schedule(context):
    default, schedules = context.schedule_space(ATTEND)
    assert lowlevel.open_kernel(context, ATTEND).schedule == ""
    for schedule in {default, schedules[0], schedules[-1]}:
        assert lowlevel.open_kernel(context, ATTEND, schedule=schedule).schedule == schedule
    with pytest.raises(kvq.InvalidArgument, match="has tile_tokens 48, which can be 16, 32, 64 here: the nearest"):
        lowlevel.open_kernel(context, ATTEND, schedule="tile_tokens=48,rows=8,vectors=8,prefetch=1")
    with pytest.raises(kvq.InvalidArgument, match="has rows 7"):
        context.set_schedule(ATTEND, "tile_tokens=64,rows=7,vectors=8,prefetch=1")
    with pytest.raises(kvq.Unsupported, match="compiles no kernels"):
        lowlevel.Context("ref").schedule_space(ATTEND)


def test_the_machine_is_canonical_json(context):
    machine = json.loads(context.machine)
    assert json.dumps(machine, sort_keys=True, separators=(",", ":")) == context.machine
    assert machine["kind"] == "cpu" and machine["target"] == context.level and machine["cores"] > 0


def device_answer(context, cache, sequence):
    rng = np.random.default_rng(4)
    q = random_tensor(context, (1, 6, 1, 64), rng, torch.float16)
    k, v = (random_tensor(context, (1, 2, 1, 64), rng, torch.float16) for _ in "kv")
    out = empty_tensor(context, (1, 6, 1, 64), torch.float16)
    step = cache.plan([sequence], [1])
    step.append(0, k.array, v.array)
    step.attend(0, q.array, SCALE, out.array)
    found = out.fetch()
    step.abort()
    return found


def filled_on_device(context):
    cache = lowlevel.Cache(context, FORMAT, dtype="float16", **SHAPE)
    rng = np.random.default_rng(3)
    sequence = cache.add()
    q = random_tensor(context, (1, 6, 160, 64), rng, torch.float16)
    k, v = (random_tensor(context, (1, 2, 160, 64), rng, torch.float16) for _ in "kv")
    with cache.plan([sequence], [160]) as step:
        step.forward(0, q.array, k.array, v.array, SCALE, empty_tensor(context, (1, 6, 160, 64), torch.float16).array)
    return cache, sequence


def test_every_tile_of_a_gpu_gives_the_references_answer(tmp_path):
    ref, gpu = lowlevel.Context("ref"), lowlevel.Context("ptxsim", store_dir=str(tmp_path / "store"))
    expected = device_answer(ref, *filled_on_device(ref))
    cache, sequence = filled_on_device(gpu)
    device_answer(gpu, cache, sequence)
    spaces = {request: gpu.schedule_space(request) for request in attending(gpu)}
    # 2 tiles, 0 to 2 pages ahead, 1, 2, 4 warps; of few query rows also 3 and 4 blocks a multiprocessor beside 2.
    assert {request.split(":")[8]: len(space) for request, (_, space) in spaces.items()} == {"rows8": 54, "rows16": 18}
    assert len({default for default, _ in spaces.values()}) == 1
    request, (default, schedules) = next(item for item in spaces.items() if ":rows8:" in item[0])
    tried = [each for each in schedules if len(set(each.split(",")) ^ set(default.split(","))) <= 2]
    assert default in tried and len(tried) == 10  # itself, those that differ in one knob, and two that differ in two
    bound = two_devices_rms() + 2 * attention_rms("f16", 0.0)
    for schedule in tried:
        gpu.set_schedule(request, schedule)
        cache.refresh_kernels()
        assert relative_rms(device_answer(gpu, cache, sequence), expected) <= bound, schedule
    assert attending(gpu)[request] == {"", *tried}
