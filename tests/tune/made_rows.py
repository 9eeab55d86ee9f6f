# SPDX-License-Identifier: Apache-2.0
"""Machines, keys and rows that tests of the tuning database are made of."""

from dataclasses import replace

from kvq.tune.capability import machine_of
from kvq.tune.problem import Conditions, Problem
from kvq.tune.rows import Entry, Trial, key_of

REQUEST = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"
VECTOR = {"kind": "cpu", "target": "x86-64-v4", "name": "A Processor", "cores": 8,
          "caches": {"L1": 32768, "L2": 1 << 20, "L3": 32 << 20}}
MACHINE = machine_of(VECTOR)
COMPILER = "c0ffee" * 8
PROBLEM = Problem(REQUEST, "x86-64-v4", Conditions())
KEY = key_of(PROBLEM, MACHINE.hash, COMPILER)
DEFAULT = "tile_tokens=64,rows=1"
FAST = "tile_tokens=128,rows=3"


def other_machine(**changes):
    return machine_of({**VECTOR, **changes})


def trial(schedule=FAST, key=KEY, seconds=1e-3, **fields):
    samples = fields.pop("samples", (seconds,) * 3)
    fields = {"at": "2026-05-01T00:00:00Z", **fields}
    return Trial(key, schedule, seconds=seconds, noise=0.01, samples=samples, **fields)


def failed(schedule, status, message="because", key=KEY, **fields):
    return Trial(key, schedule, status, message, **{"at": "2026-05-01T00:00:00Z", **fields})


def entry(schedule=FAST, key=KEY, seconds=1e-3, **fields):
    return Entry(key, schedule, DEFAULT, seconds=seconds, noise=0.01, samples=3,
                 **{"at": "2026-05-01T00:00:00Z", **fields})


def key(**changes):
    return replace(KEY, **changes)
