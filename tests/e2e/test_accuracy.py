# SPDX-License-Identifier: Apache-2.0
"""What a format costs a real model, through the product's own path, against the fake-quantized attention of the oracle.

SmolLM2-135M on a window of real prose, every query in the state that decoding would have shown it. KL to full
precision and perplexity of both must agree (tests/tolerances.py).
"""

import math
from pathlib import Path

import pytest
import torch
import tolerances
from kvq.evaluate import compare, windows
from kvq.evaluate.model import smollm2
from kvq.evaluate.prose import handbook
from kvq.lowlevel import shared_context
from kvq_oracle import text, torch_attention

pytestmark = pytest.mark.model

FORMATS = ("kvq-4", "kvq-k4v2", "k2c32-v4t32/w128,block", "kivi-4", "kivi-2", "k4t32-v4t32/w128,block")
TOKENS = 1024
CLASS_FORMATS = ("kvq-8", "kvq-4", "kvq-2", "k4t32-v4t32/w32,block")
CLASS_TOKENS = 320


@pytest.fixture(scope="module")
def subject():
    return smollm2(Path("build"))


@pytest.fixture(scope="module")
def window(subject):
    return windows(subject.encode(handbook()[:200_000]), 3, TOKENS)[1]


@pytest.fixture(scope="module")
def product(subject, window):
    return compare(subject, [window], FORMATS, shared_context(), accuracy="full")


@torch.inference_mode()
def log_probabilities(subject, ids, implementation):
    usual = subject.model.config._attn_implementation
    subject.model.set_attn_implementation(implementation)
    try:
        return torch.log_softmax(subject.model(input_ids=ids, use_cache=False).logits[0, :-1].double(), dim=-1)
    finally:
        subject.model.set_attn_implementation(usual)


@pytest.fixture(scope="module")
def full(subject, window):
    return log_probabilities(subject, window, "sdpa")


@pytest.mark.parametrize("name", FORMATS)
def test_kl_and_perplexity_equal_the_fake_quantized_attention(subject, window, product, full, name):
    torch_attention.register("kvq_oracle", text.parse_cache(name))
    oracle = log_probabilities(subject, window, "kvq_oracle")
    kl = (full.exp() * (full - oracle)).sum(dim=-1).mean().item()
    perplexity = math.exp(-oracle.gather(1, window[0, 1:, None]).mean().item())
    assert product[name].kl == pytest.approx(kl, rel=tolerances.KL_RELATIVE)
    assert product[name].perplexity == pytest.approx(perplexity, rel=tolerances.perplexity_relative(kl, TOKENS))


def test_keys_need_more_bits_than_values(product):
    assert product["kvq-k4v2"].kl < product["k2c32-v4t32/w128,block"].kl / 2


def test_per_token_keys_cost_more_than_per_channel_keys(product):
    assert product["k4t32-v4t32/w128,block"].kl > product["kvq-4"].kl
    assert product["kivi-4"].kl < product["kvq-k4v2"].kl


def test_full_precision_is_the_reference_of_itself(product, full, window):
    perplexity = math.exp(-full.gather(1, window[0, 1:, None]).mean().item())
    assert product["full precision"].perplexity == pytest.approx(perplexity, rel=1e-4)
    assert product["full precision"].kl == 0


def test_attention_c4_normal_costs_at_most_a_twentieth_of_kl(subject, window):
    """A few hundred tokens: what the class adds is a sum over all of them, not a rare event."""
    part = window[:, :CLASS_TOKENS]
    found = {
        accuracy: compare(subject, [part], CLASS_FORMATS, shared_context(), accuracy=accuracy)
        for accuracy in ("exact", "normal")
    }
    for name in CLASS_FORMATS:
        exact, normal = (found[accuracy][name].kl for accuracy in ("exact", "normal"))
        assert 0 < normal <= exact * (1 + tolerances.CLASS_KL), f"{name}: {normal} instead of {exact}"
