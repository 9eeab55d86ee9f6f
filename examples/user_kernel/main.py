# SPDX-License-Identifier: Apache-2.0
"""A kernel of one's own, as text: the largest score of a query in each packed page of a cache.

The program is page_max.mlir. It is compiled for this CPU, run on a cache's pages where they lie, and checked against
the dense keys; then it is compiled once more with a mistake in it, to show where the mistake is reported.
"""

from pathlib import Path

import numpy as np

import kvq
from kvq import lowlevel

HEADS, D, TOKENS = 2, 64, 1000
FORMAT = "k4c32-v4t32/w128,block"


def filled_cache(context, k, v):
    cache = lowlevel.Cache(context, FORMAT, layers=1, q_heads=HEADS, kv_heads=HEADS, dk=D, dv=D, blocks=32)
    sequence = cache.add()
    with cache.plan([sequence], [TOKENS]) as step:
        step.append(0, k, v)
    return cache, sequence


def main():
    rng = np.random.default_rng(0)
    k, v = rng.standard_normal((2, 1, HEADS, TOKENS, D), dtype=np.float32)
    q = rng.standard_normal((HEADS, D), dtype=np.float32)
    cache, sequence = filled_cache(lowlevel.shared_context(), k, v)
    committed, _ = lowlevel.format_frontier(FORMAT, TOKENS)

    text = Path(__file__).with_name("page_max.mlir").read_text()
    kernel = kvq.compile(text)
    print("signature:", kernel.signature)
    pages = cache.pages(0)
    table = np.array(cache.block_table(sequence), dtype=np.int32)
    out = np.empty((len(table), HEADS), dtype=np.float32)
    kernel.launch(
        [q, pages, table, pages.strides[2], pages.strides[1], HEADS, committed, out],
        grid=(len(table), HEADS, 1),
    )

    dense_k, dense_v = np.empty((2, HEADS, TOKENS, D), dtype=np.float32)
    cache.read(sequence, 0, dense_k, dense_v)
    scores = np.einsum("hc,htc->th", q, dense_k[:, :committed])
    expected = np.stack([scores[i : i + 64].max(axis=0) for i in range(0, committed, 64)])
    error = np.abs(out - expected).max()
    print(f"{len(table)} pages x {HEADS} heads, largest difference to the dense keys: {error:.1e}")
    assert error < 1e-4 * np.abs(expected).max()

    try:
        kvq.compile(text.replace("%row_max = kvq_tile.reduce max %masked dim 1", "%row_max = kvq_tile.reduce max %masked dim 7"))
    except kvq.Error as mistake:
        line = next(n for n, content in enumerate(text.splitlines(), 1) if "%row_max =" in content)
        print("a mistake is reported at its line:", str(mistake).splitlines()[0])
        assert str(mistake).startswith(f"{line}:"), mistake


if __name__ == "__main__":
    main()
