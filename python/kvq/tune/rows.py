# SPDX-License-Identifier: Apache-2.0
"""What the tuning database holds, as plain data: trials, one for each candidate, and entries, one for each key.

An entry names the schedule itself, never its place in a list: it means the same to every compiler that lists it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from kvq.errors import InvalidArgument
from kvq.tune.problem import FAILURES, Problem, knobs, parse_conditions

OK = "ok"
STATUSES = (OK, *FAILURES)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@dataclass(frozen=True)
class Key:
    """What a result belongs to. `machine` and `compiler` are hashes."""

    request: str
    machine: str
    compiler: str
    conditions: str


def key_of(problem: Problem, machine: str, compiler: str) -> Key:
    return Key(problem.request, machine, compiler, str(problem.conditions))


@dataclass(frozen=True)
class Trial:
    """What is known of one candidate: every sample in seconds, or why it is out. A predicted one has no samples."""

    key: Key
    schedule: str
    status: str = OK
    message: str = ""
    seconds: float | None = None
    noise: float | None = None  # relative
    samples: tuple[float, ...] = ()
    predicted: bool = False
    at: str = ""


@dataclass(frozen=True)
class Entry:
    """The schedule of a key. Where no candidate works `status` says how the default one failed, and there is no
    time."""

    key: Key
    schedule: str
    default: str  # the schedule that is taken without tuning
    status: str = OK
    message: str = ""
    seconds: float | None = None
    noise: float | None = None
    samples: int = 0
    predicted: bool = False
    at: str = ""


def better(new: Entry, old: Entry) -> bool:
    """Which of two entries of one key stays: one that works, a measured one, the faster one, the newer one."""
    return _rank(new) > _rank(old)


def _rank(entry: Entry) -> tuple[bool, bool, float, str, str]:
    return (entry.status == OK, not entry.predicted, -(entry.seconds or 0.0), entry.at, entry.schedule)


def more_is_known(new: Trial, old: Trial) -> bool:
    """Which of two trials of one candidate stays. What was wrong once stays wrong: code does not become right again."""
    if "wrong" in (new.status, old.status):
        return new.status == "wrong" and (old.status != "wrong" or new.at >= old.at)
    return (len(new.samples), new.at) >= (len(old.samples), old.at)


# -- as JSON, and whether a row is one ---------------------------------------------------------------------------------


def to_json(row: Trial | Entry) -> dict[str, Any]:
    data = asdict(row)
    return {**data.pop("key"), **data}


def trial_from(data: Mapping[str, Any]) -> Trial:
    values = _fields(Trial, data)
    samples = values["samples"]
    if not isinstance(samples, list | tuple) or not all(_is_time(sample) for sample in samples):
        raise InvalidArgument("its samples are not a list of positive seconds")
    return Trial(**{**values, "samples": tuple(samples)})


def entry_from(data: Mapping[str, Any]) -> Entry:
    values = _fields(Entry, data)
    if not isinstance(values["default"], str):
        raise InvalidArgument(f"its default is {values['default']!r}: it must be a schedule's text")
    knobs(values["default"])
    return Entry(**values)


def _fields(kind: type[Trial] | type[Entry], data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a row; what is missing, foreign or of another kind is refused in words that begin with 'its'."""
    names = {field.name for field in fields(kind)} - {"key"}
    keys = {field.name for field in fields(Key)}
    if foreign := sorted(set(data) - names - keys):
        raise InvalidArgument(f"its field '{foreign[0]}' is unknown")
    if missing := sorted((names | keys) - set(data)):
        raise InvalidArgument(f"its field '{missing[0]}' is missing")
    for name in (*sorted(keys), "schedule", "status", "message", "at"):
        if not isinstance(data[name], str):
            raise InvalidArgument(f"its {name} is {data[name]!r}: it must be a text")
    if data["status"] not in STATUSES:
        raise InvalidArgument(f"its status is '{data['status']}': use one of {', '.join(STATUSES)}")
    if not isinstance(data["predicted"], bool):
        raise InvalidArgument(f"its predicted is {data['predicted']!r}: it must be true or false")
    _check_figures(data)
    knobs(data["schedule"])
    parse_conditions(data["conditions"])
    return {"key": Key(**{name: data[name] for name in keys}), **{name: data[name] for name in names}}


def _check_figures(data: Mapping[str, Any]) -> None:
    if data["status"] == OK and not _is_time(data["seconds"]):
        raise InvalidArgument(f"its seconds are {data['seconds']!r}: they must be positive")
    if data["status"] != OK and data["seconds"] is not None:
        raise InvalidArgument(f"its seconds are {data['seconds']!r} though it is {data['status']}: they must be null")
    noise = data["noise"]
    if noise is not None and not (isinstance(noise, int | float) and math.isfinite(noise) and noise >= 0):
        raise InvalidArgument(f"its noise is {noise!r}: it must be a number from 0, or null")


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
