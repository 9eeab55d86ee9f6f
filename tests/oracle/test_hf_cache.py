# SPDX-License-Identifier: Apache-2.0
"""The model of a cache inside transformers: with a window that nothing leaves it is an ordinary cache in every way of
generate(); with few bits it is the fake-quantized attention."""

import copy

import numpy as np
import pytest
import tolerances
import torch
import transformers
from kvq_oracle import hf_cache, torch_attention
from kvq_oracle.hf_cache import OracleCache
from transformers import DynamicCache

NOTHING_LEAVES = "k8c32-v8t16/w4096"
TWO = "k2c32-v2t16/w32,sliding"
SMALL = dict(
    hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=16, vocab_size=60, max_position_embeddings=512, initializer_range=0.3, pad_token_id=0, bos_token_id=1,
    eos_token_id=None,
)  # fmt: skip
SLIDING = ["sliding_attention", "full_attention"]
SORTS = {
    "Llama": {},
    "Mistral": dict(sliding_window=24),
    "Qwen3": {},
    "Gemma2": dict(
        sliding_window=24, layer_types=SLIDING, query_pre_attn_scalar=16, tie_word_embeddings=False,
        attn_logit_softcapping=2.0,
    ),
    "Gemma3Text": dict(sliding_window=24, layer_types=SLIDING, query_pre_attn_scalar=16, tie_word_embeddings=False),
    "GptOss": dict(sliding_window=24, layer_types=SLIDING, num_local_experts=2, num_experts_per_tok=1),
}  # fmt: skip
WAYS = [dict(num_beams=3), dict(num_beams=4, num_return_sequences=2), dict(prefill_chunk_size=8)]


@pytest.fixture(scope="module", autouse=True)
def registered():
    """One thread: on a busy machine more of them wait for each other longer than these tiny products take."""
    hf_cache.register()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


def make(sort, seed=0, **changes):
    torch.manual_seed(seed)
    config = getattr(transformers, sort + "Config")(**{**SMALL, **SORTS[sort], **changes})
    name = "Gemma3ForCausalLM" if sort == "Gemma3Text" else sort + "ForCausalLM"
    model = getattr(transformers, name)(config).eval()
    if sort == "GptOss":
        for layer in model.model.layers:
            torch.nn.init.normal_(layer.self_attn.sinks)
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture(scope="module")
def models():
    made = {}

    def pair(sort):
        """(model under the oracle's attention, the same one under transformers' own)."""
        if sort not in made:
            plain = make(sort)
            plain.set_attn_implementation("eager")
            oracle = copy.deepcopy(plain)
            oracle.set_attn_implementation(hf_cache.NAME)
            made[sort] = oracle, plain
        return made[sort]

    return pair


