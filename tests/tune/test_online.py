# SPDX-License-Identifier: Apache-2.0
"""Tuning beside a cache that goes on decoding."""

import os
import threading
import time

import pytest
import torch
from kvq import lowlevel
from kvq.errors import Error, InvalidArgument
from kvq.tune import online
from kvq.tune.database import Database
from kvq.tune.sweep_run import LEFT, THERE

LEVEL = lowlevel.shared_context().level
HEADS, D = 2, 64


class Decoding:
    """A cache of one layer, and steps of one token over it."""

    def __init__(self, store):
        self.context = lowlevel.Context("cpu", threads=1, store_dir=str(store))
        self.cache = lowlevel.Cache(self.context, "kvq-4", layers=1, q_heads=4, kv_heads=HEADS, dk=D, dv=D, blocks=64)
        self.sequence = self.cache.add()
        rng = torch.Generator().manual_seed(0)
        self.q = torch.randn(1, 4, 1, D, generator=rng)
        self.kv = torch.randn(1, HEADS, 1, D, generator=rng)
        self.out = torch.empty_like(self.q)
        k = torch.randn(1, HEADS, 500, D, generator=rng)
        with self.cache.plan([self.sequence], [500]) as step:
            step.append(0, k, k)

    def attend(self):
        """The answer of a step that is taken back."""
        with self.cache.plan([self.sequence], [1]) as step:
            step.forward(0, self.q, self.kv, self.kv, 0.1, self.out)
            step.abort()
        return self.out.clone()


@pytest.fixture
def decoding(tmp_path):
    return Decoding(tmp_path / "store")


def wait(tuner, seconds=120, until=lambda: False):
    begin = time.monotonic()
    while tuner.is_running and not until() and time.monotonic() - begin < seconds:
        time.sleep(0.05)


def test_problems_are_those_of_the_cache(decoding):
    problems = online.problems_of(decoding.cache, LEVEL, None, 1)
    names = {problem.request for problem in problems}
    decoding.cache.prepare()
    assert names == {kernel["name"] for kernel in decoding.context.kernels()}
    assert str(problems[0].conditions) == "cold:tokens1024:batch1:heads2:threads1:window0"


def test_winners_come_between_steps_and_answers_stay(decoding, tmp_path):
    before = decoding.attend()
    changed, database = [], tmp_path / "tuning.db"
    with online.Tuner(decoding.cache, 12, context=decoding.context, database=database) as tuner:
        while tuner.is_running and len(tuner.done) < 2:
            time.sleep(0.02)  # or nothing is left over
            after = decoding.attend()
            changed += tuner.between_steps()
            assert torch.linalg.norm(after - before) < 2e-3 * torch.linalg.norm(before)
        begin = time.monotonic()
    assert time.monotonic() - begin < 20  # close() ends the search
    changed += tuner.between_steps()
    assert changed[0] == tuner.problems[0].request and tuner.between_steps() == []
    assert torch.linalg.norm(decoding.attend() - before) < 2e-3 * torch.linalg.norm(before)
    with Database(database, readonly=True) as found:
        assert {entry.key.request for entry in found.entries()} == set(changed)
        best = next(entry for entry in found.entries() if entry.key.request == changed[0])
    kernel = lowlevel.open_kernel(decoding.context, changed[0])
    assert kernel.schedule == ("" if best.schedule == best.default else best.schedule)


def test_the_budget_ends_it_and_the_next_one_goes_on(decoding, tmp_path):
    database = tmp_path / "tuning.db"
    with online.Tuner(decoding.cache, 0.2, context=decoding.context, database=database) as tuner:
        wait(tuner)
    counts = [done.how for done in tuner.done]
    assert len(counts) == len(tuner.problems) and counts.count(LEFT) >= len(counts) - 2
    with online.Tuner(decoding.cache, 0.2, context=decoding.context, database=database) as tuner:
        wait(tuner)
    assert tuner.done[0].how == THERE


def test_an_open_step_is_left_alone(decoding, tmp_path):
    with online.Tuner(decoding.cache, 5, context=decoding.context, database=tmp_path / "tuning.db") as tuner:
        wait(tuner, until=lambda: len(tuner.done) > 0)
        with decoding.cache.plan([decoding.sequence], [1]) as step:
            with pytest.raises(Error, match="step"):
                tuner.between_steps()
            step.abort()
        assert tuner.between_steps()[0] == tuner.problems[0].request  # nothing was lost


def test_the_thread_has_what_is_left_over(decoding, tmp_path, monkeypatch):
    seen = []
    real = online.winners.tune_all

    def watched(*arguments, **options):
        seen.append((os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
        return real(*arguments, **options)

    monkeypatch.setattr(online.winners, "tune_all", watched)
    with online.Tuner(decoding.cache, 0.1, context=decoding.context, database=tmp_path / "tuning.db") as tuner:
        wait(tuner)
    assert seen[0][0] == os.SCHED_IDLE or seen[0][1] == 19
    assert os.sched_getscheduler(0) != os.SCHED_IDLE


def test_a_mistake_of_the_runner_is_raised_between_steps(decoding, tmp_path):
    with online.Tuner(decoding.cache, 5, context=decoding.context, database=tmp_path / "tuning.db",
                      runner="child_runners:absent_for") as tuner:  # fmt: skip
        wait(tuner)
        with pytest.raises(ImportError, match="there is no such runner"):
            tuner.between_steps()


def test_what_cannot_be_tuned_is_said(decoding):
    with pytest.raises(InvalidArgument, match="does not say its context: give context="):
        online.Tuner(decoding.cache, 1)
    for budget in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InvalidArgument, match="budget_seconds is"):
            online.Tuner(decoding.cache, budget, context=decoding.context)


def test_a_cache_of_transformers_is_tuned_once_it_knows_its_layers(tmp_path):
    from kvq.hf import KVQCache
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=32, attn_implementation="kvq")  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    cache = KVQCache(config, "kvq-4", threads=1, store_dir=str(tmp_path / "store"))
    with pytest.raises(InvalidArgument, match="run a forward first"):
        online.Tuner(cache, 1)
    tokens = torch.arange(300)[None] % 32
    with torch.no_grad():
        model(tokens, past_key_values=cache)
        with online.Tuner(cache, 5, database=tmp_path / "tuning.db") as tuner:
            wait(tuner, until=lambda: len(tuner.done) > 0)
            logits = model(tokens[:, :1], past_key_values=cache).logits
            assert tuner.between_steps()
        assert torch.isfinite(logits).all() and model(tokens[:, :1], past_key_values=cache).logits.isfinite().all()
