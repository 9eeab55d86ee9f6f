# SPDX-License-Identifier: Apache-2.0
"""The PyTorch attention against the NumPy oracle, and inside a small random model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tolerances
from kvq_oracle import quantize, torch_attention
from kvq_oracle.cache import CacheModel
from kvq_oracle.text import Side


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("axis", ["c", "t"])
def test_quantize_c2_bit_equal_to_numpy(bits, axis):
    rng = np.random.default_rng(bits)
    x = rng.standard_normal((3, 128, 64)).astype(np.float32) * np.float32(2.0) ** rng.integers(-30, 15, (3, 128, 1))
    x[0, :32, :32] = 1.7
    x[1, :64] = rng.integers(-6, 6, (64, 64)) / 4
    x = np.clip(x, -65504, 65504).astype(np.float32)
    expected = quantize.dequantize(quantize.quantize(x, Side(bits, axis, 32)))
    actual = torch_attention.fake_quantize(torch.from_numpy(x), Side(bits, axis, 32)).numpy()
    assert np.array_equal(actual.view(np.uint32), expected.view(np.uint32))


CACHES = ["kivi-2", "k4c32-v2t16/w32,sliding", "k2t16-v8c64/w0", "k8c32-v4c128/w17", "k4t32-v4t32/w50"]


@settings(max_examples=25)
@given(
    st.sampled_from(CACHES), st.integers(1, 330), st.integers(1, 330), st.sampled_from([(1, 1), (3, 3), (4, 2)]),
    st.integers(0, 99),
)  # fmt: skip
def test_attention_c1_equal_to_the_oracle(cache, tokens, queries, heads, seed):
    queries, (q_heads, kv_heads) = min(queries, tokens), heads
    rng = np.random.default_rng(seed)
    draw = lambda h, n, d: rng.standard_normal((h, n, d)).astype(np.float32)
    q, k, v = draw(q_heads, queries, 32) * 3, draw(kv_heads, tokens, 32), draw(kv_heads, tokens, 64)
    actual = torch_attention.attention(*(torch.from_numpy(x)[None] for x in (q, k, v)), cache, 0.25)[0].numpy()
    model = CacheModel(cache, 1, q_heads, kv_heads, 32, 64)
    sequence = model.add()
    padded = np.concatenate([np.zeros((q_heads, tokens - queries, 32), np.float32), q], axis=1)
    ((expected, _),) = model.step([sequence], [([padded], [k], [v])], 0.25)[0]
    assert tolerances.relative_rms(actual, expected[:, tokens - queries :]) <= tolerances.FAKE_QUANTIZED_RMS


def test_attention_c1_across_chunks_of_queries():
    """A window longer than one chunk of queries equals the same window asked for one query at a time."""
    rng = np.random.default_rng(11)
    q, k, v = (torch.from_numpy(rng.standard_normal((2, h, 600, 32)).astype(np.float32)) for h in (4, 2, 2))
    whole = torch_attention.attention(q, k, v, "kivi-2")
    for t in (0, 127, 128, 255, 256, 257, 383, 384, 511, 512, 599):
        one = torch_attention.attention(q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1], "kivi-2")
        assert tolerances.relative_rms(whole[:, :, t : t + 1], one) <= tolerances.FAKE_QUANTIZED_RMS


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=96, intermediate_size=128, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
        vocab_size=50, max_position_embeddings=512, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def logits(model, name, **inputs):
    model.set_attn_implementation(name)
    with torch.no_grad():
        return model(**inputs)


def test_registered_attention_in_a_model(model):
    torch_attention.register("oracle-raw", "k2c32-v2t16/w65536")
    torch_attention.register("oracle-2", "k2c32-v2t16/w32,sliding")
    ids = torch.arange(200)[None] * 7 % 50
    full = logits(model, "eager", input_ids=ids).logits
    # Nothing leaves a window of 65536 tokens: this is ordinary attention.
    raw = logits(model, "oracle-raw", input_ids=ids).logits
    assert tolerances.relative_rms(raw, full) <= 100 * tolerances.FAKE_QUANTIZED_RMS
    two = logits(model, "oracle-2", input_ids=ids, use_cache=False).logits
    assert tolerances.relative_rms(two[:, :32], raw[:, :32]) <= 100 * tolerances.FAKE_QUANTIZED_RMS
    assert tolerances.relative_rms(two[:, 64:], full[:, 64:]) > 1e-2
    # A window asked in two parts with a DynamicCache is the same window.
    first = logits(model, "oracle-2", input_ids=ids[:, :150], use_cache=True)
    rest = logits(model, "oracle-2", input_ids=ids[:, 150:], past_key_values=first.past_key_values)
    assert tolerances.relative_rms(rest.logits, two[:, 150:]) <= 100 * tolerances.FAKE_QUANTIZED_RMS


def test_padding_is_refused(model):
    torch_attention.register("oracle-2", "k2c32-v2t16/w32,sliding")
    mask = torch.ones(1, 20, dtype=torch.long)
    mask[0, :3] = 0
    with pytest.raises(ValueError, match="without padding"):
        logits(model, "oracle-2", input_ids=torch.zeros(1, 20, dtype=torch.long), attention_mask=mask)
