# SPDX-License-Identifier: Apache-2.0
"""The model of a step's time: its counts are those of the planner's rule, its prices are found again in times as a
machine gives them, and the policy that it says is best is so."""

import noisy
import pytest
from kvq.errors import InvalidArgument
from kvq.tune.estimator import Estimate, estimate_all, round_order
from kvq.tune.kernel_requests import Shape
from kvq.tune.request_fields import parse
from kvq.tune.split_model import (
    BEYOND,
    CacheShape,
    Load,
    Prices,
    _score,
    busiest,
    candidates,
    choose,
    fit,
    lengths,
    resident_programs,
)
from kvq.tune.split_policy import SplitPolicy, at_most, attend_request, exactly, parse_policy, split_request
from synthetic_splits import (
    DEAR_PROGRAMS,
    GPU_DEAR_PROGRAMS,
    GPU_PRICES,
    GPU_REQUEST,
    GPU_SHAPE,
    GPU_SPLITS,
    PRICES,
    REQUEST,
    SHAPE,
    SPLITS,
    conditions,
)

from kvq import lowlevel


def points(prices, kind, seed, rounds=8, shape=SHAPE, splits=SPLITS):
    found = []
    for index, each in enumerate(splits.conditions):
        policies = [exactly(each.tokens // part) for part in (1, 4, 16, 64) if each.tokens // part >= 128]
        loads = {str(policy): shape.load(each, policy) for policy in policies}
        seconds = {name: prices.seconds(load) for name, load in loads.items()}
        samples = noisy.sampled(seconds, kind, f"{seed}/{index}", rounds, round_order)
        found += [(loads[name], estimate) for name, estimate in estimate_all(samples).items()]
    return found


# -- policies ----------------------------------------------------------------------------------------------------------


def test_a_policy_is_its_text_and_the_default_is_that_of_the_runtime():
    assert str(SplitPolicy()) == lowlevel.shared_context().default_split_policy
    for policy in (SplitPolicy(), exactly(192), at_most(256, 4, 8, SplitPolicy())):
        assert parse_policy(str(policy)) == policy
    for text in ("", "tokens=1", "programs=1,tokens=1,least=1,most=1", "tokens=x,programs=1,least=1,most=1"):
        with pytest.raises(InvalidArgument, match="is not legal"):
            parse_policy(text)


def test_splits_are_those_of_the_runtime(tmp_path):
    """tests/unit/steady/programs_test.cpp has the same figures."""
    for policy, heads, tokens, splits in (
        ((1024, 128, 16, 64), 2, 32768, 32), ((256, 8, 1, 64), 2, 32768, 4), ((256, 8, 1, 64), 8, 32768, 1),
        ((256, 8, 1, 2), 1, 32768, 2), ((300, 128, 512, 512), 2, 2560, 10), ((1 << 20, 128, 512, 512), 2, 100000, 1),
    ):  # fmt: skip
        length = SplitPolicy(*policy).length(tokens, heads, 64)
        assert -(-tokens // length) == splits, (policy, heads, tokens)


def test_requests_are_those_of_caches(tmp_path):
    context = lowlevel.Context("cpu", store_dir=str(tmp_path), threads=1)
    shape = Shape(8, 2, 64, 64, "f32")
    text = split_request("kivi-4", shape, context.level)
    attend, heads = attend_request(text)
    assert heads == 2 and attend.startswith("attend:") and ":rows4:" in attend
    context.set_split_policy(text, str(exactly(128)))
    cache = lowlevel.Cache(context, "kivi-4", layers=1, q_heads=8, kv_heads=2, dk=64, dv=64, blocks=1)
    assert cache.split_policy == str(exactly(128))
    for bad in (attend, "split:k4c32", text.replace("heads2", "heads0")):
        with pytest.raises(InvalidArgument, match="is not legal"):
            attend_request(bad)


# -- counts ------------------------------------------------------------------------------------------------------------


def test_the_busiest_thread_has_the_longest_programs_and_its_part_of_the_others():
    assert busiest([10], 1, 4) == (1, 10)
    assert busiest([10, 10, 4], 1, 1) == (3, 24)
    assert busiest([10, 10, 4], 1, 2) == (2, 14)
    assert busiest([10, 4], 3, 2) == (4, 22)  # 10 10 | 10 4 4 4: what is next goes to whoever is free first
    assert busiest([5], 8, 3) == (3, 15)


def test_counts_follow_from_the_conditions():
    one = SHAPE.load(conditions(16384), exactly(1024))
    assert (one.steps, one.launches) == (1, 0) and one.programs == 8 * 16 and one.tokens == one.read
    four = SHAPE.load(conditions(16384, batch=4), exactly(1024))
    assert four.programs == 4 * one.programs and four.results == 4 * one.results == 4 * 32 * 16
    wide = SHAPE.load(conditions(16384, batch=4, threads=4), exactly(1024))
    assert wide.programs == one.programs and wide.read == four.read and wide.launches == 1
    assert wide.tokens == pytest.approx(four.tokens / 4, rel=0.02)
    merged_by_many = SHAPE.load(conditions(16384, batch=4, threads=4), exactly(256))
    assert merged_by_many.launches == 2 and merged_by_many.results == 32 * 64  # one query for each thread
    few = SHAPE.load(conditions(16384, threads=16), exactly(16384))
    assert few.programs == 1 and few.tokens * 8 == few.read  # 8 programs for 16 threads
    assert SHAPE.load(conditions(16384), SplitPolicy()) == one


def test_programs_of_a_gpu_take_turns_on_what_is_resident_and_never_go_to_one_thread():
    few = GPU_SHAPE.load(conditions(1024), exactly(1024))
    assert (few.programs, few.launches) == (1, 0) and few.tokens * 8 == few.read and few.results == 1
    full = GPU_SHAPE.load(conditions(16384, batch=2), exactly(1024))
    assert full.programs == 1 and full.results == 16  # 256 programs, and a merge for each of 64 heads
    many = GPU_SHAPE.load(conditions(16384, batch=64), exactly(1024))
    assert many.programs == 32 and many.results == 8 * 16  # 8192 programs and 2048 merges in 264 places
    assert GPU_SHAPE.load(conditions(16384, batch=64, threads=4), exactly(1024)) == many  # threads are a host's
    assert GPU_SHAPE.load(conditions(16384, batch=64), exactly(512)).programs > many.programs


def test_more_query_heads_than_a_kernel_has_rows_are_more_programs():
    for ratio, groups in ((4, 1), (16, 1), (17, 2), (64, 4)):
        text, heads = attend_request(GPU_REQUEST.replace(":g4:", f":g{ratio}:"))
        load = CacheShape(parse(text), heads, resident=1).load(conditions(1024), exactly(1024))
        assert load.programs == heads * groups, ratio
    assert ":rows8:" in attend_request(GPU_REQUEST)[0] and ":rows4:" in attend_request(REQUEST)[0]


def test_programs_are_the_warps_of_a_gpu_over_those_of_a_program():
    assert resident_programs(1056, "tile_tokens=64,rows=8,prefetch=1,blocks=3") == resident_programs(1056, "") == 1056
    assert resident_programs(1056, "tile_tokens=64,warps=4") == 264 and resident_programs(2, "warps=4") == 1


# -- the fit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prices", [PRICES, DEAR_PROGRAMS])
@pytest.mark.parametrize("kind", ["plain", "lucky", "spikes", "busy"])
def test_prices_are_found_again(kind, prices):
    for seed in range(8):
        found = fit(points(prices, kind, seed))
        for name, off in (("token", 0.05), ("read", 0.05), ("program", 0.08), ("merge", 0.4)):
            assert getattr(found, name) == pytest.approx(getattr(prices, name), rel=off), (name, seed, str(found))


@pytest.mark.parametrize("prices", [GPU_PRICES, GPU_DEAR_PROGRAMS])
@pytest.mark.parametrize("kind", ["plain", "lucky", "spikes", "busy"])
def test_prices_of_a_gpu_are_found_again(kind, prices):
    """A step and the first program of it are told apart by steps of several turns alone: their sum is certain."""
    for seed in range(4):
        found = fit(points(prices, kind, seed, shape=GPU_SHAPE, splits=GPU_SPLITS))
        for name, off in (("token", 0.05), ("read", 0.15), ("program", 0.15), ("merge", 0.1)):
            assert getattr(found, name) == pytest.approx(getattr(prices, name), rel=off), (name, seed, str(found))
        assert found.step + found.program == pytest.approx(prices.step + prices.program, rel=0.08)


@pytest.mark.parametrize("kind", noisy.KINDS)
def test_what_is_chosen_for_a_gpu_is_nearly_the_best_whatever_happens(kind):
    before = SplitPolicy(256, 1024, 16, 128)  # shorter than these prices ask for
    for prices in (GPU_PRICES, GPU_DEAR_PROGRAMS):
        score = _score(prices, GPU_SHAPE, lengths(GPU_SPLITS.conditions), before)
        best = min(map(score, candidates(GPU_SHAPE, before)))
        assert best < -0.03
        for seed in range(4):
            found = fit(points(prices, kind, seed, shape=GPU_SHAPE, splits=GPU_SPLITS))
            policy, _ = choose(found, GPU_SHAPE, GPU_SPLITS.conditions, before)
            assert score(policy) <= best + 0.03, (seed, str(policy))


@pytest.mark.parametrize("kind", noisy.KINDS)
def test_what_is_chosen_is_nearly_the_best_whatever_happens(kind):
    """Of its times by the true prices the chosen policy has at most 2 % more than the best one."""
    for prices in (PRICES, DEAR_PROGRAMS):
        score = _score(prices, SHAPE, lengths(SPLITS.conditions), SplitPolicy())
        best = min(map(score, candidates(SHAPE, SplitPolicy())))
        assert best < -0.03  # there is something to find
        for seed in range(8):
            policy, _ = choose(fit(points(prices, kind, seed)), SHAPE, SPLITS.conditions, SplitPolicy())
            assert score(policy) <= best + 0.02, (seed, str(policy))


def test_points_that_all_others_contradict_change_little():
    found = points(PRICES, "plain", 0)
    for index in range(0, len(found), 8):
        load, estimate = found[index]
        found[index] = load, Estimate(2 * estimate.seconds, estimate.noise, estimate.samples)
    prices = fit(found)
    for name, off in (("token", 0.02), ("read", 0.02), ("program", 0.05)):
        assert getattr(prices, name) == pytest.approx(getattr(PRICES, name), rel=off), (name, str(prices))


def test_prices_are_never_negative_and_few_points_are_enough_for_some():
    load = SHAPE.load(conditions(4096), SplitPolicy())
    found = fit([(load, Estimate(1e-3, 0.01, 8))])
    assert found.seconds(load) == pytest.approx(1e-3, rel=1e-6)
    falling = [(Load(1, 0, n, 0, 0, 0), Estimate(seconds, 0.01, 8)) for n, seconds in ((1, 3e-6), (2, 2e-6), (4, 1e-6))]
    assert min(vars(fit(falling)).values()) == 0.0


# -- the choice --------------------------------------------------------------------------------------------------------


def choice(prices, *asked):
    return choose(prices, SHAPE, asked, SplitPolicy())[0]


def test_dear_programs_make_few_splits_and_idle_threads_many():
    usual = choice(PRICES, conditions(4096, threads=64)).length(4096, 8, 64)
    assert choice(DEAR_PROGRAMS, conditions(4096, threads=64)).length(4096, 8, 64) > usual
    assert choice(PRICES, conditions(4096)).length(4096, 8, 64) > usual  # one thread gains nothing by splits


def test_the_default_stays_where_nothing_is_better():
    free = Prices(0.0, 0.0, 0.0, 1e-9, 0.0, 0.0)  # nothing but tokens costs, and one thread has them all
    assert choose(free, SHAPE, [conditions(4096)], SplitPolicy()) == (SplitPolicy(), pytest.approx(1.0))


def test_policies_are_legal_and_lengths_go_beyond_what_was_measured(tmp_path):
    context = lowlevel.Context("cpu", store_dir=str(tmp_path), threads=1)
    for policy in candidates(SHAPE, SplitPolicy()):
        context.set_split_policy(REQUEST, str(policy))
    asked = lengths([conditions(1000), conditions(4000, threads=2)])
    assert {each.tokens for each in asked} == {1000 << n for n in range(5)} and BEYOND == 4
    assert {each.threads for each in asked} == {1, 2}