def padded(lengths, seed=0):
    width = max(lengths)
    ids = torch.randint(2, 60, (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


def both(pair, formats, lengths, assistant=None, **options):
    ids, mask = padded(lengths)
    options = dict(attention_mask=mask, do_sample=False, max_new_tokens=40, **options)
    oracle, plain = pair
    cache = OracleCache(oracle.config, formats)
    extra = [{} if assistant is None else {"assistant_model": m} for m in assistant or (None, None)]
    got = oracle.generate(ids, past_key_values=cache, **options, **extra[0])
    expected = plain.generate(ids, past_key_values=DynamicCache(config=plain.config), **options, **extra[1])
    return got, expected, cache


@pytest.mark.parametrize("sort", SORTS)
def test_greedy_of_a_padded_batch(models, sort):
    got, expected, cache = both(models(sort), NOTHING_LEAVES, (50, 31, 7))
    assert torch.equal(got, expected)
    assert cache.lengths == [89, 70, 46] and cache.get_seq_length() == 89
    # The 2-bit cache decodes something else: the test can fail.
    assert not torch.equal(both(models(sort), TWO, (50, 31, 7))[0], expected)


@pytest.mark.parametrize("sort", ["Llama", "Gemma2", "GptOss"])
@pytest.mark.parametrize("ways", WAYS)
def test_beams_and_chunks(models, sort, ways):
    got, expected, _ = both(models(sort), NOTHING_LEAVES, (30, 21), **ways)
    assert torch.equal(got, expected)


def test_prompt_lookup_and_assistant(models):
    pair = models("Llama")
    got, expected, cache = both(pair, NOTHING_LEAVES, (40,), prompt_lookup_num_tokens=4)
    assert torch.equal(got, expected) and cache.thawed == 0
    assistants = []
    for model in pair:
        helper = make("Llama", num_hidden_layers=1, hidden_size=64)
        helper.set_attn_implementation("eager")
        assistants.append(helper)
    got, expected, _ = both(pair, NOTHING_LEAVES, (40,), assistant=assistants)
    assert torch.equal(got, expected)


def test_crop_c3_prompt_lookup_in_two_bits_is_greedy_in_two_bits(models):
    """Rolling back leaves no trace: what is proposed and refused changes nothing."""
    pair = models("Llama")
    greedy, _, _ = both(pair, TWO, (60,))
    lookup, _, cache = both(pair, TWO, (60,), prompt_lookup_num_tokens=6)
    assert torch.equal(greedy, lookup) and cache.thawed == 0


@pytest.mark.parametrize("sort", ["Llama", "Gemma2", "GptOss"])
@pytest.mark.parametrize("format", [TWO, "k2t16-v2c32/w7,keep5", "k2c32-v2t16/w32,keep3,flush"])
def test_attention_c1_teacher_forced_is_the_fake_quantized_attention(models, sort, format):
    oracle, _ = models(sort)
    ids = padded((150,), 3)[0]
    torch_attention.register("oracle-whole", format)
    whole = copy.deepcopy(oracle)
    whole.set_attn_implementation("oracle-whole")
    expected = whole(ids, use_cache=False).logits
    cache, pieces = OracleCache(oracle.config, format), []
    for begin, end in ((0, 70), (70, 71), (71, 103), (103, 150)):
        pieces.append(oracle(ids[:, begin:end], past_key_values=cache).logits)
    got = torch.cat(pieces, dim=1)
    # 100: two layers of a random model amplify.
    assert (got - expected).abs().max() <= 100 * tolerances.FAKE_QUANTIZED_RMS * expected.abs().max()


def test_tail_c3_a_format_per_layer(models):
    oracle, _ = models("Llama")
    ids = padded((100,), 4)[0]
    logits = [oracle(ids, past_key_values=OracleCache(oracle.config, f)).logits for f in (TWO, NOTHING_LEAVES)]
    mixed = OracleCache(oracle.config, [NOTHING_LEAVES, TWO])
    got = oracle(ids, past_key_values=mixed).logits
    assert all((got - other).abs().max() > 1e-2 for other in logits)
    assert mixed.reports()[0]["blocks_used"] == 0 and mixed.reports()[1]["blocks_used"] == 2
    with pytest.raises(ValueError, match="3 formats are given for 2"):
        OracleCache(oracle.config, [TWO] * 3)


def test_several_turns_with_padding_inside(models):
    oracle, plain = models("Llama")
    ids, mask = padded((30, 30))
    mask[1, 20:24] = 0
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    caches = OracleCache(oracle.config, NOTHING_LEAVES), DynamicCache(config=plain.config)
    for begin, end in ((0, 20), (20, 26), (26, 30)):
        got, expected = (
            model(ids[:, begin:end], attention_mask=mask[:, :end], position_ids=position[:, begin:end],
                  past_key_values=cache).logits
            for model, cache in zip((oracle, plain), caches)
        )  # fmt: skip
        real = mask[:, begin:end].bool()
        assert tolerances.relative_rms(got[real], expected[real]) <= 100 * tolerances.FAKE_QUANTIZED_RMS
    assert caches[0].lengths == [30, 26]


def test_crop_removes_columns_of_every_row(models):
    oracle, _ = models("Llama")
    ids, mask = padded((90, 60))
    cache = OracleCache(oracle.config, TWO)
    oracle(ids, attention_mask=mask, past_key_values=cache)
    cache.crop(-20)
    assert cache.lengths == [70, 40] and cache.get_seq_length() == 70 and cache.thawed == 0
    short = OracleCache(oracle.config, TWO)
    oracle(ids[:, :70], attention_mask=mask[:, :70], past_key_values=short)
    again, other = (
        oracle(ids[:, 70:], attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, 70:],
               past_key_values=c).logits
        for c in (cache, short)
    )  # fmt: skip
    assert torch.equal(again, other)


def test_rows_are_selected_and_repeated(models):
    oracle, _ = models("Llama")
    ids, mask = padded((40, 31, 22))
    cache = OracleCache(oracle.config, TWO)
    oracle(ids, attention_mask=mask, past_key_values=cache)
    known = [cache.layers[1].model.read(row, 0)[0] for row in cache.layers[1].rows]
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([4, 0, 0]))
    cache.reorder_cache(torch.tensor([0, 2, 2]))
    assert cache.lengths == [22, 40, 40] and cache.batch_size == 3
    for row, source in zip(cache.layers[1].rows, (2, 0, 0)):
        assert np.array_equal(cache.layers[1].model.read(row, 0)[0], known[source])


def test_prefill_c2_raw_sees_the_prompt_as_it_came(models):
    oracle, plain = models("Llama")
    ids = padded((120,), 5)[0]
    raw = OracleCache(oracle.config, TWO, prefill="raw")
    got, expected = oracle(ids, past_key_values=raw).logits, plain(ids).logits
    assert tolerances.relative_rms(got, expected) <= 100 * tolerances.FAKE_QUANTIZED_RMS
    stored = OracleCache(oracle.config, TWO)
    assert tolerances.relative_rms(oracle(ids, past_key_values=stored).logits, expected) > 1e-2


def test_a_mask_of_its_own_is_refused(models):
    oracle, _ = models("Llama")
    mask = torch.ones(10, 10, dtype=torch.bool).tril()[None, None]
    mask[0, 0, 7, 3] = False
    with pytest.raises(ValueError, match="mask"):
        oracle(padded((10,))[0], attention_mask=mask, past_key_values=OracleCache(oracle.config, TWO))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types(dtype):
    model = make("Llama").to(dtype)
    model.set_attn_implementation(hf_cache.NAME)
    cache = OracleCache(model.config, TWO)
    logits = model(padded((50,))[0], past_key_values=cache).logits
    assert logits.dtype == dtype and torch.isfinite(logits).all()
    assert cache.layers[0].model.dtype == hf_cache.DTYPES[dtype]
