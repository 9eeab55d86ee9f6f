# SPDX-License-Identifier: Apache-2.0
"""Forks, blocks in common, snapshots (spec section 8)."""

import numpy as np
import pytest
from kvq_oracle.cache import CacheError, CacheFull
from small_caches import filled, grow, small

BLOCK = "k4c32-v4t16/w0"
FORMATS = [BLOCK, "k4c32-v4t16/w32,sliding", "k4c32-v4t16/w32,keep5,flush"]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b))


@pytest.mark.parametrize("cache", FORMATS)
def test_fork_c1_a_fork_is_the_same_and_then_its_own(cache):
    model, sequence, *_ = filled(cache, 150)
    fork = model.fork(sequence)
    assert model.fingerprint(fork) == model.fingerprint(sequence)
    before = model.fingerprint(sequence)
    grow(model, fork, 60, 1)
    model.crop(fork, 90)
    assert model.fingerprint(sequence) == before
    # The original goes on as if it had never been forked.
    alone, only, *_ = filled(cache, 150)
    assert same(grow(model, sequence, 40, 2), grow(alone, only, 40, 2))
    assert model.fingerprint(sequence) == alone.fingerprint(only)
    model.remove(sequence)
    assert model.length(fork) == 90


def test_fork_c1_blocks_count_once_until_they_are_written():
    # 100 tokens, pages of 64: F 96, the second page is half full.
    model, sequence, *_ = filled(BLOCK, 100, page_tokens=64)
    fork = model.fork(sequence)
    assert model.report()["blocks_used"] == 2 and model.table(fork) == model.table(sequence)
    grow(model, fork, 27, 1)  # 127: nothing is committed
    assert model.report()["blocks_used"] == 2
    grow(model, fork, 1, 2)  # 128: the fork writes to the second page
    assert model.report()["blocks_used"] == 3
    assert model.table(fork)[0] == model.table(sequence)[0] and model.table(fork)[1] != model.table(sequence)[1]
    grow(model, sequence, 28, 3)  # the original owns its page alone by now
    assert model.report()["blocks_used"] == 3
    assert model.report()["page_bytes_used"] == 3 * model.page(sequence, 0, 0, 0).data.nbytes


def test_fork_c1_three_owners_two_writers():
    model, a, *_ = filled(BLOCK, 100, page_tokens=64)
    b, c = model.fork(a), model.fork(a)
    assert model.step_blocks([a, b], [28, 28]) == (4, 4)
    assert model.step_blocks([a, b, c], [28, 28, 28]) == (4, 5)  # the last writer may take the original
    rng = np.random.default_rng(0)
    q, k, v = ([rng.standard_normal((h, 28, d)).astype(np.float32)] * 2 for h, d in ((2, 16), (1, 16), (1, 32)))
    model.step([a, b], [(q, k, v)], 0.25)
    assert model.report()["blocks_used"] == 4
    assert len({model.table(s)[1] for s in (a, b, c)}) == 3 and len({model.table(s)[0] for s in (a, b, c)}) == 1


def test_fork_c1_a_copy_may_find_the_pool_full():
    model, sequence, *_ = filled(BLOCK, 100, page_tokens=64, blocks=2, sequences=2)
    fork = model.fork(sequence)
    with pytest.raises(CacheFull, match="tail slots"):
        model.fork(sequence)
    with pytest.raises(CacheFull, match="3 blocks of 2"):
        model.plan([fork], [28])
    model.remove(sequence)
    grow(model, fork, 28, 1)
    assert model.report()["blocks_used"] == 2


def test_fork_c1_abort_leaves_blocks_shared():
    model, sequence, *_ = filled(BLOCK, 100, page_tokens=64)
    fork = model.fork(sequence)
    model.plan([fork], [50]).abort()
    assert model.report()["blocks_used"] == 2 and model.table(fork) == model.table(sequence)


def test_crop_c1_a_cut_fork_writes_to_a_copy():
    model, sequence, *_ = filled(BLOCK, 130, page_tokens=64)
    fork = model.fork(sequence)
    assert model.crop(fork, 90) == 2  # the ring holds 66 to 129; 64 and 65 are thawed
    assert model.report()["blocks_used"] == 2 and model.table(fork) == model.table(sequence)[:1]
    before = model.fingerprint(sequence)
    grow(model, fork, 10, 1)
    assert model.report()["blocks_used"] == 3 and model.fingerprint(sequence) == before


@pytest.mark.parametrize("cache", FORMATS)
def test_snapshot_c1_restores_bit_for_bit(cache):
    model, sequence, *_ = filled(cache, 150, attention_window=40)
    model.crop(sequence, 140)
    snapshot = model.clone_state(sequence)
    grow(model, sequence, 33, 1)
    restored = model.restore(snapshot)
    assert restored != sequence and model.length(restored) == 140
    other = small(cache, attention_window=40)
    again = other.restore(snapshot)
    assert other.fingerprint(again) == model.fingerprint(restored)
    assert not set(model.table(restored)) & set(model.table(sequence))
    assert same(grow(other, again, 33, 1), grow(model, restored, 33, 1))
    assert model.read(restored, 0, model.first_left(restored))[0].shape[1] > 0


def test_snapshot_c1_of_another_cache_is_refused():
    model, sequence, *_ = filled(BLOCK, 100)
    snapshot = model.clone_state(sequence)
    others = [
        small("k4c32-v4t16/w32"), small(BLOCK, dtype="f16"), small(BLOCK, page_tokens=32),
        small(BLOCK, attention_window=64),
    ]  # fmt: skip
    for other in others:
        with pytest.raises(CacheError, match="snapshot is of"):
            other.restore(snapshot)
        assert not other.sequences
    with pytest.raises(CacheFull, match="needs 2 blocks of 1"):
        small(BLOCK, blocks=1).restore(snapshot)
