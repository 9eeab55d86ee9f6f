# SPDX-License-Identifier: Apache-2.0
"""Optuna's samplers as a strategy, where Optuna is installed. The knobs of a schedule are its parameters.

Like every strategy it has no memory: each time it tells Optuna all that the database holds, and asks for the next few.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from kvq.errors import InvalidArgument, Unsupported
from kvq.tune.estimator import ROUNDS
from kvq.tune.problem import Space, knobs
from kvq.tune.rows import OK
from kvq.tune.search import Rung, Trials, drawn, lacking

SAMPLERS = {"tpe": "TPESampler", "gp": "GPSampler", "random": "RandomSampler"}
ASKED_IN_VAIN = 50  # times in a row that what it proposes is not legal, or known


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise Unsupported("Optuna is not installed: pip install optuna, or take another strategy") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@dataclass(frozen=True)
class OptunaSearch:
    """`count` candidates in all, `batch` at a time, which are sampled in common rounds."""

    count: int
    sampler: str = "tpe"
    batch: int = 4
    rounds: int = ROUNDS

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise InvalidArgument(f"the sampler '{self.sampler}' is unknown: use one of {', '.join(SAMPLERS)}")
        _optuna()

    def next(self, space: Space, trials: Trials, seed: int) -> Rung | None:
        known = [name for name in space.schedules if name in trials]
        begun = [name for name in known if trials[name].status == OK and lacking([name], trials, self.rounds)]
        if begun:
            return Rung(tuple(begun), self.rounds)
        wanted = min(self.batch, self.count - len(known), len(space.schedules) - len(known))
        if wanted <= 0:
            return None
        if not known:  # the default, and as many at random
            return Rung(tuple(drawn(space, seed)[:wanted]), self.rounds)
        try:
            return Rung(tuple(self._asked(space, trials, seed, known, wanted)), self.rounds)
        except ImportError as error:  # GPSampler imports torch and SciPy when it is asked
            raise Unsupported(f"Optuna's sampler '{self.sampler}' needs a package ({error}): take 'tpe'") from error

    def _asked(self, space: Space, trials: Trials, seed: int, known: list[str], wanted: int) -> list[str]:
        optuna = _optuna()
        study = optuna.create_study(sampler=getattr(optuna.samplers, SAMPLERS[self.sampler])(seed=seed + len(known)))
        values = _values(space)
        distributions = {knob: optuna.distributions.IntDistribution(0, len(each) - 1) for knob, each in values.items()}
        for name in known:
            study.add_trial(_told(optuna, distributions, values, name, trials[name].seconds))
        legal = {tuple(sorted(_params(name, values).items())): name for name in space.schedules}
        found: list[str] = []
        vain = 0
        while len(found) < wanted and vain < ASKED_IN_VAIN:
            asked = study.ask(distributions)
            name = legal.get(tuple(sorted(asked.params.items())))
            vain += 1
            if name is not None and name not in trials and name not in found:
                found.append(name)
                vain = 0
            else:  # or it would be proposed again
                study.tell(asked, state=optuna.trial.TrialState.FAIL)
        rest = [name for name in drawn(space, seed) if name not in trials and name not in found]
        return found + rest[: wanted - len(found)]


def _values(space: Space) -> dict[str, list[str]]:
    """The values of each knob, numbers in their order: a parameter is the place in that list, so that neighbours of a
    good value are thought to be good and nothing between two values is proposed. A knob that some schedules do not have
    has the value of its absence."""
    values: dict[str, set[str]] = {}
    for name in space.schedules:
        for knob, value in knobs(name).items():
            values.setdefault(knob, set()).add(value)
    for name in space.schedules:
        for knob in values.keys() - knobs(name).keys():
            values[knob].add("")
    return {knob: sorted(each, key=lambda value: (len(value), value)) for knob, each in sorted(values.items())}


def _params(name: str, values: Mapping[str, list[str]]) -> dict[str, int]:
    given = knobs(name)
    return {knob: each.index(given.get(knob, "")) for knob, each in values.items()}


def _told(
    optuna: ModuleType, distributions: dict[str, Any], values: Mapping[str, list[str]], name: str, seconds: float | None
) -> Any:
    params = _params(name, values)
    if seconds is None:
        state = optuna.trial.TrialState.FAIL
        return optuna.trial.create_trial(params=params, distributions=distributions, state=state)
    return optuna.trial.create_trial(params=params, distributions=distributions, value=math.log(seconds))
