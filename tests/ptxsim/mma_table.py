#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints how often each way of accumulating gives the very bits of the GPU, as a table for the documentation.

    PYTHONPATH=tests/ptxsim python3 tests/ptxsim/mma_table.py [--models]

--models tries the parameters of mma_model.py instead of the simulator's modes.
"""
import argparse
import itertools
import pathlib

import numpy as np

import form_run
import forms
import golden_file
import mma_bound
import mma_model

PROFILES = ("about one", "wide", "subnormal", "special", "cancelling", "accumulator", "large", "any bits")


def golden_products():
    """(form, golden words, inputs) of every float product that a golden file holds."""
    table = {form.name: form for form in forms.all_forms()}
    for file, (header, results) in golden_file.load(pathlib.Path(__file__).parent / "golden").items():
        print(f"{header['device']}, driver {header['driver']}, {file}\n")
        for name, (digest, packed) in results.items():
            form = table.get(name)
            if form and form.check[0] == "mma" and digest == forms.digest(form):
                yield form, np.array(golden_file.unpack(form, packed), np.uint64), form.inputs()


def shares(equal):
    """Percent of equal elements for each profile; `equal` is [warp, ...]."""
    return [100 * equal[profile::8].mean() for profile in range(8)]


def same(got, golden):
    with np.errstate(all="ignore"):
        return (got == golden) & (np.signbit(got) == np.signbit(golden)) | np.isnan(got) & np.isnan(golden)


def simulated():
    print("| product | mode | equal bits | " + " | ".join(PROFILES) + " |")
    print("|---|---|---|" + "---|" * len(PROFILES))
    for form, golden, inputs in golden_products():
        for mode in ("exact", "sequential", "truncate"):
            got = form_run.execute(form, mma=mode)
            equal = (got == golden).reshape(len(form.outs), -1, 32).transpose(1, 0, 2).reshape(-1, len(form.outs) * 32)
            name = form.name.replace("mma.sync.aligned.", "").replace(".row.col", "")
            columns = " | ".join(f"{x:.0f}" for x in shares(equal))
            print(f"| {name} | {mode} | {100 * equal.mean():.1f} % | {columns} |")


def modelled():
    for form, golden, inputs in golden_products():
        target, depth = mma_bound.result(form, golden), form.check[4][2]
        found = []
        for fraction, block, nearest, floor in itertools.product(range(11, 28), {depth, depth // 2, depth // 4, 4, 8},
                                                                  (False, True), (False, True)):
            if block and depth % block == 0:
                got = mma_model.accumulate(form, inputs, fraction, block, nearest, floor)
                found.append((same(got, target).mean(), fraction, block, nearest, floor, shares(same(got, target))))
        share = same(mma_model.hopper(form, inputs), target).mean()
        print(f"{form.name}: mma_model.hopper {100 * share:.2f} %")
        found.sort(reverse=True, key=lambda entry: entry[0])
        for share, fraction, block, nearest, floor, profiles in found[:4]:
            print(f"  {100 * share:.2f} %: {fraction} bits, {block} at once, {'nearest' if nearest else 'cut'}, "
                  f"{'floor' if floor else 'towards zero'}: " + " ".join(f"{x:.0f}" for x in profiles))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How often each way of accumulating gives the GPU's bits.")
    parser.add_argument("--models", action="store_true")
    modelled() if parser.parse_args().models else simulated()
