# SPDX-License-Identifier: Apache-2.0
"""Strategies on spaces whose fastest schedule is known: what they find, what it costs, and that they go on where they
were cut off."""

import math
import statistics
import sys

import pytest
import synthetic
from kvq.errors import InvalidArgument, Unsupported
from kvq.tune.database import Database
from kvq.tune.estimator import LEAST_ROUNDS, ROUNDS
from kvq.tune.problem import Space
from kvq.tune.halving import Halving
from kvq.tune.knob_effects import comparable
from kvq.tune.search import SMALL, Budget, Exhaustive, Random, Rung
from kvq.tune.search_options import choose
from kvq.tune.tuner import tune
from made_rows import KEY, PROBLEM, trial

SEEDS = range(12)


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "tuning.db") as database:
        yield database


def searched(database, strategy, seed, kind):
    """The true time of what a search finds against the fastest one's, and what it cost as a share of sampling every
    candidate ROUNDS times, in true seconds."""
    times = synthetic.landscape(seed)
    names = list(times)
    runner = synthetic.SyntheticRunner(times, kind=kind, seed=seed, default=names[len(names) // 2])
    outcome = tune(PROBLEM, runner, database, strategy=strategy, again=True)
    cost = sum(times[name] for name in runner.timed()) / (ROUNDS * sum(times.values()))
    return times[outcome.entry.schedule] / min(times.values()), cost


@pytest.mark.parametrize("kind", ["spikes", "lucky", "all"])
def test_halving_comes_within_3_percent_for_a_quarter_of_the_cost_and_beats_random(database, kind):
    """Over spaces of 192 schedules; cost is that of samples, and of candidates, which compiling is. Random search gets
    as many candidates as cost the same samples."""
    halving = [searched(database, Halving(), seed, kind) for seed in SEEDS]
    assert len(database.trials(KEY)) <= len(synthetic.schedules()) / 4
    share = statistics.fmean(cost for _, cost in halving)
    assert max(cost for _, cost in halving) <= 0.25
    assert statistics.fmean(found for found, _ in halving) <= 1.03
    assert sum(found <= 1.03 for found, _ in halving) >= 0.8 * len(SEEDS)
    count = max(1, round(share * len(synthetic.schedules())))
    at_random = [searched(database, Random(count), seed, kind) for seed in SEEDS]
    assert statistics.fmean(cost for _, cost in at_random) >= 0.8 * share
    assert statistics.fmean(found for found, _ in at_random) > statistics.fmean(found for found, _ in halving) + 0.05


def test_exhaustive_search_finds_the_fastest_and_drops_the_late(database):
    found = [searched(database, Exhaustive(), seed, "spikes") for seed in SEEDS[:4]]
    assert [best for best, _ in found] == [1.0] * 4
    assert statistics.fmean(cost for _, cost in found) < 0.6


def test_a_small_space_is_tried_as_a_whole_and_a_large_one_is_halved():
    sizes = (SMALL, SMALL + 1)
    small, large = (Space("rows=0", tuple(f"rows={i}" for i in range(count))) for count in sizes)
    assert isinstance(choose(small), Exhaustive)
    assert choose(large, first=["rows=3"]) == Halving(first=("rows=3",))
    assert choose(small, most=3) == Halving(most=3)


def test_the_default_and_the_neighbours_schedule_are_among_the_first():
    space = Space("rows=50", tuple(f"rows={i}" for i in range(100)))
    rung = Halving(most=5, first=("rows=7", "rows=1000")).next(space, {}, seed=0)
    assert rung.schedules[:2] == ("rows=50", "rows=7") and len(set(rung.schedules)) == 5 and rung.samples == 12
    assert rung == Halving(most=5, first=("rows=7", "rows=1000")).next(space, {}, seed=0)
    assert rung != Halving(most=5, first=("rows=7",)).next(space, {}, seed=1)


def test_what_was_decided_stays_whatever_comes_later():
    """By the first samples three go on; of what these get then `rows=1` has slow ones, and the others stay out."""
    space = Space("rows=1", tuple(f"rows={i}" for i in range(1, 7)))
    first = {"rows=1": 1.0, "rows=2": 1.1} | {f"rows={i}": float(i) for i in range(3, 7)}
    trials = {name: trial(name, samples=(seconds,) * 12) for name, seconds in first.items()}
    assert Halving().next(space, trials, 0) == Rung(("rows=1", "rows=2", "rows=3"), 24)
    later = {"rows=1": 9.0, "rows=2": 1.1, "rows=3": 3.0}
    trials |= {name: trial(name, samples=(*[first[name]] * 12, *[each] * 12)) for name, each in later.items()}
    assert Halving().next(space, trials, 0) == Rung(("rows=2", "rows=3"), 44)


def test_generations_are_drawn_where_the_fast_ones_are_likely():
    """Two knobs of which one value each is fast, in a sixteenth of the space not together: the next generation has both."""
    space = Space("a=0,b=0", synthetic.schedules({"a": range(16), "b": range(16)}))

    def seconds(name):
        return 4.0 / (2 if "a=7," in name else 1) / (2 if name.endswith("b=3") else 1)

    rung = Halving().next(space, {}, seed=1)
    assert len(rung.schedules) == 16 and "a=7,b=3" not in rung.schedules
    assert any("a=7," in name for name in rung.schedules) and any(name.endswith("b=3") for name in rung.schedules)
    trials = {name: trial(name, samples=(seconds(name),) * 12) for name in rung.schedules}
    following = Halving().next(space, trials, seed=1)
    assert following.schedules[0] == "a=7,b=3" and len(following.schedules) == 8
    assert not set(following.schedules) & set(rung.schedules)


def test_a_generation_that_was_sampled_while_all_was_slow_is_not_thought_slow():
    known = [{"a=0,b=0": 1.0, "a=1,b=0": 2.0, "a=0,b=1": 2.0}, {"a=1,b=1": 12.0, "a=2,b=0": 3.0, "a=2,b=1": 6.0}]
    fair = comparable(known)  # the second group ran three times as slow
    assert fair["a=2,b=0"] / fair["a=0,b=0"] < 2 < known[1]["a=2,b=0"] / known[0]["a=0,b=0"]


class CutOff(Exception):
    pass


@pytest.mark.parametrize("strategy", [Halving(), Exhaustive(), Random(9)])
def test_a_search_that_is_cut_off_goes_on_where_it_stopped(tmp_path, strategy):
    """Cut off after each of its rungs in turn, it asks for the same rungs as in one piece."""
    times = synthetic.landscape(1, knobs={"rows": (1, 2, 3), "tile_tokens": (32, 64, 128, 256), "vectors": (1, 2)})

    def rungs_until_cut(database, after):
        said = []

        def say(text):
            if len(said) == after:
                raise CutOff
            said.append(text)

        runner = synthetic.SyntheticRunner(times, seed=3)
        try:
            return said, tune(PROBLEM, runner, database, strategy=strategy, say=say), runner
        except CutOff:
            return said, None, runner

    with Database(tmp_path / "whole.db") as database:
        whole, outcome, runner = rungs_until_cut(database, after=None)
        samples, fastest = runner.samples, outcome.entry.schedule
    assert outcome.finished and len(whole) >= 1
    with Database(tmp_path / "parts.db") as database:
        said, spent = [], 0
        for _ in whole:
            part, outcome, runner = rungs_until_cut(database, after=1)
            said += part
            spent += runner.samples
            assert outcome is None or len(said) == len(whole)
        if outcome is None:
            _, outcome, runner = rungs_until_cut(database, after=0)
            spent += runner.samples
        assert said == whole and outcome.entry.schedule == fastest
        assert spent <= samples + 2 * len(whole) + 4  # two more to find out how long a sample must be, each time
        assert database.entry(KEY) == outcome.entry
        runner = synthetic.SyntheticRunner(times)
        assert tune(PROBLEM, runner, database, strategy=strategy).was_there and runner.events == []


def test_a_budget_of_trials_is_kept(database):
    runner = synthetic.SyntheticRunner(synthetic.landscape(2))
    outcome = tune(PROBLEM, runner, database, budget=Budget(trials=10))
    compiled = [event[1] for event in runner.events if event[0] == "compile"]
    assert len(compiled) == len(set(compiled)) == 10 and runner.default in compiled
    assert outcome.finished and outcome.entry.schedule == min(compiled, key=runner.times.get)


def test_a_budget_of_seconds_ends_the_search_with_an_answer(database):
    runner = synthetic.SyntheticRunner(synthetic.landscape(2), compile_seconds=1.0)
    outcome = tune(PROBLEM, runner, database, budget=Budget(seconds=10, clock=runner.clock))
    compiled = [event for event in runner.events if event[0] == "compile"]
    assert len(compiled) == 8 and not outcome.finished and outcome.entry is not None  # by two; the next would be late
    assert outcome.entry.samples == ROUNDS
    assert runner.clock.now < 10


class DisturbedRunner(synthetic.SyntheticRunner):
    """While so many samples are taken the default schedule is a fifth slower."""

    def __init__(self, times, begin, end, **options):
        super().__init__(times, **options)
        self.disturbance = range(begin, end)

    def spend(self, kernel):
        slower = kernel == self.default and self.samples in self.disturbance
        return super().spend(kernel) * (1.2 if slower else 1.0)


@pytest.mark.parametrize("length, wins", [(66, "rows=1"), (200, "rows=2")])
def test_who_beats_the_default_does_not_lose_against_it_a_moment_later(database, length, wins):
    """A second's disturbance falls on the final rounds, which 66 samples of the search precede, or on all that follow."""
    runner = DisturbedRunner({"rows=1": 1e-3, "rows=2": 1.05e-3}, 66, 66 + length, default="rows=1")
    entry = tune(PROBLEM, runner, database, strategy=Exhaustive()).entry
    assert entry.schedule == wins and entry == database.entry(KEY)
    assert runner.samples == 66 + 64 + 64


@pytest.mark.parametrize("compile_seconds", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("scale", [1, 3, 10])  # of the kernels: of 1 to 30 ms
@pytest.mark.parametrize("seconds", [2, 5])
def test_a_search_does_not_end_later_than_its_budget(database, compile_seconds, scale, seconds):
    """A batch of candidates, the rounds of a rung and the final ones are begun only if there is time for them. The
    least is two candidates, with one round to tell them apart and LEAST_ROUNDS to decide."""
    times = {name: scale * each for name, each in synthetic.landscape(2).items()}
    runner = synthetic.SyntheticRunner(times, compile_seconds=compile_seconds)
    outcome = tune(PROBLEM, runner, database, strategy=Exhaustive(),
                   budget=Budget(seconds=seconds, clock=runner.clock))  # fmt: skip
    slowest = max(times.values())
    least = 2 * compile_seconds + (2 + 2 + 2 * LEAST_ROUNDS) * slowest
    assert runner.clock.now <= max(seconds + slowest, least)
    assert runner.clock.now >= 0.5 * seconds and not outcome.finished
    assert outcome.entry.samples >= LEAST_ROUNDS and outcome.entry.seconds is not None
    tried = {trial.schedule for trial in database.trials(KEY)}
    assert len(tried) >= 2 and runner.default in tried


def test_where_the_budget_is_less_than_one_batch_there_is_an_answer(database):
    runner = synthetic.SyntheticRunner(synthetic.landscape(2), compile_seconds=3.0)
    outcome = tune(PROBLEM, runner, database, budget=Budget(seconds=2, clock=runner.clock))
    assert len({event[1] for event in runner.events if event[0] == "compile"}) == 2 and runner.clock.now < 6.1
    assert outcome.entry.samples == LEAST_ROUNDS and not outcome.finished


def test_a_search_ends_with_a_clock_that_is_stopped(database):
    """As that of kvq.tune.online when it is closed in the middle."""
    runner = synthetic.SyntheticRunner(synthetic.landscape(2), compile_seconds=0.1)
    stop = iter([0.0] * 40)
    outcome = tune(PROBLEM, runner, database, budget=Budget(seconds=50, clock=lambda: next(stop, math.inf)))
    assert outcome.entry is not None and not outcome.finished
    assert len([event for event in runner.events if event[0] == "compile"]) < 40


def test_what_the_budget_left_is_done_on_request(database):
    times = synthetic.landscape(2)
    best = min(times, key=times.get)
    runner = synthetic.SyntheticRunner(times, compile_seconds=1.0)
    first = tune(PROBLEM, runner, database, strategy=Exhaustive(), budget=Budget(seconds=100, clock=runner.clock))
    tried = {trial.schedule for trial in database.trials(KEY)}
    assert 90 < len(tried) < len(times) and best not in tried and first.entry.schedule != best
    assert tune(PROBLEM, runner, database).was_there
    outcome = tune(PROBLEM, runner, database, strategy=Exhaustive(), further=True)
    assert outcome.finished and outcome.entry.schedule == best == database.entry(KEY).schedule
    assert tried < {trial.schedule for trial in database.trials(KEY)}


@pytest.mark.parametrize("values", [{"seconds": 0}, {"trials": 0}, {"seconds": -1.0}, {"seconds": float("nan")}])
def test_a_budget_of_nothing_is_refused(values):
    with pytest.raises(InvalidArgument, match="give more than 0, or nothing for no limit"):
        Budget(**values)


def test_without_optuna_one_sentence_says_so(monkeypatch):
    from kvq.tune.optuna_search import OptunaSearch

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(Unsupported, match="^Optuna is not installed: pip install optuna, or take another strategy$"):
        OptunaSearch(10)
    with pytest.raises(InvalidArgument, match="the sampler 'best' is unknown: use one of tpe, gp, random"):
        OptunaSearch(10, "best")


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_optuna_searches(database, sampler):
    pytest.importorskip("optuna")
    from kvq.tune.optuna_search import OptunaSearch

    found = []
    for seed in SEEDS[:3]:
        times = synthetic.landscape(seed)
        runner = synthetic.SyntheticRunner(times, fails={list(times)[5]: "infeasible"})
        outcome = tune(PROBLEM, runner, database, strategy=OptunaSearch(40, sampler), again=True)
        assert len([event for event in runner.events if event[0] == "compile"]) == 40
        found.append(times[outcome.entry.schedule] / min(times.values()))
    assert statistics.fmean(found) < 1.3
