# SPDX-License-Identifier: Apache-2.0
"""The record of which tokens were stored: against lists, and that a new token does not move the earlier ones."""

import random

import pytest
import torch

from kvq.errors import Unsupported
from kvq.hf.padding import KeptTokens, leading_pads


def empty(rows):
    return KeptTokens(torch.empty(rows, 0, dtype=torch.bool))


def test_random_changes_match_lists():
    chance = random.Random(5)
    kept, rows = empty(3), [[], [], []]
    for _ in range(400):
        what = chance.choice(["append", "append", "append", "crop", "select", "copy"])
        if what == "append":
            tokens = chance.choice([1, 1, 1, 7, 90])
            pads = [chance.randint(0, tokens) for _ in rows]
            kept.append(tokens, pads)
            rows = [row + [False] * pad + [True] * (tokens - pad) for row, pad in zip(rows, pads)]
        elif what == "crop":
            left = chance.randint(max(0, len(rows[0]) - 60), len(rows[0]))
            assert kept.cropped_padding(left) == [row[:left].count(False) for row in rows]
            kept.crop(left)
            rows = [row[:left] for row in rows]
        elif what == "select":
            chosen = [chance.randrange(len(rows)) for _ in range(chance.randint(1, 4))]
            kept.select(chosen)
            rows = [rows[index] for index in chosen]
        else:
            other, kept = kept, kept.copy()
            other.append(5, [5] * other.rows)  # of which the copy sees nothing
        assert kept.stored.tolist() == rows
        assert kept.padding == [row.count(False) for row in rows]
        assert (kept.rows, kept.tokens) == (len(rows), len(rows[0]))


def test_earlier_tokens_stay_where_they_are():
    kept, places = empty(2), set()
    for _ in range(10_000):
        kept.append(1, [0, 0])
        places.add(kept.stored.data_ptr())
    assert len(places) <= 10  # doublings from 64 on


def test_inference_mode_comes_and_goes():
    with torch.inference_mode():
        kept = empty(1)
        kept.append(3, [1])
        kept.select([0, 0])
    kept.append(1, [0, 1])
    with torch.inference_mode():
        kept.append(100, [0, 0])
    assert kept.padding == [1, 2]


def test_a_missing_mask_means_that_nothing_was_padding():
    kept = empty(2)
    kept.append(40, [0, 0])
    assert leading_pads(None, kept, 1) == [0, 0]
    kept.append(40, [0, 3])
    with pytest.raises(Unsupported, match="keep the attention_mask of earlier tokens"):
        leading_pads(None, kept, 1)


def test_a_mask_is_compared_with_every_earlier_token():
    kept = empty(2)
    kept.append(40, [0, 3])
    mask = torch.cat([kept.stored, torch.tensor([[True], [False]])], dim=1)[:, None, None, :]
    assert leading_pads(mask, kept, 1) == [0, 1]
    for row, token in ((0, 0), (0, 39), (1, 2), (1, 3)):
        changed = mask.clone()
        changed[row, 0, 0, token] ^= True
        with pytest.raises(Unsupported, match="keep the attention_mask of earlier tokens"):
            leading_pads(changed, kept, 1)
