# SPDX-License-Identifier: Apache-2.0
"""Where every code of a page lies: the runtime's layouts against the oracle's, over all legal pages.

The texts of all layouts, and the codes themselves: a page of random bytes is dequantized by device `ref` with scale 1
and minimum 0. Generated kernels read the same layouts; test_kernels.py has them.
"""

from itertools import product

import numpy as np
import pytest

import kernels
from checks import assert_same_bits, kernel
from kernels import KV_HEADS, Shape
from kvq import lowlevel
from kvq_oracle import layout

KINDS = [*product(["vnni", "kivi", "mma"], [2, 4, 8]), ("vnni", 3)]


def codes_of(shape, which, pages):
    """What device ref reads: [heads, tokens, channels] of page 0 of each head."""
    head_dim = shape.head_dim[which]
    items = np.zeros(KV_HEADS, kernels.DEQUANTIZE_ITEM)
    items["out_offset"] = np.arange(KV_HEADS) * shape.page * head_dim
    items["kv_head"], items["count"] = np.arange(KV_HEADS), shape.page
    out = np.empty((KV_HEADS, shape.page, head_dim), np.float32)
    args = [items, pages, pages.shape[1] * KV_HEADS, pages.shape[1], out, head_dim]
    launched = kernel("ref", None, shape.request(f"dequantize_{which.lower()}"))
    launched.launch([kernels.as_dlpack(arg) for arg in args], grid=(KV_HEADS, 1, 1))
    return out


@pytest.mark.parametrize("tokens", range(32, 257, 32))
@pytest.mark.parametrize("profile, bits", KINDS)
def test_layout_c3_layout_c7_layout_c8_codes_of_every_page(profile, bits, tokens):
    rng = np.random.default_rng([tokens, bits])
    for head_dim in range(16, 257, 16):
        shape = Shape(f"k{bits}t16-v{bits}t16", tokens, head_dim, head_dim, profile=profile)
        texts = [layout.section_text(profile, which, bits, tokens, head_dim) for which in "KV"]
        assert list(lowlevel.format_layouts(shape.pair, head_dim, head_dim, tokens, profile)) == texts
        pages = rng.integers(0, 256, (KV_HEADS, kernels.page_bytes(shape)), np.uint8)
        for which in "KV":
            views = [kernels.new_page(shape, page) for page in pages]
            for view in views:
                view.section(which, "scale").view(np.float16)[:] = 1
                view.section(which, "min").view(np.float16)[:] = 0
            expected = np.stack([view.codes(which) for view in views]).astype(np.float32)
            assert_same_bits(codes_of(shape, which, pages), expected, f"{which} of {shape.request('dequantize_k')}")
