#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Requests for attention drawn at random from all that a cache can ask for, each on one processor.

    tests/ptxsim/drawn_requests.py --kind wide --seed 7 --count 150      prints the registers and spilled bytes of each
"""

import argparse
import concurrent.futures
import random

import machine_code
from kvq.tune.kernel_requests import attend_rows

KINDS = ("halves", "wide")
HEADS = (64, 80, 96, 112, 128, 160, 192, 256)
PAGES = (32, 64, 96, 128, 256)


def draw_side(random_, head):
    bits = random_.choice((2, 4, 8))
    if random_.random() < 0.5:
        return f"{bits}c{random_.choice((32, 64, 128))}"
    return f"{bits}t{random_.choice([group for group in (16, 32, 64, 128, head) if head % group == 0])}"


def page_for(random_, sides):
    groups = [int(side[2:]) for side in sides if side[1] == "c"]
    return random_.choice([page for page in PAGES if all(page % group == 0 for group in groups)])


def draw(kind, seed, count):
    """Pairs of a request and a processor. Of kind `wide` operands are two halves an element: f32 and class full."""
    random_ = random.Random(f"{kind} {seed}")
    for _ in range(count):
        head = random_.choice(HEADS)
        sides = [draw_side(random_, head) for _ in "kv"]
        accuracy = random_.choice(("full", "exact", "normal"))
        dtype = random_.choice(("f32", "f16", "bf16") if accuracy == "full" else ("f32",))
        if kind == "halves":
            accuracy, dtype = random_.choice(("exact", "normal")), random_.choice(("f16", "bf16"))
        rows = random_.choice(attend_rows(4, "nvptx:sm_80", head, dtype, accuracy))
        flags = "".join(f":{name}{random_.randrange(2)}" for name in ("lag", "win", "cap"))
        shape = f"{random_.choice(('mma', 'vnni'))}:p{page_for(random_, sides)}:dk{head}:dv{head}:g4"
        text = f"attend:k{sides[0]}-v{sides[1]}:{shape}:{dtype}:rows{rows}{flags}:{accuracy}"
        yield text, random_.choice(machine_code.PROCESSORS)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=KINDS, default="wide")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=50)
    options = parser.parse_args()
    drawn = list(draw(options.kind, options.seed, options.count))
    spilling = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for (text, processor), found in zip(drawn, pool.map(lambda one: machine_code.figures(*one), drawn)):
            spilling += found["spilled"] > 0
            print(f"{text} {processor}: {found['registers']} registers, {found['spilled']} bytes spilled", flush=True)
    print(f"{spilling} of {len(drawn)} spill")


if __name__ == "__main__":
    main()
