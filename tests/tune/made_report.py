# SPDX-License-Identifier: Apache-2.0
"""A database that has everything that a report shows: formats of one shape, tuned and predicted, a GPU that is not here,
a kernel of which no schedule works."""

from dataclasses import replace

import synthetic
from kvq.tune.capability import accelerator
from kvq.tune.database import Database
from kvq.tune.problem import Conditions, Problem
from kvq.tune.tuner import predict, tune
from made_rows import MACHINE, REQUEST

# Requests of one shape, as a sweep makes them, with how much faster or slower than the first their kernels are.
FORMATS = {"k8c32-v8t32": 1.6, "k4c32-v4t32": 1.0, "k2c32-v2t32": 0.7, "k3c32-v3t32": 1.2}
TIMES = {"rows=1": 2e-3, "rows=2": 1.5e-3, "rows=3": 1e-3, "rows=<4>": 0.5e-3}


def problem(format="k4c32-v4t32", **conditions):
    return Problem(REQUEST.replace("k4c32-v4t32", format), "x86-64-v4", Conditions(**conditions))


def fill(database, kind="plain"):
    """`kind`: what disturbs the samples."""
    for format, factor in FORMATS.items():
        times = {name: seconds * factor for name, seconds in TIMES.items()}
        expected = {name: 1.1 * seconds for name, seconds in times.items()}
        predict(problem(format), synthetic.SyntheticPredictor(expected, MACHINE), database)
        tune(problem(format), synthetic.SyntheticRunner(times, fails={"rows=<4>": "wrong"}, kind=kind), database)
    gpu = accelerator("nvptx:sm_90", "NVIDIA H100 80GB HBM3")
    predict(replace(problem(), target="nvptx:sm_90"), synthetic.SyntheticPredictor(TIMES, gpu), database)
    broken = synthetic.SyntheticRunner(TIMES, fails=dict.fromkeys(TIMES, "infeasible"))
    tune(problem(batch=2), broken, database)


def fill_file(path, kind="spikes"):
    with Database(path) as database:
        fill(database, kind)
