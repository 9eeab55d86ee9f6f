# SPDX-License-Identifier: Apache-2.0
"""What a database says, worked out for a report: each key with its default and its roofline, what failed, how far
predictions are from measurements, which formats are on the Pareto front of bytes and speed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kvq import lowlevel
from kvq.errors import Error, InvalidArgument
from kvq.inspect import gpus
from kvq.tune.capability import Machine
from kvq.tune.database import Database
from kvq.tune.estimator import LEAST_ROUNDS
from kvq.tune.kernel_requests import bytes_read, elements_read
from kvq.tune.problem import parse_conditions
from kvq.tune.rows import OK, Entry, Key, Trial


@dataclass(frozen=True)
class Configuration:
    """A key that has a schedule. `default`: the trial of the default schedule, None where there is none that works."""

    entry: Entry
    machine: Machine
    tuned: Trial | None
    default: Trial | None
    roofline: float | None  # seconds that the memory needs for the packed pages

    @property
    def format(self) -> str:
        return self.entry.key.request.split(":")[1]

    @property
    def seconds(self) -> float:
        return self.entry.seconds or 0.0

    @property
    def speedup(self) -> float | None:
        """Of the schedule over the default one, both of the same rounds."""
        if self.default is None or self.default.seconds is None:
            return None
        return self.default.seconds / self.seconds

    @property
    def bits(self) -> float | None:
        """Of the packed pages, an element of K and V."""
        conditions = parse_conditions(self.entry.key.conditions)
        size = bytes_read(self.entry.key.request, conditions)
        return None if size is None else 8 * size / elements_read(self.entry.key.request, conditions)

    @property
    def elements_per_second(self) -> float:
        return elements_read(self.entry.key.request, parse_conditions(self.entry.key.conditions)) / self.seconds


@dataclass(frozen=True)
class Failure:
    key: Key
    schedule: str
    status: str
    message: str


@dataclass(frozen=True)
class Pair:
    """A candidate that was predicted, and measured with at least LEAST_ROUNDS samples."""

    machine: str
    schedule: str
    predicted: float
    measured: float


@dataclass(frozen=True)
class Front:
    """Formats of one shape under the same conditions on one machine. `best`: those that none is better than in both."""

    title: str
    formats: tuple[Configuration, ...]
    best: tuple[Configuration, ...]


@dataclass(frozen=True)
class Findings:
    configurations: tuple[Configuration, ...]
    failures: tuple[Failure, ...]
    unusable: tuple[Entry, ...]  # keys no schedule of which works
    pairs: tuple[Pair, ...]
    fronts: tuple[Front, ...]
    perplexity: Mapping[str, float] = field(default_factory=dict)  # by the pair of a format


def find(database: Database, bandwidth: Mapping[str, float], perplexity: Mapping[str, float]) -> Findings:
    """`bandwidth`: bytes a second by target; GPUs of kvq.inspect.gpus have theirs."""
    machines, entries, trials = database.machines(), database.entries(), database.trials()
    by_candidate = {(trial.key, trial.schedule, trial.predicted): trial for trial in trials}
    configurations = tuple(
        _configuration(entry, machines[entry.key.machine], by_candidate, bandwidth)
        for entry in entries
        if entry.status == OK
    )
    failures = tuple(
        Failure(trial.key, trial.schedule, trial.status, trial.message) for trial in trials if trial.status != OK
    )
    return Findings(
        configurations, failures, tuple(entry for entry in entries if entry.status != OK),
        tuple(_pairs(by_candidate, machines)), tuple(_fronts(configurations)), perplexity,
    )  # fmt: skip


def _configuration(
    entry: Entry, machine: Machine, trials: Mapping[tuple[Key, str, bool], Trial], bandwidth: Mapping[str, float]
) -> Configuration:
    tuned = trials.get((entry.key, entry.schedule, entry.predicted))
    default = trials.get((entry.key, entry.default, entry.predicted))
    rate = bandwidth.get(machine.target) or _known_bandwidth(machine)
    size = bytes_read(entry.key.request, parse_conditions(entry.key.conditions))
    roofline = size / rate if rate and size is not None else None
    return Configuration(entry, machine, tuned, default if default and default.status == OK else None, roofline)


def _known_bandwidth(machine: Machine) -> float | None:
    """Of a GPU whose name has the name of one in the table."""
    name = str(machine.vector.get("name", ""))
    known = [gpu for gpu in gpus.GPUS.values() if gpu.name in name]
    return max(known, key=lambda gpu: len(gpu.name)).bandwidth_gb_s * 1e9 if known else None


def _pairs(trials: Mapping[tuple[Key, str, bool], Trial], machines: Mapping[str, Machine]) -> Iterable[Pair]:
    for (key, schedule, _), trial in trials.items():
        other = trials.get((key, schedule, True))
        # Candidates that dropped out early have few samples: what is left of them is mostly noise.
        if len(trial.samples) >= LEAST_ROUNDS and trial.seconds and other is not None and other.seconds:
            yield Pair(str(machines[key.machine]), schedule, other.seconds, trial.seconds)


def _fronts(configurations: Sequence[Configuration]) -> Iterable[Front]:
    groups: dict[tuple[str, ...], dict[str, Configuration]] = {}
    for each in configurations:
        fields = each.entry.key.request.split(":")
        if fields[0] != "attend":
            continue
        # Formats may differ in page and commit rule: what a user compares is the same model in the same conditions.
        key = each.entry.key
        same = (*fields[4:9], *fields[10:], key.machine, key.conditions, str(each.entry.predicted))
        group = groups.setdefault(same, {})
        if each.format not in group or each.seconds < group[each.format].seconds:
            group[each.format] = each
    for same, group in groups.items():
        if len(group) > 1:
            formats = sorted(group.values(), key=lambda each: (each.bits or 0.0, each.seconds))
            title = f"{formats[0].machine}, {formats[0].entry.key.conditions}, {' '.join(same[:5])}"
            yield Front(title, tuple(formats), tuple(_best(formats)))


def _best(formats: Sequence[Configuration]) -> Iterable[Configuration]:
    """Those that are faster than all with fewer bits."""
    fastest = 0.0
    for each in formats:
        if each.elements_per_second > fastest:
            fastest = each.elements_per_second
            yield each


def spread_of(pairs: Sequence[Pair]) -> tuple[float, float]:
    """How measured times relate to predicted ones in the middle, and by what factor they scatter around that: the half
    of them that lies in the middle is within it."""
    ratios = sorted(pair.measured / pair.predicted for pair in pairs)
    middle = statistics.median(ratios)
    quarter = len(ratios) // 4
    return middle, max(middle / ratios[quarter], ratios[-1 - quarter] / middle)


# -- files -------------------------------------------------------------------------------------------------------------


def read_perplexity(path: Path) -> dict[str, float]:
    """By the pair of a format: out of a report of `kvq eval`, or of a JSON object {"kivi-4": 13.4, ...}."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("schema") == "kvq-eval/1":
            rows = [(row["format"], (row["quality"] or {}).get("perplexity")) for row in data["caches"]]
        else:
            rows = list(data.items())
        return {pair_of(name): float(value) for name, value in rows if name and value is not None}
    except (OSError, ValueError, AttributeError, KeyError, TypeError, Error) as error:
        raise InvalidArgument(
            f"{path} has no perplexities ({error}): give report.json of kvq eval, or {{\"kivi-4\": 13.4}}"
        ) from error


def pair_of(format: str) -> str:
    """`k4c32-v4t32` of `kivi-4`."""
    return lowlevel.format_canonical(format).split("/")[0]
