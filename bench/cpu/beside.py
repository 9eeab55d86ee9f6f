# SPDX-License-Identifier: Apache-2.0
"""A step of kvq between matrix products of PyTorch, as a model has them: two pools of threads on the same cores."""
import itertools
import time

import common
from cpu.setting import D, FOUR_BITS, MAIN_CLASS
from cpu.steps import Steps, add_step

SIZE = 512           # rows and columns of the product
PARKED = 0.02        # seconds after which PyTorch's threads have gone to sleep
ALONE = (1, "parked")


def product(torch_threads, state, left, right):
    """What happens ahead of a step: PyTorch multiplies; `parked` waits until its threads sleep."""
    import torch

    def work():
        torch.set_num_threads(torch_threads)
        left @ right
        if state == "parked":
            time.sleep(PARKED)

    return work


def next_of(steps):
    """A turn of one layer, another cache each time: PyTorch works between any two layers."""
    around = itertools.cycle(steps)
    return lambda: next(around).run()


def torch(setting):
    """beside-torch/<format>/<class>/<tokens>/<threads>/torch<threads>-<busy or parked>, against one parked thread."""
    from torch import randn, set_num_threads

    tokens, name = setting.size.shapes, MAIN_CLASS
    left, right = randn(SIZE, SIZE), randn(SIZE, SIZE)
    for threads in setting.size.threads:
        def one(threads=threads):
            return Steps(setting.context(threads), FOUR_BITS, [tokens], rotate=0, accuracy=name)

        first = one()
        steps = [first] + [one() for _ in range(common.copies_for(setting.rotate, first.bytes) - 1)]
        cases = list(itertools.product(setting.size.threads, ("parked", "busy")))
        times = common.interleave({case: next_of(steps) for case in cases}, 3 * setting.rounds,
                                  before={case: product(*case, left, right) for case in cases})
        prefix = f"beside-torch/{FOUR_BITS}/{name}/{tokens}/{threads}"
        alone = common.median_and_spread(times[ALONE])[0]
        for case in cases:
            against = {"baseline": f"{prefix}/torch1-parked",
                       "ratio": alone / common.median_and_spread(times[case])[0]} if case != ALONE else {}
            add_step(setting, f"{prefix}/torch{case[0]}-{case[1]}", times[case], first.elements, first.bytes,
                     format=FOUR_BITS, accuracy=name, tokens=tokens, threads=threads, d=D, torch_threads=case[0],
                     torch_pool=case[1], **against)
    set_num_threads(1)
