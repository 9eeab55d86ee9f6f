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


@pytest.fixture(scope="module")
def subject():
    return smollm2(Path("build"))


@pytest.fixture(scope="module")
def window(subject):
    return windows(subject.encode(handbook()[:200_000]), 3, TOKENS)[1]


@pytest.fixture(scope="module")
def product(subject, window):
    return compare(subject, [window], FORMATS, shared_context())


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
    assert product[name].perplexity == pytest.approx(perplexity, rel=tolerances.PERPLEXITY_RELATIVE)


def test_keys_need_more_bits_than_values(product):
    assert product["kvq-k4v2"].kl < product["k2c32-v4t32/w128,block"].kl / 2


def test_per_token_keys_cost_more_than_per_channel_keys(product):
    assert product["k4t32-v4t32/w128,block"].kl > product["kvq-4"].kl
    assert product["kivi-4"].kl < product["kvq-k4v2"].kl


def test_full_precision_is_the_reference_of_itself(product, full, window):
    perplexity = math.exp(-full.gather(1, window[0, 1:, None]).mean().item())
    assert product["full precision"].perplexity == pytest.approx(perplexity, rel=1e-4)
    assert product["full precision"].kl == 0
