#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The standard sweep of schedules, tuned twice: by exhaustive search, and as `kvq tune` does where nobody says how.

Each problem begins with an empty database. What both found and the default schedule are then sampled in common rounds,
so that their ratios are of one run; times of searches are wall time, compiling and checking included.
"""
import argparse
import pathlib
import statistics
import tempfile
import time

import common

SWEEP = pathlib.Path(__file__).parent / "standard_sweep.toml"
NEAR, FASTER, SHARE = 0.03, 0.10, 0.25  # what is asked of halving, of tuning, and of halving's time
FULL = "exhaustive"


def searched(problem, runner, options, folder):
    """The entry of a search with these options, its seconds, and how many candidates it compiled."""
    from kvq.tune.database import Database
    from kvq.tune.measure import Settings
    from kvq.tune.tuner import tune

    begin = time.perf_counter()
    with Database(folder / f"{options.strategy}.db") as database:
        outcome = tune(problem, runner, database, strategy=options.make_strategy(), again=True,
                       settings=Settings(workers=options.workers, seed=options.seed))
    return outcome.entry, time.perf_counter() - begin, outcome.compiled


def beside(problem, runner, schedules, rounds):
    """{schedule: estimate} of common rounds."""
    from kvq.tune.estimator import estimate_all
    from kvq.tune.measure import Bench, Settings
    from kvq.tune.search import Budget

    names = list(dict.fromkeys(schedules))
    with Bench(runner, problem, Settings(), Budget()) as bench:
        ready, failed = bench.prepare(names)
        samples, _ = bench.sample(ready, rounds)
    assert not failed, failed
    return estimate_all(samples)


def case(problem, runner, rounds, records):
    """Measures one problem: its record."""
    from kvq.tune.estimator import compare
    from kvq.tune.search_options import SearchOptions

    with tempfile.TemporaryDirectory() as name:
        full, full_seconds, full_compiled = searched(problem, runner, SearchOptions(strategy=FULL), pathlib.Path(name))
        tuned, tuned_seconds, compiled = searched(problem, runner, SearchOptions(), pathlib.Path(name))
    found = beside(problem, runner, [tuned.default, tuned.schedule, full.schedule], rounds)
    default, chosen, best = (found[each] for each in (tuned.default, tuned.schedule, full.schedule))
    optimum = min(default.seconds, chosen.seconds, best.seconds)
    text = ":".join(problem.request.split(":")[1:8])
    what = {"request": problem.request, "conditions": str(problem.conditions), "default": tuned.default,
            "tuned": tuned.schedule, "exhaustive": full.schedule, "default_over_optimum": default.seconds / optimum,
            "tuned_over_optimum": chosen.seconds / optimum, "slower": compare(default, chosen) < 0,
            "search_seconds": tuned_seconds, "exhaustive_seconds": full_seconds, "compiled": compiled,
            "exhaustive_compiled": full_compiled}
    text += f"/{problem.conditions.tokens}"
    records.add(f"{text}/default", default.seconds * 1e3, "ms", default.noise * default.seconds * 1e3)
    records.add(f"{text}/tuned", chosen.seconds * 1e3, "ms", chosen.noise * chosen.seconds * 1e3, f"{text}/default",
                default.seconds / chosen.seconds, **what)
    print(f"       default {what['default_over_optimum']:.3f}, tuned {what['tuned_over_optimum']:.3f} of the optimum; "
          f"{compiled} candidates in {tuned_seconds:.1f} s, of {full_compiled} in {full_seconds:.1f} s", flush=True)
    return what


def verdicts(cases):
    """What is asked, and how many of the cases do it."""
    count = len(cases)
    near = sum(each["tuned_over_optimum"] <= 1 + NEAR for each in cases)
    gains = sum(each["default_over_optimum"] / each["tuned_over_optimum"] >= 1 + FASTER for each in cases)
    good = sum(each["default_over_optimum"] <= 1 + FASTER for each in cases)
    shares = [each["search_seconds"] / each["exhaustive_seconds"] for each in cases]
    whole = sum(each["search_seconds"] for each in cases) / sum(each["exhaustive_seconds"] for each in cases)
    print(f"tuned slower than default beyond noise: {sum(each['slower'] for each in cases)} of {count}")
    print(f"tuned faster by {FASTER:.0%}: {gains} of {count}; default within {FASTER:.0%} of the optimum: {good}")
    print(f"search within {NEAR:.0%} of the optimum: {near} of {count}")
    print(f"time of the search over exhaustive search (asked {SHARE:.2f}): median {statistics.median(shares):.2f}, "
          f"{min(shares):.2f} to {max(shares):.2f}; all together {whole:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=pathlib.Path, default=SWEEP, metavar="FILE", help="another sweep")
    parser.add_argument("--only", default="", metavar="TEXT", help="problems whose text has this")
    parser.add_argument("--rounds", type=int, default=64, help="common rounds of default and winners (default 64)")
    parser.add_argument("--json", metavar="FILE", help="append the records to FILE")
    options = parser.parse_args()
    from kvq import lowlevel
    from kvq.tune import sweep
    from kvq.tune.kernels import make_runner

    print(common.title("tuning", lowlevel.Context()))
    problems = [problem for problem in sweep.read(options.sweep).problems if options.only in str(problem)]
    if not problems:
        parser.error(f"no problem of {options.sweep} has '{options.only}' in it")
    records, runners = common.Records("tuning"), {}
    cases = []
    for problem in problems:
        runner = runners.setdefault(problem.target, make_runner(problem.target))
        cases.append(case(problem, runner, options.rounds, records))
    verdicts(cases)
    if options.json:
        records.write(options.json, common.facts(lowlevel.Context()))


if __name__ == "__main__":
    main()
