# SPDX-License-Identifier: Apache-2.0
"""Optuna's samplers as a strategy, where Optuna is installed. The knobs of a schedule are its parameters.

Like every strategy it has no memory: each time it tells Optuna all that the database holds, and asks for the next few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from kvq.errors import InvalidArgument, Unsupported
from kvq.tune.estimator import ROUNDS
from kvq.tune.problem import Space, knobs
from kvq.tune.rows import OK
from kvq.tune.search import Rung, Trials, drawn, lacking

SAMPLERS = {"tpe": "TPESampler", "gp": "GPSampler", "random": "RandomSampler", "qmc": "QMCSampler"}
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
        return Rung(tuple(self._asked(space, trials, seed, known, wanted)), self.rounds)

    def _asked(self, space: Space, trials: Trials, seed: int, known: list[str], wanted: int) -> list[str]:
        optuna = _optuna()
        study = optuna.create_study(sampler=getattr(optuna.samplers, SAMPLERS[self.sampler])(seed=seed + len(known)))
        distributions = _distributions(optuna, space)
        for name in known:
            study.add_trial(_told(optuna, distributions, name, trials[name].seconds))
        legal = {tuple(sorted(knobs(name).items())): name for name in space.schedules}
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


def _distributions(optuna: ModuleType, space: Space) -> dict[str, Any]:
    """One categorical parameter for each knob: what is between two of its values is no schedule."""
    values: dict[str, set[str]] = {}
    for name in space.schedules:
        for knob, value in knobs(name).items():
            values.setdefault(knob, set()).add(value)
    return {knob: optuna.distributions.CategoricalDistribution(sorted(each)) for knob, each in sorted(values.items())}


def _told(optuna: ModuleType, distributions: dict[str, Any], name: str, seconds: float | None) -> Any:
    params = knobs(name)
    own = {knob: distributions[knob] for knob in params}
    if seconds is None:
        return optuna.trial.create_trial(params=params, distributions=own, state=optuna.trial.TrialState.FAIL)
    return optuna.trial.create_trial(params=params, distributions=own, value=math.log(seconds))
